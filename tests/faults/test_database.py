"""Connections to Postgres break while somebody works: nothing is lost, and nobody gives up."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from deploy import lifecycle
from deploy.models import Instance
from deploy.states import Observed, StopReason
from tests.faults.processes import SECONDS, wait_for
from tests.faults.test_behind_our_back import kill
from tests.faults.world import DYING, READY, RUNS_ON, World


def break_all_connections() -> None:
    """End every connection to the database but our own; return when they are gone."""
    milliseconds = round(SECONDS * 1000)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            [milliseconds],
        )


@pytest.mark.parametrize(
    "point", ["engine.create before", "engine.start after", "engine.seal after"]
)
def test_in_the_middle_of_a_step(world: World, point: str) -> None:
    """The worker's next query fails; what it did is found by whoever comes next."""
    world.worker()
    worker = world.dying_worker(f"freeze {point}")
    with world.calls_go_to(DYING):
        instance = world.create()
        wait_for(lambda: worker.frozen, "the worker is in the middle")
        break_all_connections()
        worker.signal(signal.SIGCONT)
        world.swept_until(instance, **READY)
    world.assert_engine_holds_what_the_rows_say()
    world.write(instance, "kept")
    assert world.read(instance) == ["kept"]
    assert worker.alive
    # The same worker goes on working.
    with world.calls_go_to(DYING):
        lifecycle.want_stopped(instance.pk, StopReason.OWNER)
        world.wait(instance, "stopped", observed=Observed.EXITED, lease_token=None)


def test_the_watcher_goes_on_watching(world: World) -> None:
    instance = world.created()
    world.watcher()
    break_all_connections()
    kill(world, instance)
    world.wait(instance, "noticed", events__kind="lost")
    world.wait_ready(instance)
    assert world.watcher().alive
    world.assert_engine_holds_what_the_rows_say()


def test_idle_connections_that_broke_are_nobodys_error(
    database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart of Postgres the pool is full of them, and the next person gets none."""
    together = threading.Barrier(6)

    def ask(_: int = 0) -> bool:
        try:
            return Instance.objects.filter(pk=uuid4()).exists()
        finally:
            if not together.broken:
                together.wait()  # so that each has a connection of its own
            connection.close()

    with ThreadPoolExecutor(6) as people:
        list(people.map(ask, range(6)))
    together.abort()
    break_all_connections()
    connection.close()
    # Who gets no connection is refused after that time.
    pool = connection.pool  # type: ignore[attr-defined]
    monkeypatch.setattr(pool, "timeout", SECONDS)
    began = time.monotonic()
    assert not ask()
    assert time.monotonic() - began < SECONDS / 2


def test_leases_are_renewed_all_the_same(world: World) -> None:
    """The thread that renews them outlives its connection: nobody takes the work over."""
    world.without("worker")
    # Renewed so often that a test can wait for it.
    world.worker("brief-worker", LEASE_SECONDS="3")
    try:
        instance = world.create(image=world.image_that_runs(RUNS_ON))
        instance = world.wait(instance, "at work", events__kind="start", lease_token__isnull=False)
        seen = instance.lease_expires_at
        for _ in range(2):
            break_all_connections()
            # The work itself may have met the broken connection: then another one holds it by now.
            instance = world.swept_until(
                instance, lease_expires_at__gt=seen, lease_token__isnull=False
            )
            seen = instance.lease_expires_at
        lifecycle.want_absent(instance.pk, timezone.now())
        world.swept_until(instance, purged_at__isnull=False)
    finally:
        world.without("brief-worker")
    assert not Instance.objects.filter(purged_at=None).exists()
    world.assert_engine_holds_what_the_rows_say()
