"""Our Datasette plugin: who the verified token says you are, and what your role allows.

Registered last by server.py, which makes our routes come first and our permission answer count
last: Datasette 0.65 asks everybody and keeps the last answer that is not None.

It serves 0.65 and 1.0; each calls the hooks that it knows and never looks at the others.
"""

from __future__ import annotations

import sys
from typing import Any

from datasette import hookimpl
from datasette.app import Datasette
from datasette.utils.asgi import Request
from jinja2 import BaseLoader, Environment

from cloudapp_workspace import space
from cloudapp_workspace.guard import SCOPE_KEY
from cloudapp_workspace.permissions import may, role_allows
from cloudapp_workspace.uploads import upload_database

# Both lead to the control plane; the first to where its query says, afterwards.
SIGN_IN = "/-/cloudapp/start?/"
SIGN_OUT = "/-/cloudapp/sign-out"
FULL = "The disk of this workspace is full: everything can be read, and nothing can be added."
NEARLY_FULL = "The disk of this workspace is nearly full."
HIDDEN_TABLES = (
    "_csv_progress_",
    "_enrichment_jobs",
    "_enrichment_progress",
    "_enrichment_errors",
)
# In the frame that all pages have. A copy of it would grow old with each release of Datasette.
IN_FRAME = {
    "<html>": '<html lang="en">',
    '<section class="content">': '<section class="content" role="main">',
}
# For Datasette 1.0: no database (parent), no table or query in it (child), and not all of them.
NOWHERE = "select null as parent, null as child where 0"


@hookimpl(tryfirst=True)
def actor_from_request(request: Request) -> dict[str, str] | None:
    """The person in the verified token; before any cookie or plugin has a say."""
    found: dict[str, str] | None = _ours(request).get("actor")
    return found


@hookimpl(trylast=True)
def permission_allowed(actor: dict[str, Any] | None, action: str) -> bool | None:
    """Datasette 0.65 asks here. The last answer counts, and that is ours."""
    return role_allows(actor, action)


@hookimpl
def permission_resources_sql(actor: dict[str, Any] | None, action: str) -> Any:
    """Datasette 1.0 asks here. An order of hooks does not exist there, only rules in SQL.

    A rule about one table or query beats a general one, whoever made it: somebody who stored a
    query and then became a viewer would go on changing it. So our no is a restriction to nothing,
    which no rule gets around.
    """
    allowed = role_allows(actor, action)
    if allowed is None:
        return None
    from datasette.permissions import PermissionSQL  # noqa: PLC0415 - 0.65 has no such module

    if allowed:
        return PermissionSQL.allow(f"{(actor or {}).get('role')} of this workspace")
    return PermissionSQL(restriction_sql=NOWHERE)


@hookimpl
def skip_csrf() -> bool:
    """The guard has already refused writes that another site's page caused. Asked by 0.65 only.

    asgi-csrf 0.11 would read the form for its token, and fails at that with every python-multipart
    since 0.0.26, which in turn is the first without a known denial of service.
    """
    return True


@hookimpl
def register_routes() -> list[tuple[str, Any]]:
    """The page that makes room; our upload handler instead of datasette-upload-dbs' own."""
    ours: list[tuple[str, Any]] = [(rf"^{space.PATH}$", space.space)]
    if "datasette_upload_dbs" in sys.modules:
        ours.append((r"^/-/upload-dbs$", upload_database))
    return ours


@hookimpl
def menu_links(datasette: Datasette, request: Request | None) -> list[dict[str, str]]:
    """What fills the disk; the workspace's page on the cloud host, and out. For visitors: in."""
    workspace = _ours(request).get("workspace")
    if workspace is None:
        return []
    if _ours(request).get("visitor"):
        return [{"href": SIGN_IN, "label": "Sign in"}]
    role = (_ours(request).get("actor") or {}).get("role")
    room = [{"href": str(datasette.urls.path(space.PATH)), "label": "Disk space"}]
    return [
        *(room if role in space.MAY else ()),
        {"href": workspace["url"], "label": "Workspace settings"},
        {"href": SIGN_OUT, "label": "Sign out"},
    ]


@hookimpl
def extra_template_vars(datasette: Datasette, request: Request | None) -> Any:
    """For index.html: `workspace` (name, url), whether everybody may read it (only members are
    told), whether this person may add data, and the disk.
    """

    async def variables() -> dict[str, Any]:
        actor = request.actor if request else None
        ours = _ours(request)
        disk = space.disk_of(datasette)
        words = FULL if disk.full else NEARLY_FULL if disk.nearly_full else ""
        return {
            "workspace": ours.get("workspace"),
            "is_public": bool(ours.get("public") and not ours.get("visitor")),
            "may_write": await may(datasette, actor, "upload-dbs"),
            "disk_full": disk.full,
            "disk_words": words,
        }

    return variables


@hookimpl
def extra_css_urls(datasette: Datasette) -> list[str]:
    """The styles of our own pages (static/)."""
    return [str(datasette.urls.static_plugins(__name__, "workspace.css"))]


class _ReadAloud(BaseLoader):
    """Templates for those who have pages read to them: they say their language, which those of
    Datasette 0.65 do not, and where the navigation ends and the content begins.
    """

    def __init__(self, loader: BaseLoader) -> None:
        self._loader = loader

    def get_source(self, environment: Environment, template: str) -> Any:
        source, *more = self._loader.get_source(environment, template)
        for old, new in IN_FRAME.items():
            source = source.replace(old, new)
        return source, *more

    def list_templates(self) -> list[str]:
        return self._loader.list_templates()


@hookimpl
def prepare_jinja2_environment(env: Environment) -> None:
    """Before any template is loaded."""
    if env.loader:
        env.loader = _ReadAloud(env.loader)


@hookimpl
def get_metadata(datasette: Datasette) -> dict[str, Any]:
    """Keep the book-keeping of plugins out of people's sight (it stays readable).

    Asked by 0.65 only; 1.0 hides every table whose name begins with an underscore.
    """
    # New ones for each database: Datasette writes what other plugins say into what we return.
    return {"databases": {name: {"tables": _hidden_tables()} for name in datasette.databases}}


def _hidden_tables() -> dict[str, dict[str, bool]]:
    return {table: {"hidden": True} for table in HIDDEN_TABLES}


def _ours(request: Request | None) -> dict[str, Any]:
    found: dict[str, Any] = request.scope.get(SCOPE_KEY, {}) if request else {}
    return found
