"""What a workspace is made of: plugins and their changes, secrets, releases, images."""

from typing import Annotated

from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Path, Query, Router
from ninja import Status as Answer

from accounts.api_tokens import Scope
from deploy import notify
from deploy.models import Image
from workspaces import changes, sets
from workspaces.api import pages, reach
from workspaces.api.callers import Needs, again, caller_of
from workspaces.api.problems import Problem
from workspaces.api.schema import HEADERS_OF_ONE, SLUG, may_refuse
from workspaces.api.shapes import (
    VARIABLE,
    ChangeOut,
    ImageOut,
    NeedOut,
    Page,
    PluginOut,
    PluginsIn,
    PluginsOut,
    ReleaseOut,
    SecretIn,
    SecretOut,
    WorkspaceOut,
)
from workspaces.api.waiting import a_place, look_for
from workspaces.api.workspace_routes import Cursor, Limit, seen_version, shown
from workspaces.models import Approval, Change, Release, Workspace

router = Router(tags=["setup"])

_wanted = Prefetch("wanted", Approval.objects.select_related("plugin"))
ChangeId = Annotated[int, Path(description="The change's number.", ge=1, lt=2**63, examples=[12])]
SecretName = Annotated[
    str,
    Path(
        description="Capital letters, digits and _: the name of an environment variable.",
        pattern=VARIABLE,
        examples=["OPENCAGE_KEY"],
    ),
]


# --- plugins -------------------------------------------------------------------------------------


@router.get(
    "/workspaces/{slug}/plugins",
    response=PluginsOut,
    auth=Needs(Scope.READ, Scope.PLUGINS),
    operation_id="get_plugins",
    summary="Plugins: what it may have, what is on",
    openapi_extra=may_refuse("not_found"),
)
def get_plugins(request: HttpRequest, slug: SLUG) -> PluginsOut:
    """Every plugin that the operators approved for this workspace, and the newest change."""
    workspace = reach.get(caller_of(request), slug, "see").workspace
    running = {approval.plugin_id: approval for approval in workspace.plugins.all()}
    newest = _changes_of(workspace).first()
    return PluginsOut(
        items=[_plugin(workspace, approval, running) for approval in sets.available(workspace)],
        change=ChangeOut.of(newest) if newest else None,
    )


def _plugin(workspace: Workspace, approval: Approval, running: dict[int, Approval]) -> PluginOut:
    mine = running.get(approval.plugin_id)
    secrets = workspace.instance.secrets
    return PluginOut(
        name=approval.plugin.name,
        version=mine.version if mine else approval.version,
        summary=approval.plugin.words,
        on=mine is not None,
        needs=[
            NeedOut(name=need["name"], help=need.get("help", ""), is_set=need["name"] in secrets)
            for need in approval.needs
        ],
        needs_internet=approval.needs_internet,
        newer=approval.version if mine and mine.pk != approval.pk else None,
    )


@router.put(
    "/workspaces/{slug}/plugins",
    response={202: WorkspaceOut},
    auth=Needs(Scope.PLUGINS),
    operation_id="set_plugins",
    summary="Switch plugins on and off",
    openapi_extra=may_refuse(
        "not_found",
        "role_too_low",
        "refused",
        "deleted",
        "change_under_way",
        "too_many_changes",
        "changed_meanwhile",
        if_match=True,
        headers=HEADERS_OF_ONE,
    ),
)
def set_plugins(
    request: HttpRequest, response: HttpResponse, slug: SLUG, payload: PluginsIn
) -> Answer[WorkspaceOut]:
    """Have just these plugins on. An image is built and tried out, then switched to.

    `Location` is the change: wait for its end there. What does not build or start changes nothing.
    """
    caller = caller_of(request)
    if payload.secrets and not caller.has(Scope.SECRETS):
        raise Problem("scope_missing", "To give secrets, the token needs the scope secrets too.")
    workspace = reach.get(caller, slug, "change_plugins").workspace
    change = changes.request(
        workspace,
        caller.user,
        payload.plugins,
        secrets=payload.secrets,
        seen=seen_version(request),
    )
    return Answer(202, shown(caller, response, workspace, change))


@router.post(
    "/workspaces/{slug}/plugins/roll-back",
    response={202: WorkspaceOut},
    auth=Needs(Scope.PLUGINS),
    operation_id="roll_plugins_back",
    summary="Go back to the plugins before the last change",
    openapi_extra=may_refuse(
        "not_found",
        "role_too_low",
        "refused",
        "deleted",
        "change_under_way",
        "too_many_changes",
        once=True,
        headers=HEADERS_OF_ONE,
    ),
)
def roll_back(request: HttpRequest, response: HttpResponse, slug: SLUG) -> Answer[WorkspaceOut]:
    """Ask for the very versions that were there before the last change that was made."""
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "change_plugins").workspace
    change = changes.roll_back(workspace, caller.user)
    return Answer(202, shown(caller, response, workspace, change))


# --- changes -------------------------------------------------------------------------------------


def _changes_of(workspace: Workspace) -> QuerySet[Change]:
    return workspace.changes.select_related("release").prefetch_related(_wanted)


def _change(workspace: Workspace, change_id: int) -> Change:
    found = _changes_of(workspace).filter(pk=change_id).first()
    if found is None:
        raise Problem("not_found", "This workspace has no such change.")
    return found


