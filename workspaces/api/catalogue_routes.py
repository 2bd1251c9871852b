"""For operators: the plugin catalogue, approvals and grants."""

from typing import Annotated

from django.db.models import Count, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from ninja import Path, Router
from ninja import Status as Answer

from accounts.api_tokens import Scope
from accounts.models import User
from deploy import locks
from workspaces import catalogue, deeds
from workspaces.api import pages
from workspaces.api.callers import Needs, caller_of
from workspaces.api.operator_shapes import (
    ApprovalIn,
    ApprovalOut,
    BegunOut,
    EntryChanges,
    EntryIn,
    EntryOut,
    GrantOut,
    WholeApprovalOut,
    WithdrawIn,
    WithdrawnOut,
)
from workspaces.api.problems import Problem, invalid
from workspaces.api.schema import SLUG, may_refuse
from workspaces.api.shapes import Page, location
from workspaces.api.workspace_routes import Cursor, Limit
from workspaces.models import Approval, Grant, Plugin, Release, Workspace

router = Router(tags=["operators"])
PluginName = Annotated[
    str,
    Path(
        description="The package's name.",
        max_length=100,
        pattern=r"^[A-Za-z0-9._-]+$",
        examples=["datasette-vega"],
    ),
]
ApprovalId = Annotated[int, Path(description="The approval's number.", ge=1, lt=2**63)]
_live = Q(workspaces__deleted_at=None)


def _names(field: str) -> "Prefetch[str]":
    return Prefetch(field, User.objects.with_names())


# --- plugins -------------------------------------------------------------------------------------


def _plugins() -> QuerySet[Plugin]:
    counts = Approval.objects.filter(
        plugin=OuterRef("pk"), state=Approval.State.ACTIVE, release__is_default=True
    )
    used = Count("approvals__workspaces", Q(approvals__workspaces__deleted_at=None))
    return Plugin.objects.annotate(
        approved=Subquery(counts.values("version")), used=used
    ).prefetch_related(_names("added_by"))


def _plugin(name: str) -> Plugin:
    plugin = _plugins().filter(name=locks.normalized(name)).first()
    if plugin is None:
        raise Problem("not_found", "There is no such plugin in the catalogue.")
    return plugin


