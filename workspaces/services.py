"""What can be done with a workspace. Web pages and the REST API call these and nothing else.

Each is one transaction that writes its Activity. Who may do it, the door asks workspaces.access;
these ask once more when they hold the workspace, for a role may be gone by then. What cannot be
done raises Refused, in words for the person who tried.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from math import ceil
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from accounts.models import User
from deploy import lifecycle, spares, trace
from deploy.models import Image, Instance
from deploy.spares import Stock
from deploy.states import Desired, Status, StopReason
from workspaces import access, activity, notices, slugs
from workspaces.models import (
    Activity,
    IdempotencyKey,
    Member,
    Plan,
    Release,
    Role,
    Visibility,
    Workspace,
)

MAX_NAME = 80
METADATA_NAMES = 20
METADATA_LENGTH = 500
METADATA_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")
SLUG_TRIES = 5
RESTARTS_PER_HOUR = 30
# What brings a workspace a fresh container.
_RESTARTS = ("restarted", "set_secret", "restored")
KEYS_KEPT_SECONDS = 86400
KEYS_KEPT_PER_USER = 10_000
NO_REASON_KEPT = "No reason was kept."


class Refused(Exception):
    """It cannot be done, and the text says why. `field` names the input that is at fault.

    `code` is one of the API's (workspaces.api.problems); `retry_after` is in seconds, 0 for never.
    """

    code = "refused"
    retry_after = 0

    def __init__(self, words: str, field: str | None = None, *, code: str = "") -> None:
        super().__init__(words)
        self.field = field
        self.code = code or ("invalid" if field else self.code)


class SlugTaken(Refused):
    """Somebody else has this slug. `alternative` is one that is free."""

    def __init__(self, slug: str, alternative: str) -> None:
        words = f"“{slug}” is taken. “{alternative}” is free."
        super().__init__(words, "slug", code="slug_taken")
        self.alternative = alternative


class QuotaReached(Refused):
    """The owner has as many workspaces as the plan allows."""

    code = "quota_reached"


class TooOften(Refused):
    """It may be asked again later."""

    def __init__(self, words: str, code: str, retry_after: int) -> None:
        super().__init__(words, code=code)
        self.retry_after = retry_after


class ChangedMeanwhile(Refused):
    """It is not as the one who wants to change it has seen it."""

    code = "changed_meanwhile"

    def __init__(self) -> None:
        super().__init__("It was changed meanwhile. Look again, then decide anew.")


class NoImage(Refused):
    """Nothing can be created right now; it will be possible later by itself."""

    code = "not_ready_yet"
    retry_after = 30

    def __init__(self) -> None:
        super().__init__(
            "We are still preparing the software that workspaces run. This takes a few minutes "
            "after a new installation. Nothing you typed is lost: please try again shortly."
        )


def default_image() -> Image | None:
    """Return the image that a new workspace gets, or None while there is none."""
    release = _default_release()
    return release.image if release else None


def _default_release() -> Release | None:
    """Return the release that a new workspace gets, if its image is ready."""
    ready = Release.objects.filter(is_default=True, image__state=Image.State.READY)
    return ready.select_related("image").first()


def keep_spares() -> None:
    """Have as many instances of the default plan ready as it says, for whoever comes next."""
    image, plan = default_image(), Plan.objects.filter(is_default=True).first()
    spares.keep([Stock(plan.spares, image, plan.limits)] if image and plan else [])


def default_plan() -> Plan:
    """Return the plan that a new workspace gets."""
    return Plan.objects.get(is_default=True)


# --- slugs -------------------------------------------------------------------------------------


def is_slug_free(slug: str) -> bool:
    """Whether no workspace has this slug. A deleted one keeps it until its data is removed."""
    return not Workspace.objects.filter(
        slug=slug, purged_at=None, instance__purged_at=None
    ).exists()


def free_slug(slug: str) -> str:
    """Return `slug` if it is free, else the first free one with a number behind it."""
    if is_slug_free(slug):
        return slug
    stem = slugs.numbered(slug, 2)[:-2]
    taken = set(
        Workspace.objects.filter(
            slug__startswith=stem[: slugs.MAX_LENGTH - 8], purged_at=None
        ).values_list("slug", flat=True)
    )
    numbered = (slugs.numbered(slug, number) for number in count(2))
    return next(candidate for candidate in numbered if candidate not in taken)


def release_purged(slug: str | None = None) -> int:
    """Give the slugs of workspaces whose data is gone back. Return how many.

    deploy does not know workspaces, so nobody tells us: this looks. With `slug`, only at that one.
    """
    gone = Workspace.objects.filter(purged_at=None).exclude(deleted_at=None)
    gone = gone.exclude(instance__purged_at=None)
    if slug is not None:
        gone = gone.filter(slug=slug)
    return gone.update(purged_at=timezone.now())


def old_keys() -> QuerySet[IdempotencyKey]:
    """Return the keys whose time is over, whether they were removed already or not."""
    day_ago = timezone.now() - timedelta(seconds=KEYS_KEPT_SECONDS)
    return IdempotencyKey.objects.filter(created_at__lt=day_ago)


def forget_old_keys() -> None:
    """Drop the answers that were kept for requests that are sent again, and what is too many."""
    old_keys().delete()
    place = Window(RowNumber(), partition_by=F("token__user_id"), order_by=F("id").desc())
    many = IdempotencyKey.objects.annotate(place=place).filter(place__gt=KEYS_KEPT_PER_USER)
    IdempotencyKey.objects.filter(pk__in=many.values("pk")).delete()


# --- what owners do ----------------------------------------------------------------------------


def create_workspace(
    user: User, name: str, slug: str, metadata: Mapping[str, str] | None = None
) -> Workspace:
    """Make a workspace that `user` owns; its instance starts once the transaction is in.

    Raises SlugTaken, QuotaReached, TooOften, NoImage, or Refused for a bad name or slug.
    """
    name = _checked_name(name)
    if words := slugs.problem(slug):
        raise Refused(words, "slug")
    kept = _merged({}, metadata or {})
    try:
        with transaction.atomic():
            return _create(user, name, slug, kept)
    except IntegrityError as error:
        if "one_workspace_per_slug" not in str(error):
            raise
    raise SlugTaken(slug, free_slug(slug))


def _create(user: User, name: str, slug: str, metadata: dict[str, str]) -> Workspace:
    plan = default_plan()
    _hold_to_quota(user, plan)
    _hold_to_rate(user)
    if Workspace.objects.filter(slug=slug, purged_at=None).exists() and not release_purged(slug):
        raise SlugTaken(slug, free_slug(slug))
    # Once: release and image of a workspace are of one piece, whatever becomes the default now.
    release = _default_release()
    if release is None or release.image is None:
        raise NoImage
    image = release.image
    limits = plan.limits
    spare = lifecycle.claim_spare(image, **limits)
    instance = spare or lifecycle.create(image, **limits)
    workspace = Workspace.objects.create(
        name=name,
        slug=slug,
        plan=plan,
        release=release,
        instance=instance,
        metadata=metadata,
    )
    Member.objects.create(workspace=workspace, user=user, role=Role.OWNER)
    activity.note(workspace, user, "created")
    if spare:
        lifecycle.record_claimed(spare)
    # Volumes are named by the instance: after an older database was restored, only the log says
    # whose one is that it does not know.
    trace.add(workspace=slug, instance=str(instance.pk))
    return workspace


def create_named(user: User, name: str, metadata: Mapping[str, str] | None = None) -> Workspace:
    """As create_workspace, with a free slug that says what the name says. Raises Refused."""
    slug = free_slug(slugs.propose(_checked_name(name)))
    for _ in range(SLUG_TRIES):
        try:
            return create_workspace(user, name, slug, metadata)
        except SlugTaken as taken:  # somebody was faster
            slug = taken.alternative
    return create_workspace(user, name, slug, metadata)


def rename(workspace: Workspace, user: User, name: str) -> None:
    """Give the workspace another name. Its address stays, so that links keep working."""
    update(workspace, user, name=name)


def update(
    workspace: Workspace,
    user: User,
    *,
    name: str | None = None,
    metadata: Mapping[str, str | None] | None = None,
    visibility: Visibility | None = None,
    seen: str | None = None,
) -> None:
    """Change the name, the visibility, or parts of the metadata: None takes a name out of it.

    Raises Refused.

    With `seen`, a `version_of` it, only if it still is as it was then.
    """
    name = None if name is None else _checked_name(name)
    with changing(workspace, user, "rename") as current:
        if seen is not None and seen != version_of(current):
            raise ChangedMeanwhile
        old_name, old_metadata = current.name, current.metadata
        if name is not None:
            current.name = name
        if metadata is not None:
            current.metadata = _merged(old_metadata, metadata)
        current.save(update_fields=["name", "metadata"])
        if current.name != old_name:
            activity.note(current, user, "renamed", f"from “{old_name}” to “{current.name}”")
        if current.metadata != old_metadata:
            activity.note(current, user, "changed_metadata")
        if visibility is not None:
            _set_visibility(current, user, visibility)
    workspace.name, workspace.metadata = current.name, current.metadata
    workspace.visibility = current.visibility


def set_visibility(workspace: Workspace, user: User, visibility: Visibility) -> None:
    """Let everybody read it, or its members only. Raises Refused.

    The router asks again within seconds, so that is how long a door stays open.
    """
    with changing(workspace, user, "change_visibility") as current:
        _set_visibility(current, user, visibility)
    workspace.visibility = visibility


def _set_visibility(current: Workspace, user: User, visibility: Visibility) -> None:
    """Operators may do to a workspace what its owners may, but not show its data to everybody."""
    if current.visibility == visibility:
        return
    demand(current, user, "change_visibility")
    demand_owner(current, user, "Only an owner decides who may read a workspace.")
    current.visibility = visibility
    current.save(update_fields=["visibility"])
    activity.note(current, user, f"made_{visibility}")


def version_of(workspace: Workspace) -> str:
    """Return a text that differs whenever what people can set about a workspace does."""
    settable = [
        str(workspace.pk),
        workspace.name,
        sorted(workspace.metadata.items()),
        workspace.visibility,
        workspace.plan_id,
        workspace.release_id,
        sorted(approval.pk for approval in workspace.plugins.all()),
        str(workspace.deleted_at),
    ]
    return hashlib.sha256(json.dumps(settable).encode()).hexdigest()[:32]


def _merged(old: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return metadata with these changes. Raises Refused."""
    kept = {**old, **changes}
    found = {name: value for name, value in kept.items() if value is not None}
    for name, value in found.items():
        if not METADATA_NAME.fullmatch(name):
            words = "Names in metadata are 1 to 40 letters, digits, and the characters . _ -"
            raise Refused(words, "metadata")
        if len(value) > METADATA_LENGTH or "\0" in value:
            words = (
                f"“{name}” in metadata is longer than {METADATA_LENGTH} characters, or has NULs."
            )
            raise Refused(words, "metadata")
    if len(found) > METADATA_NAMES:
        raise Refused(f"Keep at most {METADATA_NAMES} names in metadata.", "metadata")
    return found


