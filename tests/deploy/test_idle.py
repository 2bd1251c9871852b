"""Who sleeps: only what nobody used, nobody uses, and has no work of its own."""

from datetime import timedelta
from threading import Barrier

import pytest
from django.utils import timezone

from deploy import idle, lifecycle, probe
from deploy.idle import put_idle_to_sleep
from deploy.models import Instance
from deploy.reconcile import reconcile
from deploy.states import Status, StopReason
from tests.deploy.fake_engine import FakeEngine
from tests.deploy.rows import fresh, new, put

pytestmark = pytest.mark.django_db

IDLE = 60


@pytest.fixture
def unused(fake: FakeEngine) -> Instance:
    """One that runs, and that nobody used for long, neither by our book nor by its own."""
    instance = new(idle_seconds=IDLE)
    reconcile(instance.pk)
    fake.knobs.idle_seconds = IDLE * 2
    return put(instance, last_used_at=timezone.now() - timedelta(seconds=IDLE * 2))


def sleeps(instance: Instance) -> bool:
    """Whether it is put to sleep now."""
    put_idle_to_sleep()
    reconcile(instance.pk)
    now = fresh(instance)
    assert now.status in (Status.RUNNING, Status.SLEEPING)
    return now.status is Status.SLEEPING


def test_what_nobody_uses_sleeps_and_wakes(unused: Instance) -> None:
    assert sleeps(unused)
    assert lifecycle.wake(unused.pk)
    reconcile(unused.pk)
    assert fresh(unused).status is Status.RUNNING
    assert not sleeps(unused), "it was used just now"


def test_what_was_used_stays_awake(unused: Instance) -> None:
    put(unused, last_used_at=timezone.now() - timedelta(seconds=IDLE / 2))
    assert not sleeps(unused)


def test_a_request_in_flight_keeps_it_awake(fake: FakeEngine, unused: Instance) -> None:
    fake.knobs.in_flight = 1
    assert not sleeps(unused)
    fake.knobs.in_flight = 0
    assert sleeps(unused)


def test_work_of_its_own_keeps_it_awake(fake: FakeEngine, unused: Instance) -> None:
    fake.knobs.busy = ["importing a CSV file"]
    assert not sleeps(unused)
    fake.knobs.busy = []
    assert sleeps(unused)


def test_its_own_word_counts_too(fake: FakeEngine, unused: Instance) -> None:
    fake.knobs.idle_seconds = IDLE / 2  # a long download ended then
    assert not sleeps(unused)


def test_a_request_while_it_is_asked_keeps_it_awake(
    unused: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_idle = probe.Health.is_idle

    def somebody_comes(health: probe.Health, seconds: float) -> bool:
        lifecycle.touch(unused.pk)
        return is_idle(health, seconds)

    monkeypatch.setattr(probe.Health, "is_idle", somebody_comes)
    assert not sleeps(unused)


def test_zero_means_never(unused: Instance) -> None:
    put(unused, idle_seconds=0)
    assert not sleeps(unused)


def test_each_has_its_own_time(unused: Instance) -> None:
    put(unused, idle_seconds=IDLE * 10)
    assert not sleeps(unused)


def test_what_does_not_answer_is_looked_at_and_not_stopped(
    fake: FakeEngine, unused: Instance
) -> None:
    before = fresh(unused).revision
    fake.crash(str(unused.pk))
    put_idle_to_sleep()
    now = fresh(unused)
    assert now.revision == before + 1
    assert now.stop_reason == StopReason.NONE


def test_one_that_does_not_answer_does_not_keep_the_others_awake(
    fake: FakeEngine, unused: Instance
) -> None:
    dead = new(idle_seconds=IDLE)
    reconcile(dead.pk)
    put(dead, last_used_at=timezone.now() - timedelta(seconds=IDLE * 3))
    fake.crash(str(dead.pk))
    assert sleeps(unused)


def test_one_at_fault_does_not_keep_the_others_awake(
    fake: FakeEngine, unused: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = new(idle_seconds=IDLE)
    reconcile(strange.pk)
    put(strange, last_used_at=timezone.now() - timedelta(seconds=IDLE * 3))
    ask = probe.health

    def told(instance: Instance, endpoint: str) -> probe.Health:
        if instance.pk == strange.pk:
            raise RuntimeError("whatever nobody thought of")
        return ask(instance, endpoint)

    monkeypatch.setattr(idle.probe, "health", told)
    assert sleeps(unused)


def test_those_that_hang_do_not_queue_up(
    fake: FakeEngine, unused: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that hangs takes its time; they are asked all at once."""
    for _ in range(7):
        other = new(idle_seconds=IDLE)
        reconcile(other.pk)
        put(other, last_used_at=timezone.now() - timedelta(seconds=IDLE * 3))
    together = Barrier(8)
    ask = probe.health

    def ask_together(instance: Instance, endpoint: str) -> probe.Health:
        together.wait(60)
        return ask(instance, endpoint)

    monkeypatch.setattr(idle.probe, "health", ask_together)
    put_idle_to_sleep()
    assert not together.broken
    assert Instance.objects.filter(stop_reason=StopReason.IDLE).count() == 8


@pytest.mark.parametrize("reason", [StopReason.OWNER, StopReason.OPERATOR])
def test_what_was_stopped_is_not_asked(unused: Instance, reason: StopReason) -> None:
    lifecycle.want_stopped(unused.pk, reason)
    put_idle_to_sleep()
    assert fresh(unused).stop_reason == reason
