"""Say at once that the database is down, when it was a moment ago.

A thread that asks for a connection then waits for seconds. The router has old answers to fall back
on, but asks us first, so every request to every workspace would wait as long.
"""

import threading
import time
from types import TracebackType

from django.db import InterfaceError, OperationalError

TRY_AGAIN_SECONDS = 3.0


class Breaker:
    """A context for work with the database. After it failed, one at a time may try again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._broken = False

    def __enter__(self) -> None:
        """Raise OperationalError when the database was down a moment ago."""
        if not self._broken:
            return
        with self._lock:
            now = time.monotonic()
            if now < self._closed_until:
                raise OperationalError("the database was down a moment ago")
            self._closed_until = now + TRY_AGAIN_SECONDS  # for all but this one, who tries

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        down = isinstance(error, OperationalError | InterfaceError)
        with self._lock:
            self._broken = down
            if down:
                self._closed_until = time.monotonic() + TRY_AGAIN_SECONDS


database_breaker = Breaker()