def start(workspace: Workspace, user: User) -> None:
    """Start it, or try again now if it failed."""
    with changing(workspace, user, "start") as current:
        instance = current.instance
        if instance.stop_reason == StopReason.OPERATOR:
            words = "The operators suspended this workspace, so only they can start it."
            raise Refused(words, code="suspended")
        if instance.desired == Desired.RUNNING and instance.status is not Status.FAILED:
            return
        lifecycle.want_running(instance.pk)
        activity.note(current, user, "started")


def wake(workspace: Workspace) -> None:
    """Wake it if it only sleeps, as a request to its address would."""
    with changing(workspace) as current:
        if lifecycle.wake(current.instance.pk):
            return
        if current.instance.stop_reason == StopReason.OPERATOR:
            raise Refused("The operators suspended this workspace.", code="suspended")
        raise Refused("This workspace was stopped, so only a start makes it run again.")


def stop(workspace: Workspace, user: User) -> None:
    """Stop it, so that no request wakes it."""
    with changing(workspace, user, "stop") as current:
        instance = current.instance
        if instance.desired == Desired.STOPPED and instance.stop_reason == StopReason.OWNER:
            return
        lifecycle.want_stopped(instance.pk, StopReason.OWNER)
        activity.note(current, user, "stopped")


def restart(workspace: Workspace, user: User) -> None:
    """Replace its container by a fresh one; the data stays."""
    with changing(workspace, user, "restart") as current:
        hold_to_restarts(current, user)
        lifecycle.restart(current.instance.pk)
        activity.note(current, user, "restarted")


