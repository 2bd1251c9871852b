"""How much the data directory holds, and how much it may: warned about, then read-only, never lost.

The control plane says the limit with every probe, so it can change while we run. Nothing of the
engine's enforces it: two parts of this package do. The guard refuses writes once the disk is full,
except for those that make room, and uploads that do not fit. And SQLite itself lets no database
grow beyond it, whatever code writes: each write is `held`, and all that are under way together.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from datasette import database

from cloudapp_workspace import spill, storage

# Of the limit, in percent; from here on people are told.
WARN_ABOVE = 80
# So old may a measurement be that a page shows; before a write it is taken anew. A workspace has a
# few files, and looking takes a tenth of a millisecond.
FRESH_SECONDS = 0.5
# Beyond the limit, for what SQLite needs to take something away, and to say why an import ended.
SLACK = 4 << 20
# A write may take so much of what is left. The others that begin meanwhile, in other databases,
# share the rest: nobody knows how much each will need.
SHARE = 7 / 8
# SQLite's own bound, which is as good as none.
MOST_PAGES = 0xFFFFFFFE
# A write-ahead log keeps the size that it once needed, unless it is told.
LOG_BYTES = 4 << 20
UNFINISHED = ".tmp"
_OPEN_FILES = Path("/proc/self/fd")


class Disk:
    """The data directory's size and limit, in bytes."""

    def __init__(self, data: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._data = data
        self._now = now
        self._measured_at: float | None = None
        self._kept = 0
        self._unfinished = 0
        # What requests that are not over have sent so far, be it written yet or not.
        self.coming = 0
        self._open: dict[Path, sqlite3.Connection] = {}
        # How large the databases may become that are written to just now.
        self._bounds: dict[Path, int] = {}
        self._bounding = threading.Lock()
        # None until the control plane says it, which it does before it lets anybody in.
        self.limit: int | None = None

    def used(self, *, fresh: bool = False) -> int:
        """What is kept: files as they lie on the disk, without unfinished uploads."""
        self._measure(fresh)
        return self._kept

    def room(self, *, fresh: bool = False) -> int | None:
        """How much more may come, now that others upload too; None: as much as you like.

        What requests have sent lies in unfinished files soon. Those of imports stay for longer.
        """
        self._measure(fresh)
        if self.limit is None:
            return None
        return self.limit - self._kept - max(self._unfinished, self.coming)

    @property
    def full(self) -> bool:
        """Whether nothing more may come."""
        self._measure(fresh=False)
        return self.limit is not None and self._kept + self._unfinished >= self.limit

    @property
    def nearly_full(self) -> bool:
        """Whether people should be told."""
        return self.limit is not None and self.used() * 100 >= self.limit * WARN_ABOVE

    def _measure(self, fresh: bool) -> None:
        now = self._now()
        if not fresh and self._measured_at is not None and now - self._measured_at < FRESH_SECONDS:
            return
        self._kept = _size(self._data, leave_out=UNFINISHED)
        self._unfinished = _unfinished(self._data / UNFINISHED)
        self._measured_at = now

    def forget(self) -> None:
        """Measure anew next time."""
        self._measured_at = None

    @contextmanager
    def held(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Let a database grow as far as the limit and other writes allow, and no further.

        Datasette 1.0's own may: without it no page would be shown, and there is little in it.
        """
        name = connection.execute("pragma database_list").fetchone()[2]
        file = Path(name or "")
        if not name or file.name == storage.INTERNAL_DATABASE:
            yield
            return
        connection.execute(f"pragma journal_size_limit = {LOG_BYTES}").fetchone()
        (size,) = connection.execute("pragma page_size").fetchone()
        (now,) = connection.execute("pragma page_count").fetchone()
        with self._bounding:
            left = self._left(but_for=file)
            pages = MOST_PAGES if left is None else now + int(left * SHARE) // size
            self._bounds[file] = 0 if left is None else pages * size
        try:
            most = max(1, min(pages, MOST_PAGES))
            connection.execute(f"pragma max_page_count = {most}").fetchone()
            yield
        finally:
            with self._bounding:
                self._bounds.pop(file, None)

    def _left(self, but_for: Path) -> int | None:
        """How much is left for a write, when all others need all that they may; None: no limit."""
        if self.limit is None:
            return None
        others = [(file, most) for file, most in self._bounds.items() if file != but_for]
        promised = sum(max(0, most - _with_log(file)) for file, most in others)
        return max(0, self.limit + SLACK - self.used(fresh=True) - promised)

    def hold_all_writes(self) -> None:
        """Have Datasette make every write a held one, in the thread that writes.

        Both releases hand each write to the writing thread as one of these.
        """
        original, held = database.WriteTask, self.held

        class HeldTask(original):  # type: ignore[misc, valid-type]
            __slots__ = ()

            def __init__(self, fn: Callable[[Any], Any], *args: Any, **more: Any) -> None:
                def write(connection: sqlite3.Connection) -> Any:
                    spill.this_thread_writes()
                    with held(connection):
                        return fn(connection)

                super().__init__(write, *args, **more)

        database.WriteTask = HeldTask

    def keep_open(self, file: Path) -> None:
        """Have a database's write-ahead log and its index there from now on.

        Whoever reads needs both, and makes them when they are missing: with a full disk, that would
        fail. It reads nothing meanwhile, so that it is in nobody's way.
        """
        connection = sqlite3.connect(file, check_same_thread=False)
        try:
            connection.execute("select count(*) from sqlite_master").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        self._open[file] = connection

    def let_go(self, file: Path | None = None) -> None:
        """Close one of them, or all."""
        for one in [file] if file else list(self._open):
            if connection := self._open.pop(one, None):
                connection.close()

    def shrink_logs(self) -> None:
        """Move large write-ahead logs into their databases, if nobody reads just now."""
        for file in storage.database_files(self._data):
            log = file.with_name(f"{file.name}-wal")
            if log.exists() and log.stat().st_size > LOG_BYTES:
                storage.try_to_checkpoint(file)
        self.forget()


def _size(directory: Path, leave_out: str = "") -> int:
    """Bytes on the disk of everything below; what goes away meanwhile does not count."""
    total = 0
    for entry in _entries(directory):
        if entry.name == leave_out:
            continue
        with suppress(FileNotFoundError):
            if entry.is_dir(follow_symlinks=False):
                total += _size(Path(entry.path))
            else:
                total += _bytes(entry.stat(follow_symlinks=False))
    return total


def _with_log(file: Path) -> int:
    """Bytes on the disk of a database, with what is written and not yet in it."""
    total = 0
    for part in (file, file.with_name(f"{file.name}-wal")):
        with suppress(FileNotFoundError):
            total += _bytes(part.stat())
    return total


def _unfinished(directory: Path) -> int:
    """Bytes on the disk of uploads: of files that have a name, and of those we only hold open.

    An import holds such a one long after its request is over.
    """
    found: dict[int, int] = {}
    for entry in _entries(directory):
        with suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            found[status.st_ino] = _bytes(status)
    for entry in _entries(_OPEN_FILES):
        with suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(entry.path).startswith(f"{directory}/"):
                status = os.stat(entry.path)
                found[status.st_ino] = _bytes(status)
    return sum(found.values())


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    """What a directory holds; nothing where there is none."""
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _bytes(status: os.stat_result) -> int:
    return status.st_blocks * 512
