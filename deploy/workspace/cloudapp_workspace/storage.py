"""The SQLite files in the data directory: opening them safely, and leaving them tidy.

Everything here is plain sqlite3 on paths, and runs before Datasette opens a file or after it has
let go of it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

HOME_DATABASE = "data.db"
_LOGS_OF_HOME = (f"{HOME_DATABASE}-wal", f"{HOME_DATABASE}-shm")
# Datasette's own. Not *.db, so that it is never served.
INTERNAL_DATABASE = ".datasette-internal"
# A small tmpfs, for what does not outlive a stop.
SCRATCH = Path("/tmp")  # noqa: S108
INTERRUPTED = "The workspace stopped before this import was finished. Please upload the file again."

_MARK_INTERRUPTED = "update _csv_progress_ set error = ? where completed is null and error is null"
_HAS_IMPORTS = "select 1 from sqlite_master where type = 'table' and name = '_csv_progress_'"


def prepare_directory(data: Path) -> None:
    """Make the home database for uploads when missing, and an empty directory for unfinished files.

    Uploads that a crash left behind are removed: nobody will come back for them.
    """
    temporary = data / ".tmp"
    temporary.mkdir(mode=0o700, exist_ok=True)  # kept: a full disk may have no room for another
    for path in temporary.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    home = data / HOME_DATABASE
    if not home.exists():
        reported(make_ready, home)


def is_pristine(data: Path) -> bool:
    """Whether nobody has put anything here: only the home database is there, without a table."""
    if [path.name for path in data.iterdir() if not _is_ours(path.name)]:
        return False
    try:
        with closing(sqlite3.connect(f"file:{data / HOME_DATABASE}?mode=ro", uri=True)) as home:
            return home.execute("select 1 from sqlite_master limit 1").fetchone() is None
    except sqlite3.Error:
        return False


def _is_ours(name: str) -> bool:
    """Whether a name in the data directory is there from the beginning, or comes by itself."""
    return name.startswith(".") or name in (HOME_DATABASE, *_LOGS_OF_HOME)


def database_files(data: Path) -> list[Path]:
    """All databases, the home database first: uploads go to the first one unless told otherwise."""
    files = [path for path in data.glob("*.db") if path.is_file() and not path.is_symlink()]
    return sorted(files, key=lambda path: (path.name != HOME_DATABASE, path.name))


def internal_database(data: Path) -> Path:
    """Datasette 1.0's own database, ready for use; a broken one is put aside.

    Nothing would start without one, and it holds nobody's rows. When the disk is full, a copy does
    that is lost at the stop.
    """
    path = data / INTERNAL_DATABASE
    try:
        make_ready(path)
    except sqlite3.Error as error:
        print(f"{path.name}: {error}", file=sys.stderr)
        if is_for_want_of_room(error):
            return _copy_elsewhere(path)
        path.replace(data / f"{INTERNAL_DATABASE}.broken")
        for suffix in ("-wal", "-shm"):  # else they would be played into the new one
            (data / f"{INTERNAL_DATABASE}{suffix}").unlink(missing_ok=True)
        make_ready(path)
    return path


def _copy_elsewhere(path: Path) -> Path:
    """Return a copy of a database in memory, as far as that is possible; else an empty one."""
    copy = SCRATCH / path.name
    with suppress(OSError):
        shutil.copyfile(path, copy)
    if not reported(make_ready, copy):
        copy.unlink(missing_ok=True)
        make_ready(copy)
    return copy


def is_for_want_of_room(error: sqlite3.Error) -> bool:
    """Whether SQLite could not do what takes room: a write-ahead log and its index do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the details
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def usable_databases(
    data: Path, keep_open: Callable[[Path], None]
) -> tuple[list[Path], list[Path]]:
    """The databases that open and are kept open, and those of which one can only read.

    A broken file must not take the others down, so it is left out. One for whose write-ahead log
    there is no room is read as it is, which is all of it after a stop in order.
    """
    usable, only_readable = [], []
    for path in database_files(data):
        if reported(make_ready, path) and reported(keep_open, path):
            usable.append(path)
        elif reported(_read_as_it_is, path):
            only_readable.append(path)
    return usable, only_readable


def _read_as_it_is(path: Path) -> None:
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise sqlite3.OperationalError("its write-ahead log cannot be read for want of room")
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        connection.execute("select count(*) from sqlite_master").fetchone()


def make_ready(path: Path) -> None:
    """Switch to WAL, so that people can read while an import writes. Raises sqlite3.Error."""
    with _open(path) as connection:
        connection.execute("pragma journal_mode = wal").fetchone()
        connection.execute("select count(*) from sqlite_master").fetchone()


def mark_interrupted_imports(path: Path) -> None:
    """Say so in the progress table when an import did not survive; it never finishes by itself."""
    with _open(path) as connection, connection:
        if connection.execute(_HAS_IMPORTS).fetchone():
            connection.execute(_MARK_INTERRUPTED, (INTERRUPTED,))


def checkpoint(path: Path) -> None:
    """Move everything from the write-ahead log into the database file itself."""
    with _open(path) as connection:
        blocked, _, _ = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
    if blocked:
        raise sqlite3.OperationalError("checkpoint was blocked")


def try_to_checkpoint(path: Path) -> bool:
    """As checkpoint, but at once or not at all: somebody may read or write just now."""
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        try:
            blocked, _, _ = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
        except sqlite3.Error:
            return False
    return not blocked


def for_each_database(data: Path, action: Callable[[Path], None]) -> bool:
    """Do it to every file, going on after a failure; True when all went well."""
    results = [reported(action, path) for path in database_files(data)]
    return all(results)


def reported(action: Callable[[Path], None], path: Path) -> bool:
    """Do it to a file; say in the log when it fails. Return whether it went well."""
    try:
        action(path)
    except sqlite3.Error as error:
        print(f"{path.name}: {action.__name__} failed: {error}", file=sys.stderr)
        return False
    return True


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def remove_database(path: Path) -> None:
    """Take a database away, for good. Nobody has it open any more."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def add_file(source: Path, data: Path, name: str) -> Path:
    """Move a finished file to its place under a free name; it never replaces a database.

    The link is what makes it safe: it fails when the name is taken, even at the same moment.
    """
    number = 1
    while True:
        target = data / (f"{name}.db" if number == 1 else f"{name}_{number}.db")
        try:
            os.link(source, target)
        except FileExistsError:
            number += 1
            continue
        source.unlink()
        return target
