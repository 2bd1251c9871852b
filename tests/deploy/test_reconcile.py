"""Observe, plan, act: on an engine with bad days, and one whole life on the real one."""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone
from pytest_django import Settings

from deploy import leases, lifecycle
from deploy.engines.base import ABSENT, Engine
from deploy.models import Instance
from deploy.reconcile import reconcile
from deploy.states import Desired, Observed, Status, StopReason
from tests.deploy.fake_engine import FakeEngine, WorkerKilled
from tests.deploy.rows import delete, fresh, kinds, new, put
from tests.factories import make_image

pytestmark = pytest.mark.django_db

CHANGES = ("create", "start", "stop", "pause", "unpause", "remove", "remove_volume")


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for its next attempt waits for longer than any test may be held up."""
    monkeypatch.setattr(lifecycle, "FIRST_RETRY_SECONDS", 60.0)


def done(fake: FakeEngine) -> list[str]:
    """What was done at the engine since this was last asked, without what only looks."""
    calls, fake.calls = fake.calls, []
    return [call for call in calls if call in CHANGES]


def running(**spec: Any) -> Instance:
    instance = new(**spec)
    assert reconcile(instance.pk)
    instance = fresh(instance)
    assert instance.status is Status.RUNNING
    return instance


def again(instance: Instance) -> Instance:
    """Let the time of waiting pass, and have it worked on."""
    put(instance, next_attempt_at=None)
    reconcile(instance.pk)
    return fresh(instance)


def seen(fake: FakeEngine, instance: Instance) -> Observed:
    return fake.observe(str(instance.pk)).observed


# --- a life --------------------------------------------------------------------------------------


def test_from_nothing_to_ready(fake: FakeEngine) -> None:
    instance = running()
    assert done(fake) == ["create", "start"]
    assert kinds(instance) == ["create_requested", "create", "start", "await_ready"]
    assert [event.duration_ms is None for event in instance.events.all()] == [True] + 3 * [False]
    assert instance.endpoint.startswith("unix:")
    assert instance.observed_generation == instance.generation
    assert instance.lease_token is None


def test_it_is_known_on_which_machine_the_container_is_and_was(fake: FakeEngine) -> None:
    instance = running()
    assert instance.node == fake.host().name
    lifecycle.want_absent(instance.pk, timezone.now() + timedelta(days=1))
    instance = again(instance)
    assert (instance.observed, instance.node) == (Observed.ABSENT, fake.host().name)


def test_of_an_older_one_the_machine_is_known_when_it_is_looked_at(fake: FakeEngine) -> None:
    instance = put(running(), node="")
    events = kinds(instance)
    instance = again(instance)
    assert (instance.node, kinds(instance)) == (fake.host().name, events)


def test_what_is_as_it_should_be_is_left_alone(fake: FakeEngine) -> None:
    instance = running()
    events = kinds(instance)
    fake.calls.clear()
    for _ in range(3):  # a task that is delivered again and again
        reconcile(instance.pk)
    assert set(fake.calls) == {"observe"}
    assert kinds(instance) == events


def test_stop_and_start(fake: FakeEngine) -> None:
    instance = running()
    lifecycle.want_stopped(instance.pk, StopReason.OWNER)
    reconcile(instance.pk)
    assert fresh(instance).status is Status.STOPPED
    lifecycle.want_running(instance.pk)
    reconcile(instance.pk)
    assert fresh(instance).status is Status.RUNNING
    assert done(fake) == ["create", "start", "stop", "start"]


def test_the_door_closes_before_the_stop(fake: FakeEngine) -> None:
    instance = running()
    open_then: list[bool] = []
    fake.knobs.before["stop"] = lambda: open_then.append(fresh(instance).ready)
    lifecycle.want_stopped(instance.pk, StopReason.IDLE)
    reconcile(instance.pk)
    assert open_then == [False]
    assert fresh(instance).status is Status.SLEEPING


def test_pause_and_wake(fake: FakeEngine) -> None:
    instance = running()
    put(instance, desired=Desired.PAUSED)
    reconcile(instance.pk)
    assert fresh(instance).status is Status.SLEEPING
    assert lifecycle.wake(instance.pk)
    reconcile(instance.pk)
    assert fresh(instance).status is Status.RUNNING
    assert done(fake) == ["create", "start", "pause", "unpause"]


def test_a_new_spec_replaces_the_container_and_keeps_the_data(fake: FakeEngine) -> None:
    instance = running()
    lifecycle.change_spec(instance.pk, memory_mb=1024)
    reconcile(instance.pk)
    assert done(fake) == ["create", "start", "stop", "remove", "create", "start"]
    assert fake.observe(str(instance.pk)).generation == 2
    assert fresh(instance).status is Status.RUNNING
    assert fake.volumes() == {instance.volume}


def test_delete_keeps_the_data_for_its_grace_period(fake: FakeEngine) -> None:
    instance = running()
    delete(instance)
    reconcile(instance.pk)
    assert fake.observe(str(instance.pk)) == ABSENT
    assert fake.volumes() == {instance.volume}
    assert fresh(instance).status is Status.DELETING
    put(instance, purge_at=timezone.now())
    reconcile(instance.pk)
    assert fake.volumes() == set()
    assert fresh(instance).status is Status.DELETED
    assert done(fake) == ["create", "start", "stop", "remove", "remove_volume"]
    assert not reconcile(instance.pk)


def test_a_successor_waits_until_the_old_container_is_gone(fake: FakeEngine) -> None:
    old = running()
    delete(old)
    heir = lifecycle.succeed(old.pk)
    reconcile(heir.pk)
    assert fake.observe(str(heir.pk)) == ABSENT
    reconcile(old.pk)
    assert fresh(old).status is Status.DELETED
    assert fake.volumes() == {old.volume}
    reconcile(heir.pk)
    assert fresh(heir).status is Status.RUNNING
    assert fake.volumes() == {heir.volume} == {old.volume}


@pytest.mark.django_db(transaction=True)
def test_one_life_on_the_real_engine(engine: Engine, workspace_image: str) -> None:
    instance = running(image=make_image(reference=workspace_image))
    assert engine.observe(str(instance.pk)).observed is Observed.RUNNING
    lifecycle.restart(instance.pk)
    reconcile(instance.pk)
    assert engine.observe(str(instance.pk)).generation == 2
    lifecycle.want_stopped(instance.pk, StopReason.IDLE)
    reconcile(instance.pk)
    assert fresh(instance).status is Status.SLEEPING
    assert lifecycle.wake(instance.pk)
    reconcile(instance.pk)
    assert fresh(instance).status is Status.RUNNING
    delete(instance)
    reconcile(instance.pk)
    assert instance.volume in engine.volumes()
    heir = lifecycle.succeed(instance.pk)
    reconcile(instance.pk)
    reconcile(heir.pk)
    assert fresh(heir).status is Status.RUNNING
    delete(heir, grace=-1.0)
    reconcile(heir.pk)
    assert fresh(heir).status is Status.DELETED
    assert heir.volume not in engine.volumes()
    assert not Path(settings.RUN_DIR, "instances", str(heir.pk)).exists()


# --- somebody asks for something else meanwhile --------------------------------------------------


def test_a_request_during_the_work_is_noticed(fake: FakeEngine) -> None:
    instance = new()
    stop = lifecycle.want_stopped
    fake.knobs.after["start"] = lambda: stop(instance.pk, StopReason.OWNER)
    reconcile(instance.pk)
    assert fresh(instance).status is Status.STOPPED
    assert seen(fake, instance) is Observed.EXITED


def test_a_delete_during_the_create_wins(fake: FakeEngine) -> None:
    instance = new()
    fake.knobs.after["create"] = lambda: delete(instance)
    reconcile(instance.pk)
    assert fake.observe(str(instance.pk)) == ABSENT
    assert done(fake) == ["create", "remove"]


def test_another_spec_during_the_start_is_noticed(fake: FakeEngine) -> None:
    instance = new()

    def restart_once() -> None:
        del fake.knobs.after["start"]
        lifecycle.restart(instance.pk)

    fake.knobs.after["start"] = restart_once
    reconcile(instance.pk)
    assert fake.observe(str(instance.pk)).generation == 2
    assert fresh(instance).status is Status.RUNNING


def test_what_never_gets_ready_can_be_stopped_at_once(fake: FakeEngine) -> None:
    instance = new()
    fake.knobs.never_ready = True
    fake.knobs.after["start"] = lambda: delete(instance)
    reconcile(instance.pk)
    assert fake.observe(str(instance.pk)) == ABSENT


def test_a_second_worker_leaves_it_to_the_first(fake: FakeEngine) -> None:
    instance = new()
    assert leases.claim(instance.pk)
    assert not reconcile(instance.pk)
    assert fake.calls == []


def test_who_lost_the_lease_in_mid_step_stops_and_writes_nothing(fake: FakeEngine) -> None:
    instance = new()
    fake.knobs.after["create"] = lambda: put(instance, lease_token=uuid.uuid4())
    reconcile(instance.pk)
    assert done(fake) == ["create"]
    assert kinds(instance) == ["create_requested"]
    assert fresh(instance).lease_token, "the other one's lease stays"


# --- a worker dies -------------------------------------------------------------------------------

DEATHS = [
    (when, call)
    for call in ("create", "start", "seal", "stop", "remove", "remove_volume")
    for when in ("before", "after")
]


@pytest.mark.parametrize(("when", "call"), DEATHS)
def test_a_worker_that_dies_is_followed_by_one_that_finishes(
    fake: FakeEngine, when: str, call: str
) -> None:
    setattr(fake.knobs, f"kill_worker_{when}", call)
    instance = new()

    def work() -> bool:
        """Reconcile; when the worker is killed, leave what a SIGKILL leaves: its lease."""
        try:
            return reconcile(instance.pk)
        except WorkerKilled:
            soon = timezone.now() + timedelta(minutes=1)
            put(instance, lease_token=uuid.uuid4(), lease_expires_at=soon)
            assert not reconcile(instance.pk), "the lease of the dead one still holds"
            put(instance, lease_expires_at=timezone.now() - timedelta(seconds=1))
            return reconcile(instance.pk)

    work()
    assert fresh(instance).status is Status.RUNNING
    assert len(fake.observe_all()) == 1
    delete(instance, grace=-1.0)
    work()
    assert fresh(instance).status is Status.DELETED
    assert fake.observe_all() == {}
    assert fake.volumes() == set()
    assert fresh(instance).attempts == 0


# --- bad days ------------------------------------------------------------------------------------


def test_an_engine_that_does_not_answer_changes_nothing(fake: FakeEngine) -> None:
    instance = running()
    fake.knobs.unreachable = True
    fake.calls.clear()
    now = again(instance)
    assert (now.observed, now.ready, now.status) == (Observed.UNKNOWN, True, Status.RUNNING)
    assert "engine does not answer" in now.last_error
    assert fake.calls == ["observe"]
    delete(instance)
    assert again(instance).status is Status.DELETING
    fake.knobs.unreachable = False
    assert again(instance).observed == Observed.ABSENT


def test_an_engine_that_comes_back_finds_all_as_it_was(fake: FakeEngine) -> None:
    instance = running()
    fake.knobs.unreachable = True
    again(instance)
    fake.knobs.unreachable = False
    fake.calls.clear()
    now = again(instance)
    assert (now.observed, now.ready, now.last_error) == (Observed.RUNNING, True, "")
    assert done(fake) == []


@pytest.mark.parametrize("call", ["create", "start"])
def test_what_fails_is_tried_again_and_told_in_words(fake: FakeEngine, call: str) -> None:
    fake.knobs.broken = {call}
    instance = new()
    reconcile(instance.pk)
    now = fresh(instance)
    assert now.last_error == "The container engine did not do its work. We keep trying."
    assert now.attempts == 1
    assert now.status is Status.PROVISIONING
    failed = now.events.filter(failed=True).get()
    assert (failed.kind, failed.message) == (call, now.last_error)
    fake.calls.clear()
    reconcile(instance.pk)
    assert fake.calls == [], "not before its time"
    fake.knobs.broken = set()
    assert again(instance).status is Status.RUNNING


def test_what_is_refused_says_why(fake: FakeEngine) -> None:
    fake.knobs.refused = {"create"}
    instance = new()
    reconcile(instance.pk)
    said = fresh(instance).last_error
    assert said == "The container engine refused to create it: create: no"


def test_what_keeps_failing_is_failed_and_a_person_can_try_again(fake: FakeEngine) -> None:
    fake.knobs.broken = {"start"}
    instance = new()
    reconcile(instance.pk)
    for _ in range(3):
        instance = again(instance)
    assert instance.status is Status.FAILED
    fake.knobs.broken = set()
    lifecycle.want_running(instance.pk)
    reconcile(instance.pk)
    assert fresh(instance).status is Status.RUNNING


@pytest.mark.parametrize("request_", ["stop", "delete"])
def test_failures_never_block_a_stop_or_a_delete(fake: FakeEngine, request_: str) -> None:
    fake.knobs.broken = {"start"}
    instance = new()
    reconcile(instance.pk)
    put(instance, attempts=9, next_attempt_at=timezone.now() + timedelta(hours=1))
    if request_ == "stop":
        lifecycle.want_stopped(instance.pk, StopReason.OWNER)
    else:
        delete(instance, grace=-1.0)
    reconcile(instance.pk)
    wanted = Status.STOPPED if request_ == "stop" else Status.DELETED
    assert fresh(instance).status is wanted


def test_one_that_never_answers_is_given_up_in_time(fake: FakeEngine, settings: Settings) -> None:
    settings.START_TIMEOUT_SECONDS = 0.1
    fake.knobs.never_ready = True
    instance = new()
    reconcile(instance.pk)
    now = fresh(instance)
    assert now.last_error == "It started, but did not answer in time."
    assert not now.ready
    assert seen(fake, instance) is Observed.EXITED


def test_one_that_takes_its_time_is_waited_for(fake: FakeEngine) -> None:
    fake.knobs.ready_after = 0.3
    fake.knobs.slow = 0.02
    assert running().ready


def test_one_that_crashes_at_its_start_backs_off(fake: FakeEngine) -> None:
    fake.knobs.crash_at_start = True
    instance = new()
    for attempt in range(1, 4):
        instance = again(instance)
        assert instance.attempts == attempt
        assert instance.next_attempt_at
    assert instance.status is Status.FAILED
    assert "exit code 3" in instance.last_error


def test_one_that_crashes_again_and_again_backs_off(fake: FakeEngine) -> None:
    fake.knobs.crash_after = 1
    instance = running()
    delays = []
    for _ in range(3):
        fake.crash(str(instance.pk))
        reconcile(instance.pk)  # as the watcher has it done
        waiting = fresh(instance)
        assert waiting.next_attempt_at
        delays.append(waiting.next_attempt_at - timezone.now())
        instance = again(instance)
        assert instance.ready
    assert delays == sorted(delays)
    assert kinds(instance).count("lost") == 3


# --- behind our back -----------------------------------------------------------------------------


def test_one_that_ran_for_long_is_started_again_at_once(fake: FakeEngine) -> None:
    instance = running()
    put(instance, ready_at=timezone.now() - timedelta(hours=1))
    fake.crash(str(instance.pk), code=9)
    reconcile(instance.pk)
    now = fresh(instance)
    assert now.status is Status.RUNNING
    lost = now.events.get(kind="lost")
    assert lost.message == "It stopped by itself (exit code 9)."


def test_one_that_was_removed_is_made_again_with_its_data(fake: FakeEngine) -> None:
    instance = running()
    put(instance, ready_at=timezone.now() - timedelta(hours=1))
    fake.vanish(str(instance.pk))
    reconcile(instance.pk)
    assert fresh(instance).status is Status.RUNNING
    assert fresh(instance).events.get(kind="lost").message.startswith("Its container was removed")
    assert fake.volumes() == {instance.volume}


def test_one_that_was_restarted_is_asked_again_before_anybody_is_let_in(fake: FakeEngine) -> None:
    instance = running()
    fake.restarted(str(instance.pk))
    reconcile(instance.pk)
    now = fresh(instance)
    assert now.ready
    assert now.started_at
    assert instance.started_at
    assert now.started_at > instance.started_at
    assert kinds(now).count("await_ready") == 2


def test_one_that_was_frozen_goes_on(fake: FakeEngine) -> None:
    instance = running()
    fake.pause(str(instance.pk))
    reconcile(instance.pk)
    assert fresh(instance).status is Status.RUNNING


def test_one_that_should_be_stopped_and_was_started_is_stopped(fake: FakeEngine) -> None:
    instance = running()
    lifecycle.want_stopped(instance.pk, StopReason.OPERATOR)
    reconcile(instance.pk)
    fake.start(str(instance.pk))
    reconcile(instance.pk)
    assert seen(fake, instance) is Observed.EXITED
    assert fresh(instance).status is Status.SUSPENDED


def test_a_container_that_nobody_noted_is_adopted(fake: FakeEngine) -> None:
    instance = running()
    before = fake.observe(str(instance.pk)).container_id
    put(instance, observed=Observed.ABSENT, ready=False, started_at=None, endpoint="")
    reconcile(instance.pk)
    assert fake.observe(str(instance.pk)).container_id == before
    assert fresh(instance).ready


def test_somebody_else_at_the_endpoint_is_not_ready(fake: FakeEngine, settings: Settings) -> None:
    settings.START_TIMEOUT_SECONDS = 0.1
    instance = new()
    # Its container was made with another key, as every other instance's was.
    fake.knobs.after["create"] = lambda: put(instance, key="another" * 8)
    reconcile(instance.pk)
    assert not fresh(instance).ready


# --- asleep --------------------------------------------------------------------------------------


def test_a_deaf_one_is_killed(fake: FakeEngine, settings: Settings) -> None:
    settings.STOP_TIMEOUT_SECONDS = 0
    instance = running()
    fake.knobs.deaf = True
    lifecycle.want_stopped(instance.pk, StopReason.IDLE)
    reconcile(instance.pk)
    assert fresh(instance).status is Status.SLEEPING
