"""The only writer of an Instance's state.

Requests (`create`, `want_…`, `restart`, …) come from anybody and raise the revision, so that a
worker in mid-step notices. Reports (`record_…`) come from the worker that holds the lease, and
write nothing when it no longer does. Each is one compare-and-swap with its event and its
notification, in one transaction.
"""

import secrets
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypedDict, Unpack
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.dispatch import Signal
from django.utils import timezone

from deploy import notify, trace, vault, wakeup
from deploy.engines.base import Observation
from deploy.leases import Lease, LeaseLost, expiry
from deploy.models import Image, Instance, InstanceEvent
from deploy.probe import Usage
from deploy.states import (
    MEBIBYTE,
    Desired,
    DiskLevel,
    Observed,
    StopReason,
    disk_level,
    may_follow,
)

FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 300.0
# A container that ran for this long did not fail at starting.
HEALTHY_SECONDS = 60.0
TOUCH_SECONDS = 15.0
# For how long the word of a spare, that it holds nobody's data, is good.
PRISTINE_SECONDS = 60.0
# An engine that does not answer is not the instance's fault: asked again soon, never later.
UNKNOWN_RETRY_SECONDS = 2.0

# Sent for each event, in its transaction: `event` is an InstanceEvent.
happened = Signal()

_FORGIVEN: dict[str, Any] = {"attempts": 0, "next_attempt_at": None, "last_error": ""}
_DOWN: dict[str, Any] = {"ready": False, "endpoint": ""}


class NotAllowed(Exception):
    """The instance is in a state that this request may not follow. The text says why.

    `code` says it to programs: refused, suspended, deleted or too_late.
    """

    def __init__(self, words: str, code: str = "refused") -> None:
        super().__init__(words)
        self.code = code


# --- requests ----------------------------------------------------------------------------------


class Limits(TypedDict, total=False):
    """The part of a spec that says how much an instance may use; what is left out is usual."""

    memory_mb: int
    cpus: float
    pids: int
    internet: bool
    idle_seconds: int
    disk_mb: int


# The limits that a container is made with: another one needs another container.
OF_CONTAINER = ("memory_mb", "cpus", "pids", "internet")


def create(image: Image, *, spare: bool = False, **limits: Unpack[Limits]) -> Instance:
    """Make an instance that should run. The row is there before any container is."""
    instance_id = uuid4()
    return _add(
        Instance(
            id=instance_id,
            key=secrets.token_urlsafe(32),
            volume=f"{settings.NAMESPACE}-{instance_id}-data",
            spare=spare,
            image=image,
            **limits,
        )
    )


def claim_spare(image: Image, **limits: Unpack[Limits]) -> Instance | None:
    """Return a spare of just this spec that is ready, now the caller's; None when there is none.

    Only one that said just now that its volume holds nobody's data. The caller tells us by
    `record_claimed` once everybody can see whose it is.
    """
    lately = timezone.now() - timedelta(seconds=PRISTINE_SECONDS)
    with transaction.atomic():
        ready = Instance.objects.select_for_update(skip_locked=True, of=("self",)).filter(
            spare=True,
            desired=Desired.RUNNING,
            ready=True,
            pristine_at__gt=lately,
            image=image,
            **limits,
        )
        instance = ready.order_by("created_at").first()
        if instance is None:
            return None
        claimed: dict[str, Any] = {
            "spare": False,
            "last_used_at": timezone.now(),
            # What it did before is nobody's history, and its new owner has heard of no status.
            "history": uuid4(),
            "announced": "",
        }
        Instance.objects.filter(pk=instance.pk).update(**claimed)
    for name, value in claimed.items():
        setattr(instance, name, value)
    return instance


def record_claimed(instance: Instance) -> None:
    """Write that a spare became somebody's; in the transaction that claimed it."""
    _note(instance, "claimed")


