"""Make an instance what it should be: observe, plan, act, until there is nothing left to do."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from deploy import leases, lifecycle, probe, trace, vault
from deploy.engines import get_engine
from deploy.engines.base import Engine, EngineError, EngineRefused, InstanceSpec, Observation
from deploy.leases import Lease, LeaseLost
from deploy.models import Instance
from deploy.plan import Action, plan
from deploy.slots import StartSlot
from deploy.states import Desired, Observed

logger = logging.getLogger(__name__)

# Readiness is noticed within a few of these; a failed try costs microseconds.
PROBE_SECONDS = 0.005
# How often a container that does not answer yet is asked for at the engine.
LOOK_SECONDS = 0.5
# For one that never answered: nothing is in flight, and what hangs does not hear us.
STILLBORN_STOP_SECONDS = 1


class ActionFailed(Exception):
    """An action did not have its effect. The text is for the owner."""


def reconcile(instance_id: UUID | str) -> bool:
    """Work on one instance until it has converged or must wait.

    Return False when another worker holds it: that one will notice what is new.
    """
    lease = leases.claim(instance_id)
    if lease is None:
        return False
    with trace.within(instance=str(instance_id)), lease, StartSlot() as slot:
        try:
            _converge(lease, slot)
        except LeaseLost:
            logger.warning("lost the lease of %s in mid-step", instance_id)
    return True


def _converge(lease: Lease, slot: StartSlot) -> None:
    """Go round until there is nothing to do now, and nobody asked for more meanwhile."""
    known: Observation | None = None  # what the last action has just heard from the engine
    revision = -1
    while True:
        instance = lease.load()
        # Somebody may have seen it end since: what is older than that is not known any more.
        if instance.revision != revision:
            known, revision = None, instance.revision
        try:
            seen = known or _look(lease, instance, get_engine())
            known = None
            action = _next_action(lease, instance, seen) if seen else Action.NOTHING
            if seen and action is not Action.NOTHING:
                known = _act(Work(lease, instance, slot, seen), action)
            elif lease.release(instance.revision):
                return
        except LeaseLost:
            lease.load()  # raises again unless only the generation was stale: then look afresh


def _must_wait(instance: Instance) -> bool:
    return bool(instance.next_attempt_at and instance.next_attempt_at > timezone.now())


def _look(lease: Lease, instance: Instance, engine: Engine) -> Observation | None:
    """Write down what the engine says and return it; None when it is too early, or it is silent."""
    if _must_wait(instance):
        return None
    try:
        seen = engine.observe(str(instance.pk))
    except EngineError as error:
        logger.warning("the engine cannot be asked about %s: %s", instance.pk, error)
        message = "The container engine does not answer. We keep trying; nothing is lost."
        lifecycle.record_unknown(lease, instance, message)
        return None
    _record_seen(lease, instance, seen)
    return seen


def _next_action(lease: Lease, instance: Instance, seen: Observation) -> Action:
    if _must_wait(instance):  # what was seen may have been a failure
        return Action.NOTHING
    action = plan_for(instance, seen)
    if _lost_its_door(instance, seen) and instance.desired == Desired.RUNNING:
        lifecycle.record_failing(lease, instance, "unreachable", "Its socket was removed.")
    if action in (Action.CREATE, Action.START) and _predecessor_is_there(instance):
        return Action.NOTHING
    return action


def plan_for(instance: Instance, seen: Observation) -> Action:
    """Return the next action for an instance that the engine says this of."""
    return plan(
        Desired(instance.desired),
        seen.observed,
        # It cannot be let in again while it runs, so that it counts as outdated.
        current=seen.generation == instance.generation and not _lost_its_door(instance, seen),
        ready=_still_ready(instance, seen),
        purge_due=bool(
            not instance.purged_at and instance.purge_at and instance.purge_at <= timezone.now()
        ),
    )


def _still_ready(instance: Instance, seen: Observation) -> bool:
    """Whether it answered, and is the same run of the same container since."""
    return instance.ready and seen.started_at == instance.started_at


def _lost_its_door(instance: Instance, seen: Observation) -> bool:
    """Whether it answered once, runs still, and cannot be reached any more.

    Somebody cleared the directory, or a worker that was frozen for longer than its lease did.
    """
    running = seen.observed is Observed.RUNNING
    return running and _still_ready(instance, seen) and not seen.reachable


def _record_seen(lease: Lease, instance: Instance, seen: Observation) -> None:
    ended = seen.observed in (Observed.EXITED, Observed.ABSENT)
    lost = (instance.ready and ended) or _ended_at_start(instance, seen)
    if not lost or instance.desired != Desired.RUNNING:
        lifecycle.record_observation(lease, instance, seen)
        return
    what = "It stopped by itself" if instance.ready else "It stopped right after it started"
    lifecycle.record_lost(lease, instance, seen, _why_it_ended(seen, what))


def _ended_at_start(instance: Instance, seen: Observation) -> bool:
    """Whether it was started and ended before it answered: not counted, we would do so for ever.

    A stop of ours is noted as such, and a start by whoever died before noting it is not known.
    """
    if seen.observed is not Observed.EXITED or seen.generation != instance.generation:
        return False
    if seen.started_at is None or seen.started_at != instance.started_at:
        return True
    return instance.observed == Observed.RUNNING and not _has_answered(instance, seen)


def _has_answered(instance: Instance, seen: Observation) -> bool:
    """Whether this run of its container was ready once."""
    if seen.started_at is None or instance.ready_at is None:
        return False
    return instance.ready_at > seen.started_at


def _why_it_ended(seen: Observation, what: str) -> str:
    if seen.out_of_memory:
        return f"{what}: it ran out of memory."
    if seen.observed is Observed.ABSENT:
        return "Its container was removed from outside."
    return f"{what} (exit code {seen.exit_code})."


def _predecessor_is_there(instance: Instance) -> bool:
    """Whether the deleted instance whose volume this one has may still write to it."""
    return bool(instance.predecessor and instance.predecessor.purged_at is None)


# --- actions -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """One action under way."""

    lease: Lease
    instance: Instance
    slot: StartSlot
    seen: Observation
    started: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """The instance's name at the engine."""
        return str(self.instance.pk)

    @property
    def duration_ms(self) -> int:
        """How long the action takes so far."""
        return round((time.monotonic() - self.started) * 1000)


