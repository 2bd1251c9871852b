"""Releases: the images that new workspaces start from, and which images are still needed."""

import logging
from datetime import timedelta
from functools import partial

from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import BooleanField, Case, F, Q, QuerySet, When
from django.utils import timezone

from deploy import images, locks
from deploy.builder import Builder
from deploy.images import ImageError
from deploy.models import Image, Instance
from workspaces import sets
from workspaces.models import Change, Release, Workspace
from workspaces.services import Refused

logger = logging.getLogger(__name__)

# An image that was made for somebody just now may not be in use yet.
PRUNE_AFTER = timedelta(hours=1)
# What a build leaves behind, by stage. What is common spares every further build some seconds.
LEFTOVERS_AFTER = {"further": PRUNE_AFTER, "common": timedelta(days=30)}


def build(release: Release, builder: Builder) -> Image:
    """Have the image of a release with what is required, and nothing else. Raises ImageError."""
    lock = _lock_of(release)
    image = images.ensure_image(builder, lock, settings.STATE_DIR, common=release.pins)
    with transaction.atomic():
        current = Release.objects.select_for_update(of=("self",)).get(pk=release.pk)
        if is_current := _lock_of(current) == lock:
            Release.objects.filter(pk=release.pk).update(image=image, error="")
    if not is_current:  # something was withdrawn meanwhile, and nobody new may get it
        return build(current, builder)
    # From here on nobody prunes it; just before, somebody may have.
    return images.ensure_image(builder, lock, settings.STATE_DIR, common=release.pins)


def _lock_of(release: Release) -> str:
    try:
        return sets.lock_of(release, [])
    except locks.Conflict as conflict:
        raise ImageError(f"What is required on {release} does not fit: {conflict}") from conflict


def build_all(builder: Builder, only: int | None = None) -> None:
    """Build each release that is offered; one that fails does not keep the others.

    `only` is the one that an operator asks for, offered or not.
    """
    chosen = Q(offered=True) if only is None else Q(pk=only)
    for release in Release.objects.filter(chosen).order_by("-is_default", "pk"):
        try:
            build(release, builder)
        except ImageError as error:
            logger.exception("%s cannot be built", release)
            Release.objects.filter(pk=release.pk).update(error=str(error))


# --- what operators choose -----------------------------------------------------------------------


def build_later(release: Release | None = None) -> None:
    """Have a worker build one release, or all that are offered."""
    arguments = [release.pk] if release else []
    send = partial(current_app.send_task, "workspaces.tasks.build_releases", arguments)
    transaction.on_commit(send, robust=True)  # without the broker, the operator asks again


def is_ready(release: Release) -> bool:
    """Whether its image is there, tried out."""
    return release.image is not None and release.image.state == Image.State.READY


def make_default(release: Release) -> None:
    """Have new workspaces get this release. Raises Refused while its image is not ready."""
    if not is_ready(release):
        raise Refused(f"The image of {release} is not ready. Build it first.")
    with transaction.atomic():
        Release.objects.filter(is_default=True).update(is_default=False)
        Release.objects.filter(pk=release.pk).update(is_default=True, offered=True)


def offer(release: Release, offered: bool) -> None:
    """Offer a release, or stop that; workspaces that have it keep it. Raises Refused."""
    if release.is_default and not offered:
        raise Refused(f"{release} is what new workspaces get. Make another one the default first.")
    Release.objects.filter(pk=release.pk).update(offered=offered)
    if offered and not is_ready(release):
        build_later(release)


# --- which images are older ---------------------------------------------------------------------

# What this software puts into every image of a release; plugins are each workspace's own.
_OURS = ["files", "base"]


def behind() -> QuerySet[Workspace]:
    """Return live workspaces whose image is older than their release's: from before an upgrade."""
    same = Q(
        **{
            f"instance__image__inputs__{name}": F(f"release__image__inputs__{name}")
            for name in _OURS
        }
    )
    newest = Q(release__image__state=Image.State.READY, release__image__inputs__has_keys=_OURS)
    there = Workspace.objects.filter(newest, deleted_at=None)
    # Not `exclude(same)`: of an image that says nothing of one part, that would be unknown.
    current = Case(When(same, then=True), default=False, output_field=BooleanField())
    return there.alias(current=current).filter(current=False)


# --- which images are needed ---------------------------------------------------------------------


def needed() -> set[int]:
    """Return the images that something uses, or may go back to."""
    used = set(Instance.objects.filter(purged_at=None).values_list("image_id", flat=True))
    used |= set(Release.objects.exclude(image=None).values_list("image_id", flat=True))
    for change in Change.objects.filter(workspace__purged_at=None, state=Change.State.OPEN):
        used |= {change.old_image_id, change.image_id or change.old_image_id}
    newest: dict[object, int] = {}
    done = Change.objects.filter(workspace__purged_at=None, state=Change.State.DONE)
    for workspace, image in done.order_by("id").values_list("workspace_id", "old_image_id"):
        newest[workspace] = image
    return used | set(newest.values())


def prune(builder: Builder) -> list[str]:
    """Remove the images that nobody needs; return their names. They can be built again."""
    before = timezone.now() - PRUNE_AFTER
    # Also those at whose making a worker died. What failed or was pruned is not there.
    kept = Q(state=Image.State.READY, built_at__lt=before) | Q(
        state=Image.State.BUILDING, created_at__lt=before
    )
    removed = []
    for image in Image.objects.filter(kept).exclude(pk__in=needed()):
        if images.remove(builder, image, settings.STATE_DIR, lambda image: image.pk in needed()):
            removed.append(image.reference)
    images.remove_leftovers(builder, settings.STATE_DIR, LEFTOVERS_AFTER)
    return removed
