"""What an instance is doing right now, as steps for people to watch: from its recorded events."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import OuterRef, Subquery

from deploy import notify
from deploy.models import Instance, InstanceEvent
from deploy.plan import Action
from deploy.states import Desired, Observed

# How long a request for news may be held, and how many at once in one process: the other threads
# must stay free for pages. Beyond that the browser asks again after a second instead.
HOLD_SECONDS = 20.0
MAX_HELD = 6

_held = threading.BoundedSemaphore(MAX_HELD)

# Events with which a new piece of work begins.
_STARTS = (
    "create_requested",
    "want_running",
    "wake",
    "restart",
    "change_spec",
    "set_secret",
    "lost",
)
_CHANGES = ("change_plugins", "roll_back")
_STOPS = ("stop_owner", "stop_idle", "stop_operator", "sleep")
_BEGINNINGS = frozenset((*_STARTS, *_CHANGES, *_STOPS))

_NAMES: Mapping[str, str] = {
    "prepare": "Prepare",
    Action.STOP: "Stop the old container",
    Action.REMOVE: "Remove it",
    Action.CREATE: "Create the container",
    Action.START: "Start it",
    Action.UNPAUSE: "Wake it from its pause",
    Action.AWAIT_READY: "Wait for its first answer",
}


@dataclass(frozen=True)
class Step:
    """One step: `state` is done, now, failed or todo; `ms` how long it took, once done."""

    name: str
    state: str
    ms: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Progress:
    """The steps of the present piece of work. `done` of `total` are finished."""

    title: str
    steps: Sequence[Step]

    @property
    def total(self) -> int:
        """How many steps there are."""
        return len(self.steps)

    @property
    def done(self) -> int:
        """How many of them are finished."""
        return sum(step.state == "done" for step in self.steps)

    @property
    def now(self) -> str:
        """What is being done, or was tried last."""
        return next((step.name for step in self.steps if step.state in ("now", "failed")), "")


def is_busy(instance: Instance) -> bool:
    """Whether the instance is about to change by itself, so that a page should keep looking."""
    replacing = (
        instance.desired == Desired.RUNNING
        and instance.observed != Observed.ABSENT
        and instance.observed_generation not in (None, instance.generation)
    )
    return instance.is_moving or replacing


def mark_of(instance: Instance) -> str:
    """Return a short text that differs whenever a page about the instance would."""
    last_event = InstanceEvent.objects.filter(instance=OuterRef("pk")).order_by("-id").values("id")
    row = (
        Instance.objects.filter(pk=instance.pk)
        .values_list("revision", Subquery(last_event[:1]), "observed", "ready")
        .first()
    )
    return "-".join(str(part) for part in (instance.pk.hex[:8], *(row or ())))


@contextmanager
def a_hold() -> Iterator[bool]:
    """Take one of the places of those who wait for news; False when all are taken."""
    taken = _held.acquire(blocking=False)
    try:
        yield taken
    finally:
        if taken:
            _held.release()


def wait_for_news(instance: Instance, seen: str) -> str:
    """Return the mark once it is not `seen` any more, or as it is after HOLD_SECONDS.

    Returns at once when the instance is settled or too many wait in this process already.
    """
    now = mark_of(instance)
    if now != seen or not is_busy(instance):
        return now
    with a_hold() as may_wait:
        if not may_wait:
            return now

        def news() -> str | None:
            mark = mark_of(instance)
            return mark if mark != seen else None

        return notify.wait_until(instance.pk, news, HOLD_SECONDS) or now


# --- the steps -----------------------------------------------------------------------------------


def progress_of(instance: Instance) -> Progress | None:
    """Return what is under way, or None when the instance is settled."""
    if not is_busy(instance):
        return None
    events = list(instance.events.order_by("-id")[:60])
    recent = list(_since_beginning(events))
    if instance.desired == Desired.STOPPED:
        return Progress("Stopping", [Step("Let it finish and write its data", "now")])
    actions = _actions(instance, recent)
    replacing = Action.REMOVE in actions
    title = (
        "Restarting" if replacing else "Starting" if Action.CREATE not in actions else "Creating"
    )
    return Progress(title, _steps(instance, recent, actions))


def _since_beginning(newest_first: Iterable[InstanceEvent]) -> Iterator[InstanceEvent]:
    """Yield the events of the present piece of work, oldest first."""
    recent = []
    for event in newest_first:
        recent.append(event)
        if event.kind in _BEGINNINGS:
            break
    yield from reversed(recent)


def _actions(instance: Instance, recent: Sequence[InstanceEvent]) -> list[Action]:
    """Return the actions from the beginning of the present work to readiness, in order."""
    done = {event.kind for event in recent}
    actions = [Action.CREATE, Action.START, Action.AWAIT_READY]
    stale = instance.observed_generation not in (None, instance.generation)
    up = instance.observed in (Observed.RUNNING, Observed.PAUSED)
    if Action.REMOVE in done or (stale and instance.observed != Observed.ABSENT):
        first = [Action.STOP] if up or Action.STOP in done else []
        return [*first, Action.REMOVE, *actions]
    if instance.observed == Observed.PAUSED or Action.UNPAUSE in done:
        return [Action.UNPAUSE, Action.AWAIT_READY]
    if Action.CREATE not in done and instance.observed not in (Observed.ABSENT, Observed.UNKNOWN):
        return actions[1:]
    return actions


def _steps(
    instance: Instance, recent: Sequence[InstanceEvent], actions: Sequence[Action]
) -> list[Step]:
    outcomes = {event.kind: event for event in recent if event.kind in set(actions)}
    begun = bool(outcomes) or instance.lease_token is not None
    steps = [_prepared(recent) if begun else Step(_NAMES["prepare"], "now")]
    current_found = not begun
    for action in actions:
        event = outcomes.get(action)
        if event and not event.failed and not current_found:
            steps.append(Step(_NAMES[action], "done", event.duration_ms))
        elif current_found:
            steps.append(Step(_NAMES[action], "todo"))
        else:
            current_found = True
            failed = event is not None and event.failed and instance.attempts > 0
            note = "Will be tried again" if failed else ""
            steps.append(Step(_NAMES[action], "failed" if failed else "now", note=note))
    return steps


def _prepared(recent: Sequence[InstanceEvent]) -> Step:
    """Return the step from the request to the worker's first action."""
    ms = None
    if len(recent) > 1 and recent[0].kind in _BEGINNINGS:
        first = recent[1]
        taken = first.at - recent[0].at - timedelta(milliseconds=first.duration_ms or 0)
        ms = max(0, round(taken.total_seconds() * 1000))
    return Step(_NAMES["prepare"], "done", ms)
