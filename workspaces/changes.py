"""Change a workspace's set of plugins: build what is wanted, and switch over only when it works.

    request()  what an owner (or an operator) asks for; checks who may have what
    run()      in a worker: resolve, fetch, build, check, switch over; each step is in the row

Whatever fails before the switch leaves the instance untouched. A new container that does not come
up is replaced by the old image again. A worker that dies is followed by another one, which begins
anew: every step finds what is there already.
"""

import fcntl
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import IntegrityError, InterfaceError, OperationalError, transaction
from django.db.models import Q
from django.utils import timezone

from accounts.models import User
from deploy import images, lifecycle, locks, logs, notify, vault
from deploy.builder import Builder
from deploy.engines.base import EngineError
from deploy.images import BuildStep, ImageError
from deploy.models import Image, Instance
from deploy.states import Desired
from workspaces import activity, services, sets
from workspaces.models import Approval, Change, Plugin, Release, Rollout, Step, Workspace
from workspaces.services import Refused, TooOften

logger = logging.getLogger(__name__)

MAX_SECRETS = 50
# After which it is worth to ask again when an hour's changes are used up.
CHANGES_RETRY_SECONDS = 600
# A container of the new image that failed so often does not work; once may have been a hiccup.
SWITCH_ATTEMPTS = 2


class ChangeFailed(Exception):
    """A change cannot be made. The text names the cause, for all members.

    `detail` is what a program said of it, for those who may read logs.
    """

    def __init__(self, words: str, detail: str = "") -> None:
        super().__init__(words)
        self.detail = detail


# --- asking --------------------------------------------------------------------------------------


def request(
    workspace: Workspace,
    by: User | None,
    names: Iterable[str],
    *,
    secrets: Mapping[str, str] | None = None,
    release: Release | None = None,
    rollout: Rollout | None = None,
    seen: str | None = None,
) -> Change:
    """Ask for just these plugins, by name; a worker does it. Raises Refused.

    `secrets` are the values that the plugins need and the workspace has not got yet. With `seen`, a
    services.version_of it, only if the workspace still is as it was then.
    """
    release = release or workspace.release
    names = set(names)
    wanted = [a for a in sets.available(workspace, release) if a.plugin.name in names]
    if unknown := sorted(names - sets.names_of(wanted)):
        raise Refused(f"This workspace may not use {', '.join(unknown)}.")
    return _ask(workspace, by, release, wanted, secrets or {}, rollout, seen)


def _ask(  # noqa: PLR0917 - each is another thing
    workspace: Workspace,
    by: User | None,
    release: Release,
    wanted: list[Approval],
    secrets: Mapping[str, str],
    rollout: Rollout | None = None,
    seen: str | None = None,
) -> Change:
    _refuse_conflicts(release, wanted)
    given = sealed(secrets)
    if missing := sets.missing_secrets(workspace, wanted, given):
        raise Refused(f"Still needed: {', '.join(missing)}.")
    try:
        with transaction.atomic():
            return _open(workspace, by, release, wanted, given, rollout, seen)
    except IntegrityError as error:
        if "one_open_change" not in str(error):
            raise
    words = "Another change is under way. Wait until it is done, then try again."
    raise Refused(words, code="change_under_way")


def _refuse_conflicts(release: Release, wanted: Iterable[Approval]) -> None:
    try:
        sets.lock_of(release, wanted)
    except locks.Conflict as conflict:
        raise Refused(str(conflict)) from conflict


def _open(  # noqa: PLR0917 - each is another thing
    workspace: Workspace,
    by: User | None,
    release: Release,
    wanted: list[Approval],
    given: dict[str, str],
    rollout: Rollout | None,
    seen: str | None,
) -> Change:
    current = _locked(workspace.pk, wanted)
    if seen is not None and seen != services.version_of(current):
        raise services.ChangedMeanwhile
    if release.pk != current.release_id and release.pk == workspace.release_id:
        raise Refused("Another release was switched to just now. Look again, then try again.")
    if current.deleted_at is not None:
        raise Refused("This workspace is deleted. Bring it back first.", code="deleted")
    if rollout is None and not (by and by.is_staff) and _asked_often(current):
        words = (
            f"This workspace has asked for {settings.CHANGES_PER_HOUR} changes in an hour, as many "
            "as it may. Choose all that you want at once, and try again later."
        )
        raise TooOften(words, "too_many_changes", CHANGES_RETRY_SECONDS)
    change = Change.objects.create(
        workspace=current,
        by=by,
        release=release,
        rollout=rollout,
        secrets=given,
        old_release=current.release,
        old_image_id=current.instance.image_id,
    )
    change.wanted.set(wanted)
    change.old_plugins.set(current.plugins.all())
    _tell(change)
    transaction.on_commit(partial(send, change.pk))
    return change