def succeed(instance_id: UUID | str) -> Instance:
    """Undo a deletion: return a new instance that takes the old one's volume over.

    The old one stays deleted; its successor waits until its container is gone. Raises NotAllowed
    when the data is already being removed.
    """
    with transaction.atomic():
        old = Instance.objects.select_for_update().get(pk=instance_id)
        if old.desired != Desired.ABSENT:
            raise NotAllowed("This workspace is not being deleted.")
        if not old.volume or old.purged_at or not old.purge_at or old.purge_at <= timezone.now():
            raise NotAllowed("It is too late: the data has been removed.", "too_late")
        volume, history = old.volume, old.history
        _request(old, "succeeded", volume="", secrets={}, purge_at=timezone.now())
        # What becomes of the old one is nobody's history any more.
        Instance.objects.filter(pk=old.pk).update(history=uuid4())
        return _add(
            Instance(
                history=history,
                key=secrets.token_urlsafe(32),
                volume=volume,
                image=old.image,
                memory_mb=old.memory_mb,
                cpus=old.cpus,
                pids=old.pids,
                internet=old.internet,
                secrets=old.secrets,
                plugin_settings=old.plugin_settings,
                idle_seconds=old.idle_seconds,
                disk_mb=old.disk_mb,
                disk_bytes=old.disk_bytes,
                disk_measured_at=old.disk_measured_at,
                disk_level=old.disk_level,
                predecessor=old,
            )
        )


def is_pristine(instance: Instance) -> bool:
    """Whether an instance said just now that its volume holds nobody's data."""
    lately = timezone.now() - timedelta(seconds=PRISTINE_SECONDS)
    return instance.pristine_at is not None and instance.pristine_at > lately


def record_pristine(instance_id: UUID | str, usage: Usage | None = None) -> None:
    """Note that a spare said that its volume holds nobody's data.

    What it has used so far is nobody's either: whoever claims it begins from there.
    """
    spares = Instance.objects.filter(pk=instance_id, spare=True)
    counters = asdict(usage) if usage else None
    spares.update(pristine_at=timezone.now(), counters=counters)


def record_usage(said: Mapping[Instance, Usage]) -> None:
    """Note what instances use, and tell of it when that is news. The caller has locked the rows."""
    now = timezone.now()
    news = []
    for instance, usage in said.items():
        before = DiskLevel(instance.disk_level)
        level = disk_level(usage.disk_bytes, instance.disk_limit, before)
        if level is not before:
            news.append(instance)
        instance.counters, instance.disk_level = asdict(usage), level
        instance.disk_bytes, instance.disk_measured_at = usage.disk_bytes, now
    fields = ["counters", "disk_level", "disk_bytes", "disk_measured_at"]
    Instance.objects.bulk_update(said, fields)
    for instance in news:
        used, limit = (size / MEBIBYTE for size in (instance.disk_bytes or 0, instance.disk_limit))
        _note(instance, f"disk_{instance.disk_level}", message=f"{used:,.1f} of {limit:,.0f} MiB")


def disown_spare(instance_id: UUID | str, message: str) -> None:
    """Stop something that the row calls a spare, and that may be somebody's. Its data stays."""
    with transaction.atomic():
        instance = Instance.objects.select_for_update().get(pk=instance_id)
        if instance.spare and instance.desired != Desired.ABSENT:
            _request(
                instance,
                "disowned",
                spare=False,
                desired=Desired.STOPPED,
                stop_reason=StopReason.OPERATOR,
                last_error=message,
            )


def forget_spares() -> None:
    """Drop the rows of spares of which nothing is left: they are nobody's history."""
    Instance.objects.filter(spare=True).exclude(purged_at=None).delete()


def want_running(instance_id: UUID | str, *, by_operator: bool = False) -> None:
    """Start it; failures so far are forgiven. What operators stopped, only they start again."""
    with transaction.atomic():
        instance = _locked(instance_id, Desired.RUNNING)
        if instance.stop_reason == StopReason.OPERATOR and not by_operator:
            raise NotAllowed("This workspace is suspended by the operators.", "suspended")
        _request(
            instance,
            "want_running",
            desired=Desired.RUNNING,
            stop_reason=StopReason.NONE,
            last_used_at=timezone.now(),
            **_FORGIVEN,
        )


def wake(instance_id: UUID | str) -> bool:
    """Start it because somebody asked for a page, if it only sleeps. Return whether it will run."""
    with transaction.atomic():
        instance = Instance.objects.select_for_update().get(pk=instance_id)
        if instance.desired == Desired.RUNNING:
            return True
        asleep = instance.desired == Desired.PAUSED or instance.stop_reason == StopReason.IDLE
        if not asleep:
            return False
        _request(
            instance,
            "wake",
            desired=Desired.RUNNING,
            stop_reason=StopReason.NONE,
            last_used_at=timezone.now(),
            **_FORGIVEN,
        )
        return True


