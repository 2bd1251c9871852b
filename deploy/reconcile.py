"""Make an instance what it should be: observe, plan, act, until there is nothing left to do."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from deploy import leases, lifecycle, probe
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


class ActionFailed(Exception):
    """An action did not have its effect. The text is for the owner."""


def reconcile(instance_id: UUID | str) -> bool:
    """Work on one instance until it has converged or must wait.

    Return False when another worker holds it: that one will notice what is new.
    """
    lease = leases.claim(instance_id)
    if lease is None:
        return False
    with lease, StartSlot() as slot:
        try:
            while not _step(lease, slot):
                pass
        except LeaseLost:
            logger.warning("lost the lease of %s in mid-step", instance_id)
    return True


def _step(lease: Lease, slot: StartSlot) -> bool:
    """Do one action. True when there is nothing to do now and nobody asked for more meanwhile."""
    instance = lease.load()
    try:
        action = _next_action(lease, instance, get_engine())
        if action is not Action.NOTHING:
            _act(Work(lease, instance, slot), action)
            return False
    except LeaseLost:
        lease.load()  # raises again unless only the generation was stale: then look afresh
        return False
    return lease.release(instance.revision)


def _next_action(lease: Lease, instance: Instance, engine: Engine) -> Action:
    if instance.next_attempt_at and instance.next_attempt_at > timezone.now():
        return Action.NOTHING
    try:
        seen = engine.observe(str(instance.pk))
    except EngineError as error:
        logger.warning("the engine cannot be asked about %s: %s", instance.pk, error)
        message = "The container engine does not answer. We keep trying; nothing is lost."
        lifecycle.record_unknown(lease, instance, message)
        return Action.NOTHING
    _record_seen(lease, instance, seen)
    if instance.next_attempt_at and instance.next_attempt_at > timezone.now():
        return Action.NOTHING
    action = plan_for(instance, seen)
    if action in (Action.CREATE, Action.START) and _predecessor_is_there(instance):
        return Action.NOTHING
    return action


def plan_for(instance: Instance, seen: Observation) -> Action:
    """Return the next action for an instance that the engine says this of."""
    same_run = instance.ready and seen.started_at == instance.started_at
    return plan(
        Desired(instance.desired),
        seen.observed,
        current=seen.generation == instance.generation,
        ready=same_run,
        purge_due=bool(
            not instance.purged_at and instance.purge_at and instance.purge_at <= timezone.now()
        ),
    )


def _record_seen(lease: Lease, instance: Instance, seen: Observation) -> None:
    ended = seen.observed in (Observed.EXITED, Observed.ABSENT)
    # Started since we last looked, and over already: not counted, we would start it for ever.
    in_between = seen.observed is Observed.EXITED and seen.started_at != instance.started_at
    if instance.desired != Desired.RUNNING or not ((instance.ready and ended) or in_between):
        lifecycle.record_observation(lease, instance, seen)
        return
    what = "It stopped by itself" if instance.ready else "It stopped right after it started"
    lifecycle.record_lost(lease, instance, seen, _why_it_ended(seen, what))


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
    started: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """The instance's name at the engine."""
        return str(self.instance.pk)

    @property
    def duration_ms(self) -> int:
        """How long the action takes so far."""
        return round((time.monotonic() - self.started) * 1000)


def _act(work: Work, action: Action) -> None:
    try:
        ACTIONS[action](work)
    except EngineRefused as error:
        _failed(work, action, f"The container engine refused to {_words(action)} it: {error}")
    except EngineError as error:
        logger.warning("the engine failed to %s %s: %s", action, work.name, error)
        _failed(work, action, "The container engine did not do its work. We keep trying.")
    except ActionFailed as error:
        _failed(work, action, str(error))


def _words(action: Action) -> str:
    return action.replace("_", " ")


def _failed(work: Work, action: Action, message: str) -> None:
    lifecycle.record_failed(work.lease, work.instance, action, message, work.duration_ms)


def _done(work: Work, action: Action) -> None:
    lifecycle.record_done(work.lease, work.instance, action, work.duration_ms)


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
            "INSTANCE_ID": str(instance.pk),
            "INSTANCE_GENERATION": str(instance.generation),
            "INSTANCE_KEY": instance.key,
        },
    )


def _create(work: Work) -> None:
    if not work.slot.take():
        return  # it had to wait: look afresh
    get_engine().create(spec_of(work.instance))
    _done(work, Action.CREATE)


def _start(work: Work) -> None:
    if not work.slot.take():
        return
    get_engine().start(work.name)
    _done(work, Action.START)


def _await_ready(work: Work) -> None:
    if not work.slot.take():
        return
    engine = get_engine()
    seen = engine.observe(work.name)
    deadline = time.monotonic() + settings.START_TIMEOUT_SECONDS
    while not _answers(work.instance, seen.endpoint, time.monotonic() + LOOK_SECONDS):
        work.slot.give_back_if_slow()
        if _something_else_is_wanted(work):
            return
        seen = engine.observe(work.name)
        if seen.observed is not Observed.RUNNING:
            lifecycle.record_observation(work.lease, work.instance, seen)
            raise ActionFailed(_why_it_ended(seen, "It stopped right after it started"))
        if time.monotonic() > deadline:
            engine.stop(work.name, 1)
            raise ActionFailed("It started, but did not answer in time.")
    engine.seal(work.name)
    lifecycle.record_ready(work.lease, work.instance, seen, work.duration_ms)


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
    get_engine().stop(work.name, settings.STOP_TIMEOUT_SECONDS)
    _done(work, Action.STOP)


def _remove(work: Work) -> None:
    get_engine().remove(work.name)
    _done(work, Action.REMOVE)


def _purge(work: Work) -> None:
    lifecycle.record_purging(work.lease, work.instance)
    if work.instance.volume:
        get_engine().remove_volume(work.instance.volume)
    lifecycle.record_purged(work.lease, work.instance, work.duration_ms)


ACTIONS: Mapping[Action, Callable[[Work], None]] = {
    Action.CREATE: _create,
    Action.START: _start,
    Action.AWAIT_READY: _await_ready,
    Action.PAUSE: _pause,
    Action.UNPAUSE: _unpause,
    Action.STOP: _stop,
    Action.REMOVE: _remove,
    Action.PURGE: _purge,
}