def _asked_often(workspace: Workspace) -> bool:
    """Whether a workspace had its share of the builds, which all workspaces take turns at."""
    lately = timezone.now() - timedelta(hours=1)
    mine = workspace.changes.filter(at__gte=lately, rollout=None)
    return mine.count() >= settings.CHANGES_PER_HOUR


def _locked(workspace_id: Any, wanted: Iterable[Approval]) -> Workspace:
    """Hold what is wanted and what is on, then a workspace and its instance, as they are now.

    In the order of a withdrawal, which holds an approval and then changes workspaces.
    """
    either = Q(pk__in=[approval.pk for approval in wanted]) | Q(workspaces=workspace_id)
    keys = set(Approval.objects.filter(either).values_list("pk", flat=True))
    list(Approval.objects.select_for_update(no_key=True).filter(pk__in=keys).order_by("pk"))
    rows = Workspace.objects.select_for_update(of=("self", "instance"))
    return rows.select_related("instance", "plan", "release").get(pk=workspace_id)


def send(pk: int) -> None:
    """Wake the worker up for a change. Losing the call loses nothing: the beat looks for more."""
    with suppress(Exception):  # whatever the broker's client raises
        current_app.send_task("workspaces.tasks.run_change", [pk], queue="later")


def roll_back(workspace: Workspace, by: User | None) -> Change:
    """Ask for the set that was there before the last change that was made. Raises Refused.

    The very versions: also those that a newer approval has replaced since.
    """
    last = last_done(workspace)
    if last is None:
        raise Refused("There is nothing to go back to.")
    old = list(last.old_plugins.select_related("plugin"))
    if words := _not_allowed(workspace, last.old_release, old):
        raise Refused(words)
    return _ask(workspace, by, last.old_release, old, {})


def without_plugin(workspace: Workspace, by: User | None, plugin: Plugin) -> Change:
    """Ask for what a workspace has but one plugin. Raises Refused.

    As with every change, what it may not use any more goes too.
    """
    running = sets.names_of(workspace.plugins.select_related("plugin"))
    may_stay = sets.names_of(sets.available(workspace))
    return request(workspace, by, (running & may_stay) - {plugin.name})


def undelete(workspace: Workspace, by: User) -> None:
    """Bring a deleted workspace back, and ask for a change where something was withdrawn meanwhile.

    Whoever withdrew it asked nothing of workspaces that were deleted. Raises Refused.
    """
    services.undelete(workspace, by)
    current = Workspace.objects.select_related("instance", "plan", "release").get(pk=workspace.pk)
    withdrawn = current.plugins.filter(state=Approval.State.WITHDRAWN)
    if workspace.deleted_at is None or not withdrawn.exists():
        return
    running = sets.names_of(current.plugins.select_related("plugin"))
    try:
        request(current, by, running & sets.names_of(sets.available(current)))
    except Refused as refusal:  # it is back all the same, and its page says what leaves
        logger.warning("%s keeps what was withdrawn: %s", current, refusal)


def to_release(
    workspace: Workspace, by: User | None, release: Release, rollout: Rollout | None = None
) -> Change:
    """Ask for the plugins that a workspace has, by name, on another release. Raises Refused."""
    if workspace.release_id == release.pk:
        raise Refused(f"It is on {release} already.")
    running = sets.names_of(workspace.plugins.select_related("plugin"))
    names = running - sets.names_of(sets.required(release).select_related("plugin"))
    if lacking := sorted(names - sets.names_of(sets.available(workspace, release))):
        raise Refused(f"On {release} it may not use {', '.join(lacking)}.")
    return request(workspace, by, names, release=release, rollout=rollout)


def last_done(workspace: Workspace) -> Change | None:
    """Return the last change that was made, if there is one to go back from."""
    return workspace.changes.filter(state=Change.State.DONE).first()


def _not_allowed(workspace: Workspace, release: Release, wanted: Iterable[Approval]) -> str:
    """Return which of these a workspace may not have (any more), in words; nothing if all."""
    last = last_done(workspace)
    before = last.old_plugins.values_list("pk", flat=True) if last else ()
    allowed = {
        *sets.available(workspace, release).values_list("pk", flat=True),
        *sets.returnable(workspace, release, before).values_list("pk", flat=True),
    }
    refused = [approval.plugin.name for approval in wanted if approval.pk not in allowed]
    return f"This workspace may not use {', '.join(sorted(refused))} any more." if refused else ""


def open_change(workspace: Workspace) -> Change | None:
    """Return the change that is under way."""
    return workspace.changes.filter(state=Change.State.OPEN).first()


# --- secrets -------------------------------------------------------------------------------------