def delete(workspace: Workspace, user: User) -> None:
    """Delete it. Until the grace period is over, `undelete` brings it back."""
    with locked(workspace, user, "delete") as current:
        if current.deleted_at is not None:
            return
        if current.instance.stop_reason == StopReason.OPERATOR and not current.suspended_reason:
            # Suspended before reasons were kept: a deletion forgets the stop, but not this.
            Workspace.objects.filter(pk=current.pk).update(suspended_reason=NO_REASON_KEPT)
        now = timezone.now()
        purge_at = now + timedelta(seconds=settings.DELETE_GRACE_SECONDS)
        lifecycle.want_absent(current.instance.pk, purge_at)
        Workspace.objects.filter(pk=current.pk).update(deleted_at=now)
        notices.deletion(activity.note(current, user, "deleted"), purge_at)


def undelete(workspace: Workspace, user: User) -> None:
    """Bring a deleted workspace back, data and address included, and start it."""
    with transaction.atomic():
        if workspace.members.filter(user=user).exists():  # an operator's own do not matter here
            _hold_to_quota(user, workspace.plan)
        with locked(workspace, user, "undelete") as current:
            if current.deleted_at is None:
                return
            hold_to_restarts(current, user)
            successor = lifecycle.succeed(current.instance.pk)
            Workspace.objects.filter(pk=current.pk).update(deleted_at=None, instance=successor)
            if current.suspended_reason:  # what operators stopped, only they start again
                lifecycle.want_stopped(successor.pk, StopReason.OPERATOR)
            activity.note(current, user, "restored")
            notices.restored(current)


