"""Workspaces: list, make, look at, change, delete, bring back; start, stop, restart, wake."""

from collections.abc import Callable
from typing import Annotated
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from ninja import Status as Answer

from accounts.api_tokens import Scope
from accounts.models import User
from deploy.finding import having_status
from deploy.states import MEBIBYTE, Status
from workspaces import changes, operations, services, usage
from workspaces.api import pages, reach
from workspaces.api.callers import Caller, Needs, caller_of
from workspaces.api.problems import Problem, invalid
from workspaces.api.schema import HEADERS_OF_ONE, SLUG, may_refuse
from workspaces.api.shapes import (
    NO_NUL,
    DiskOut,
    Page,
    UsageHourOut,
    UsageOut,
    WorkspaceChanges,
    WorkspaceIn,
    WorkspaceOut,
    location,
)
from workspaces.models import Change, Plan, Workspace

router = Router(tags=["workspaces"])
Limit = Annotated[int, Query(description="How many at most.", ge=1, le=pages.MAX_LIMIT)]
Cursor = Annotated[
    str | None,
    Query(
        description="`next` of an earlier answer.",
        max_length=500,
        examples=[pages.cursor_of(1204)],
    ),
]
CursorByTime = Annotated[
    str | None,
    Query(
        description="`next` of an earlier answer.",
        max_length=500,
        examples=[pages.cursor_of("2026-11-27T17:00:00+00:00", UUID(int=0))],
    ),
]


def shown(
    caller: Caller, response: HttpResponse, workspace: Workspace, change: Change | None = None
) -> WorkspaceOut:
    """Return a workspace as it is now, with its address and version in the answer's headers.

    With a change of its plugins that has begun, the address is that of the change.
    """
    row = reach.workspaces(caller).filter(pk=workspace.pk).first()
    if row is None:  # deleted with its data, or taken away from the caller, just now
        raise Problem("not_found")
    here = f"/workspaces/{row.slug}"
    response["Location"] = location(f"{here}/changes/{change.pk}" if change else here)
    response["ETag"] = f'"{services.version_of(row)}"'
    return WorkspaceOut.of(reach.reached(caller, row))


@router.get(
    "/workspaces",
    response=Page[WorkspaceOut],
    auth=Needs(Scope.READ),
    operation_id="list_workspaces",
    summary="List workspaces",
    openapi_extra=may_refuse(),
)
def list_workspaces(
    request: HttpRequest,
    status: Annotated[
        list[Status],
        Query(description="Only those with one of these.", max_length=20, examples=[["running"]]),
    ] = [],  # noqa: B006 - ninja copies it
    q: Annotated[
        str | None,
        Query(
            description="Only those with this in slug or name.",
            max_length=100,
            pattern=NO_NUL,
            examples=["trees"],
        ),
    ] = None,
    cursor: CursorByTime = None,
    limit: Limit = pages.LIMIT,
) -> Page[WorkspaceOut]:
    """Yours, newest first; those of all customers for an operator's token.

    Deleted ones are left out unless you ask for `status=deleting`.
    """
    caller = caller_of(request)
    rows = reach.workspaces(caller)
    rows = (
        rows.filter(having_status(*status, prefix="instance__"))
        if status
        else rows.filter(deleted_at=None)
    )
    if q:
        rows = rows.filter(Q(slug__icontains=q) | Q(name__icontains=q))
    found, after = pages.newest_first(rows, cursor, limit, key=UUID)
    items = [WorkspaceOut.of(reach.reached(caller, row)) for row in found]
    return Page(items=items, next=after)


@router.post(
    "/workspaces",
    response={202: WorkspaceOut},
    auth=Needs(Scope.LIFECYCLE),
    operation_id="create_workspace",
    summary="Create a workspace",
    openapi_extra=may_refuse(
        "slug_taken",
        "quota_reached",
        "too_many_creations",
        "not_ready_yet",
        once=True,
        headers=HEADERS_OF_ONE,
    ),
)
def create_workspace(
    request: HttpRequest, response: HttpResponse, payload: WorkspaceIn
) -> Answer[WorkspaceOut]:
    """Make a workspace; the token's user owns it. It starts at once: wait for `running`."""
    caller = caller_of(request)
    if caller.token.only is not None:
        raise Problem("scope_missing", "This token is for one workspace and can make no other.")
    metadata = dict(payload.metadata)
    if payload.slug is None:
        made = services.create_named(caller.user, payload.name, metadata)
    else:
        made = services.create_workspace(caller.user, payload.name, payload.slug, metadata)
    return Answer(202, shown(caller, response, made))


@router.get(
    "/workspaces/{slug}",
    response=WorkspaceOut,
    auth=Needs(Scope.READ),
    operation_id="get_workspace",
    summary="Get a workspace",
    openapi_extra=may_refuse("not_found", headers=HEADERS_OF_ONE),
)
def get_workspace(request: HttpRequest, response: HttpResponse, slug: SLUG) -> WorkspaceOut:
    """Everything about one workspace. `ETag` is the version of what can be set about it."""
    caller = caller_of(request)
    found = reach.get(caller, slug, "see")
    response["ETag"] = f'"{services.version_of(found.workspace)}"'
    return WorkspaceOut.of(found)