def _act(work: Work, action: Action) -> Observation | None:
    """Do it; return what the engine says since, where that is known and written down already."""
    try:
        return ACTIONS[action](work)
    except EngineRefused as error:
        _failed(work, action, f"The container engine refused to {_words(action)} it: {error}")
    except EngineError as error:
        logger.warning("the engine failed to %s %s: %s", action, work.name, error)
        _failed(work, action, "The container engine did not do its work. We keep trying.")
    except (ActionFailed, vault.Unreadable) as error:
        _failed(work, action, str(error))
    return None


def _words(action: Action) -> str:
    return action.replace("_", " ")


def _failed(work: Work, action: Action, message: str) -> None:
    lifecycle.record_failed(work.lease, work.instance, action, message, work.duration_ms)


def _done(work: Work, action: Action, seen: Observation | None = None) -> None:
    lifecycle.record_done(work.lease, work.instance, action, work.duration_ms, seen)


def spec_of(instance: Instance) -> InstanceSpec:
    """Return what the instance's container is made from."""
    return InstanceSpec(
        instance_id=str(instance.pk),
        generation=instance.generation,
        image=instance.image.reference,
        volume=instance.volume,
        memory_mb=instance.memory_mb,
        cpus=instance.cpus,
        pids=instance.pids,
        internet=instance.internet,
        environment={
            **_secrets_of(instance),
            "INSTANCE_ID": str(instance.pk),
            "INSTANCE_GENERATION": str(instance.generation),
            "INSTANCE_KEY": instance.key,
            "INSTANCE_PLUGIN_SETTINGS": json.dumps(instance.plugin_settings),
        },
    )


