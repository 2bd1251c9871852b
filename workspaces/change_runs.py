"""Make a change that was asked for, in a worker: build what is wanted, and switch over only when
it works.

    run()  resolve, fetch, build, check, switch over; each step is in the row

Whatever fails before the switch leaves the instance untouched. A new container that does not come
up is replaced by the old image again. A worker that dies is followed by another one, which begins
anew: every step finds what is there already.
"""

import fcntl
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from deploy import images, lifecycle, locks, logs, notify, vault
from deploy.builder import Builder
from deploy.engines.base import EngineError
from deploy.images import BuildStep, ImageError
from deploy.models import Image, Instance
from deploy.states import Desired
from workspaces import activity, sets
from workspaces.changes import difference, locked, not_allowed, tell
from workspaces.models import Approval, Change, Release, Step, Workspace

logger = logging.getLogger(__name__)

# A container of the new image that failed so often does not work; once may have been a hiccup.
SWITCH_ATTEMPTS = 2


class GivenUp(Exception):
    """Operators ended the change meanwhile: write nothing."""


class ChangeFailed(Exception):
    """A change cannot be made. The text names the cause, for all members.

    `detail` is what a program said of it, for those who may read logs.
    """

    def __init__(self, words: str, detail: str = "") -> None:
        super().__init__(words)
        self.detail = detail


def run(pk: int, builder: Builder) -> None:
    """Make a change, from wherever it is to its end. Does nothing where another worker is at it."""
    with _only_one(pk) as mine:
        change = _load(pk) if mine else None
        if change is None:
            return
        try:
            if change.step != Step.SWITCH:
                _begin_switch(change, _built(change, builder))
            _see_through(change)
        except GivenUp:
            logger.warning("%s was given up in mid-step", change)
        except ChangeFailed as error:
            _fail(change, str(error), error.detail)
        except lifecycle.NotAllowed as error:
            _fail(change, str(error))


def give_up(pk: int, words: str) -> None:
    """End a change whose worker hangs, from outside; what runs is as before. Raises NotAllowed.

    Whoever is at it writes nothing any more. Needs no engine: what was switched goes back as ever.
    """
    change = _load(pk)
    if change is None:
        raise lifecycle.NotAllowed("This change is over.")
    watched = change.workspace.instance_id
    with transaction.atomic():
        change.workspace = locked(change.workspace_id, change.wanted.all())
        _refuse_given_up(change)
        if Change.objects.filter(pk=pk, step=Step.SWITCH).exists():
            if not _conclude(change, _Clock(change), watched, Trouble(words)):
                raise lifecycle.NotAllowed("It was brought back just now. Look again.")
        else:
            _finish(change, Change.State.FAILED, words)


def _fail(change: Change, error: str, detail: str = "") -> None:
    with transaction.atomic():
        locked(change.workspace_id, ())
        if _is_open(change):
            _finish(change, Change.State.FAILED, error, detail)


def _is_open(change: Change) -> bool:
    """Whether nobody ended it. Only with its workspace held is that so for longer than now."""
    return Change.objects.filter(pk=change.pk, state=Change.State.OPEN).exists()


def _refuse_given_up(change: Change) -> None:
    if not _is_open(change):
        raise GivenUp


@contextmanager
def _only_one(pk: int) -> Iterator[bool]:
    """One worker at a time; the lock goes with the process that holds it, however that ends."""
    directory = Path(settings.STATE_DIR) / "changes"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{pk}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _load(pk: int) -> Change | None:
    related = ("workspace__instance", "workspace__plan", "release", "old_release", "old_image")
    return Change.objects.filter(pk=pk, state=Change.State.OPEN).select_related(*related).first()


def _built(change: Change, builder: Builder) -> Image:
    """Return the image that is wanted, built and tried out. Raises ChangeFailed."""
    try:
        return _build(change, builder)
    except (ChangeFailed, GivenUp):
        raise
    except (OperationalError, InterfaceError):  # the database is away: later, then
        raise
    except Exception as error:  # or else it would be tried again for ever
        logger.exception("%s cannot be built", change)
        raise ChangeFailed(
            "The image could not be made, for a reason on our side that the operators find in "
            "their log. What runs is as it was."
        ) from error


