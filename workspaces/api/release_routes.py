"""For operators: releases of Datasette and their roll-out."""

from collections.abc import Callable
from typing import Annotated

from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from ninja import Path, Router
from ninja import Status as Answer

from accounts.api_tokens import Scope
from accounts.models import User
from workspaces import deeds
from workspaces.api import pages
from workspaces.api.callers import Needs, caller_of
from workspaces.api.operator_shapes import OfferIn, ReleaseStateOut, RolloutIn, RolloutOut
from workspaces.api.problems import Problem, invalid
from workspaces.api.schema import may_refuse
from workspaces.api.shapes import Page, location
from workspaces.api.workspace_routes import Cursor, Limit
from workspaces.models import Change, Release, Rollout, Workspace

router = Router(tags=["operators"])
Version = Annotated[
    str,
    Path(
        description="A version of Datasette.",
        max_length=40,
        pattern=r"^[0-9A-Za-z.!+_-]+$",
        examples=["0.65.5"],
    ),
]
RolloutId = Annotated[int, Path(description="The roll-out's number.", ge=1, lt=2**63)]


# --- releases ------------------------------------------------------------------------------------


def _releases() -> QuerySet[Release]:
    used = Count("workspaces", filter=Q(workspaces__deleted_at=None))
    return Release.objects.select_related("image").annotate(used=used)


def _release(version: str) -> Release:
    release = _releases().filter(version=version).first()
    if release is None:
        raise Problem("not_found", "There is no such release.")
    return release


def _shown(release: Release) -> ReleaseStateOut:
    return ReleaseStateOut.of(release, getattr(release, "used", 0))


@router.get(
    "/operator/releases",
    response=Page[ReleaseStateOut],
    auth=Needs(Scope.OPERATOR, deed="see_releases"),
    operation_id="list_all_releases",
    summary="All releases, offered or not",
    openapi_extra=may_refuse("permission_missing"),
)
def list_releases(
    request: HttpRequest, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[ReleaseStateOut]:
    """Every Datasette version that this software has a lock for, and how its image is."""
    found, after = pages.by_id(_releases().defer("lock"), cursor, limit)
    return Page(items=[_shown(release) for release in found], next=after)


def _add(deed: str, do: Callable[[Release, User], str], summary: str, words: str) -> None:
    """Add what a single button of the admin does."""

    def view(request: HttpRequest, version: Version) -> Answer[ReleaseStateOut]:
        do(_release(version), caller_of(request).user)
        return Answer(202, _shown(_release(version)))

    view.__name__ = f"{deed}_release"
    router.post(
        f"/operator/releases/{{version}}/{deed}",
        response={202: ReleaseStateOut},
        auth=Needs(Scope.OPERATOR, deed="change_release"),
        operation_id=f"{deed}_release",
        summary=summary,
        description=words,
        openapi_extra=may_refuse("not_found", "permission_missing", "refused", once=True),
    )(view)


_add(
    "build",
    deeds.build,
    "Build a release's image",
    "Have a worker build its image now. `image` and `error` tell what came of it.",
)
_add(
    "default",
    deeds.make_default,
    "Make a release the default",
    "New workspaces get it, from now on. Only when its image is ready.",
)


@router.post(
    "/operator/releases/{version}/offer",
    response={202: ReleaseStateOut},
    auth=Needs(Scope.OPERATOR, deed="change_release"),
    operation_id="offer_release",
    summary="Offer a release, or stop that",
    openapi_extra=may_refuse("not_found", "permission_missing", "refused", once=True),
)
def offer(request: HttpRequest, version: Version, payload: OfferIn) -> Answer[ReleaseStateOut]:
    """Keep its image built, or do not any more. Workspaces that have it keep it."""
    deeds.offer(_release(version), caller_of(request).user, offered=payload.offered)
    return Answer(202, _shown(_release(version)))


# --- roll-outs -----------------------------------------------------------------------------------


def _rollouts() -> QuerySet[Rollout]:
    done = Count("changes", filter=Q(changes__state=Change.State.DONE))
    found = Rollout.objects.select_related("from_release", "to_release")
    return found.defer("from_release__lock", "to_release__lock").annotate(moved=done)


def _rollout(rollout_id: int) -> Rollout:
    rollout = _rollouts().filter(pk=rollout_id).first()
    if rollout is None:
        raise Problem("not_found", "There is no such roll-out.")
    return rollout


@router.get(
    "/operator/rollouts",
    response=Page[RolloutOut],
    auth=Needs(Scope.OPERATOR, deed="see_rollouts"),
    operation_id="list_rollouts",
    summary="Roll-outs",
    openapi_extra=may_refuse("permission_missing"),
)
def list_rollouts(
    request: HttpRequest, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[RolloutOut]:
    """Every roll-out, newest first."""
    found, after = pages.by_id(_rollouts(), cursor, limit)
    return Page(items=[RolloutOut.of(rollout, whole=False) for rollout in found], next=after)


@router.post(
    "/operator/rollouts",
    response={202: RolloutOut},
    auth=Needs(Scope.OPERATOR, deed="roll_out"),
    operation_id="create_rollout",
    summary="Roll a release out",
    openapi_extra=may_refuse("permission_missing", "refused", once=True, headers=["Location"]),
)
def create_rollout(
    request: HttpRequest, response: HttpResponse, payload: RolloutIn
) -> Answer[RolloutOut]:
    """Move all workspaces of one release to another, in batches. The first failure stops it."""
    rollout = deeds.roll_out(
        _named(payload.source, "source"),
        _named(payload.target, "target"),
        payload.batch_size,
        caller_of(request).user,
        _left_out(payload.leave_out),
    )
    response["Location"] = location(f"/operator/rollouts/{rollout.pk}")
    return Answer(202, RolloutOut.of(_rollout(rollout.pk)))


def _named(version: str, field: str) -> Release:
    release = Release.objects.filter(version=version).first()
    if release is None:
        raise invalid(f"body.{field}", "There is no such release.")
    return release


def _left_out(slugs: list[str]) -> list[Workspace]:
    found = list(Workspace.objects.filter(slug__in=slugs, deleted_at=None))
    if unknown := sorted(set(slugs) - {workspace.slug for workspace in found}):
        raise invalid("body.leave_out", f"There is no workspace {', '.join(unknown)}.")
    return found


@router.get(
    "/operator/rollouts/{rollout_id}",
    response=RolloutOut,
    auth=Needs(Scope.OPERATOR, deed="see_rollouts"),
    operation_id="get_rollout",
    summary="Get a roll-out",
    openapi_extra=may_refuse("not_found", "permission_missing"),
)
def get_rollout(request: HttpRequest, rollout_id: RolloutId) -> RolloutOut:
    """How far it is, what stopped it, and who stays behind."""
    return RolloutOut.of(_rollout(rollout_id))


@router.post(
    "/operator/rollouts/{rollout_id}/stop",
    response={202: RolloutOut},
    auth=Needs(Scope.OPERATOR, deed="stop_rollout"),
    operation_id="stop_rollout",
    summary="Stop a roll-out",
    openapi_extra=may_refuse("not_found", "permission_missing", "refused", once=True),
)
def stop_rollout(request: HttpRequest, rollout_id: RolloutId) -> Answer[RolloutOut]:
    """Begin no more batches. What is under way comes to its end."""
    deeds.stop_rollout(_rollout(rollout_id), caller_of(request).user)
    return Answer(202, RolloutOut.of(_rollout(rollout_id)))