def want_stopped(instance_id: UUID | str, reason: StopReason) -> None:
    """Stop it. Only an idle stop lets a request wake it again; the operator's word stands."""
    with transaction.atomic():
        instance = _locked(instance_id, Desired.STOPPED)
        if instance.stop_reason == StopReason.OPERATOR and reason is not StopReason.OPERATOR:
            raise NotAllowed("This workspace is suspended by the operators.", "suspended")
        _request(
            instance,
            f"stop_{reason}",
            desired=Desired.STOPPED,
            stop_reason=reason,
            **_FORGIVEN,
        )


def sleep_if_unused(instance_id: UUID | str, since: datetime) -> bool:
    """Put it to sleep unless somebody used it after `since`. Return whether it will sleep."""
    with transaction.atomic():
        instance = Instance.objects.select_for_update().get(pk=instance_id)
        used = instance.last_used_at > since
        if instance.desired != Desired.RUNNING or not instance.ready or used:
            return False
        _request(instance, "sleep", desired=Desired.STOPPED, stop_reason=StopReason.IDLE)
        return True


def restart(instance_id: UUID | str) -> None:
    """Replace the container by a fresh one made from the same spec; the data stays."""
    change_spec(instance_id, "restart")


def retry(instance_id: UUID | str, *, take_over: bool = False) -> None:
    """Have it tried again now, whatever it failed at; nothing else is wanted than before.

    With `take_over` also where a worker holds it: that one writes nothing any more.
    """
    with transaction.atomic():
        instance = Instance.objects.select_for_update().get(pk=instance_id)
        freed = {"lease_token": None, "lease_expires_at": None} if take_over else {}
        _request(instance, "retry", **_FORGIVEN, **freed)


# What happens to an instance only when the engine said something of it, and what comes then.
_ENGINE_SPOKE = Q(kind__in=["remove", "observed", "await_ready"], failed=False) | Q(kind="lost")


def may_forget(instance: Instance) -> bool:
    """Whether the engine said that nothing of it is there, and nobody is about to make it.

    A new row says "absent" too, before anybody asked; and silence is no answer. Of one whose
    deletion can be undone still, the data is there, and is removed when its time is over.
    """
    if _can_be_undone(instance):
        return False
    gone = instance.observed == Observed.ABSENT and instance.purged_at is None
    expiry = instance.lease_expires_at
    held = instance.lease_token is not None and expiry is not None and expiry > timezone.now()
    before = instance.predecessor
    waits = before is not None and before.purged_at is None
    if not gone or held or waits:
        return False
    spoke = instance.observed_generation is not None
    return spoke or instance.events.filter(_ENGINE_SPOKE).exists()


def _can_be_undone(instance: Instance) -> bool:
    kept_until = instance.purge_at if instance.desired == Desired.ABSENT else None
    return bool(instance.volume) and kept_until is not None and kept_until > timezone.now()


def forget(instance_id: UUID | str) -> None:
    """Be done with one whose container is gone for good. Nothing at the engine is touched.

    Its volume, if there is one, is an orphan from now on: reported, and never removed. Raises
    NotAllowed unless it is as `may_forget` says.
    """
    with transaction.atomic():
        instance = Instance.objects.select_for_update().get(pk=instance_id)
        if _can_be_undone(instance):
            words = "Its deletion can be undone still. Its data is removed when that time is over."
            raise NotAllowed(words)
        if not may_forget(instance):
            words = "The engine did not say that its container is gone, so that it is kept."
            raise NotAllowed(words)
        now = timezone.now()
        gone: dict[str, Any] = {
            "desired": Desired.ABSENT,
            "stop_reason": StopReason.NONE,
            "purge_at": now,
            "purged_at": now,
            "secrets": {},
            "lease_token": None,
            "lease_expires_at": None,
        }
        _request(instance, "forgotten", **gone, **_DOWN, **_FORGIVEN)
        _wake_successors(instance)