def _build(change: Change, builder: Builder) -> Image:
    with _step(change, Step.RESOLVE):
        lock = _resolved(change)
    steps = {
        BuildStep.FETCH: Step.FETCH,
        BuildStep.BUILD: Step.BUILD,
        BuildStep.CHECK: Step.CHECK,
    }
    clock = _Clock(change)

    def ensure(*, anew: bool = False) -> Image:
        return images.ensure_image(
            builder,
            lock,
            settings.STATE_DIR,
            on_step=lambda step: clock.begin(steps[step]),
            common=change.release.pins,
            anew=anew,
        )

    try:
        image = ensure(anew=change.anew)
        Change.objects.filter(pk=change.pk).update(image=image)
        # From here on nobody prunes it; just before, somebody may have.
        change.image = ensure()
    except ImageError as error:
        raise _told_apart(error) from error
    clock.end()
    return image


def _told_apart(error: ImageError) -> ChangeFailed:
    """Tell our words, which come first, from what pip, an image or the engine said."""
    if isinstance(error.__cause__, EngineError):
        return ChangeFailed("The container engine did not make the image.", str(error))
    words, _, detail = str(error).partition("\n")
    return ChangeFailed(f"{words.removesuffix(':')}." if words.endswith(":") else words, detail)


def _resolved(change: Change) -> str:
    """Return the lock of the set; asks once more who may have what, for a grant may be gone."""
    wanted = list(change.wanted.select_related("plugin"))
    if words := not_allowed(change.workspace, change.release, wanted):
        raise ChangeFailed(words)
    try:
        # Not only when the new container is made: then the old one would be gone.
        vault.open_all(change.workspace.instance.secrets | change.secrets)
        return sets.lock_of(change.release, wanted)
    except (locks.Conflict, vault.Unreadable) as error:
        raise ChangeFailed(str(error)) from error


def _begin_switch(change: Change, image: Image) -> None:
    """Have the instance run the new image. In one piece: whoever finds this step finds it done."""
    wanted = list(change.wanted.select_related("plugin"))
    with transaction.atomic():
        workspace = change.workspace = locked(change.workspace_id, wanted)
        _refuse_given_up(change)
        if workspace.deleted_at is not None:
            raise ChangeFailed("The workspace was deleted meanwhile.")
        # Once more, for building takes a while: what was taken back meanwhile does not go in.
        if words := not_allowed(workspace, change.release, wanted):
            raise ChangeFailed(words)
        _Clock(change).begin(Step.SWITCH)
        _put_in(change)
        _have_run(change, "change_plugins", image, change.release, wanted)
        # One that sleeps is tried out too, and not by whoever wakes it.
        lifecycle.wake(workspace.instance_id)


def _have_run(
    change: Change, kind: str, image: Image, release: Release, plugins: Iterable[Approval]
) -> None:
    spec = sets.spec_of(change.workspace, release, plugins)
    lifecycle.change_spec(
        change.workspace.instance_id,
        kind,
        image=image,
        internet=spec.internet,
        plugin_settings=spec.plugin_settings,
    )


def _see_through(change: Change) -> None:
    """Wait for what comes of the switch: done, or back to the old image."""
    clock = _Clock(change)
    clock.begin(Step.SWITCH)
    over = False
    while not over:
        watched = change.workspace.instance_id
        over = _conclude(change, clock, watched, _trouble(watched))


