"""Ctrl-C, a closed terminal and SIGTERM all mean: stop, in order. Twice means: at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stop(BaseException):
    """Somebody wants us to stop. Not an Exception, so that nothing takes it for a mere error."""


@contextmanager
def stop_on_signals(hurry: Callable[[], None]) -> Iterator[None]:
    """Raise Stop in the main thread on the first signal; call `hurry` on each further one."""
    seen = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            raise Stop
        hurry()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
