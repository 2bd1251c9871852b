"""What instances use: asked of them, added up by the hour, and told of when a disk fills."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from deploy import lifecycle, probe, usage
from deploy.models import Instance, UsageHour
from deploy.probe import Usage
from deploy.reconcile import reconcile
from deploy.states import MEBIBYTE, DiskLevel, disk_level
from tests.deploy.fake_engine import FakeEngine
from tests.deploy.rows import delete, fresh, kinds, new, put

pytestmark = pytest.mark.django_db


def said(run: str = "a", up: float = 10, disk: int = 1000, **more: Any) -> dict[str, Any]:
    """What an instance says of itself."""
    return {
        "run": run * 32,
        "up_seconds": up,
        "cpu_seconds": up / 10,
        "requests": int(up),
        "memory_bytes": 100,
        "disk_bytes": disk,
        **more,
    }


@pytest.fixture
def running(fake: FakeEngine) -> Instance:
    """One that runs and says what it uses."""
    instance = new(disk_mb=100)
    reconcile(instance.pk)
    fake.knobs.usage = said()
    return fresh(instance)


def totals(instance: Instance) -> tuple[float, float, int]:
    """Awake seconds, CPU seconds and requests, of all hours."""
    rows = UsageHour.objects.filter(history=instance.history)
    return (
        sum(row.awake_seconds for row in rows),
        sum(row.cpu_seconds for row in rows),
        sum(row.requests for row in rows),
    )


def test_counters_are_added_up_over_restarts(fake: FakeEngine, running: Instance) -> None:
    assert usage.measure() == 1
    assert totals(running) == (10, 1, 10)
    fake.knobs.usage = said(up=30)
    usage.measure()
    usage.measure()  # a doubled task adds nothing
    assert totals(running) == (30, 3, 30)
    fake.knobs.usage = said(up=20)  # an answer that was late
    usage.measure()
    assert totals(running) == (30, 3, 30)
    fake.knobs.usage = said("b", up=5)
    usage.measure()
    assert totals(running) == (35, 3.5, 35)
    assert fresh(running).disk_bytes == 1000


def test_peak_and_mean_of_an_hour(running: Instance) -> None:
    for up, memory in ((1, 100), (2, 300), (3, 200)):
        usage.record({running.pk: Usage("a", up, 0, 0, memory, memory * 10)})
    rows = list(UsageHour.objects.all())
    assert sum(row.samples for row in rows) == 3
    assert max(row.memory_peak for row in rows) == 300
    assert sum(row.memory_sum for row in rows) == 600
    assert max(row.disk_bytes for row in rows) == 3000
    assert fresh(running).disk_bytes == 2000


def test_each_probe_tells_the_limit_as_it_is(fake: FakeEngine, running: Instance) -> None:
    assert fake.knobs.told_disk == 100 * MEBIBYTE
    put(running, disk_mb=200)
    usage.measure()
    assert fake.knobs.told_disk == 200 * MEBIBYTE
    assert fresh(running).generation == running.generation


def test_old_images_and_silent_ones_keep_nothing_from_the_others(
    fake: FakeEngine, running: Instance
) -> None:
    silent = new()
    reconcile(silent.pk)
    put(silent, endpoint="unix:/nowhere/http.sock")
    assert usage.measure() == 1
    fake.knobs.usage = None
    assert usage.measure() == 0
    assert fresh(silent).disk_bytes is None


@pytest.mark.parametrize(
    "nonsense",
    [
        {"disk_bytes": -1},
        {"disk_bytes": 2**70},
        {"cpu_seconds": "nan"},
        {"cpu_seconds": "inf"},
        {"requests": "many"},
        {"memory_bytes": None},
        {"up_seconds": [1]},
        {"requests": 2**51},
        {"run": "a\0" * 16},
        {"run": "\ud800" * 32},
        {"run": "A" * 32},
        {"run": "a" * 33},
        {"run": 1},
    ],
)
def test_nonsense_is_not_written_down(
    fake: FakeEngine, running: Instance, nonsense: dict[str, Any]
) -> None:
    fake.knobs.usage = said(**nonsense)
    assert usage.measure() == 0
    assert not UsageHour.objects.exists()


def test_what_cannot_be_written_keeps_nothing_from_the_others(
    fake: FakeEngine, running: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing gets so far; but if it does, it spoils one part."""
    other = new()
    reconcile(other.pk)
    monkeypatch.setattr(usage, "ROWS", 1)
    good = Usage("a", 1, 1, 1, 1, 1)
    for wrong in (running, other):
        usage.record({running.pk: good, other.pk: good, wrong.pk: Usage("\0", 1, 1, 1, 1, 1)})
    assert totals(running) == totals(other) == (1, 1, 1)


@contextmanager
def endless(directory: Path, beginning: bytes, each: bytes) -> Iterator[tuple[str, Event]]:
    """An instance that begins to answer and then tells a little, again and again."""
    over = Event()
    ended = Event()

    def answer() -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.sendall(beginning)
            while not over.wait(0.01):
                connection.sendall(each)
        ended.set()

    with socket.socket(socket.AF_UNIX) as listening:
        path = directory / "s"
        listening.bind(str(path))
        listening.listen()
        thread = Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield f"unix:{path}", ended
        finally:
            over.set()
            thread.join(30)