def change_spec(instance_id: UUID | str, kind: str = "change_spec", **spec: Any) -> None:
    """Change any part of the spec. The generation tells old from new.

    Only what is taken back is also written to one that is being deleted, for its successor.
    """
    with transaction.atomic():
        instance = Instance.objects.select_for_update().get(pk=instance_id)
        if instance.desired == Desired.ABSENT and kind != "roll_back":
            raise NotAllowed("This workspace is being deleted.", "deleted")
        if kind == "restart" and instance.desired != Desired.RUNNING:
            raise NotAllowed("This workspace is not running: start it instead.")
        _request(instance, kind, generation=F("generation") + 1, **spec, **_FORGIVEN)


def change_limits(instance_id: UUID | str, **limits: Unpack[Limits]) -> bool:
    """Give it other limits. Return whether that needs another container, which it gets.

    One that sleeps or is stopped gets it when it starts. What is as it was is not changed.
    """
    with transaction.atomic():
        instance = Instance.objects.select_for_update().get(pk=instance_id)
        changed: dict[str, Any] = {
            name: value for name, value in limits.items() if getattr(instance, name) != value
        }
        if not changed:
            return False
        if any(name in changed for name in OF_CONTAINER):
            change_spec(instance.pk, **changed)
            return True
        if instance.desired == Desired.ABSENT:
            raise NotAllowed("This workspace is being deleted.", "deleted")
        Instance.objects.filter(pk=instance.pk).update(**changed)
        _note(instance, "change_limits", step=True)
        return False


def change_limits_at_once(instances: QuerySet[Instance], **limits: Unpack[Limits]) -> int:
    """Give many the same limits, none of which needs another container; return how many changed."""
    if set(limits) & set(OF_CONTAINER):
        raise ValueError(f"not without a new container: {limits}")
    as_it_is = Q(**limits)
    rows = Instance.objects.filter(pk__in=instances.values("pk")).exclude(as_it_is)
    return rows.exclude(desired=Desired.ABSENT).update(**limits)


def set_secrets(instance_id: UUID | str, sealed: dict[str, str]) -> None:
    """Keep an instance's secrets, each sealed by deploy.vault. Its next container gets them."""
    Instance.objects.filter(pk=instance_id).update(secrets=sealed)


def reseal_secrets() -> int:
    """Encrypt all secrets with the first key; return how many instances have any.

    All or none: raises vault.Unreadable.
    """
    with transaction.atomic():
        rows = list(Instance.objects.select_for_update().exclude(secrets={}))
        for instance in rows:
            set_secrets(instance.pk, vault.reseal(instance.secrets))
    return len(rows)


def want_absent(instance_id: UUID | str, purge_at: datetime) -> None:
    """Delete it, for good; its data volume stays until `purge_at`. Asking again is fine."""
    with transaction.atomic():
        instance = Instance.objects.select_for_update().get(pk=instance_id)
        if instance.desired == Desired.ABSENT:
            return
        _request(
            instance,
            "want_absent",
            desired=Desired.ABSENT,
            stop_reason=StopReason.NONE,
            purge_at=purge_at,
            ready=False,
            **_FORGIVEN,
        )


def touch(instance_id: UUID | str) -> None:
    """Note that a person uses it now. Cheap: one write every TOUCH_SECONDS at most."""
    now = timezone.now()
    recently = now - timedelta(seconds=TOUCH_SECONDS)
    Instance.objects.filter(pk=instance_id, last_used_at__lt=recently).update(last_used_at=now)


def poke(instance_id: UUID | str) -> None:
    """Have it looked at now: something happened to it that no request asked for."""
    with transaction.atomic():
        known = Instance.objects.filter(pk=instance_id, purged_at=None)
        if known.update(revision=F("revision") + 1):
            wakeup.after_commit(instance_id)


def _wake_successors(instance: Instance) -> None:
    """Have those looked at that wait until one is gone, once that is written.

    Not while its row is held: whoever tries a successor again holds that one first, and then this.
    """
    for successor in Instance.objects.filter(predecessor=instance):
        transaction.on_commit(partial(poke, successor.pk), robust=True)


def _add(instance: Instance) -> Instance:
    with transaction.atomic():
        instance.save(force_insert=True)
        # Before those that the event wakes: somebody waits for this.
        wakeup.after_commit(instance.pk, somebody_waits=not instance.spare)
        _note(instance, "create_requested")
    return instance


