"""Wait for a change of an instance: Postgres NOTIFY wakes the waiting threads of this process.

One listening connection per process, however many threads wait. A lost notification costs a
second, never correctness: what is waited for is always asked of the tables.
"""

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

import psycopg
from django.db import connection

logger = logging.getLogger(__name__)

CHANNEL = "instance"
# Behind an instance's id: it came one step further, which matters to those who watch it only.
_STEP = " step"
LOOK_AGAIN_SECONDS = 1.0

T = TypeVar("T")


def send(instance_id: UUID | str, *, step: bool = False) -> None:
    """Tell everybody who waits, when the transaction commits; of a `step` only those who watch."""
    with connection.cursor() as cursor:
        payload = f"{instance_id}{_STEP}" if step else str(instance_id)
        cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])


class _Listener:
    """One thread that listens, and the events of those who wait, by what they wait for."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = defaultdict(set)
        self._listening = threading.Event()
        parameters = connection.get_connection_params()
        self._parameters = {
            name: parameters[name]
            for name in ("dbname", "user", "password", "host", "port")
            if name in parameters
        }
        threading.Thread(target=self._run, name="notify", daemon=True).start()

    @contextmanager
    def subscribe(self, *payloads: str) -> Iterator[threading.Event]:
        event = threading.Event()
        with self._lock:
            for payload in payloads:
                self._waiting[payload].add(event)
        self._listening.wait(LOOK_AGAIN_SECONDS)
        try:
            yield event
        finally:
            with self._lock:
                for payload in payloads:
                    self._waiting[payload].discard(event)
                    if not self._waiting[payload]:
                        del self._waiting[payload]

    def _wake(self, payload: str) -> None:
        with self._lock:
            for event in self._waiting.get(payload, ()):
                event.set()

    def _run(self) -> None:
        while True:
            try:
                self._listen()
            except psycopg.Error as error:
                logger.warning("not listening for changes, trying again: %s", error)
            self._listening.clear()
            time.sleep(LOOK_AGAIN_SECONDS)

    def _listen(self) -> None:
        with psycopg.connect(**self._parameters, autocommit=True) as listening:
            listening.execute(f"LISTEN {CHANNEL}")
            self._listening.set()
            for notification in listening.notifies():
                self._wake(notification.payload)


_listener: _Listener | None = None
_listener_lock = threading.Lock()


def _get_listener() -> _Listener:
    global _listener  # noqa: PLW0603 - one per process, made again after a fork
    with _listener_lock:
        if _listener is None or _listener.pid != os.getpid():
            _listener = _Listener()
        return _listener


def _lend_connection() -> None:
    """Give the thread's connection back to the pool: a waiting thread must not hold one."""
    if not connection.in_atomic_block:
        connection.close()


def wait_until(
    instance_id: UUID | str,
    predicate: Callable[[], T | None],
    timeout: float,
    *,
    steps: bool = True,
) -> T | None:
    """Return the predicate's first truthy value, or None after `timeout` seconds.

    The predicate is asked at once, and again whenever the instance changes; without `steps` not
    when it only came one step further.
    """
    deadline = time.monotonic() + timeout
    payloads = [str(instance_id), f"{instance_id}{_STEP}"][: 2 if steps else 1]
    with _get_listener().subscribe(*payloads) as changed:
        while True:
            changed.clear()
            if result := predicate():
                return result
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            _lend_connection()
            changed.wait(min(left, LOOK_AGAIN_SECONDS))