@pytest.mark.parametrize(
    ("beginning", "each"), [(b"HTTP/1.1 200 OK\r\n", b"x"), (b"HTTP/1.1 200 OK\r\n\r\n", b" ")]
)
def test_one_that_never_comes_to_an_end_is_left(
    running: Instance, beginning: bytes, each: bytes
) -> None:
    with (
        TemporaryDirectory() as directory,
        endless(Path(directory), beginning, each) as (endpoint, ended),
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(probe.health, running, endpoint, 0.3)
        with pytest.raises(probe.NotAnswering):
            asked.result(timeout=60)
        assert ended.wait(60), "nobody reads on"


def test_an_answer_without_a_bottom_is_none(fake: FakeEngine, running: Instance) -> None:
    with pytest.raises(probe.NotAnswering):
        raise_for(b"[" * 60_000, running)


def raise_for(body: bytes, instance: Instance) -> None:
    """Have an instance answer just this."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with (
        TemporaryDirectory() as directory,
        endless(Path(directory), head + body, b"") as (endpoint, _),
    ):
        probe.health(instance, endpoint, 60)


def test_passing_a_threshold_is_an_event_each_way(fake: FakeEngine, running: Instance) -> None:
    def fill(percent: float) -> list[str]:
        up = (fresh(running).counters or {"up_seconds": 0})["up_seconds"] + 1
        fake.knobs.usage = said(up=up, disk=int(percent * MEBIBYTE))
        usage.measure()
        return [kind for kind in kinds(running) if kind.startswith("disk_")]

    assert fill(79) == []
    assert fill(80) == ["disk_nearly_full"]
    assert fill(78) == ["disk_nearly_full"], "not clearly over"
    assert fill(100) == ["disk_nearly_full", "disk_full"]
    assert fill(101) == ["disk_nearly_full", "disk_full"]
    assert fill(96) == ["disk_nearly_full", "disk_full"], "a log was moved into its database"
    assert fill(74)[2:] == ["disk_fine"]
    assert fill(120)[3:] == ["disk_full"]
    event = running.events.filter(kind="disk_full").last()
    assert event is not None
    assert event.message == "120.0 of 100 MiB"
    lifecycle.change_limits(running.pk, disk_mb=1000)
    assert fill(121)[4:] == ["disk_fine"]


@pytest.mark.parametrize(
    ("used", "before", "level"),
    [
        (0, DiskLevel.FINE, DiskLevel.FINE),
        (79, DiskLevel.FINE, DiskLevel.FINE),
        (80, DiskLevel.FINE, DiskLevel.NEARLY_FULL),
        (75, DiskLevel.NEARLY_FULL, DiskLevel.NEARLY_FULL),
        (74, DiskLevel.NEARLY_FULL, DiskLevel.FINE),
        (99, DiskLevel.NEARLY_FULL, DiskLevel.NEARLY_FULL),
        (95, DiskLevel.FULL, DiskLevel.FULL),
        (94, DiskLevel.FULL, DiskLevel.NEARLY_FULL),
        (74, DiskLevel.FULL, DiskLevel.FINE),
        (100, DiskLevel.FINE, DiskLevel.FULL),
        (10**9, DiskLevel.FINE, DiskLevel.FULL),
    ],
)
def test_levels(used: int, before: DiskLevel, level: DiskLevel) -> None:
    assert disk_level(used, 100, before) is level


def test_many_cost_as_many_queries_as_few(fake: FakeEngine) -> None:
    def make(count: int) -> dict[Any, Usage]:
        ids = [new().pk for _ in range(count)]
        return {pk: Usage("a", 1, 1, 1, 1, 1) for pk in ids}

    def queries(told: dict[Any, Usage]) -> int:
        with CaptureQueriesContext(connection) as captured:
            usage.record(told)
        return len(captured)

    few, many = make(2), make(40)
    assert queries(few) == queries(many)
    assert UsageHour.objects.count() == 42


def test_what_a_spare_used_is_not_its_owners(fake: FakeEngine) -> None:
    spare = new(spare=True)
    lifecycle.record_pristine(spare.pk, Usage("a", 1000, 50, 0, 1, 1))
    put(spare, spare=False)
    usage.record({spare.pk: Usage("a", 1010, 51, 3, 1, 1)})
    assert totals(spare) == (10, 1, 3)


def test_an_undone_deletion_goes_on_with_the_same_hours(running: Instance) -> None:
    usage.measure()
    delete(running)
    successor = lifecycle.succeed(running.pk)
    assert totals(successor) == (10, 1, 10)
    assert (successor.disk_mb, successor.disk_bytes) == (100, 1000)


def test_old_hours_are_forgotten(running: Instance, settings: Settings) -> None:
    settings.USAGE_DAYS = 30
    now = timezone.now()
    for days in (29, 31):
        UsageHour.objects.create(history=running.history, hour=now - timedelta(days=days))
    usage.forget()
    assert UsageHour.objects.count() == 1


def test_limits_change_with_a_new_container_or_without(running: Instance) -> None:
    assert not lifecycle.change_limits(running.pk, disk_mb=7, idle_seconds=5, memory_mb=512)
    now = fresh(running)
    assert (now.disk_mb, now.idle_seconds, now.generation) == (7, 5, running.generation)
    assert lifecycle.change_limits(running.pk, memory_mb=1024)
    assert fresh(running).generation == running.generation + 1
    assert not lifecycle.change_limits(running.pk, memory_mb=1024)
    assert fresh(running).generation == running.generation + 1
    with pytest.raises(ValueError, match="memory_mb"):
        lifecycle.change_limits_at_once(Instance.objects.all(), memory_mb=1)
