"""Many workers, sweeps and requests at the same instance, at the same time; and late ones."""

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from deploy import lifecycle, reconcile
from deploy.models import Instance, InstanceEvent
from deploy.states import Desired, Observed, StopReason
from tests.faults.processes import SECONDS, Process, wait_for
from tests.faults.world import DYING, READY, World

CREATED = ["create_requested", "create", "start", "await_ready"]
RESTARTED = ["restart", "stop", "remove", "create", "start", "await_ready"]
PURGED = ["want_absent", "stop", "remove", "purge"]


@pytest.fixture(autouse=True)
def nobody_watches(world: World) -> None:
    """A watcher has the healthy workers look at what happens, before others can."""
    world.without("watcher")


def test_two_sweeps_and_three_reconciles_at_once(world: World) -> None:
    """Each step is done once, whoever does it."""
    with world.calls_go_to(DYING), world.in_process() as sweep:
        instance = world.create()

        def all_at_once() -> None:
            together = threading.Barrier(5)

            def work(number: int) -> None:
                together.wait()
                if number < 2:
                    sweep()
                else:
                    reconcile.reconcile(instance.pk)
                connection.close()

            with ThreadPoolExecutor(5) as pool:
                list(pool.map(work, range(5)))

        all_at_once()
        world.wait_ready(instance)
        lifecycle.restart(instance.pk)
        all_at_once()
        world.wait(instance, "restarted", observed_generation=2, **READY)
        world.assert_engine_holds_what_the_rows_say()
        lifecycle.want_absent(instance.pk, timezone.now())
        all_at_once()
        world.wait_purged(instance)
    assert world.events(instance) == [*CREATED, *RESTARTED, *PURGED]
    assert not world.volumes()


# --- undoing a deletion --------------------------------------------------------------------------


def test_a_deletion_is_undone_while_the_container_stops(world: World) -> None:
    worker = world.dying_worker("freeze engine.stop before")
    instance = world.created()
    world.write(instance, "kept")
    with world.calls_go_to(DYING):
        lifecycle.want_absent(instance.pk, timezone.now() + timedelta(hours=1))
    wait_frozen(worker)
    # It still runs, and nobody will stop it before the lease is over.
    successor = lifecycle.succeed(instance.pk)
    assert world.container(instance)["State"]["Running"]
    world.leases_lapse(instance)

    world.swept_until(instance, purged_at__isnull=False)
    world.swept_until(successor, **READY)

    # Never two at one database: the one is gone before the other is made.
    gone = InstanceEvent.objects.get(instance=instance, kind="purge")
    made = InstanceEvent.objects.get(instance=successor, kind="create")
    assert gone.at < made.at
    assert world.read(successor) == ["kept"]
    worker.signal(signal.SIGCONT)  # the late one finds nothing to stop, and nothing to write
    wait_for(lambda: "lost the lease" in log_of(world, worker), "it notices")
    world.assert_engine_holds_what_the_rows_say()
    assert world.answers(world.wait_ready(successor))


def test_a_deletion_is_undone_at_the_last_moment(world: World) -> None:
    """The worker has read the row and asked the engine; when it acts, the data is due."""
    instance = world.created()
    world.write(instance, "kept")
    worker = world.dying_worker("freeze engine.observe after")
    lifecycle.want_absent(instance.pk, timezone.now() + timedelta(hours=1))
    world.wait(instance, "removed", observed=Observed.ABSENT, lease_token=None)
    row, hour = Instance.objects.filter(pk=instance.pk), timedelta(hours=1)
    with world.calls_go_to(DYING):
        # Instead of waiting for it: the worker reads that the time is over already, ...
        row.update(purge_at=timezone.now() - hour)
        lifecycle.poke(instance.pk)
        wait_frozen(worker)
        # ... and for who undoes the deletion it is not over yet.
        row.update(purge_at=timezone.now() + hour)
        successor = lifecycle.succeed(instance.pk)
    assert row.get().purge_at <= timezone.now()
    worker.signal(signal.SIGCONT)

    world.wait_purged(instance)
    world.swept_until(successor, **READY)
    assert world.read(successor) == ["kept"]
    world.assert_engine_holds_what_the_rows_say()


# --- workers that come late ----------------------------------------------------------------------


def wait_frozen(worker: Process) -> None:
    """Wait until the worker has come to the point where it freezes."""
    wait_for(lambda: worker.frozen, "the worker is frozen")


def log_of(world: World, worker: Process) -> str:
    """What a worker wrote."""
    return (world.directory / f"{worker.name}.log").read_text()


def thaw(world: World, worker: Process) -> None:
    """Let it go on, and wait until it has seen that it lost the lease."""
    worker.signal(signal.SIGCONT)
    wait_for(lambda: "lost the lease" in log_of(world, worker), "it notices that it is late")


@pytest.mark.parametrize(
    "point",
    ["engine.create before", "engine.start before", "engine.seal before", "engine.seal after"],
)
def test_a_late_worker_neither_writes_nor_breaks_anything(world: World, point: str) -> None:
    """It was frozen for longer than its lease; another worker has finished the work since."""
    world.worker()
    worker = world.dying_worker(f"freeze {point}")
    with world.calls_go_to(DYING):
        instance = world.create()
    wait_frozen(worker)
    world.leases_lapse(instance)
    instance = world.swept_until(instance, **READY)
    world.write(instance, "kept")
    events = world.events(instance)
    container = world.container(instance)["Id"]

    thaw(world, worker)

    now = Instance.objects.get(pk=instance.pk)
    assert (now.ready, now.started_at, now.endpoint) == (
        True,
        instance.started_at,
        instance.endpoint,
    )
    assert world.events(instance) == events
    assert world.container(instance)["Id"] == container
    assert world.answers(now)
    assert world.read(now) == ["kept"]


