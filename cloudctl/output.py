"""What is printed: results on stdout, as JSON or for people; everything else on stderr.

Texts come from other people, and a terminal obeys some of them: whatever could steer it is taken
out, also from what a workspace's program wrote into its log.
"""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
STATUS_COLOURS = {
    **{"running": "green", "failed": "red", "suspended": "red", "provisioning": "yellow"},
    **{"sleeping": "dim", "stopped": "dim", "deleting": "yellow", "deleted": "dim"},
    **{"done": "green", "open": "yellow", "rolled back": "red"},
}
GAP = "  "
SHORTEST = 8


def clean(text: str) -> str:
    """Return a text without what steers terminals: control characters, and marks of direction."""
    return "".join(" " if ch in "\t\n" else ch for ch in text if ch in "\t\n" or _is_harmless(ch))


def _is_harmless(character: str) -> bool:
    # Cf has the marks of direction, and also what joins emoji and letters of some scripts.
    return unicodedata.category(character) != "Cc" and character not in _DIRECTIONS


_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def width(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """Return a text in at most so many columns."""
    if width(text) <= columns:
        return text
    kept = ""
    for character in text:
        if width(kept + character) > columns - 1:
            break
        kept += character
    return f"{kept}…"


def when(stamp: str | None, *, precise: bool = False) -> str:
    """Return a time of the API, in this machine's time zone; empty for none."""
    if not stamp:
        return ""
    at = datetime.fromisoformat(stamp)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S" if precise else "%Y-%m-%d %H:%M")


def seconds(ms: int | None) -> str:
    """Return a duration in seconds, or in milliseconds where it is short."""
    if ms is None:
        return ""
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


@dataclass(frozen=True)
class Column:
    """A column of a table. One that may be cut gives way where the terminal is narrow."""

    title: str
    may_be_cut: bool = False


class Output:
    """Where a command prints. With `as_json`, one JSON document on stdout, and no words."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        self.moves = not as_json and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    # --- results ---------------------------------------------------------------------------------

    def json(self, data: Any) -> None:
        """Print a document; in ASCII, which every terminal and every program reads alike."""
        _print(json.dumps(data, indent=2))

    def json_line(self, data: Any) -> None:
        """Print one of many documents, on a line of its own."""
        _print(json.dumps(data))

    def line(self, text: str, colour: str = "") -> None:
        """Print a line of a result for people."""
        _print(self.paint(clean(text), colour))

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """Print an aligned table; as blocks where the terminal is too narrow for one."""
        cells = [[clean(cell) for cell in row] for row in rows]
        titles = [column.title for column in columns]
        widths = [max(map(width, found)) for found in zip(titles, *cells, strict=True)]
        if self.width and not self._squeeze(columns, widths):
            for number, row in enumerate(cells):
                if number:
                    _print("")
                self.block(list(zip(titles, row, strict=True)))
            return
        _print(self._row(titles, widths, "dim"))
        for row in cells:
            _print(self._row(row, widths))

    def _squeeze(self, columns: Sequence[Column], widths: list[int]) -> bool:
        """Make a table as narrow as the terminal; False when it cannot be."""
        excess = sum(widths) + len(GAP) * (len(widths) - 1) - self.width
        for at, column in enumerate(columns):
            if excess > 0 and column.may_be_cut:
                less = max(0, min(excess, widths[at] - SHORTEST))
                widths[at] -= less
                excess -= less
        return excess <= 0

    def _row(self, cells: Sequence[str], widths: Sequence[int], colour: str = "") -> str:
        shown = []
        for cell, columns in zip(cells, widths, strict=True):
            text = cut(cell, columns)
            padding = " " * (columns - width(text))
            shown.append(self.paint(text, colour or STATUS_COLOURS.get(text, "")) + padding)
        return GAP.join(shown).rstrip()

    def block(self, facts: Sequence[tuple[str, str]]) -> None:
        """Print names and values, one pair a line; empty values are left out."""
        facts = [(name, clean(value)) for name, value in facts if value]
        longest = max((width(name) for name, _ in facts), default=0)
        for name, value in facts:
            label = self.paint(name, "dim") + " " * (longest - width(name))
            _print(f"{label}{GAP}{self.paint(value, STATUS_COLOURS.get(value, ''))}")

    def paint(self, text: str, colour: str, stream: TextIO | None = None) -> str:
        """Return a text in a colour, where there are any."""
        stream = stream or sys.stdout
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        if not colour or not text or plain or not stream.isatty():
            return text
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"

    # --- words beside the results ----------------------------------------------------------------

    def note(self, text: str) -> None:
        """Tell a person something that is no result."""
        if not self.as_json:
            self.to_stderr(clean(text))

    def complain(self, text: str, hint: str) -> None:
        """Tell a person what went wrong, and what to do about it."""
        self.to_stderr(f"{self.paint('cloudctl:', 'red', sys.stderr)} {clean(text)}")
        if hint:
            self.to_stderr(clean(hint))

    def problem(self, document: Any) -> None:
        """Tell a program what went wrong."""
        self.to_stderr(json.dumps(document, indent=2))

    def to_stderr(self, text: str) -> None:
        """Print on stderr."""
        print(text, file=sys.stderr, flush=True)


def _print(text: str) -> None:
    print(text, flush=True)
