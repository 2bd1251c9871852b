"""The audit log: of one workspace for its owners, of all for operators."""

from datetime import datetime
from typing import Annotated, Any

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja import Query, Router, Schema
from pydantic import Field

from accounts import audit, audit_log
from accounts.api_tokens import Scope
from accounts.audit_log import Search
from accounts.models import AuditEntry
from accounts.origin import Via
from workspaces.api import pages, reach
from workspaces.api.callers import Needs, caller_of
from workspaces.api.schema import SLUG, may_refuse
from workspaces.api.shapes import REQUEST_ID, Moment, Page
from workspaces.api.workspace_routes import Cursor, Limit
from workspaces.models import Workspace

router = Router(tags=["audit"])

_TEXT: dict[str, Any] = {"max_length": 100, "pattern": r"^[^\x00]*$"}
Person = Annotated[
    str,
    Query(description="A part of a name or email address.", examples=["ada@example.org"], **_TEXT),
]
# In all entries there are, a part of a name would be looked for in each.
WholePerson = Annotated[
    str,
    Query(
        description="The whole email address that they had then.",
        examples=["ada@example.org"],
        **_TEXT,
    ),
]
Verb = Annotated[str, Query(description="Only deeds of this kind.", examples=["deleted"], **_TEXT)]
Since = Annotated[Moment | None, Query(description="Only what was done then or later.")]
Until = Annotated[Moment | None, Query(description="Only what was done before.")]


class AuditOut(Schema):
    """Who did what to what, from where, and when. It never changes."""

    id: int = Field(description="Greater than that of what was written before.", examples=[812])
    at: datetime = Field(description="When.")
    actor: int | None = Field(
        description="The user's number; null for strangers, our own machinery, and for operators "
        "as owners see them.",
        examples=[7],
    )
    actor_name: str = Field(description="What they were called then.", examples=["Ada"])
    actor_email: str = Field(description="Their email address then.", examples=["ada@example.org"])
    by_operator: bool = Field(description="Whether they were an operator.", examples=[False])
    via: Via = Field(
        description="A browser's session, an API token, a command at a shell, or the machinery.",
        examples=["token"],
    )
    via_name: str = Field(
        description="What the token, command or task is called.",
        examples=["ci (cloudapp_aB3dE9…)"],
    )
    address: str | None = Field(
        description="The address that the router saw; null where there was none.",
        examples=["192.0.2.7"],
    )
    request_id: str = Field(
        description="What the logs call the request; empty where there was none.",
        examples=[REQUEST_ID],
    )
    verb: str = Field(description="What was done, for programs.", examples=["deleted"])
    kind: str = Field(description="What kind of thing it was done to.", examples=["workspace"])
    object_id: str = Field(
        description="The thing's id.", examples=["0b6c2f0e-7a51-4c43-9a4e-2d1b8f6f0c11"]
    )
    label: str = Field(description="What the thing was called then.", examples=["trees"])
    workspace: str | None = Field(
        description="The id of the workspace that it concerns.",
        examples=["0b6c2f0e-7a51-4c43-9a4e-2d1b8f6f0c11"],
    )
    detail: dict[str, Any] = Field(
        description="What else there is to say; `words` are for people. Never a secret.",
        examples=[{"words": "from “Trees” to “Oaks”"}],
    )


def _page(
    entries: QuerySet[AuditEntry],
    search: Search,
    cursor: str | None,
    limit: int,
    members: set[int] | None,
) -> Page[AuditOut]:
    found, after = pages.by_id(search.of(entries, members), cursor, limit)
    items = [AuditOut(**audit_log.shown(entry, members)) for entry in found]
    return Page(items=items, next=after)


def _note_reading(request: HttpRequest, workspace: Workspace | None = None) -> None:
    """Write down that an operator reads it: each page is as much as a file that the admin gives."""
    query = {"query": request.GET.dict()}
    of = workspace.pk if workspace else None
    audit.note(caller_of(request).user, "read_audit", workspace, workspace=of, detail=query)


@router.get(
    "/workspaces/{slug}/audit",
    response=Page[AuditOut],
    auth=Needs(Scope.READ),
    operation_id="list_audit_of_workspace",
    summary="Audit log of a workspace",
    openapi_extra=may_refuse("not_found", "role_too_low", "permission_missing"),
)
def of_workspace(
    request: HttpRequest,
    slug: SLUG,
    *,
    cursor: Cursor = None,
    limit: Limit = pages.LIMIT,
    person: Person = "",
    verb: Verb = "",
    since: Since = None,
    until: Until = None,
) -> Page[AuditOut]:
    """Who did what to the workspace, from where and when, newest first. For its owners.

    Operators are there without name and address. Operators with the permission to view the audit
    log read it whole; that they did is in it.
    """
    found = reach.get(caller_of(request), slug, "read_audit")
    entries = audit_log.of_workspace(found.workspace.pk)
    members = None
    if found.may_by_role("read_audit"):
        members = set(found.workspace.members.values_list("user_id", flat=True))
    else:
        _note_reading(request, found.workspace)
    search = Search(person=person, verb=verb, since=since, until=until)
    return _page(entries, search, cursor, limit, members)


@router.get(
    "/operator/audit",
    response=Page[AuditOut],
    auth=Needs(Scope.OPERATOR, deed="see_audit"),
    operation_id="list_audit",
    summary="Audit log of all",
    openapi_extra=may_refuse("permission_missing"),
)
def of_all(
    request: HttpRequest,
    *,
    cursor: Cursor = None,
    limit: Limit = pages.LIMIT,
    person: WholePerson = "",
    verb: Verb = "",
    since: Since = None,
    until: Until = None,
) -> Page[AuditOut]:
    """What everybody did: customers, operators, commands and our machinery. Newest first.

    Reading it is in it too.
    """
    _note_reading(request)
    search = Search(email=person, verb=verb, since=since, until=until)
    return _page(AuditEntry.objects.order_by("-id"), search, cursor, limit, None)