def sealed(values: Mapping[str, str]) -> dict[str, str]:
    """Return secrets as they are kept; an empty value says nothing.

    Raises Refused for a name or a value that no container may get.
    """
    for name, value in values.items():
        if words := vault.problem(name, value):
            raise Refused(words, code="invalid")
    return {name: vault.seal(value) for name, value in values.items() if value}


def remove_secret(workspace: Workspace, by: User, name: str) -> None:
    """Forget a secret; what runs has it until its next start. Raises Refused."""
    with services.changing(workspace) as current:
        if name not in current.instance.secrets:
            raise Refused(f"There is no secret {name[:70]!r}.", code="not_found")
        kept = {k: v for k, v in current.instance.secrets.items() if k != name}
        lifecycle.set_secrets(current.instance.pk, kept)
        activity.note(current, by, "removed_secret", name)


def set_secret(workspace: Workspace, by: User, name: str, value: str) -> None:
    """Keep a secret, or another value of it. What runs is replaced, so that it gets it at once.

    Raises Refused.
    """
    given = sealed({name: value})
    if not given:
        raise Refused("Give it a value; to forget it, remove it.", "value")
    with services.changing(workspace) as current:
        secrets = current.instance.secrets | given
        if len(secrets) > MAX_SECRETS:
            raise Refused(f"A workspace keeps at most {MAX_SECRETS} secrets.")
        lifecycle.change_spec(current.instance.pk, "set_secret", secrets=secrets)
        activity.note(current, by, "set_secret", name)


def reseal_secrets() -> int:
    """Encrypt all secrets with the first key; return how many instances have any.

    Those of changes that are under way too. All or none: raises vault.Unreadable.
    """
    with transaction.atomic():
        done = lifecycle.reseal_secrets()
        for change in Change.objects.select_for_update().filter(state=Change.State.OPEN):
            change.secrets = vault.reseal(change.secrets)
            change.old_secrets = vault.reseal(change.old_secrets)
            change.save(update_fields=["secrets", "old_secrets"])
    return done


def _put_in(change: Change) -> None:
    """Put a change's secrets into its instance; both rows' are read anew: keys are rotated."""
    change.refresh_from_db(fields=["secrets"])
    had = change.workspace.instance.secrets
    change.old_secrets = {name: had[name] for name in change.secrets if name in had}
    _save(change, "old_secrets")
    lifecycle.set_secrets(change.workspace.instance_id, had | change.secrets)


def _take_out(change: Change) -> None:
    """Put back what there was before; what was forgotten meanwhile stays forgotten."""
    change.refresh_from_db(fields=["secrets", "old_secrets"])
    has = change.workspace.instance.secrets
    kept = {name: value for name, value in has.items() if name not in change.secrets}
    back = {name: value for name, value in change.old_secrets.items() if name in has}
    lifecycle.set_secrets(change.workspace.instance_id, kept | back)


# --- doing, in a worker --------------------------------------------------------------------------


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
        except ChangeFailed as error:
            _finish(change, Change.State.FAILED, str(error), error.detail)
        except lifecycle.NotAllowed as error:
            _finish(change, Change.State.FAILED, str(error))


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
    except (ChangeFailed, OperationalError, InterfaceError):  # the database is away: later, then
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

    def ensure() -> Image:
        return images.ensure_image(
            builder,
            lock,
            settings.STATE_DIR,
            on_step=lambda step: clock.begin(steps[step]),
            common=change.release.pins,
        )

    try:
        image = ensure()
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
    if words := _not_allowed(change.workspace, change.release, wanted):
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
        workspace = change.workspace = _locked(change.workspace_id, wanted)
        if workspace.deleted_at is not None:
            raise ChangeFailed("The workspace was deleted meanwhile.")
        # Once more, for building takes a while: what was taken back meanwhile does not go in.
        if words := _not_allowed(workspace, change.release, wanted):
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
        change.workspace = _locked(change.workspace_id, change.wanted.all())
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
        _tell(change)


def _tell(change: Change) -> None:
    notify.send(change.workspace.instance_id, step=True)


def _finish(change: Change, state: Change.State, error: str = "", detail: str = "") -> None:
    change.state = state
    change.error, change.detail = logs.storable(error), logs.storable(detail)
    change.finished_at = timezone.now()
    change.secrets, change.old_secrets = {}, {}
    _save(change, "state", "error", "detail", "finished_at", "secrets", "old_secrets")


def _note(change: Change) -> None:
    before = sets.names_of(change.old_plugins.select_related("plugin"))
    after = sets.names_of(change.wanted.select_related("plugin"))
    told = [f"+{name}" for name in sorted(after - before)]
    told += [f"-{name}" for name in sorted(before - after)]
    if change.release_id != change.old_release_id:
        told.append(str(change.release))
    activity.note(change.workspace, change.by, "changed_plugins", ", ".join(told))
