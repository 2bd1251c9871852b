"""What a person at the terminal reads: one calm line a step, with its time."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Failure(Exception):
    """Something expected went wrong; its text is all that a person needs to read."""


@dataclass
class Step:
    """One step while it runs. `detail` is what its closing line says."""

    console: "Console"
    name: str
    detail: str = "done"
    mark: str = "✓"

    def now(self, text: str) -> None:
        """Say what happens now; for whatever takes more than a second or two."""
        self.console.line(f"  · {self.name:<14} {text} ...")

    def fail(self, detail: str) -> None:
        """Close with a mark that says: this did not go well."""
        self.mark, self.detail = "✗", detail


class Console:
    """Writes lines, whole ones, also when several threads speak at once."""

    def __init__(self, quiet: bool = False) -> None:
        """`quiet` keeps everything but problems away from the terminal."""
        self._quiet = quiet
        self._lock = threading.Lock()

    def line(self, text: str = "") -> None:
        """Print one line."""
        if not self._quiet:
            self._write(text)

    def problem(self, text: str) -> None:
        """Print what went wrong, even when quiet."""
        self._write(text)

    def _write(self, text: str) -> None:
        with self._lock:
            try:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
            except (BrokenPipeError, ValueError, OSError):
                # Nobody reads any more (the terminal is gone); stopping cleanly still matters.
                return

    def done(self, mark: str, name: str, detail: str, seconds: float) -> None:
        """Print the closing line of a step."""
        self.line(f"  {mark} {name:<14} {detail:<58} {seconds:6.1f} s")

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time what happens inside and close with a line that says it."""
        step = Step(self, name)
        started = time.monotonic()
        yield step
        self.done(step.mark, name, step.detail, time.monotonic() - started)