def _locked(instance_id: UUID | str, desired: Desired) -> Instance:
    instance = Instance.objects.select_for_update().get(pk=instance_id)
    now = Desired(instance.desired)
    if now is not desired and not may_follow(now, desired):
        raise NotAllowed("This workspace is being deleted.", "deleted")
    return instance


def _request(instance: Instance, kind: str, **changes: Any) -> None:
    """Write a request to a row that this transaction has locked."""
    Instance.objects.filter(pk=instance.pk).update(revision=F("revision") + 1, **changes)
    # Nobody waits for a spare, nor for the next container of what does not run.
    waits = not instance.spare and (kind != "change_spec" or instance.desired == Desired.RUNNING)
    # Before those that the event wakes: somebody waits for this.
    wakeup.after_commit(instance.pk, somebody_waits=waits)
    _note(instance, kind)


def _note(instance: Instance, kind: str, *, step: bool = False, **event: Any) -> None:
    """Write an event and tell everybody. The caller has written to the row, so nobody else does."""
    row = Instance.objects.get(pk=instance.pk)  # what the caller holds may be older
    status = _new_status(row)
    written = InstanceEvent.objects.create(
        instance_id=row.pk,
        history=row.history,
        generation=instance.generation,
        kind=kind,
        status=status,
        request_id=trace.request_id(),
        **event,
    )
    happened.send(InstanceEvent, event=written)
    notify.send(row.pk, step=step and not status)


def _new_status(row: Instance) -> str:
    """Return the status if no event has told of it yet, and note that one does now."""
    if row.status == row.announced:
        return ""
    Instance.objects.filter(pk=row.pk).update(announced=row.status)
    return row.status


# --- reports of the worker that holds the lease -------------------------------------------------


def _held(lease: Lease, instance: Instance) -> QuerySet[Instance]:
    """Return the row, or none when the worker's lease or the generation it knows is stale."""
    return Instance.objects.filter(
        pk=instance.pk, lease_token=lease.token, generation=instance.generation
    )


def _report(lease: Lease, instance: Instance, **changes: Any) -> None:
    """Write what a worker saw or did, unless its lease or its generation is stale."""
    if not _held(lease, instance).update(lease_expires_at=expiry(), **changes):
        raise LeaseLost(str(instance.pk))
    for name, value in changes.items():
        setattr(instance, name, value)


def _news(instance: Instance, seen: Observation) -> dict[str, Any]:
    """Return what the row says otherwise than the engine.

    A container that is not the one we saw is not ready.
    """
    same_run = seen.observed is Observed.RUNNING and seen.started_at == instance.started_at
    changes: dict[str, Any] = {
        "observed": seen.observed,
        "observed_generation": seen.generation,
        "started_at": seen.started_at,
    }
    if seen.node:  # of one that is gone, it stays known where it was
        changes["node"] = seen.node
    if not same_run:
        changes |= _DOWN
    if instance.observed == Observed.UNKNOWN:
        changes |= {"last_error": "", "next_attempt_at": None}
    return {name: value for name, value in changes.items() if getattr(instance, name) != value}


def record_observation(lease: Lease, instance: Instance, seen: Observation) -> None:
    """Write what the engine says now, if that is news."""
    changes = _news(instance, seen)
    if not changes:
        return
    with transaction.atomic():
        _report(lease, instance, **changes)
        if {"observed", "ready"} & set(changes) and instance.status != instance.announced:
            _note(instance, "observed")
        else:
            # What was ready and is not any more concerns more people than those who watch.
            notify.send(instance.pk, step="ready" not in changes)


def record_lost(lease: Lease, instance: Instance, seen: Observation, message: str) -> None:
    """Write that a container ended without being asked to."""
    lasted = 0.0
    if instance.ready and instance.ready_at:
        lasted = (timezone.now() - instance.ready_at).total_seconds()
    # One transaction: a worker that dies here must not count the same loss twice.
    with transaction.atomic():
        _report(lease, instance, **_news(instance, seen))
        if lasted >= HEALTHY_SECONDS:
            _report(lease, instance, attempts=0, last_error=message, next_attempt_at=None)
        else:
            _fail(lease, instance, message)
        _note(instance, "lost", message=message, failed=True)


