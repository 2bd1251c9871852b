"""Requests and reports, on a real database: who may write what, and when."""

import base64
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks

from deploy import lifecycle
from deploy.engines.base import ABSENT, Observation
from deploy.leases import Lease, LeaseLost
from deploy.lifecycle import NotAllowed
from deploy.models import Instance
from deploy.states import Desired, Observed, Status, StopReason
from tests.broker import waiting
from tests.database import somebody_waits_for_a_lock
from tests.deploy.boxes import wait_for
from tests.deploy.rows import WANTED, delete, fresh, held, kinds, new, put

pytestmark = pytest.mark.django_db

NO = "not allowed"
SEEN = Observation(
    Observed.RUNNING, generation=1, endpoint="unix:/x", started_at=datetime.now().astimezone()
)

REQUESTS: dict[str, Callable[[Instance], object]] = {
    "want_running": lambda i: lifecycle.want_running(i.pk),
    "resume": lambda i: lifecycle.want_running(i.pk, by_operator=True),
    "wake": lambda i: lifecycle.wake(i.pk),
    "sleep": lambda i: lifecycle.want_stopped(i.pk, StopReason.IDLE),
    "stop": lambda i: lifecycle.want_stopped(i.pk, StopReason.OWNER),
    "suspend": lambda i: lifecycle.want_stopped(i.pk, StopReason.OPERATOR),
    "restart": lambda i: lifecycle.restart(i.pk),
    "change_spec": lambda i: lifecycle.change_spec(i.pk, memory_mb=1024),
    "delete": delete,
    "undo": lambda i: lifecycle.succeed(i.pk),
}

# What each request makes of what was wanted before: rows as in WANTED, columns as in REQUESTS.
RUN, ZZZ, OWN, OPS, DEL = "running", "asleep", "stopped", "suspended", "deleted"
TABLE = {
    #      run resume wake sleep stop suspend restart change delete undo
    RUN: [RUN, RUN, RUN, ZZZ, OWN, OPS, RUN, RUN, DEL, NO],
    ZZZ: [RUN, RUN, RUN, ZZZ, OWN, OPS, NO, ZZZ, DEL, NO],
    OWN: [RUN, RUN, OWN, ZZZ, OWN, OPS, NO, OWN, DEL, NO],
    OPS: [NO, RUN, OPS, NO, NO, OPS, NO, OPS, DEL, NO],
    DEL: [NO, NO, DEL, NO, NO, NO, NO, NO, DEL, DEL],
}
CELLS = [
    pytest.param(before, request, after, id=f"{before}-{request}")
    for before, row in TABLE.items()
    for request, after in zip(REQUESTS, row, strict=True)
]


def wanted(instance: Instance) -> str:
    """Name what is wanted of it as WANTED does."""
    if instance.desired == Desired.STOPPED:
        reasons = {StopReason.IDLE: ZZZ, StopReason.OWNER: OWN, StopReason.OPERATOR: OPS}
        return reasons[StopReason(instance.stop_reason)]
    return {Desired.RUNNING: RUN, Desired.ABSENT: DEL}[Desired(instance.desired)]


@pytest.mark.parametrize(("before", "request_", "after"), CELLS)
def test_every_request_in_every_state(before: str, request_: str, after: str) -> None:
    instance = new()
    WANTED[before](instance)
    then = fresh(instance)
    events = kinds(instance)
    if after is NO:
        with pytest.raises(NotAllowed, match=r"This workspace .*|It is too late"):
            REQUESTS[request_](instance)
        assert fresh(instance).revision == then.revision
        assert kinds(instance) == events
    else:
        REQUESTS[request_](instance)
    assert wanted(fresh(instance)) == (before if after is NO else after)


