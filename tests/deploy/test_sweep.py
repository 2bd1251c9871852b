"""Rows against what the engine has: what was lost, the sweep finds; what is not ours, it leaves."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from deploy import lifecycle
from deploy.engines.base import ABSENT, InstanceSpec
from deploy.models import Instance, Orphan
from deploy.states import Observed, Status, StopReason
from deploy.sweep import sweep
from tests.deploy.boxes import Box
from tests.deploy.fake_engine import FakeEngine
from tests.deploy.rows import delete, fresh, held, new, put

# The sweep's threads have connections of their own, and must see the rows.
pytestmark = pytest.mark.django_db(transaction=True)

LONG = timedelta(hours=2)


@pytest.fixture(autouse=True)
def patience(settings: Settings) -> None:
    """A sweep returns when all is done, however busy this machine is."""
    settings.SWEEP_SECONDS = 90.0


def running() -> Instance:
    """One that nobody was told of: no task was ever sent."""
    instance = new()
    assert sweep() == 1
    assert fresh(instance).status is Status.RUNNING
    return put(instance, ready_at=timezone.now() - LONG)


def test_lost_tasks_are_made_up_for(fake: FakeEngine) -> None:
    several = [new() for _ in range(4)]
    assert sweep() == 4
    assert {fresh(instance).status for instance in several} == {Status.RUNNING}
    lifecycle.want_stopped(several[0].pk, StopReason.OWNER)
    delete(several[1], grace=-1.0)
    assert sweep() == 2
    assert fresh(several[0]).status is Status.STOPPED
    assert fresh(several[1]).status is Status.DELETED


def test_there_is_nothing_to_do_when_all_is_well(fake: FakeEngine) -> None:
    running()
    fake.calls.clear()
    assert sweep() == 0
    assert set(fake.calls) == {"observe_all", "volumes"}


@pytest.mark.parametrize("what", ["crash", "vanish", "restarted", "pause"])
def test_what_happened_behind_our_back_is_mended(fake: FakeEngine, what: str) -> None:
    instance = running()
    getattr(fake, what)(str(instance.pk))
    assert sweep() == 1
    assert fresh(instance).status is Status.RUNNING
    assert fake.observe(str(instance.pk)).observed is Observed.RUNNING


def test_what_runs_and_should_not_is_stopped(fake: FakeEngine) -> None:
    instance = running()
    lifecycle.want_stopped(instance.pk, StopReason.OPERATOR)
    sweep()
    fake.start(str(instance.pk))
    assert sweep() == 1
    assert fake.observe(str(instance.pk)).observed is Observed.EXITED


def test_what_somebody_works_on_is_left_to_them(fake: FakeEngine) -> None:
    instance = new()
    held(instance)
    assert sweep() == 0
    assert fake.observe(str(instance.pk)) == ABSENT
    put(instance, lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert sweep() == 1


def test_a_dead_workers_lease_is_tidied_up_though_all_is_well(fake: FakeEngine) -> None:
    """It died when its work was done: nothing is left to do, and nobody is at it."""
    instance = running()
    held(instance)
    assert sweep() == 0
    put(instance, lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert sweep() == 1
    assert (fresh(instance).lease_token, fresh(instance).lease_expires_at) == (None, None)
    assert sweep() == 0


def test_what_failed_waits_for_its_time(fake: FakeEngine) -> None:
    fake.knobs.broken = {"create"}
    instance = new()
    assert sweep() == 1
    put(instance, next_attempt_at=timezone.now() + LONG)
    assert sweep() == 0
    put(instance, next_attempt_at=timezone.now())
    assert sweep() == 1


@pytest.mark.parametrize("silent", ["observe_all", "volumes"])
def test_an_engine_that_does_not_answer_ends_the_sweep(fake: FakeEngine, silent: str) -> None:
    instance = running()
    fake.vanish(str(instance.pk))
    fake.knobs.broken = {silent}
    assert sweep() == 0
    assert fresh(instance).status is Status.RUNNING
    assert not Orphan.objects.exists()


def test_one_instance_s_trouble_is_its_own(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = new(), new()

    def create(spec: InstanceSpec) -> None:
        if spec.instance_id == str(bad.pk):
            raise ZeroDivisionError
        FakeEngine.create(fake, spec)

    monkeypatch.setattr(fake, "create", create)
    sweep()
    assert fresh(good).status is Status.RUNNING


def test_twins_swept_at_once_are_one_container(fake: FakeEngine) -> None:
    instance = new()
    fake.knobs.slow = 0.02
    sweep()
    sweep()
    assert fake.calls.count("create") == 1
    assert fresh(instance).status is Status.RUNNING


# --- orphans --------------------------------------------------------------------------------------


@pytest.fixture
def orphan(fake: FakeEngine) -> Box:
    """A container with its volume that no row knows."""
    box = Box(fake, "image", fake.namespace, id=str(uuid.uuid4()))
    fake.create(box.spec)
    fake.start(box.id)
    return box


def _age(name: str) -> None:
    assert Orphan.objects.filter(name=name).update(first_seen_at=timezone.now() - LONG)


def test_orphans_are_reported_and_not_touched(fake: FakeEngine, orphan: Box) -> None:
    sweep()
    sweep()
    found = {(o.kind, o.name) for o in Orphan.objects.all()}
    assert found == {("container", orphan.id), ("volume", orphan.volume)}
    assert orphan.observe().observed is Observed.RUNNING


def test_orphans_are_stopped_and_removed_after_their_grace_period(
    fake: FakeEngine, orphan: Box
) -> None:
    sweep()
    _age(orphan.id)
    fake.calls.clear()
    sweep()
    assert orphan.observe() == ABSENT
    assert [call for call in fake.calls if call in ("stop", "remove")] == ["stop", "remove"]
    assert not Orphan.objects.filter(kind="container").exists()


def test_data_is_never_removed_because_nobody_knows_it(fake: FakeEngine, orphan: Box) -> None:
    sweep()
    _age(orphan.id)
    _age(orphan.volume)
    sweep()
    sweep()
    assert orphan.volume in fake.volumes()
    assert Orphan.objects.filter(kind="volume", name=orphan.volume).exists()


def test_other_namespaces_are_none_of_ours(fake: FakeEngine) -> None:
    other = FakeEngine(fake._run_dir, fake.world, "other")
    box = Box(other, "image", "other")
    other.create(box.spec)
    sweep()
    assert not Orphan.objects.exists()
    assert box.observe().observed is Observed.CREATED


def test_what_is_gone_or_known_is_no_orphan_any_more(fake: FakeEngine, orphan: Box) -> None:
    sweep()
    fake.remove(orphan.id)
    fake.remove_volume(orphan.volume)
    sweep()
    assert not Orphan.objects.exists()


def test_an_orphan_that_cannot_be_removed_is_tried_again(fake: FakeEngine, orphan: Box) -> None:
    sweep()
    _age(orphan.id)
    fake.knobs.broken = {"remove"}
    sweep()
    assert Orphan.objects.filter(name=orphan.id).exists()
    fake.knobs.broken = set()
    sweep()
    assert orphan.observe() == ABSENT


def test_data_that_a_successor_took_over_is_no_orphan(fake: FakeEngine) -> None:
    old = running()
    delete(old)
    heir = lifecycle.succeed(old.pk)
    sweep()
    sweep()
    assert fresh(heir).status is Status.RUNNING
    assert not Orphan.objects.exists()


def test_the_container_of_what_is_purged_is_an_orphan(fake: FakeEngine) -> None:
    instance = running()
    delete(instance)
    put(instance, purged_at=timezone.now())
    sweep()
    assert Orphan.objects.filter(name=str(instance.pk)).exists()