def _conclude(change: Change, clock: "_Clock", watched: Any, trouble: "Trouble | None") -> bool:
    """Write down how it ended. Return whether it did: not where another instance runs by now.

    What was deleted meanwhile, no container has tried out: it is brought back with the old set.
    """
    with transaction.atomic():
        change.workspace = locked(change.workspace_id, change.wanted.all())
        _refuse_given_up(change)
        deleted = change.workspace.deleted_at is not None
        if not deleted and change.workspace.instance_id != watched:
            return False
        if trouble or deleted:
            _take_out(change)
            old = change.old_plugins.select_related("plugin")
            _have_run(change, "roll_back", change.old_image, change.old_release, old)
            if deleted or trouble is None:
                _finish(change, Change.State.FAILED, "The workspace was deleted meanwhile.")
            else:
                _finish(change, Change.State.ROLLED_BACK, trouble.words, trouble.said)
            return True
        clock.end()
        change.workspace.plugins.set(change.wanted.all())
        Workspace.objects.filter(pk=change.workspace_id).update(release=change.release)
        _note(change)
        _finish(change, Change.State.DONE)
    return True


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a new container, and what it said of it itself."""

    words: str
    said: str = ""


def _trouble(instance_id: Any) -> Trouble | None:
    """Wait until the instance runs as it should; return what is wrong with it, if anything is.

    One that is not meant to run gets the new image at its next start.
    """

    def settled() -> Instance | None:
        instance = Instance.objects.get(pk=instance_id)
        over = instance.desired != Desired.RUNNING or instance.attempts >= SWITCH_ATTEMPTS
        return instance if over or _is_up(instance) or _hangs(instance) else None

    seconds = settings.START_TIMEOUT_SECONDS + settings.STOP_TIMEOUT_SECONDS + 10
    notify.wait_until(instance_id, settled, seconds)
    instance = Instance.objects.get(pk=instance_id)
    if instance.desired != Desired.RUNNING or _is_up(instance):
        return None
    what = instance.last_error or (
        f"It started, but did not answer within {settings.SWITCH_SECONDS:.0f} s."
        if _hangs(instance)
        else "It was not up in time."
    )
    words = f"The new set did not come up, so that the old one is back. {what}"
    return Trouble(words, logs.last_words(instance))


def _is_up(instance: Instance) -> bool:
    return instance.ready and instance.observed_generation == instance.generation


def _hangs(instance: Instance) -> bool:
    """Whether it started too long ago for those who wait for an answer meanwhile."""
    if instance.observed_generation != instance.generation or instance.started_at is None:
        return False
    return (timezone.now() - instance.started_at).total_seconds() > settings.SWITCH_SECONDS


# --- secrets -------------------------------------------------------------------------------------


def _put_in(change: Change) -> None:
    """Put a change's secrets into its instance; both rows' are read anew: keys are rotated."""
    change.refresh_from_db(fields=["secrets"])
    had = change.workspace.instance.secrets
    change.old_secrets = {name: had[name] for name in change.secrets if name in had}
    _save(change, "old_secrets")
    lifecycle.set_secrets(change.workspace.instance_id, had | change.secrets)


def _take_out(change: Change) -> None:
    """Put back what there was before, where nobody forgot or replaced the change's value since."""
    change.refresh_from_db(fields=["secrets", "old_secrets"])
    has = change.workspace.instance.secrets
    given = {n for n, value in change.secrets.items() if vault.is_same(value, has.get(n, ""))}
    kept = {name: value for name, value in has.items() if name not in given}
    back = {name: value for name, value in change.old_secrets.items() if name in given}
    lifecycle.set_secrets(change.workspace.instance_id, kept | back)


# --- what people watch ---------------------------------------------------------------------------


class _Clock:
    """Writes down which step is under way and how long those before it took."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._step: Step | None = None
        self._began = 0.0

    def begin(self, step: Step) -> None:
        self.end()
        self._step, self._began = step, time.monotonic()
        self._change.step = step
        _save(self._change, "step")

    def end(self) -> None:
        if self._step is not None:
            taken = round((time.monotonic() - self._began) * 1000)
            self._change.durations[self._step.value] = taken
            _save(self._change, "durations")
            self._step = None


@contextmanager
def _step(change: Change, step: Step) -> Iterator[None]:
    clock = _Clock(change)
    clock.begin(step)
    yield
    clock.end()


def _save(change: Change, *fields: str) -> None:
    with transaction.atomic():
        change.save(update_fields=fields)
        tell(change)


def _finish(change: Change, state: Change.State, error: str = "", detail: str = "") -> None:
    change.state = state
    change.error, change.detail = logs.storable(error), logs.storable(detail)
    change.finished_at = timezone.now()
    change.secrets, change.old_secrets = {}, {}
    _save(change, "state", "error", "detail", "finished_at", "secrets", "old_secrets")


def _note(change: Change) -> None:
    told = difference(change)
    if not told and change.image_id != change.old_image_id:
        told.append("a newer image")
    activity.note(change.workspace, change.by, "changed_plugins", ", ".join(told))