@pytest.mark.parametrize("request_", ["want_running", "stop", "restart", "change_spec", "delete"])
def test_a_request_raises_the_revision_leaves_an_event_and_wakes_a_worker_after_commit(
    request_: str, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    instance = new()
    with django_capture_on_commit_callbacks() as callbacks:
        REQUESTS[request_](instance)
    assert fresh(instance).revision == instance.revision + 1
    assert len(kinds(instance)) == 2
    assert len(callbacks) == 1


@pytest.mark.parametrize("request_", ["want_running", "stop", "restart", "delete"])
def test_a_request_forgives_what_failed_before(request_: str) -> None:
    late = timezone.now() + timedelta(hours=1)
    instance = put(new(), attempts=9, next_attempt_at=late, last_error="It did not work.")
    REQUESTS[request_](instance)
    now = fresh(instance)
    assert (now.attempts, now.next_attempt_at, now.last_error) == (0, None, "")


def test_a_new_instance_has_a_key_and_a_volume_of_its_own() -> None:
    one, other = new(), new()
    assert len(one.key) >= 32
    assert one.key != other.key
    assert one.volume == f"{settings.NAMESPACE}-{one.pk}-data" != other.volume
    assert one.status is Status.PROVISIONING


def test_a_restart_and_another_spec_raise_the_generation() -> None:
    instance = new()
    lifecycle.restart(instance.pk)
    lifecycle.change_spec(instance.pk, memory_mb=1024)
    now = fresh(instance)
    assert (now.generation, now.memory_mb) == (3, 1024)


def test_waking_says_whether_it_will_run() -> None:
    instance = new()
    assert lifecycle.wake(instance.pk)
    WANTED[ZZZ](instance)
    assert lifecycle.wake(instance.pk)
    WANTED[OWN](instance)
    assert not lifecycle.wake(instance.pk)


def test_deleting_twice_changes_nothing() -> None:
    instance = new()
    delete(instance)
    before = fresh(instance)
    delete(instance, grace=1.0)
    now = fresh(instance)
    assert (now.purge_at, now.revision) == (before.purge_at, before.revision)


def test_touching_is_one_write_in_a_while() -> None:
    instance = new()
    lifecycle.touch(instance.pk)
    assert fresh(instance).last_used_at == instance.last_used_at
    long_ago = timezone.now() - timedelta(seconds=lifecycle.TOUCH_SECONDS + 1)
    put(instance, last_used_at=long_ago)
    lifecycle.touch(instance.pk)
    now = fresh(instance)
    assert now.last_used_at > long_ago
    assert now.revision == instance.revision, "no worker need look"


def test_sleeping_is_off_when_somebody_came_in_the_meantime() -> None:
    instance = put(new(), observed=Observed.RUNNING, ready=True)
    assert not lifecycle.sleep_if_unused(instance.pk, instance.last_used_at - timedelta(seconds=1))
    assert wanted(fresh(instance)) == RUN
    assert lifecycle.sleep_if_unused(instance.pk, instance.last_used_at)
    assert wanted(fresh(instance)) == ZZZ


def test_only_what_is_ready_is_put_to_sleep() -> None:
    instance = new()
    assert not lifecycle.sleep_if_unused(instance.pk, timezone.now())


def test_poking_is_for_what_is_still_there(
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    instance, purged = new(), put(new(), purged_at=timezone.now())
    with django_capture_on_commit_callbacks() as callbacks:
        lifecycle.poke(instance.pk)
        lifecycle.poke(purged.pk)
    assert fresh(instance).revision == 1
    assert fresh(purged).revision == 0
    assert len(callbacks) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"desired": Desired.STOPPED, "stop_reason": StopReason.NONE},
        {"desired": Desired.RUNNING, "stop_reason": StopReason.OWNER},
        {"ready": True, "observed": Observed.EXITED},
    ],
)
def test_the_database_holds_no_nonsense(wrong: dict[str, Any]) -> None:
    instance = new()
    with pytest.raises(IntegrityError), transaction.atomic():
        put(instance, **wrong)


# --- undoing a deletion --------------------------------------------------------------------------


def test_undoing_makes_a_successor_with_the_data() -> None:
    old = new(memory_mb=1024, internet=True)
    put(old, secrets={"KEY": "sealed"})
    delete(old)
    heir = lifecycle.succeed(old.pk)
    now = fresh(old)
    assert (now.volume, now.desired) == ("", Desired.ABSENT)
    assert (heir.volume, heir.predecessor) == (old.volume, old)
    assert (heir.memory_mb, heir.internet, heir.image_id) == (1024, True, old.image_id)
    assert heir.key != old.key
    assert heir.pk != old.pk
    assert (heir.secrets, now.secrets) == ({"KEY": "sealed"}, {})
    with pytest.raises(NotAllowed, match="too late"):
        lifecycle.succeed(old.pk)


def test_undoing_comes_too_late_once_the_grace_period_is_over() -> None:
    old = new()
    delete(old, grace=-1.0)
    with pytest.raises(NotAllowed, match="too late"):
        lifecycle.succeed(old.pk)


