"""A worker is killed between each two steps of its work; another one takes over what it left."""

from datetime import timedelta

import pytest
from django.utils import timezone

from deploy import lifecycle
from deploy.models import Instance
from deploy.states import Observed, StopReason
from tests.faults.processes import Process
from tests.faults.world import DYING, READY, World

CREATED = ["create_requested", "create", "start", "await_ready"]
WOKEN = ["wake", "start", "await_ready"]
RESTARTED = ["restart", "stop", "remove", "create", "start", "await_ready"]
DELETED = ["want_absent", "stop", "remove"]
PURGED = [*DELETED, "purge"]


def without(kinds: list[str], kind: str) -> list[str]:
    """The events when a worker died after doing this and before noting it.

    What was done is found done, and is not done again.
    """
    return [other for other in kinds if other != kind]


@pytest.fixture(autouse=True)
def nobody_watches(world: World) -> None:
    """A watcher has the healthy workers look at what happens, before the dying ones can."""
    world.without("watcher")


def wait_killed(world: World, worker: Process, instance: Instance) -> None:
    """Wait until the worker has died with the work in its hands, and its lease is over."""
    worker.wait_dead()
    row = Instance.objects.get(pk=instance.pk)
    assert row.lease_token is not None, "it died without a lease"
    world.leases_lapse(row)


@pytest.mark.parametrize(
    ("point", "events"),
    [
        ("leases.claim after", CREATED),
        ("engine.create before", CREATED),
        ("engine.create after", without(CREATED, "create")),
        ("engine.start before", CREATED),
        ("engine.start after", without(CREATED, "start")),
        ("probe.health before", CREATED),
        ("engine.seal before", CREATED),
        ("engine.seal after", CREATED),
        ("lifecycle.record_ready after", CREATED),
    ],
)
def test_while_provisioning(world: World, point: str, events: list[str]) -> None:
    world.worker()
    worker = world.dying_worker(f"kill {point}")
    with world.calls_go_to(DYING):
        instance = world.create()
    wait_killed(world, worker, instance)
    left = world.containers(instance)
    data = bool(left) and left[0]["State"] == "running"
    if data:
        world.write(instance, "before")

    world.swept_until(instance, desired="running", ready=True)

    world.assert_engine_holds_what_the_rows_say()
    if left:
        assert world.container(instance)["Id"] == left[0]["Id"], "adopted, not duplicated"
    assert world.events(instance) == events
    world.write(instance, "after")
    assert world.read(instance) == ["before"] * data + ["after"]


def test_while_waking(world: World) -> None:
    instance = world.created()
    world.write(instance, "kept")
    for point, events in (
        ("engine.start before", WOKEN),
        ("engine.start after", without(WOKEN, "start")),
        ("probe.health before", WOKEN),
        ("engine.seal after", WOKEN),
    ):
        worker = world.dying_worker(f"kill {point}")
        lifecycle.want_stopped(instance.pk, StopReason.IDLE)
        world.wait(instance, "asleep", observed=Observed.EXITED, lease_token=None)
        before = world.last_event(instance)
        with world.calls_go_to(DYING):
            assert lifecycle.wake(instance.pk)
        wait_killed(world, worker, instance)

        world.swept_until(instance, **READY)

        assert world.events(instance, before) == events, point
        assert world.read(instance) == ["kept"], point
        world.assert_engine_holds_what_the_rows_say()


def test_while_restarting(world: World) -> None:
    instance = world.created()
    world.write(instance, "kept")
    for point, events in (
        ("lifecycle.record_closed after", RESTARTED),
        ("engine.stop after", without(RESTARTED, "stop")),
        ("engine.remove after", without(RESTARTED, "remove")),
        ("engine.create before", RESTARTED),
        ("engine.create after", without(RESTARTED, "create")),
    ):
        before = world.last_event(instance)
        worker = world.dying_worker(f"kill {point}")
        with world.calls_go_to(DYING):
            lifecycle.restart(instance.pk)
        wait_killed(world, worker, instance)

        world.swept_until(instance, **READY)

        assert world.events(instance, before) == events, point
        assert world.read(instance) == ["kept"], point
        world.assert_engine_holds_what_the_rows_say()


def test_while_putting_to_sleep(world: World) -> None:
    worker = world.dying_worker("kill engine.stop after")
    instance = world.created()
    world.write(instance, "kept")
    with world.calls_go_to(DYING):
        lifecycle.want_stopped(instance.pk, StopReason.IDLE)
    wait_killed(world, worker, instance)

    instance = world.swept_until(instance, observed=Observed.EXITED)

    assert instance.status == "sleeping"
    assert world.events(instance) == [*CREATED, "stop_idle"]
    assert lifecycle.wake(instance.pk)
    world.wait_ready(instance)
    assert world.read(instance) == ["kept"]


@pytest.mark.parametrize(
    ("point", "events"),
    [
        ("engine.stop before", DELETED),
        ("engine.stop after", without(DELETED, "stop")),
        ("engine.remove before", DELETED),
        ("engine.remove after", without(DELETED, "remove")),
    ],
)
def test_while_deleting_and_the_data_outlives_it(
    world: World, point: str, events: list[str]
) -> None:
    worker = world.dying_worker(f"kill {point}")
    instance = world.created()
    world.write(instance, "kept")
    before = world.last_event(instance)
    with world.calls_go_to(DYING):
        lifecycle.want_absent(instance.pk, timezone.now() + timedelta(hours=1))
    wait_killed(world, worker, instance)

    instance = world.swept_until(instance, observed=Observed.ABSENT)

    assert world.events(instance, before) == events
    assert world.volumes() == {instance.volume}
    successor = lifecycle.succeed(instance.pk)
    world.wait_ready(successor)
    assert world.read(successor) == ["kept"]
    world.assert_engine_holds_what_the_rows_say()


@pytest.mark.parametrize("point", ["engine.remove_volume before", "engine.remove_volume after"])
def test_while_purging(world: World, point: str) -> None:
    worker = world.dying_worker(f"kill {point}")
    instance = world.created()
    before = world.last_event(instance)
    with world.calls_go_to(DYING):
        lifecycle.want_absent(instance.pk, timezone.now())
    wait_killed(world, worker, instance)

    instance = world.swept_until(instance, purged_at__isnull=False)

    assert instance.status == "deleted"
    assert world.events(instance, before) == PURGED
    assert not world.containers()
    assert not world.volumes()


def test_while_handing_the_data_over_to_a_successor(world: World) -> None:
    instance = world.created()
    world.write(instance, "kept")
    with world.calls_go_to(DYING):
        lifecycle.want_absent(instance.pk, timezone.now() + timedelta(hours=1))
        successor = lifecycle.succeed(instance.pk)
    for point in ("engine.remove after", "lifecycle.record_purged before", "engine.start after"):
        worker = world.dying_worker(f"kill {point}")
        with world.calls_go_to(DYING):
            lifecycle.poke(instance.pk)
            lifecycle.poke(successor.pk)
        worker.wait_dead()
        world.leases_lapse()

    world.swept_until(successor, **READY)

    assert world.read(successor) == ["kept"]
    world.assert_engine_holds_what_the_rows_say()