# --- helpers -----------------------------------------------------------------------------------


@contextmanager
def locked(
    workspace: Workspace,
    user: User | None = None,
    ability: str = "see",
    *,
    person: int | None = None,
) -> Iterator[Workspace]:
    """Open a transaction that holds the rows of the workspace and its instance.

    With a `user`, one that still may do this to it, or Refused. With a `person` the row of that
    user too, and first, as whoever looks at somebody's quota does.
    """
    # Not its key: who holds an instance and writes about its workspace, a mail, need not wait.
    rows = Workspace.objects.select_for_update(of=("self", "instance"), no_key=True)
    rows = rows.select_related("instance")
    try:
        with transaction.atomic():
            if person is not None:
                _hold_person(person)
            current = rows.get(pk=workspace.pk)
            if user is not None:
                demand(current, user, ability)
            yield current
    except lifecycle.NotAllowed as error:
        raise Refused(str(error), code=error.code) from error


@contextmanager
def changing(
    workspace: Workspace,
    user: User | None = None,
    ability: str = "see",
    *,
    person: int | None = None,
) -> Iterator[Workspace]:
    """As `locked`, but a workspace that is being deleted takes no changes."""
    with locked(workspace, user, ability, person=person) as current:
        if current.deleted_at is not None:
            raise Refused("This workspace is deleted. Bring it back first.", code="deleted")
        yield current