def _secrets_of(instance: Instance) -> dict[str, str]:
    """Whatever else is in the row: no secret takes the place of what the container goes by."""
    allowed = {name: v for name, v in instance.secrets.items() if vault.may_be_named(name)}
    return vault.open_all(allowed)


def _create(work: Work) -> Observation | None:
    if not work.slot.take():
        return None  # it had to wait: look afresh
    if not get_engine().create(spec_of(work.instance)):
        _done(work, Action.CREATE)
        return None  # one was there already, perhaps of another generation: look at it
    made = Observation(Observed.CREATED, generation=work.instance.generation)
    _done(work, Action.CREATE, made)
    return made


def _start(work: Work) -> Observation | None:
    if not work.slot.take() or _something_else_is_wanted(work):
        return None
    engine = get_engine()
    engine.start(work.name)
    seen = engine.observe(work.name)
    # One that has ended already is counted as lost by the next look.
    running = seen if seen.observed is Observed.RUNNING else None
    _done(work, Action.START, running)
    return running


def _await_ready(work: Work) -> Observation | None:
    if not work.slot.take():
        return None
    engine = get_engine()
    seen = work.seen
    deadline = time.monotonic() + settings.START_TIMEOUT_SECONDS
    while not _answers(work.instance, seen.endpoint, time.monotonic() + LOOK_SECONDS):
        work.slot.give_back_if_slow()
        if _something_else_is_wanted(work):
            return None
        seen = engine.observe(work.name)
        if seen.observed is not Observed.RUNNING:
            lifecycle.record_observation(work.lease, work.instance, seen)
            raise ActionFailed(_why_it_ended(seen, "It stopped right after it started"))
        if time.monotonic() > deadline:
            engine.stop(work.name, 1)
            lifecycle.record_observation(work.lease, work.instance, engine.observe(work.name))
            raise ActionFailed("It started, but did not answer in time.")
    engine.seal(work.name)
    lifecycle.record_ready(work.lease, work.instance, seen, work.duration_ms)
    return None  # a last look, off the way of those who waited: it may have ended just now


def _something_else_is_wanted(work: Work) -> bool:
    """Not whether the revision changed: the watcher raises that too, with every crash."""
    now, before = work.lease.load(), work.instance
    return (now.desired, now.generation) != (before.desired, before.generation)


def _answers(instance: Instance, endpoint: str, deadline: float) -> bool:
    """Ask the instance again and again; True as soon as it answers, False at the deadline."""
    while time.monotonic() < deadline:
        try:
            probe.health(instance, endpoint)
            return True
        except probe.NotAnswering:
            time.sleep(PROBE_SECONDS)
    return False


def _pause(work: Work) -> None:
    lifecycle.record_closed(work.lease, work.instance)
    get_engine().pause(work.name)
    _done(work, Action.PAUSE)


def _unpause(work: Work) -> None:
    get_engine().unpause(work.name)
    _done(work, Action.UNPAUSE)


def _stop(work: Work) -> None:
    # The door closes first, then what is in flight may finish: nothing is cut.
    lifecycle.record_closed(work.lease, work.instance)
    engine = get_engine()
    in_flight = _has_answered(work.instance, work.seen)
    engine.stop(work.name, settings.STOP_TIMEOUT_SECONDS if in_flight else STILLBORN_STOP_SECONDS)
    # In one piece: whoever looks next must not take it for a crash.
    _done(work, Action.STOP, engine.observe(work.name))


def _remove(work: Work) -> None:
    get_engine().remove(work.name)
    _done(work, Action.REMOVE)


def _purge(work: Work) -> None:
    lifecycle.record_purging(work.lease, work.instance)
    if work.instance.volume:
        get_engine().remove_volume(work.instance.volume)
    lifecycle.record_purged(work.lease, work.instance, work.duration_ms)


ACTIONS: Mapping[Action, Callable[[Work], Observation | None]] = {
    Action.CREATE: _create,
    Action.START: _start,
    Action.AWAIT_READY: _await_ready,
    Action.PAUSE: _pause,
    Action.UNPAUSE: _unpause,
    Action.STOP: _stop,
    Action.REMOVE: _remove,
    Action.PURGE: _purge,
}
