"""For operators: suspend and resume, how all of it is, and plans."""

from typing import Annotated

from django.http import HttpRequest, HttpResponse
from ninja import Path, Router
from ninja import Status as Answer

from accounts.api_tokens import Scope
from workspaces import attention, deeds, fleet, operations, plans
from workspaces.api import pages, reach
from workspaces.api.callers import Needs, caller_of
from workspaces.api.operator_shapes import (
    FleetOut,
    PlanChanges,
    PlanIn,
    PlanOut,
    ReleaseOfIn,
    SuspendIn,
)
from workspaces.api.problems import Problem, invalid
from workspaces.api.schema import HEADERS_OF_ONE, SLUG, may_refuse
from workspaces.api.shapes import Page, WorkspaceOut, location
from workspaces.api.workspace_routes import Cursor, Limit, seen_version, shown
from workspaces.models import Plan, Release

router = Router(tags=["operators"])
PlanId = Annotated[int, Path(description="The plan's number.", ge=1, lt=2**63)]


# --- workspaces ----------------------------------------------------------------------------------


@router.post(
    "/workspaces/{slug}/suspend",
    response={202: WorkspaceOut},
    auth=Needs(Scope.OPERATOR, deed="change_workspaces"),
    operation_id="suspend_workspace",
    summary="Suspend a workspace",
    openapi_extra=may_refuse(
        "not_found", "permission_missing", "deleted", once=True, headers=HEADERS_OF_ONE
    ),
)
def suspend(
    request: HttpRequest, response: HttpResponse, slug: SLUG, payload: SuspendIn
) -> Answer[WorkspaceOut]:
    """Stop it, so that only operators can start it again. Its members read the reason.

    One that is suspended keeps the reason that it has.
    """
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "see").workspace
    operations.suspend(workspace, caller.user, payload.reason)
    return Answer(202, shown(caller, response, workspace))


@router.post(
    "/workspaces/{slug}/resume",
    response={202: WorkspaceOut},
    auth=Needs(Scope.OPERATOR, deed="change_workspaces"),
    operation_id="resume_workspace",
    summary="Resume a workspace",
    openapi_extra=may_refuse(
        "not_found", "permission_missing", "deleted", once=True, headers=HEADERS_OF_ONE
    ),
)
def resume(request: HttpRequest, response: HttpResponse, slug: SLUG) -> Answer[WorkspaceOut]:
    """Lift a suspension, and start it. One that is not suspended stays as it is."""
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "see").workspace
    operations.resume(workspace, caller.user)
    return Answer(202, shown(caller, response, workspace))


@router.post(
    "/workspaces/{slug}/release",
    response={202: WorkspaceOut},
    auth=Needs(Scope.OPERATOR, deed="try_release"),
    operation_id="change_release_of_workspace",
    summary="Move a workspace to another release",
    openapi_extra=may_refuse(
        "not_found",
        "permission_missing",
        "refused",
        "deleted",
        "change_under_way",
        once=True,
        headers=HEADERS_OF_ONE,
    ),
)
def change_release(
    request: HttpRequest, response: HttpResponse, slug: SLUG, payload: ReleaseOfIn
) -> Answer[WorkspaceOut]:
    """Ask for the plugins that it has, by name, on another release: to try one before all others.

    `Location` is the change: wait for its end there. What does not come up changes nothing.
    """
    caller = caller_of(request)
    workspace = reach.get(caller, slug, "see").workspace
    release = Release.objects.filter(version=payload.version).first()
    if release is None:
        raise invalid("body.version", "There is no such release.")
    change, _ = deeds.try_out(release, workspace, caller.user)
    return Answer(202, shown(caller, response, workspace, change))


@router.get(
    "/operator/fleet",
    response=FleetOut,
    auth=Needs(Scope.OPERATOR, deed="see_workspaces"),
    operation_id="get_fleet",
    summary="How all of it is, in numbers",
    openapi_extra=may_refuse("permission_missing"),
)
def get_fleet(request: HttpRequest) -> FleetOut:
    """Workspaces by status, what fails and why, what is under way, and what needs attention."""
    return FleetOut.of(fleet.summary(), attention.counts())


# --- plans ---------------------------------------------------------------------------------------


def _plan(plan_id: int) -> Plan:
    plan = Plan.objects.filter(pk=plan_id).first()
    if plan is None:
        raise Problem("not_found", "There is no such plan.")
    return plan


def _shown(response: HttpResponse, plan_id: int) -> PlanOut:
    plan = _plan(plan_id)
    response["Location"] = location(f"/operator/plans/{plan.pk}")
    response["ETag"] = f'"{plans.version_of(plan)}"'
    return PlanOut.of(plan, plans.progress().get(plan.pk, plans.Progress()))


@router.get(
    "/operator/plans",
    response=Page[PlanOut],
    auth=Needs(Scope.OPERATOR, deed="see_plans"),
    operation_id="list_plans",
    summary="Plans",
    openapi_extra=may_refuse("permission_missing"),
)
def list_plans(
    request: HttpRequest, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[PlanOut]:
    """Every plan, newest first, how many workspaces have each, and how many of them follow it."""
    found, after = pages.by_id(Plan.objects.all(), cursor, limit)
    so_far = plans.progress()
    items = [PlanOut.of(plan, so_far.get(plan.pk, plans.Progress())) for plan in found]
    return Page(items=items, next=after)


@router.post(
    "/operator/plans",
    response={201: PlanOut},
    auth=Needs(Scope.OPERATOR, deed="add_plan"),
    operation_id="create_plan",
    summary="Make a plan",
    openapi_extra=may_refuse("permission_missing", "exists", once=True, headers=HEADERS_OF_ONE),
)
def create_plan(request: HttpRequest, response: HttpResponse, payload: PlanIn) -> Answer[PlanOut]:
    """Make a plan. With `is_default`, new workspaces get it from now on."""
    plan = deeds.add_plan(caller_of(request).user, payload.model_dump())
    return Answer(201, _shown(response, plan.pk))


@router.get(
    "/operator/plans/{plan_id}",
    response=PlanOut,
    auth=Needs(Scope.OPERATOR, deed="see_plans"),
    operation_id="get_plan",
    summary="Get a plan",
    openapi_extra=may_refuse("not_found", "permission_missing", headers=HEADERS_OF_ONE),
)
def get_plan(request: HttpRequest, response: HttpResponse, plan_id: PlanId) -> PlanOut:
    """What workspaces of this plan may use. `ETag` is its version."""
    return _shown(response, plan_id)


@router.patch(
    "/operator/plans/{plan_id}",
    response=PlanOut,
    auth=Needs(Scope.OPERATOR, deed="change_plan"),
    operation_id="update_plan",
    summary="Change a plan",
    openapi_extra=may_refuse(
        "not_found",
        "permission_missing",
        "exists",
        "changed_meanwhile",
        if_match=True,
        headers=HEADERS_OF_ONE,
    ),
)
def update_plan(
    request: HttpRequest, response: HttpResponse, plan_id: PlanId, payload: PlanChanges
) -> PlanOut:
    """Change a plan. The workspaces that have it follow, a few at a time.

    `idle_seconds`, `disk_mb` and the numbers of workspaces and members count at once. Memory, CPU,
    processes and the internet need a new container: what runs is restarted, five at a time, and
    what sleeps gets it when it wakes. `following` tells how many have it.
    Customers read the name at once. `is_default: true` takes the place of the default before.
    """
    values = payload.model_dump(exclude_none=True)
    deeds.change_plan(_plan(plan_id), caller_of(request).user, values, seen_version(request))
    return _shown(response, plan_id)
