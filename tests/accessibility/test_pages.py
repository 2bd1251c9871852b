"""axe-core finds nothing wrong with any page of the product: signed out, as owner, as viewer.

Pages of customers stand in the tables below. An address that is in none and is a page fails a test
here until somebody adds it. Those of the admin are in test_pages_of_operators.py.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from django.template.loader import render_to_string
from django.urls import Resolver404, get_resolver, resolve
from playwright.sync_api import Page, Route

from deploy.router import PAGES_POLICY
from deploy.states import Status
from tests.accessibility.addresses import named
from tests.accessibility.axe import Findings
from tests.accessibility.conftest import Visit
from tests.accessibility.world import PASSWORD, World
from workspaces import gateway_pages


def name_of(address: str) -> str:
    """Return what the URLs call an address, empty when they do not know it."""
    try:
        return resolve(urlsplit(address).path).view_name
    except Resolver404:
        return ""


@dataclass(frozen=True)
class Address:
    """One page. What is in {braces} are parts of the world. With `press`, a form is sent first."""

    path: str
    status: int = 200
    fill: dict[str, str] = field(default_factory=dict)
    press: str = ""
    leads_to: str = ""

    def __str__(self) -> str:
        return f"{self.path} {self.press}".strip()

    @property
    def name(self) -> str:
        """What the URLs call the page."""
        return self.leads_to or name_of(
            re.sub(r"{(\w+)}", lambda found: "1-1" if found[1] == "reset" else "1", self.path)
        )

    def open(self, page: Page, world: World) -> None:
        """Go there."""
        answer = page.goto(self.path.format_map(world.parts))
        for label, text in self.fill.items():
            page.get_by_label(label, exact=True).fill(text)
        if self.press:
            with page.expect_navigation() as navigation:
                page.get_by_role("button", name=self.press, exact=True).last.click()
            answer = navigation.value
        assert answer
        assert (answer.status, name_of(page.url)) == (self.status, self.name), (str(self), page.url)


def addresses(*paths: str, below: str = "") -> list[Address]:
    return [Address(below + path) for path in paths]


PASSWORDS = {"Email": "grace@example.org", "Password": PASSWORD}
SIGNED_OUT = [
    *addresses("/", "/api/v1/docs", "/invitations/{invitation}/"),
    Address("/invitations/nothing/", 404),
    Address("/nowhere/", 404),
    *addresses(
        *("login/", "signup/", "inactive/", "confirm-email/", "confirm-email/{confirm}/"),
        *("confirm-email/nothing/", "password/reset/", "password/reset/done/"),
        *("password/reset/key/{reset}/", "password/reset/key/1-nothing/"),
        *("password/reset/key/done/", "google/login/", "3rdparty/login/cancelled/"),
        below="/account/",
    ),
    Address("/account/3rdparty/login/error/", 401),
    Address("/account/signup/", fill={"Email": "a@b.org", "Password": "1"}, press="Sign up"),
    Address("/account/login/", fill={"Email": "a@b.org", "Password": "no"}, press="Sign in"),
    Address("/account/login/", fill=PASSWORDS, press="Sign in", leads_to="mfa_authenticate"),
]
CHANGE = "/workspaces/change-"
OF_TREES = [
    *("", "plugins/", "members/", "visibility/", "usage/", "usage/?span=month", "activity/"),
    *("audit/", "logs/", "webhooks/", "webhooks/{webhook}/"),
]
OWNER = [
    *addresses("/workspaces/", "/workspaces/new/"),
    Address("/workspaces/new/", 422, press="Create workspace"),
    *addresses(*OF_TREES, below="/workspaces/trees/"),
    Address("/workspaces/trees/", 422, {"Name": ""}, "Rename", "workspace_rename"),
    Address("/workspaces/trees/webhooks/", 422, press="Add webhook", leads_to="webhook_add"),
    *addresses(*[f"/workspaces/is-{status}/" for status in Status if status != Status.DELETED]),
    *addresses("usage/", "activity/", "webhooks/", below="/workspaces/is-provisioning/"),
    *addresses("", "visibility/", "members/", "usage/", below="/workspaces/public/"),
    *[
        Address(f"/workspaces/change-{state}/plugins/")
        for state in ("open", "failed", "rolled-back")
    ],
    Address("/workspaces/nowhere/", 404),
    *addresses(
        *("", "profile/", "email/", "password/change/", "reauthenticate/", "sessions/", "2fa/"),
        *("2fa/totp/activate/", "2fa/webauthn/", "2fa/webauthn/add/", "3rdparty/", "tokens/"),
        "logout/",
        below="/account/",
    ),
    Address("/account/tokens/", 422, press="Make token"),
    Address("/invitations/{invitation}/"),
]
VIEWER = [
    *addresses("", "members/", "plugins/", below="/workspaces/trees/"),
    Address("/workspaces/trees/webhooks/", 403),
    *addresses("", "totp/deactivate/", "recovery-codes/", "recovery-codes/generate/",
               below="/account/2fa/"),
]  # fmt: skip
GOOGLE_ONLY = addresses(
    *("", "password/set/", "3rdparty/", "2fa/webauthn/", "2fa/webauthn/keys/{key}/edit/"),
    "2fa/webauthn/keys/{key}/remove/",
    below="/account/",
)
# As an operator; the admin's own addresses come to these.
OPERATOR = addresses("/workspaces/", "/account/tokens/")
TABLES = {
    "signed out": (None, SIGNED_OUT),
    "owner": ("ada", OWNER),
    "viewer": ("grace", VIEWER),
    "by Google": ("tim", GOOGLE_ONLY),
    "operator": ("olga", OPERATOR),
}
# Addresses with a name that are not looked at, and why.
ONLY_POSTED = (
    "workspace_start",
    "workspace_stop",
    "workspace_restart",
    "workspace_support",
    "workspace_delete",
    "workspace_undelete",
    "workspace_apply",
    "workspace_plugins_back",
    "workspace_remove_secret",
    "webhook_change",
    "webhook_switch",
    "webhook_test",
    "webhook_rotate",
    "webhook_redeliver",
    "webhook_remove",
    "workspace_leave",
    "workspace_hand",
    "member_role",
    "member_remove",
    "workspace_invite",
    "invitation_resend",
    "invitation_withdraw",
    "workspace_set_visibility",
    "invitation_accept",
    "account_token_revoke",
)
NO_PAGES = {
    **dict.fromkeys(ONLY_POSTED, "only posted to; what refuses a form is a page above"),
    "workspace_slug": "part of a page, for htmx",
    "workspace_live": "part of a page, for htmx",
    "workspace_plugins_live": "part of a page, for htmx",
    "workspace_audit_export": "a file",
    "mfa_download_recovery_codes": "a file",
    "workspace_enter": "leads to the workspace's own host",
    "mfa_login_webauthn": "answers a script in JSON",
    "google_callback": "Google leads there, and it leads on",
    "account_confirm_login_code": "switched off: leads to signing in",
    "mfa_reauthenticate": "the same page as mfa_authenticate",
    "socialaccount_signup": "needs Google: tests/accounts/test_google.py looks at it",
    "mfa_reauthenticate_webauthn": "needs a key: tests/accounts/test_second_factor.py does",
}


# --- the tests -----------------------------------------------------------------------------------


def test_pages_in_the_tables(world: World, visit: Visit) -> None:
    findings = Findings()
    for table, (who, pages) in TABLES.items():
        page = visit(getattr(world, who) if who else None)
        for address in pages:
            address.open(page, world)
            findings.look_at(page, f"{address} ({table})")
    assert not findings.found, f"\n{findings}"


def test_pages_that_are_files(visit: Visit) -> None:
    """Those of the gateway, which the router shows, and those for errors."""
    texts = dict(rendered())
    page, findings = visit(), Findings()

    def answer(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        policy = {"Content-Security-Policy": PAGES_POLICY} if "<style>" in texts[name] else {}
        kind = {"Content-Type": "text/html"}
        # As long as it is 503, those that look again by themselves stay.
        route.fulfill(status=503, body=texts[name], headers=kind | policy)

    page.route("**/rendered/*", answer)
    for name in texts:
        page.goto(f"/rendered/{name}")
        findings.look_at(page, name)
    assert not findings.found, f"\n{findings}"


def rendered() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each page that no address leads to."""
    for name in ("400", "403", "403_csrf", "404", "500"):
        yield name, render_to_string(f"{name}.html", {"request_id": "a-request"})
    yield from (
        (name, text) for name, text in gateway_pages.files().items() if name.endswith(".html")
    )
    for name in ("sign-in-failed", "sign-out", "signed-out"):
        yield f"gateway-{name}", render_to_string(f"gateway/{name}.html", {"start": "/"})
    for name in ("account/signup_closed", "account/verified_email_required"):
        yield name.partition("/")[2], render_to_string(f"{name}.html")


def test_every_page_is_looked_at() -> None:
    looked_at = {address.name for _, table in TABLES.values() for address in table}
    names = {name for name, _ in named(get_resolver().url_patterns)}
    ours = {name for name in names if not name.startswith("admin:")}
    assert ours - looked_at == set(NO_PAGES), "look at it, or say why not"
