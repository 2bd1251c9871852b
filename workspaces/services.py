"""What can be done with a workspace. Web pages and the REST API call these and nothing else.

Each is one transaction that writes its Activity. They do not ask who may do it: that is
workspaces.access. What cannot be done raises Refused, in words for the person who tried.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.models import User
from deploy import lifecycle, spares
from deploy.models import Image, Instance
from deploy.spares import Stock
from deploy.states import Desired, Status, StopReason
from workspaces import activity, slugs
from workspaces.models import Member, Plan, Release, Role, Workspace

MAX_NAME = 80


class Refused(Exception):
    """It cannot be done, and the text says why. `field` names the input that is at fault."""

    def __init__(self, words: str, field: str | None = None) -> None:
        super().__init__(words)
        self.field = field


class SlugTaken(Refused):
    """Somebody else has this slug. `alternative` is one that is free."""

    def __init__(self, slug: str, alternative: str) -> None:
        super().__init__(f"“{slug}” is taken. “{alternative}” is free.", "slug")
        self.alternative = alternative


class QuotaReached(Refused):
    """The owner has as many workspaces as the plan allows."""


class NoImage(Refused):
    """Nothing can be created right now; it will be possible later by itself."""

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


# --- what owners do ----------------------------------------------------------------------------


def create_workspace(user: User, name: str, slug: str) -> Workspace:
    """Make a workspace that `user` owns; its instance starts once the transaction is in.

    Raises SlugTaken, QuotaReached, NoImage, or Refused for a bad name or slug.
    """
    name = _checked_name(name)
    if words := slugs.problem(slug):
        raise Refused(words, "slug")
    try:
        with transaction.atomic():
            return _create(user, name, slug)
    except IntegrityError as error:
        if "one_workspace_per_slug" not in str(error):
            raise
    raise SlugTaken(slug, free_slug(slug))


def _create(user: User, name: str, slug: str) -> Workspace:
    plan = default_plan()
    _hold_to_quota(user, plan)
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
    )
    Member.objects.create(workspace=workspace, user=user, role=Role.OWNER)
    activity.note(workspace, user, "created")
    if spare:
        lifecycle.record_claimed(spare)
    return workspace


def rename(workspace: Workspace, user: User, name: str) -> None:
    """Give the workspace another name. Its address stays, so that links keep working."""
    name = _checked_name(name)
    with changing(workspace) as current:
        if current.name == name:
            return
        Workspace.objects.filter(pk=current.pk).update(name=name)
        activity.note(current, user, "renamed", f"from “{current.name}” to “{name}”")
    workspace.name = name


def start(workspace: Workspace, user: User) -> None:
    """Start it, or try again now if it failed."""
    with changing(workspace) as current:
        instance = current.instance
        if instance.stop_reason == StopReason.OPERATOR:
            raise Refused("The operators suspended this workspace, so only they can start it.")
        if instance.desired == Desired.RUNNING and instance.status is not Status.FAILED:
            return
        lifecycle.want_running(instance.pk)
        activity.note(current, user, "started")


def stop(workspace: Workspace, user: User) -> None:
    """Stop it, so that no request wakes it."""
    with changing(workspace) as current:
        instance = current.instance
        if instance.desired == Desired.STOPPED and instance.stop_reason == StopReason.OWNER:
            return
        lifecycle.want_stopped(instance.pk, StopReason.OWNER)
        activity.note(current, user, "stopped")


def restart(workspace: Workspace, user: User) -> None:
    """Replace its container by a fresh one; the data stays."""
    with changing(workspace) as current:
        lifecycle.restart(current.instance.pk)
        activity.note(current, user, "restarted")


def delete(workspace: Workspace, user: User) -> None:
    """Delete it. Until the grace period is over, `undelete` brings it back."""
    with _locked(workspace) as current:
        if current.deleted_at is not None:
            return
        now = timezone.now()
        purge_at = now + timedelta(seconds=settings.DELETE_GRACE_SECONDS)
        lifecycle.want_absent(current.instance.pk, purge_at)
        Workspace.objects.filter(pk=current.pk).update(deleted_at=now)
        activity.note(current, user, "deleted")


def undelete(workspace: Workspace, user: User) -> None:
    """Bring a deleted workspace back, data and address included, and start it."""
    with transaction.atomic():
        _hold_to_quota(user, workspace.plan)
        with _locked(workspace) as current:
            if current.deleted_at is None:
                return
            successor = lifecycle.succeed(current.instance.pk)
            Workspace.objects.filter(pk=current.pk).update(deleted_at=None, instance=successor)
            activity.note(current, user, "restored")


# --- helpers -----------------------------------------------------------------------------------


@contextmanager
def _locked(workspace: Workspace) -> Iterator[Workspace]:
    """Open a transaction that holds the rows of the workspace and its instance."""
    rows = Workspace.objects.select_for_update(of=("self", "instance")).select_related("instance")
    try:
        with transaction.atomic():
            yield rows.get(pk=workspace.pk)
    except lifecycle.NotAllowed as error:
        raise Refused(str(error)) from error


@contextmanager
def changing(workspace: Workspace) -> Iterator[Workspace]:
    """As `_locked`, but a workspace that is being deleted takes no changes."""
    with _locked(workspace) as current:
        if current.deleted_at is not None:
            raise Refused("This workspace is deleted. Bring it back first.")
        yield current


def _hold_to_quota(user: User, plan: Plan) -> None:
    """Lock the owner's row, so that two requests at once cannot both take the last place."""
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    owned = Instance.objects.filter(
        workspace__members__user=user,
        workspace__members__role=Role.OWNER,
        workspace__deleted_at=None,
    ).count()
    if owned >= plan.max_workspaces:
        raise QuotaReached(
            f"You have {owned} workspaces, as many as your plan allows. "
            "Delete one that you no longer need, or ask the operators for more."
        )


def _checked_name(name: str) -> str:
    name = " ".join(name.split())
    if not name:
        raise Refused("Give it a name.", "name")
    if len(name) > MAX_NAME:
        raise Refused(f"Use at most {MAX_NAME} characters.", "name")
    return name