@router.patch(
    "/workspaces/{slug}",
    response=WorkspaceOut,
    auth=Needs(Scope.LIFECYCLE),
    operation_id="update_workspace",
    summary="Update a workspace",
    openapi_extra=may_refuse(
        "not_found",
        "role_too_low",
        "deleted",
        "changed_meanwhile",
        if_match=True,
        headers=HEADERS_OF_ONE,
    ),
)
def update_workspace(
    request: HttpRequest, response: HttpResponse, slug: SLUG, payload: WorkspaceChanges
) -> WorkspaceOut:
    """Change its name, metadata or visibility; for that, the token needs the scope `data` as well.

    With `If-Match`, only if nobody changed it since you looked.
    """
    caller = caller_of(request)
    found = reach.get(caller, slug, "rename")
    if payload.visibility is not None and not caller.has(Scope.DATA):  # it lays all data open
        words = "To change who may read it, the token needs the scope data too."
        raise Problem("scope_missing", words)
    metadata = None if payload.metadata is None else dict(payload.metadata)
    with transaction.atomic():
        services.update(
            found.workspace,
            caller.user,
            name=payload.name,
            metadata=metadata,
            visibility=payload.visibility,
            seen=seen_version(request),
        )
        if payload.plan is not None:
            _change_plan(caller, found.workspace, payload.plan)
    return shown(caller, response, found.workspace)


def _change_plan(caller: Caller, workspace: Workspace, name: str) -> None:
    if not caller.is_operator:
        raise Problem("scope_missing", "Only an operator's token changes the plan.")
    caller.demand("change_workspaces")
    plan = Plan.objects.filter(name=name).first()
    if plan is None:
        raise invalid("body.plan", "There is no plan of this name.")
    operations.change_plan(workspace, caller.user, plan)


def seen_version(request: HttpRequest) -> str | None:
    """Return the version in `If-Match`; None where any will do. Raises Problem."""
    given = request.headers.get("If-Match", "*").strip()
    if given == "*":
        return None
    if not given:  # whoever sends nothing by mistake must not overwrite what others changed
        raise invalid("header.If-Match", "Send an ETag that you have seen, or leave it out.")
    return given.removeprefix("W/").strip('"')


@router.delete(
    "/workspaces/{slug}",
    response={202: WorkspaceOut},
    auth=Needs(Scope.LIFECYCLE),
    operation_id="delete_workspace",
    summary="Delete a workspace",
    openapi_extra=may_refuse("not_found", "role_too_low", headers=HEADERS_OF_ONE),
)
def delete_workspace(
    request: HttpRequest, response: HttpResponse, slug: SLUG
) -> Answer[WorkspaceOut]:
    """Delete it. Until `purge_at` its data is kept, and `undelete` brings it back."""
    return _done(request, response, slug, "delete", services.delete)


def _done(
    request: HttpRequest,
    response: HttpResponse,
    slug: str,
    ability: str,
    do: Callable[[Workspace, User], object],
) -> Answer[WorkspaceOut]:
    caller = caller_of(request)
    found = reach.get(caller, slug, ability)
    do(found.workspace, caller.user)
    return Answer(202, shown(caller, response, found.workspace))


def _wake(workspace: Workspace, _user: User) -> None:
    services.wake(workspace)


# What can be done by a POST: the ability, the deed, the words, and what else may come of it.
_DEEDS: dict[str, tuple[Callable[[Workspace, User], object], str, str, tuple[str, ...]]] = {
    "undelete": (
        changes.undelete,
        "Bring a deleted workspace back",
        "Undo a deletion, data and address included, and start it. Possible until `purge_at`.",
        ("too_late", "quota_reached"),
    ),
    "start": (
        services.start,
        "Start a workspace",
        "Start it, or try again now if it failed. Starting one that runs changes nothing.",
        ("suspended", "deleted"),
    ),
    "stop": (
        services.stop,
        "Stop a workspace",
        "Stop it, so that no request wakes it. What is in flight is finished first.",
        ("suspended", "deleted"),
    ),
    "restart": (
        services.restart,
        "Restart a workspace",
        "Replace its container by a fresh one; the data stays.",
        ("refused", "deleted"),
    ),
    "wake": (
        _wake,
        "Wake a workspace",
        "Wake it if it sleeps, as a request to its address would. Every member may.",
        ("refused", "suspended", "deleted"),
    ),
}


@router.get(
    "/workspaces/{slug}/usage",
    response=UsageOut,
    auth=Needs(Scope.READ),
    operation_id="get_usage",
    summary="What a workspace uses",
    openapi_extra=may_refuse("not_found", "role_too_low"),
)
def get_usage(
    request: HttpRequest,
    slug: SLUG,
    hours: Annotated[
        int, Query(description="So many hours back, the present one among them.", ge=1, le=2160)
    ] = 168,
) -> UsageOut:
    """Its disk now, and what it used of everything by the hour."""
    workspace = reach.get(caller_of(request), slug, "see_usage").workspace
    instance = workspace.instance
    return UsageOut(
        disk=DiskOut.of(instance),
        memory_limit_bytes=instance.memory_mb * MEBIBYTE,
        cpus=instance.cpus,
        hours=[UsageHourOut.of(row) for row in usage.hours_of(workspace, hours)],
    )


def _add(deed: str) -> None:
    do, summary, words, codes = _DEEDS[deed]

    def view(request: HttpRequest, response: HttpResponse, slug: SLUG) -> Answer[WorkspaceOut]:
        return _done(request, response, slug, deed, do)

    view.__name__ = deed
    router.post(
        f"/workspaces/{{slug}}/{deed}",
        response={202: WorkspaceOut},
        auth=Needs(Scope.LIFECYCLE),
        operation_id=f"{deed}_workspace",
        summary=summary,
        description=words,
        openapi_extra=may_refuse(
            "not_found", "role_too_low", *codes, once=True, headers=HEADERS_OF_ONE
        ),
    )(view)


for _deed in _DEEDS:
    _add(_deed)
