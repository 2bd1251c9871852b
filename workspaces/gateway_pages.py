"""What people see in place of a workspace, one page for each of the gateway's verdicts but a yes.

They are rendered to files for the router, which shows them without asking anybody: the body of an
upload that is refused need not be read, and they are there when the control plane is not.
"""

import json
from collections.abc import Mapping

from django.conf import settings
from django.template.loader import render_to_string

from deploy.router import LOOK_AGAIN, Page
from workspaces.api.problems import Problem
from workspaces.gateway import Verdict

PAGES: tuple[Page, ...] = (
    Page(
        Verdict.SIGN_IN,
        401,
        "You are not signed in at this workspace, or this token is not good, or no longer.",
    ),
    Page(Verdict.NOT_FOUND, 404, "There is no such workspace, or you may not see it."),
    Page(Verdict.WAKING, 503, "This workspace is starting.", retry_after=1),
    Page(Verdict.STOPPED, 503, "This workspace was stopped by an owner."),
    Page(Verdict.SUSPENDED, 503, "This workspace is suspended by the operators."),
    Page(Verdict.FAILED, 503, "This workspace does not start; we keep trying.", retry_after=15),
    Page(Verdict.DELETING, 404, "This workspace is being deleted."),
    Page(Verdict.UNREACHABLE, 503, "This workspace does not answer just now.", retry_after=3),
    # The router's own: nobody was there to give a verdict.
    Page("unavailable", 503, "The service is not available just now.", retry_after=5),
)

# In place of the API, which programs ask.
PROBLEMS: Mapping[str, str] = {
    "api-unavailable.problem": "unavailable",
    "api-too-large.problem": "too_large",
}
# Only the router knows it.
_REQUEST_ID = '<!--# echo var="cloudapp_request" encoding="none" -->'


def files() -> Mapping[str, str]:
    """Return the text of every file by its name, which is the page's with .html or .json."""
    texts: dict[str, str] = {}
    for page in PAGES:
        values = {"page": page, "cloud_url": settings.CLOUD_URL, "look_again": LOOK_AGAIN}
        texts[f"{page.name}.html"] = render_to_string(f"gateway/{page.name}.html", values)
        body = {"ok": False, "error": page.error, "status": str(page.name)}
        texts[f"{page.name}.json"] = json.dumps(body) + "\n"
    for name, code in PROBLEMS.items():
        body = Problem(code).body("/api/") | {"request_id": "REQUEST"}
        texts[name] = json.dumps(body).replace("REQUEST", _REQUEST_ID) + "\n"
    return texts