@router.get(
    "/workspaces/{slug}/changes",
    response=Page[ChangeOut],
    auth=Needs(Scope.READ, Scope.PLUGINS),
    operation_id="list_changes",
    summary="Changes of the plugins",
    openapi_extra=may_refuse("not_found"),
)
def list_changes(
    request: HttpRequest, slug: SLUG, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[ChangeOut]:
    """Every change of the plugins or the release, newest first."""
    workspace = reach.get(caller_of(request), slug, "see").workspace
    found, after = pages.by_id(_changes_of(workspace), cursor, limit)
    return Page(items=[ChangeOut.of(change) for change in found], next=after)


@router.get(
    "/workspaces/{slug}/changes/{change_id}",
    response=ChangeOut,
    auth=Needs(Scope.READ, Scope.PLUGINS),
    operation_id="get_change",
    summary="Get a change",
    openapi_extra=may_refuse("not_found"),
)
def get_change(request: HttpRequest, slug: SLUG, change_id: ChangeId) -> ChangeOut:
    """How far it is, or how it ended."""
    workspace = reach.get(caller_of(request), slug, "see").workspace
    return ChangeOut.of(_change(workspace, change_id))


@router.get(
    "/workspaces/{slug}/changes/{change_id}/wait",
    response=ChangeOut,
    auth=Needs(Scope.READ, Scope.PLUGINS),
    operation_id="wait_for_change",
    summary="Wait for the end of a change",
    openapi_extra=may_refuse("not_found", "timeout", "too_many_waiting"),
)
def wait_for_change(
    request: HttpRequest,
    slug: SLUG,
    change_id: ChangeId,
    timeout: Annotated[
        float, Query(description="For how many seconds at most.", ge=0, le=300)
    ] = 60.0,
) -> ChangeOut:
    """Return the change the moment it is over: `done`, `failed` or `rolled back`."""
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "see").workspace
    _change(workspace, change_id)

    def over() -> Change | None:
        look_for(request)
        change = _change(workspace, change_id)
        return change if change.state != Change.State.OPEN else None

    with a_place(caller):
        ended = notify.wait_until(workspace.instance_id, over, timeout)
    reach.get(again(caller), slug, "see")
    if ended is None:
        raise Problem("timeout", f"It is not over after {timeout:g} s. Ask again to wait on.")
    return ChangeOut.of(ended)


# --- secrets -------------------------------------------------------------------------------------


@router.get(
    "/workspaces/{slug}/secrets",
    response=Page[SecretOut],
    auth=Needs(Scope.SECRETS),
    operation_id="list_secrets",
    summary="Names of the secrets",
    openapi_extra=may_refuse("not_found", "role_too_low"),
)
def list_secrets(request: HttpRequest, slug: SLUG) -> Page[SecretOut]:
    """The names. Nobody can read a value, with whatever token."""
    workspace = reach.get(caller_of(request), slug, "change_secrets").workspace
    used: dict[str, list[str]] = {name: [] for name in workspace.instance.secrets}
    for approval in workspace.plugins.all():
        for need in approval.needs:
            used.get(need["name"], []).append(approval.plugin.name)
    items = [SecretOut(name=name, used_by=plugins) for name, plugins in sorted(used.items())]
    return Page(items=items, next=None)


@router.put(
    "/workspaces/{slug}/secrets/{name}",
    response={202: WorkspaceOut},
    auth=Needs(Scope.SECRETS),
    operation_id="set_secret",
    summary="Set a secret",
    openapi_extra=may_refuse(
        "not_found", "role_too_low", "refused", "deleted", headers=HEADERS_OF_ONE
    ),
)
def set_secret(
    request: HttpRequest, response: HttpResponse, slug: SLUG, name: SecretName, payload: SecretIn
) -> Answer[WorkspaceOut]:
    """Give the workspace's container this value under this name. What runs is replaced for it."""
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "change_secrets").workspace
    changes.set_secret(workspace, caller.user, name, payload.value)
    return Answer(202, shown(caller, response, workspace))


@router.delete(
    "/workspaces/{slug}/secrets/{name}",
    response={204: None},
    auth=Needs(Scope.SECRETS),
    operation_id="remove_secret",
    summary="Remove a secret",
    openapi_extra=may_refuse("not_found", "role_too_low", "deleted"),
)
def remove_secret(request: HttpRequest, slug: SLUG, name: SecretName) -> Answer[None]:
    """Forget it. What runs has it until its next start: restart to take it away at once."""
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "change_secrets").workspace
    changes.remove_secret(workspace, caller.user, name)
    return Answer(204, None)


# --- releases and images -------------------------------------------------------------------------


@router.get(
    "/releases",
    response=Page[ReleaseOut],
    auth=Needs(Scope.READ),
    operation_id="list_releases",
    summary="Datasette versions on offer",
    openapi_extra=may_refuse(),
)
def list_releases(request: HttpRequest) -> Page[ReleaseOut]:
    """The versions that the operators offer; new workspaces get the default one."""
    found = Release.objects.filter(offered=True).order_by("-is_default", "version")
    return Page(items=[ReleaseOut.of(release) for release in found], next=None)


@router.get(
    "/images",
    response=Page[ImageOut],
    auth=Needs(Scope.READ),
    operation_id="list_images",
    summary="Images that your workspaces run",
    openapi_extra=may_refuse(),
)
def list_images(
    request: HttpRequest, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[ImageOut]:
    """Built plugin sets: those of your workspaces, or all for an operator's token."""
    caller = caller_of(request)
    rows = Image.objects.all()
    if not caller.may("see_workspaces"):
        mine = reach.workspaces(caller).order_by().values("instance__image_id")
        rows = rows.filter(pk__in=mine)
    found, after = pages.by_id(rows, cursor, limit)
    items = [
        ImageOut(
            digest=image.digest,
            state=image.state,
            packages=image.inputs.get("packages", {}),
            created_at=image.created_at,
            built_at=image.built_at,
        )
        for image in found
    ]
    return Page(items=items, next=after)