def demand(workspace: Workspace, user: User, ability: str) -> None:
    """Ask for the role again once the rows are held: since the door asked, it may be gone.

    Not of operators, who do not act by a role. Raises Refused.
    """
    if user.is_staff:
        return
    role = workspace.members.filter(user=user).values_list("role", flat=True).first()
    if role is None:
        raise Refused("You do not belong to this workspace any more.", code="not_found")
    if not access.is_at_least(role, access.NEEDS[ability]):
        words = f"Only the role {access.NEEDS[ability]} may do this; yours is {role}."
        raise Refused(words, code="role_too_low")


def demand_owner(
    workspace: Workspace, user: User, words: str = "Only an owner may do this."
) -> None:
    """Ask for an owner where operators may not either: it is not theirs to give. Raises Refused.

    The caller holds the row.
    """
    if not workspace.members.filter(user=user, role=Role.OWNER).exists():
        raise Refused(words, code="role_too_low")


def _hold_to_quota(user: User, plan: Plan) -> None:
    """Lock the owner's row, so that two requests at once cannot both take the last place."""
    _hold_person(user.pk)
    owned = _owned(user)
    if owned >= plan.max_workspaces:
        raise QuotaReached(
            f"You have {owned} workspaces, as many as your plan allows. "
            "Delete one that you no longer need, or ask the operators for more."
        )


def room_to_own(workspace: Workspace, user: User) -> None:
    """Refuse to make somebody an owner who has as many workspaces as the plan of this one allows.

    Their row is held, as by `locked` with a `person`.
    """
    if _owned(user) >= workspace.plan.max_workspaces:
        raise QuotaReached(
            f"{user.display_name} owns as many workspaces as a person may. First one of those has "
            "to be deleted or handed over, or the operators asked for more."
        )


def _hold_person(pk: int) -> None:
    User.objects.select_for_update(no_key=True).filter(pk=pk).first()


def _owned(user: User) -> int:
    return Instance.objects.filter(
        workspace__members__user=user,
        workspace__members__role=Role.OWNER,
        workspace__deleted_at=None,
    ).count()


def _hold_to_rate(user: User) -> None:
    """Everybody gets so many new workspaces in an hour: each costs all others a little."""
    if user.is_staff:
        return
    lately = timezone.now() - timedelta(hours=1)
    made = Activity.objects.filter(user=user, verb="created", at__gt=lately)
    if made.count() < settings.CREATIONS_PER_HOUR:
        return
    seconds = seconds_until_room(made, "at", timedelta(hours=1))
    words = f"You made {settings.CREATIONS_PER_HOUR} workspaces within an hour, as many as you may."
    raise TooOften(f"{words} Try again later.", "too_many_creations", seconds)


def seconds_until_room(made: QuerySet[Any], field: str, span: timedelta) -> int:
    """Return in how many seconds the oldest of these, by its time in `field`, is older than `span`.

    Then there is room for one more, where they are as many as there may be within that time.
    """
    oldest = made.order_by(field).values_list(field, flat=True).first() or timezone.now()
    return max(1, ceil((oldest + span - timezone.now()).total_seconds()))


def hold_to_restarts(workspace: Workspace, user: User) -> None:
    """So many times in an hour a container is replaced on request: others wait meanwhile."""
    if user.is_staff:
        return
    lately = timezone.now() - timedelta(hours=1)
    made = workspace.activities.filter(verb__in=_RESTARTS, at__gt=lately)
    if made.count() < RESTARTS_PER_HOUR:
        return
    seconds = seconds_until_room(made, "at", timedelta(hours=1))
    words = (
        f"It was restarted, brought back or given a secret {RESTARTS_PER_HOUR} times within an "
        "hour, as often as it may be. Try again later."
    )
    raise TooOften(words, "too_many_requests", seconds)


def _checked_name(name: str) -> str:
    name = " ".join(name.split())
    if not name:
        raise Refused("Give it a name.", "name")
    if len(name) > MAX_NAME:
        raise Refused(f"Use at most {MAX_NAME} characters.", "name")
    return name