@router.get(
    "/operator/plugins",
    response=Page[EntryOut],
    auth=Needs(Scope.OPERATOR, deed="see_plugins"),
    operation_id="list_catalogue",
    summary="The plugin catalogue",
    openapi_extra=may_refuse("permission_missing"),
)
def list_plugins(
    request: HttpRequest, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[EntryOut]:
    """Every plugin, newest first: what the index says of it, and what is approved."""
    found, after = pages.by_id(_plugins(), cursor, limit)
    return Page(items=[EntryOut.of(plugin) for plugin in found], next=after)


@router.post(
    "/operator/plugins",
    response={202: EntryOut},
    auth=Needs(Scope.OPERATOR, deed="add_plugin"),
    operation_id="add_plugin",
    summary="Add a plugin to the catalogue",
    openapi_extra=may_refuse("permission_missing", "exists", once=True, headers=["Location"]),
)
def add_plugin(request: HttpRequest, response: HttpResponse, payload: EntryIn) -> Answer[EntryOut]:
    """Put a package into the catalogue. A worker reads what it is: look at `Location`.

    Nobody can use it before an exact version is approved.
    """
    plugin = deeds.add_plugin(payload.name, caller_of(request).user)
    response["Location"] = location(f"/operator/plugins/{plugin.name}")
    return Answer(202, EntryOut.of(_plugin(plugin.name)))


@router.get(
    "/operator/plugins/{name}",
    response=EntryOut,
    auth=Needs(Scope.OPERATOR, deed="see_plugins"),
    operation_id="get_plugin",
    summary="Get a plugin of the catalogue",
    openapi_extra=may_refuse("not_found", "permission_missing"),
)
def get_plugin(request: HttpRequest, name: PluginName) -> EntryOut:
    """What the index says of it, and what is approved."""
    return EntryOut.of(_plugin(name))


@router.patch(
    "/operator/plugins/{name}",
    response=EntryOut,
    auth=Needs(Scope.OPERATOR, deed="describe"),
    operation_id="describe_plugin",
    summary="Describe a plugin",
    openapi_extra=may_refuse("not_found", "permission_missing"),
)
def describe_plugin(request: HttpRequest, name: PluginName, payload: EntryChanges) -> EntryOut:
    """Say in your own words what customers read of it."""
    deeds.describe(_plugin(name), payload.description, caller_of(request).user)
    return EntryOut.of(_plugin(name))


@router.post(
    "/operator/plugins/{name}/refresh",
    response={202: EntryOut},
    auth=Needs(Scope.OPERATOR, deed="read_plugin"),
    operation_id="refresh_plugin",
    summary="Read a plugin from the index again",
    openapi_extra=may_refuse("not_found", "permission_missing", once=True),
)
def refresh_plugin(request: HttpRequest, name: PluginName) -> Answer[EntryOut]:
    """Have a worker ask the index anew. What comes with this software is never asked there."""
    deeds.read_again(_plugin(name), caller_of(request).user)
    return Answer(202, EntryOut.of(_plugin(name)))


# --- approvals -----------------------------------------------------------------------------------


def _approvals() -> QuerySet[Approval]:
    """Approvals with what is shown of them, but for their locks, which are long."""
    found = Approval.objects.select_related("plugin", "release").defer("release__lock", "lock")
    named = found.prefetch_related(_names("by"), _names("ended_by"))
    return named.annotate(used=Count("workspaces", filter=_live))


def _approval(approval_id: int) -> Approval:
    approval = _approvals().filter(pk=approval_id).first()
    if approval is None:
        raise Problem("not_found", "There is no such approval.")
    return approval


@router.get(
    "/operator/plugins/{name}/approvals",
    response=Page[ApprovalOut],
    auth=Needs(Scope.OPERATOR, deed="see_approvals"),
    operation_id="list_approvals",
    summary="Approvals of a plugin",
    openapi_extra=may_refuse("not_found", "permission_missing"),
)
def list_approvals(
    request: HttpRequest, name: PluginName, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[ApprovalOut]:
    """Every yes that was ever given to it, newest first."""
    found, after = pages.by_id(_approvals().filter(plugin=_plugin(name)), cursor, limit)
    return Page(items=[ApprovalOut.of(approval) for approval in found], next=after)


@router.post(
    "/operator/plugins/{name}/approvals",
    response={202: ApprovalOut},
    auth=Needs(Scope.OPERATOR, deed="approve"),
    operation_id="approve_plugin",
    summary="Approve a version of a plugin",
    openapi_extra=may_refuse(
        "not_found", "permission_missing", "refused", once=True, headers=["Location"]
    ),
)
def approve(
    request: HttpRequest, response: HttpResponse, name: PluginName, payload: ApprovalIn
) -> Answer[ApprovalOut]:
    """Say yes to one exact version on one release, and to every file that it needs.

    A worker locks these files: look at `Location` until the state is `active` or `failed`.
    """
    plugin, release = _plugin(name), _release(payload.release)
    terms = catalogue.Terms(
        reach=payload.reach,
        required=payload.required,
        needs_internet=payload.needs_internet,
        needs=[need.model_dump() for need in payload.needs],
        note=payload.note,
    )
    user = caller_of(request).user
    approval = deeds.approve(plugin, release, payload.version.strip(), terms, user)
    response["Location"] = location(f"/operator/approvals/{approval.pk}")
    return Answer(202, ApprovalOut.of(_approval(approval.pk)))


def _release(version: str | None) -> Release:
    if version is None:
        return catalogue.default_release()
    release = Release.objects.filter(version=version).first()
    if release is None:
        raise invalid("body.release", "There is no such release.")
    return release


@router.get(
    "/operator/approvals/{approval_id}",
    response=WholeApprovalOut,
    auth=Needs(Scope.OPERATOR, deed="see_approvals"),
    operation_id="get_approval",
    summary="Get an approval, with its files",
    openapi_extra=may_refuse("not_found", "permission_missing"),
)
def get_approval(request: HttpRequest, approval_id: ApprovalId) -> WholeApprovalOut:
    """How it is, and the sha256 of every file that it locked."""
    return WholeApprovalOut.of(_approval(approval_id))


@router.post(
    "/operator/approvals/{approval_id}/renew",
    response=ApprovalOut,
    auth=Needs(Scope.OPERATOR, deed="renew"),
    operation_id="renew_approval",
    summary="Renew an approval",
    openapi_extra=may_refuse("not_found", "permission_missing", "refused", once=True),
)
def renew(request: HttpRequest, approval_id: ApprovalId) -> ApprovalOut:
    """Say that it is still good: its time begins anew. Refused where it has no end."""
    deeds.renew(_approval(approval_id), caller_of(request).user)
    return ApprovalOut.of(_approval(approval_id))


@router.post(
    "/operator/approvals/{approval_id}/withdraw",
    response=WithdrawnOut,
    auth=Needs(Scope.OPERATOR, deed="withdraw"),
    operation_id="withdraw_approval",
    summary="Withdraw an approval",
    openapi_extra=may_refuse("not_found", "permission_missing", "refused", once=True),
)
def withdraw(request: HttpRequest, approval_id: ApprovalId, payload: WithdrawIn) -> WithdrawnOut:
    """Nobody can switch it on from now on. With `rebuild`, those that use it lose it.

    Asked again with `rebuild`, it begins with those that were refused before.
    """
    user = caller_of(request).user
    rebuilds, _ = deeds.withdraw(_approval(approval_id), user, rebuild=payload.rebuild)
    return WithdrawnOut(
        approval=ApprovalOut.of(_approval(approval_id)),
        begun=[BegunOut.of(change) for change in rebuilds.begun],
        refused=dict(rebuilds.refused),
    )


# --- grants --------------------------------------------------------------------------------------


def _grants(plugin: Plugin) -> QuerySet[Grant]:
    rows = Grant.objects.filter(plugin=plugin, workspace__deleted_at=None)
    return rows.select_related("workspace").prefetch_related(_names("by"))


def _workspace(slug: str) -> Workspace:
    workspace = Workspace.objects.filter(slug=slug, deleted_at=None).first()
    if workspace is None:
        raise Problem("not_found", "There is no such workspace.")
    return workspace


@router.get(
    "/operator/plugins/{name}/grants",
    response=Page[GrantOut],
    auth=Needs(Scope.OPERATOR, deed="see_grants"),
    operation_id="list_grants",
    summary="Grants of a plugin",
    openapi_extra=may_refuse("not_found", "permission_missing"),
)
def list_grants(
    request: HttpRequest, name: PluginName, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[GrantOut]:
    """The workspaces that may use it where it is not for everyone; newest first."""
    found, after = pages.by_id(_grants(_plugin(name)), cursor, limit)
    return Page(items=[GrantOut.of(grant) for grant in found], next=after)


@router.put(
    "/operator/plugins/{name}/grants/{slug}",
    response=GrantOut,
    auth=Needs(Scope.OPERATOR, deed="grant"),
    operation_id="grant_plugin",
    summary="Grant a plugin to a workspace",
    openapi_extra=may_refuse("not_found", "permission_missing"),
)
def grant(request: HttpRequest, name: PluginName, slug: SLUG) -> GrantOut:
    """Let one workspace use it. Granting it again changes nothing."""
    plugin, workspace = _plugin(name), _workspace(slug)
    deeds.grant(plugin, workspace, caller_of(request).user)
    return GrantOut.of(_grants(plugin).get(workspace=workspace))


@router.delete(
    "/operator/plugins/{name}/grants/{slug}",
    response={204: None},
    auth=Needs(Scope.OPERATOR, deed="take_back"),
    operation_id="take_grant_back",
    summary="Take a grant back",
    openapi_extra=may_refuse("not_found", "permission_missing"),
)
def take_back(request: HttpRequest, name: PluginName, slug: SLUG) -> Answer[None]:
    """What the workspace runs stays until its set is changed, which then leaves it out."""
    plugin, workspace = _plugin(name), _workspace(slug)
    if not _grants(plugin).filter(workspace=workspace).exists():
        raise Problem("not_found", "This workspace has no grant for it.")
    deeds.take_back(plugin, workspace, caller_of(request).user)
    return Answer(204, None)