@pytest.mark.django_db(transaction=True)
def test_an_undo_that_is_being_written_saves_the_data_from_the_purge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = new()
    delete(old, grace=-1.0)
    lease, known = held(old)
    outcome: list[object] = []

    def purge() -> None:
        try:
            lifecycle.record_purging(lease, known)
            outcome.append("purged")
        except LeaseLost as error:
            outcome.append(error)
        finally:
            connection.close()

    worker = threading.Thread(target=purge)
    with transaction.atomic():
        with monkeypatch.context() as clock:  # the undo looked at it while there was time
            clock.setattr(timezone, "now", lambda: datetime.now(UTC) - timedelta(minutes=1))
            lifecycle.succeed(old.pk)
        worker.start()
        wait_for(somebody_waits_for_a_lock, "the worker to wait for us")
    worker.join(60)
    assert len(outcome) == 1
    assert isinstance(outcome[0], LeaseLost)


def test_a_purge_that_has_begun_cannot_be_undone() -> None:
    old = new()
    delete(old, grace=-1.0)
    lifecycle.record_purging(*held(old))
    with pytest.raises(NotAllowed, match="too late"):
        lifecycle.succeed(old.pk)


# --- reports -------------------------------------------------------------------------------------

REPORTS: dict[str, Callable[[Lease, Instance], object]] = {
    "observation": lambda lease, i: lifecycle.record_observation(lease, i, SEEN),
    "lost": lambda lease, i: lifecycle.record_lost(lease, i, ABSENT, "gone"),
    "unknown": lambda lease, i: lifecycle.record_unknown(lease, i, "silence"),
    "done": lambda lease, i: lifecycle.record_done(lease, i, "start", 5),
    "failed": lambda lease, i: lifecycle.record_failed(lease, i, "start", "no", 5),
    "ready": lambda lease, i: lifecycle.record_ready(lease, i, SEEN, 5),
    "closed": lifecycle.record_closed,
    "purging": lifecycle.record_purging,
    "purged": lambda lease, i: lifecycle.record_purged(lease, i, 5),
}


def _everything(instance: Instance) -> tuple[dict[str, Any], list[str]]:
    return Instance.objects.filter(pk=instance.pk).values().get(), kinds(instance)


@pytest.mark.parametrize("report", REPORTS)
def test_a_stale_lease_writes_nothing(report: str) -> None:
    lease, instance = held(new())
    put(instance, lease_expires_at=timezone.now() - timedelta(seconds=1))
    held(instance)
    before = _everything(instance)
    with pytest.raises(LeaseLost):
        REPORTS[report](lease, instance)
    assert _everything(instance) == before


@pytest.mark.parametrize("report", REPORTS)
def test_a_stale_generation_writes_nothing(report: str) -> None:
    lease, instance = held(new())
    lifecycle.restart(instance.pk)
    before = _everything(instance)
    with pytest.raises(LeaseLost):
        REPORTS[report](lease, instance)
    assert _everything(instance) == before


def test_a_report_prolongs_the_lease() -> None:
    lease, instance = held(new())
    almost = timezone.now() + timedelta(seconds=1)
    put(instance, lease_expires_at=almost)
    lifecycle.record_done(lease, instance, "start", 5)
    expires = fresh(instance).lease_expires_at
    assert expires
    assert expires > almost


def test_failures_back_off_and_stay_bearable() -> None:
    lease, instance = held(new())
    before = timezone.now()
    delays = [lifecycle.record_failed(lease, instance, "start", "no", 5) for _ in range(12)]
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert delays == sorted(delays)
    assert delays[-1] == lifecycle.LAST_RETRY_SECONDS
    now = fresh(instance)
    assert (now.attempts, now.last_error, now.status) == (12, "no", Status.FAILED)
    assert now.next_attempt_at
    assert before <= now.next_attempt_at - timedelta(seconds=300) <= timezone.now()


@pytest.mark.parametrize("request_", ["stop", "delete"])
def test_a_failure_does_not_put_off_what_was_asked_for_meanwhile(request_: str) -> None:
    lease, instance = held(put(new(), attempts=8))
    REQUESTS[request_](instance)
    assert lifecycle.record_failed(lease, instance, "start", "no", 5) == 0.0
    now = fresh(instance)
    assert (now.attempts, now.next_attempt_at) == (0, None)


def test_ready_says_where_and_is_no_failure() -> None:
    lease, instance = held(put(new(), attempts=1, last_error="no"))
    lifecycle.record_ready(lease, instance, SEEN, 300)
    now = fresh(instance)
    assert (now.ready, now.endpoint, now.status) == (True, "unix:/x", Status.RUNNING)
    assert (now.last_error, now.next_attempt_at) == ("", None)
    event = now.events.last()
    assert event
    assert (event.kind, event.duration_ms, event.failed) == ("await_ready", 300, False)