def record_unknown(lease: Lease, instance: Instance, message: str) -> None:
    """Write that the engine could not be asked. What it serves, it may serve still.

    It counts as no failure of the instance's: however long the engine is away, the instance is
    looked at as soon as it is back.
    """
    news = instance.observed != Observed.UNKNOWN
    with transaction.atomic():
        _report(
            lease,
            instance,
            observed=Observed.UNKNOWN,
            last_error=message,
            next_attempt_at=timezone.now() + timedelta(seconds=UNKNOWN_RETRY_SECONDS),
        )
        if news:
            _note(instance, "unknown", message=message, failed=True)
        wakeup.after_commit(instance.pk, UNKNOWN_RETRY_SECONDS, somebody_waits=not instance.spare)


def record_done(
    lease: Lease,
    instance: Instance,
    kind: str,
    duration_ms: int,
    seen: Observation | None = None,
) -> None:
    """Write that an action succeeded, and what the engine says since, if it was asked."""
    with transaction.atomic():
        _report(lease, instance, **(_news(instance, seen) if seen else {}))
        _note(instance, kind, duration_ms=duration_ms, step=True)


def record_failing(lease: Lease, instance: Instance, kind: str, message: str) -> None:
    """Write what is wrong with one that runs, in words for an owner. It counts as no failure."""
    with transaction.atomic():
        _report(lease, instance, last_error=message)
        _note(instance, kind, message=message, failed=True)


def record_failed(
    lease: Lease, instance: Instance, kind: str, message: str, duration_ms: int
) -> float:
    """Write that an action failed, in words for an owner. Return the seconds until the next try."""
    with transaction.atomic():
        delay = _fail(lease, instance, message)
        _note(instance, kind, message=message, duration_ms=duration_ms, failed=True)
    return delay


def record_ready(lease: Lease, instance: Instance, seen: Observation, duration_ms: int) -> None:
    """Write that it answered over HTTP, as itself."""
    with transaction.atomic():
        _report(
            lease,
            instance,
            ready=True,
            ready_at=timezone.now(),
            observed=seen.observed,
            observed_generation=seen.generation,
            started_at=seen.started_at,
            endpoint=seen.endpoint,
            last_error="",
            next_attempt_at=None,
        )
        _note(instance, "await_ready", duration_ms=duration_ms)


def record_closed(lease: Lease, instance: Instance) -> None:
    """Write that nobody is let in any more, before it is stopped."""
    with transaction.atomic():
        _report(lease, instance, **_DOWN)
        notify.send(instance.pk)


def record_purging(lease: Lease, instance: Instance) -> None:
    """Make sure, just before its data goes, that it still should.

    Waits for an undo that is being written, and then raises LeaseLost because the volume has
    another owner; one that comes later finds that it is too late.
    """
    due = _held(lease, instance).filter(volume=instance.volume, purge_at__lte=timezone.now())
    if not due.update(lease_expires_at=expiry()):
        raise LeaseLost(str(instance.pk))


def record_purged(lease: Lease, instance: Instance, duration_ms: int) -> None:
    """Write that nothing is left of it, and let the successor that waited for this begin."""
    with transaction.atomic():
        _report(lease, instance, purged_at=timezone.now(), secrets={}, **_DOWN)
        _note(instance, "purge", duration_ms=duration_ms)
        _wake_successors(instance)


def _fail(lease: Lease, instance: Instance, message: str) -> float:
    """Count a failure and put the next try off, twice as long each time. Return the delay.

    Not when something else is wanted by now, or the failures so far were forgiven: what a person
    asked for just now must not wait because of what failed before.
    """
    delay = float(min(FIRST_RETRY_SECONDS * 2**instance.attempts, LAST_RETRY_SECONDS))
    changes = {
        "attempts": instance.attempts + 1,
        "next_attempt_at": timezone.now() + timedelta(seconds=delay),
        "last_error": message,
    }
    as_before = _held(lease, instance).filter(desired=instance.desired, attempts=instance.attempts)
    if not as_before.update(**changes):
        _report(lease, instance)  # raises when the worker itself is stale
        return 0.0
    for name, value in changes.items():
        setattr(instance, name, value)
    wakeup.after_commit(instance.pk, delay, somebody_waits=not instance.spare)
    return delay
