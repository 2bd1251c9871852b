"""How many containers start at once: as many as there are cores, each held until ready.

More at once only makes each of them slower. The slots are those of this process: one worker for
the queue `now` per machine. The one for `later` starts one spare at a time beside them.
"""

import os
import threading
import time
from types import TracebackType

from django.conf import settings

# A start that hangs must not keep the others waiting for longer than this.
HOLD_SECONDS = 10.0

_slots = threading.BoundedSemaphore(settings.START_SLOTS or os.cpu_count() or 1)


class StartSlot:
    """The right to start a container; taken when first needed, given back at the end."""

    def __init__(self) -> None:
        self._taken_at: float | None = None
        self._given_back = False

    def take(self) -> bool:
        """Wait for a free slot, unless this one has been taken already.

        False when that took time, in which something else may have been asked for.
        """
        if self._taken_at is not None:
            return True
        at_once = _slots.acquire(blocking=False) or not _slots.acquire()
        self._taken_at = time.monotonic()
        return at_once

    def give_back_if_slow(self) -> None:
        """Let others start while this one is still waited for."""
        if self._taken_at and time.monotonic() - self._taken_at > HOLD_SECONDS:
            self._give_back()

    def _give_back(self) -> None:
        if self._taken_at is not None and not self._given_back:
            self._given_back = True
            _slots.release()

    def __enter__(self) -> "StartSlot":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back()