def test_a_late_stop_of_what_runs_again_is_mended(world: World) -> None:
    worker = world.dying_worker("freeze engine.stop before")
    instance = world.created()
    world.write(instance, "kept")
    with world.calls_go_to(DYING):
        lifecycle.want_stopped(instance.pk, StopReason.OWNER)
    wait_frozen(worker)
    world.leases_lapse(instance)
    world.swept_until(instance, observed=Observed.EXITED, lease_token=None)
    lifecycle.want_running(instance.pk)
    world.wait_ready(instance)

    thaw(world, worker)  # stops it, and may not say so

    world.swept_until(instance, events__kind="lost")
    world.swept_until(instance, **READY)
    assert world.read(instance) == ["kept"]
    world.assert_engine_holds_what_the_rows_say()


def test_a_late_create_of_what_was_deleted_is_an_orphan(world: World) -> None:
    world.worker()
    worker = world.dying_worker("freeze engine.create before")
    with world.calls_go_to(DYING):
        instance = world.create()
        wait_frozen(worker)
        lifecycle.want_absent(instance.pk, timezone.now())
    world.leases_lapse(instance)
    instance = world.swept_until(instance, purged_at__isnull=False)
    events = world.events(instance)

    thaw(world, worker)  # makes the container of an instance that is no more

    assert world.events(instance) == events
    assert world.container(instance)["State"]["Status"] == "created", "it is never started"
    with world.in_process(ORPHAN_GRACE_SECONDS=0) as sweep:
        sweep()
    assert not world.containers()


def test_a_late_failure_does_not_put_a_deletion_off(world: World) -> None:
    """What was asked for while the action failed must not wait for that action's next attempt."""
    worker = world.dying_worker("freeze engine.start before")
    with world.calls_go_to(DYING):
        instance = world.create()
        wait_frozen(worker)
        world.docker.remove_container(world.name(instance))  # so that the start must fail
        lifecycle.want_absent(instance.pk, timezone.now())
        worker.signal(signal.SIGCONT)
        instance = world.wait_purged(instance)
    assert world.events(instance) == [
        "create_requested",
        "create",
        "want_absent",
        "start!",
        "purge",
    ]
    assert instance.next_attempt_at is None
    assert not world.volumes()


# --- anything, at any time -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1])
def test_anything_at_any_time_while_workers_die(world: World, seed: int) -> None:
    """Requests at random while workers die at random; in the end all is as the rows say."""
    chance = random.Random(seed)
    instances = [world.created() for _ in range(3)]
    for number, instance in enumerate(instances):
        world.write(instance, f"data {number}")
    world.order.write_text(f"kill * 0.04 {seed}")
    workers = [world.dying_worker(), world.dying_worker()]
    deaths = 0
    began = time.monotonic()
    with world.calls_go_to(DYING):
        while time.monotonic() - began < (6 if deaths else SECONDS):
            for number, worker in enumerate(workers):
                if not worker.alive:
                    deaths += 1
                    world.leases_lapse()
                    workers[number] = world.dying_worker()
            number = chance.randrange(len(instances))
            instances[number] = ask_for_anything(chance, instances[number])
            # The pace of the requests, not a wait for anything.
            time.sleep(chance.uniform(0.01, 0.3))
    for worker in workers:
        worker.kill()
    world.leases_lapse()
    assert deaths, "nobody died: the test is worth nothing"

    for number, instance in enumerate(instances):
        if Instance.objects.get(pk=instance.pk).desired == Desired.ABSENT:
            instances[number] = lifecycle.succeed(instance.pk)
        else:
            lifecycle.want_running(instance.pk)
    for instance in instances:
        world.swept_until(instance, **READY)
    for row in Instance.objects.filter(desired=Desired.ABSENT):
        world.swept_until(row, purged_at__isnull=False)
    world.assert_engine_holds_what_the_rows_say()
    assert [world.read(row) for row in instances] == [["data 0"], ["data 1"], ["data 2"]]


def ask_for_anything(chance: random.Random, instance: Instance) -> Instance:
    """Ask for something; return the instance that has the data then."""
    requests = {
        "run": lambda: lifecycle.want_running(instance.pk),
        "stop": lambda: lifecycle.want_stopped(instance.pk, StopReason.OWNER),
        "sleep": lambda: lifecycle.want_stopped(instance.pk, StopReason.IDLE),
        "wake": lambda: lifecycle.wake(instance.pk),
        "restart": lambda: lifecycle.restart(instance.pk),
        "delete": lambda: lifecycle.want_absent(instance.pk, timezone.now() + timedelta(hours=1)),
    }
    with suppress(lifecycle.NotAllowed):
        if Instance.objects.get(pk=instance.pk).desired == Desired.ABSENT:
            return lifecycle.succeed(instance.pk)
        requests[chance.choice(list(requests))]()
    return instance