def test_another_run_of_the_container_is_not_ready() -> None:
    lease, instance = held(new())
    lifecycle.record_ready(lease, instance, SEEN, 5)
    lifecycle.record_observation(lease, instance, SEEN)
    assert fresh(instance).ready
    later = Observation(Observed.RUNNING, generation=1, started_at=timezone.now())
    lifecycle.record_observation(lease, instance, later)
    now = fresh(instance)
    assert (now.ready, now.endpoint) == (False, "")


def test_an_engine_that_says_nothing_takes_nobody_s_workspace_away() -> None:
    lease, instance = held(new())
    lifecycle.record_ready(lease, instance, SEEN, 5)
    for _ in range(5):
        lifecycle.record_unknown(lease, instance, "The engine does not answer.")
    now = fresh(instance)
    assert (now.observed, now.ready, now.status) == (Observed.UNKNOWN, True, Status.RUNNING)
    assert now.attempts == 0, "it is not the instance that failed"
    assert kinds(now).count("unknown") == 1
    lifecycle.record_observation(lease, instance, SEEN)
    now = fresh(instance)
    assert (now.observed, now.ready, now.last_error) == (Observed.RUNNING, True, "")
    assert now.next_attempt_at is None


@pytest.mark.parametrize(("seconds", "attempts"), [(1, 4), (lifecycle.HEALTHY_SECONDS + 1, 0)])
def test_what_ran_for_a_while_did_not_fail_at_starting(seconds: float, attempts: int) -> None:
    lease, instance = held(put(new(), attempts=3))
    lifecycle.record_ready(lease, instance, SEEN, 5)
    instance.ready_at = timezone.now() - timedelta(seconds=seconds)
    gone = Observation(Observed.EXITED, generation=1, started_at=SEEN.started_at)
    lifecycle.record_lost(lease, instance, gone, "It stopped by itself.")
    now = fresh(instance)
    assert now.attempts == attempts
    assert bool(now.next_attempt_at) is bool(attempts)
    assert (now.ready, now.observed) == (False, Observed.EXITED)
    assert now.last_error == "It stopped by itself."


def test_a_purge_leaves_no_secrets() -> None:
    lease, known = held(put(new(), secrets={"KEY": "sealed"}))
    lifecycle.record_purged(lease, known, 5)
    assert fresh(known).secrets == {}


@pytest.mark.django_db(transaction=True)
def test_a_purge_wakes_the_successor() -> None:
    old = new()
    delete(old)
    heir = lifecycle.succeed(old.pk)
    lease, known = held(old)
    lifecycle.record_purged(lease, known, 5)
    assert fresh(heir).revision == heir.revision + 1
    assert fresh(old).status is Status.DELETED


# --- waking workers ------------------------------------------------------------------------------


def _told(instance: Instance) -> list[str]:
    """The tasks that wait for a worker of the queue `now` and are about this instance."""
    messages = waiting("now")
    bodies = [base64.b64decode(message["body"]).decode() for message in messages]
    names = [message["headers"]["task"] for message in messages]
    return [name for name, body in zip(names, bodies, strict=True) if str(instance.pk) in body]


@pytest.mark.django_db(transaction=True)
def test_a_worker_is_told_after_the_commit_and_not_before() -> None:
    with transaction.atomic():
        instance = new()
        assert _told(instance) == []
    assert _told(instance) == ["deploy.tasks.reconcile"]


@pytest.mark.django_db(transaction=True)
def test_nobody_is_told_of_what_did_not_happen() -> None:
    with transaction.atomic():
        instance = new()
        transaction.set_rollback(True)
    assert _told(instance) == []


def test_an_event_tells_of_a_status_once() -> None:
    instance = new()
    lifecycle.want_stopped(instance.pk, StopReason.OWNER)
    lifecycle.want_stopped(instance.pk, StopReason.OPERATOR)
    lifecycle.want_stopped(instance.pk, StopReason.OPERATOR)
    lifecycle.want_absent(instance.pk, timezone.now())
    told = list(instance.events.values_list("kind", "status"))
    assert told == [
        ("create_requested", "provisioning"),
        ("stop_owner", "stopped"),
        ("stop_operator", "suspended"),
        ("stop_operator", ""),
        ("want_absent", "deleting"),
    ]
