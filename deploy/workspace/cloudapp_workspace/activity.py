"""Is anybody using this instance, and has it work of its own? The answer decides about sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasette.app import Datasette


# Work that people wait for, by the name of its coroutine.
_WORK = {
    "upload_csvs.<locals>.parse_csv": "importing a CSV file",
    "Enrichment.start_enrichment_in_process.<locals>.run_enrichment": "enriching a table",
}


class _Request:
    """One request, kept in the context of every task that it starts."""

    running = True


_current: ContextVar[_Request | None] = ContextVar("cloudapp_request", default=None)


class Activity:
    """Counts requests, and finds the work that outlives the request which started it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last_end = now()
        self.in_flight = 0
        self.requests = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold this open while a request or a WebSocket runs."""
        request = _Request()
        _current.set(request)
        self.in_flight += 1
        self.requests += 1
        try:
            yield
        finally:
            request.running = False
            self.in_flight -= 1
            self._last_end = self._now()

    def idle_seconds(self) -> float:
        """Since the last request ended (since the start if there was none); 0 while one runs."""
        return 0.0 if self.in_flight else self._now() - self._last_end

    def left_behind(self) -> list[asyncio.Task[Any]]:
        """Tasks that a finished request started and that still run, such as a CSV import.

        Every task inherits the context of whoever made it, so nobody has to report anything. What
        plugins start before the first request (periodic work) is not counted, except for work that
        we know to end: datasette-enrichments goes on with its jobs when it starts.
        """
        return [task for task in asyncio.all_tasks() if _outlives_its_request(task)]

    async def finish(self, grace_seconds: float) -> None:
        """Wait for what requests left behind, then let it go."""
        deadline = self._now() + grace_seconds
        while tasks := self.left_behind():
            remaining = deadline - self._now()
            if remaining <= 0:
                return
            await asyncio.wait(tasks, timeout=remaining)


def _outlives_its_request(task: asyncio.Task[Any]) -> bool:
    request = task.get_context().get(_current)
    return not request.running if request is not None else _name(task) in _WORK


def busy(activity: Activity, datasette: Datasette) -> list[str]:
    """What the instance itself is doing now, in words; empty when it may be stopped."""
    reasons = [_describe(task) for task in activity.left_behind()]
    for name, database in datasette.databases.items():
        queue = getattr(database, "_write_queue", None)
        if queue is not None and not queue.empty():
            reasons.append(f"writing to {name}")
    return reasons


def _describe(task: asyncio.Task[Any]) -> str:
    name = _name(task)
    return _WORK.get(name, f"background work: {name}")


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())
