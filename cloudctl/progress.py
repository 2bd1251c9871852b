"""What moves on a terminal while one waits: steps that are done, and a bar below them.

Elsewhere than on a terminal, each step is a line; with --json there is nothing.
"""

import shutil
import sys
import threading
import time
from types import TracebackType

from cloudctl.output import Output, clean, cut, seconds, width

TICK_SECONDS = 0.1
BAR = 20
CLEAR = "\r\x1b[K"


class Progress:
    """Use as a context. `total` is how many steps there will be; 0 where nobody knows."""

    def __init__(self, out: Output, words: str, total: int = 0) -> None:
        self._out = out
        self._words = words
        self._total = total
        self._filled = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Progress":
        if self._out.moves:
            self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._out.moves:
            self._ticker.join()
            self._write(CLEAR)

    def step(self, text: str, ms: int | None = None, *, failed: bool = False) -> None:
        """Say that something is done, or failed."""
        if self._out.as_json:
            return
        colour = "red" if failed else "green"
        mark = self._out.paint("✗" if failed else "✓", colour, sys.stderr)
        took = self._out.paint(seconds(ms), "dim", sys.stderr)
        with self._lock:
            clear = CLEAR if self._out.moves else ""
            self._out.to_stderr(f"{clear}{mark} {clean(text)}{'  ' if took else ''}{took}")

    def now(self, words: str, filled: int) -> None:
        """Say what is under way, and how many of the steps are done."""
        with self._lock:
            self._words, self._filled = words, min(filled, self._total)

    # --- the line that moves ---------------------------------------------------------------------

    def _tick(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                self._write(CLEAR + self._line())
            self._ended.wait(TICK_SECONDS)

    def _line(self) -> str:
        took = f"{time.monotonic() - self._began:.1f} s"
        columns = shutil.get_terminal_size().columns - 1
        bar = ""
        if self._total and columns > 2 * BAR:
            full = BAR * self._filled // self._total
            bar = f"{'█' * full}{'░' * (BAR - full)} "
        return f"{bar}{cut(clean(self._words), columns - width(bar + took) - 1)} {took}"

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
