"""Wake-up calls are lost, doubled or never delivered; their server forgets all, or is away."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from celery.signals import after_task_publish
from django.utils import timezone

from cloudapp.celery import app
from deploy import lifecycle
from deploy.models import Instance
from deploy.states import Observed, StopReason
from tests.faults.world import DYING, READY, World

# Each request with the events that it leads to. The first is what creating leads to.
CREATED = ["create_requested", "create", "start", "await_ready"]
SLEPT = ["stop_idle", "stop"]
WOKEN = ["wake", "start", "await_ready"]
RESTARTED = ["restart", "stop", "remove", "create", "start", "await_ready"]
PURGED = ["want_absent", "stop", "remove", "purge"]


@pytest.fixture(autouse=True)
def nobody_watches(world: World) -> None:
    """A watcher calls workers too: here only the calls count that tests lose and double."""
    world.without("watcher")


def live_a_whole_life(world: World, wait: Callable[..., Instance]) -> Instance:
    """Create, put to sleep, wake, restart, delete; `wait` makes sure that each is reached."""
    instance = world.create()
    wait(instance, **READY)
    world.write(instance, "kept")
    lifecycle.want_stopped(instance.pk, StopReason.IDLE)
    wait(instance, observed=Observed.EXITED, lease_token=None)
    assert lifecycle.wake(instance.pk)
    wait(instance, **READY)
    lifecycle.restart(instance.pk)
    wait(instance, observed_generation=2, **READY)
    assert world.read(instance) == ["kept"]
    world.assert_engine_holds_what_the_rows_say()
    lifecycle.want_absent(instance.pk, timezone.now())
    wait(instance, purged_at__isnull=False)
    world.assert_engine_holds_what_the_rows_say()
    assert not world.volumes()
    return instance


@contextmanager
def every_call_doubled() -> Iterator[None]:
    """Send each task of this process a second time, from another thread, at once."""
    pool = ThreadPoolExecutor(2)

    def again(sender: str, headers: dict[str, Any], body: tuple[Any, ...], **_: Any) -> None:
        if not headers.get("doubled"):
            pool.submit(app.send_task, sender, list(body[0]), headers={"doubled": True})

    after_task_publish.connect(again, weak=False)
    try:
        yield
    finally:
        after_task_publish.disconnect(again)
        pool.shutdown()


def test_every_task_is_delivered_twice(world: World) -> None:
    world.worker()
    world.worker("second-worker")
    try:
        with every_call_doubled():
            instance = live_a_whole_life(
                world, lambda row, **fields: world.wait(row, "twice", **fields)
            )
    finally:
        world.without("second-worker")
    # Nothing was done twice.
    assert world.events(instance) == [*CREATED, *SLEPT, *WOKEN, *RESTARTED, *PURGED]


def test_no_task_is_ever_delivered(world: World) -> None:
    """All calls go where nobody listens. The clock's sweep finds the work."""
    world.worker()
    world.beat()
    try:
        with world.calls_go_to(DYING):
            instance = live_a_whole_life(
                world, lambda row, **fields: world.wait(row, "by the sweep", **fields)
            )
    finally:
        world.without("beat")
    assert world.events(instance) == [*CREATED, *SLEPT, *WOKEN, *RESTARTED, *PURGED]


def test_redis_forgets_everything(world: World) -> None:
    """With calls in the queue, and again while a worker works."""
    world.without("worker")
    queued = [world.create() for _ in range(2)]
    with world.redis_client() as client:
        assert client.llen("now") == 2
        client.flushall()
    world.worker()
    for instance in queued:
        world.swept_until(instance, **READY)

    working = world.create()
    world.wait(working, "begun", events__kind="create")
    with world.redis_client() as client:
        client.flushall()
    world.wait_ready(working)

    # The worker still listens: a call reaches it with no sweep.
    lifecycle.want_stopped(working.pk, StopReason.OWNER)
    world.wait(working, "stopped", observed=Observed.EXITED, lease_token=None)
    assert world.events(working) == [*CREATED, "stop_owner", "stop"]
    world.assert_engine_holds_what_the_rows_say()


def test_redis_is_away_for_a_while(world: World) -> None:
    world.beat()
    instance = world.created()
    world.write(instance, "kept")
    try:
        world.redis().kill()
        began = time.monotonic()
        lifecycle.restart(instance.pk)
        other = world.create()
        deleted = world.create()
        lifecycle.want_absent(deleted.pk, timezone.now() + timedelta(hours=1))
        took = time.monotonic() - began
        assert took < 60, "people wait for a server that only wakes others up"
        assert world.answers(Instance.objects.get(pk=instance.pk)), "it is served all the same"

        world.redis()
        world.wait(instance, "restarted", observed_generation=2, **READY)
        world.wait_ready(other)
    finally:
        world.without("beat")
    assert world.read(instance) == ["kept"]
    world.assert_engine_holds_what_the_rows_say()

    # Calls arrive again, with no sweep.
    lifecycle.want_stopped(instance.pk, StopReason.OWNER)
    world.wait(instance, "stopped", observed=Observed.EXITED, lease_token=None)


@pytest.mark.parametrize("name", ["worker", "watcher", "beat"])
def test_all_of_them_end_when_asked(world: World, name: str) -> None:
    """SIGTERM ends each in order and soon: nobody has to kill it."""
    process = {"worker": world.worker, "watcher": world.watcher, "beat": world.beat}[name]()
    if name == "worker":
        world.wait_ready(world.create())
    process.stop()
    world.without(name)
