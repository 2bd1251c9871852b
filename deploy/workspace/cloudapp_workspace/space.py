"""The page that makes room on the disk: delete tables and databases, give free pages back.

Datasette 0.65 itself deletes nothing, and neither release gives back what a deletion freed. It
works when the disk is full: that is when people come here.
"""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from datasette import database as readers
from datasette.app import Datasette
from datasette.database import Database
from datasette.utils import escape_sqlite
from datasette.utils.asgi import Forbidden, Request, Response

from cloudapp_workspace import storage
from cloudapp_workspace.disk import Disk

PATH = "/-/space"
MAY = frozenset({"editor", "owner"})
COUNT_MS = 50


async def space(datasette: Datasette, request: Request) -> Response:
    """Show what there is; do what was asked for, and show what is left. Raises Forbidden."""
    if (request.actor or {}).get("role") not in MAY:
        raise Forbidden("Only editors and owners may make room")
    if request.method != "POST":
        return await _page(datasette, request)
    said = {name: values[-1] for name, values in parse_qs(await _body(request)).items()}
    deed = _DEEDS.get(said.get("do", ""))
    database = _databases(datasette).get(said.get("database", ""))
    if deed is None or database is None:
        return await _page(datasette, request, error="There is no such database.")
    if deed is not _compact and said.get("sure") != "yes":
        return await _page(datasette, request, error="Say that you are sure. Nothing was deleted.")
    try:
        words = await deed(datasette, database, said.get("table", ""))
    except (sqlite3.Error, OSError) as error:
        return await _page(datasette, request, error=f"It did not work: {error}.")
    await asyncio.to_thread(disk_of(datasette).shrink_logs)
    return await _page(datasette, request, done=words)


def disk_of(datasette: Datasette) -> Disk:
    """Return what knows this workspace's disk; server.py puts it there."""
    found: Disk = datasette.cloudapp_disk
    return found


async def _body(request: Request) -> str:
    return (await request.post_body()).decode("utf-8", "replace")


def _databases(datasette: Datasette) -> dict[str, Database]:
    """Those that are files of this workspace, by name."""
    return {
        name: database
        for name, database in datasette.databases.items()
        if database.path and database.is_mutable
    }


# --- what can be done ----------------------------------------------------------------------------


async def _drop(_: Datasette, database: Database, table: str) -> str:
    if table not in await database.table_names():
        return "This table is gone already."
    search = await database.fts_table(table)

    def drop(connection: sqlite3.Connection) -> None:
        for name in filter(None, (search, table)):
            connection.execute(f"drop table if exists {escape_sqlite(name)}")

    await _write(database, drop)
    return f"The table {table} is deleted. Give its room back below."


async def _remove(datasette: Datasette, database: Database, _: str) -> str:
    path = Path(database.path)
    if path.name == storage.HOME_DATABASE:
        return "This database is where uploads go, so it stays. Delete its tables instead."
    datasette.remove_database(database.name)
    database.close()  # 0.65 leaves it open
    # 0.65 finds a thread's connections by the name: the next database of that name needs new ones.
    readers.connections = threading.local()
    disk_of(datasette).let_go(path)
    storage.remove_database(path)
    return f"The database {database.name} is deleted."


async def _compact(_datasette: Datasette, database: Database, _table: str) -> str:
    def compact(connection: sqlite3.Connection) -> None:
        connection.execute("vacuum")
        connection.execute("pragma wal_checkpoint(truncate)").fetchone()

    await _write(database, compact)
    return f"{database.name} takes no more room than it needs."


_DEEDS = {"drop": _drop, "remove": _remove, "compact": _compact}


async def _write(database: Database, work: Callable[[sqlite3.Connection], None]) -> None:
    """In the thread that writes; 1.0 would open a transaction, and nothing compacts within one."""
    parameters = inspect.signature(database.execute_write_fn).parameters
    more = {"transaction": False} if "transaction" in parameters else {}
    await database.execute_write_fn(work, **more)


# --- the page ------------------------------------------------------------------------------------


async def _page(
    datasette: Datasette, request: Request, *, done: str = "", error: str = ""
) -> Response:
    disk = disk_of(datasette)
    context = {
        "done": done,
        "error": error,
        "used": readable(disk.used(fresh=True)),
        "limit": readable(disk.limit) if disk.limit is not None else "",
        "percent": min(100, disk.used() * 100 // disk.limit) if disk.limit else 0,
        "full": disk.full,
        "nearly_full": disk.nearly_full,
        "files": [await _shown(database) for database in _databases(datasette).values()],
    }
    page = await datasette.render_template("space.html", context, request=request)
    return Response.html(page, status=400 if error else 200)


async def _shown(database: Database) -> dict[str, Any]:
    page, pages, free = [
        (await database.execute(f"pragma {what}")).single_value()
        for what in ("page_size", "page_count", "freelist_count")
    ]
    hidden = set(await database.hidden_table_names())
    counts = await database.table_counts(COUNT_MS)
    path = Path(database.path)
    return {
        "name": database.name,
        # Not the file's: what is written lately stands in its log beside it.
        "size": readable(page * pages),
        "free": readable(page * free) if free else "",
        "stays": path.name == storage.HOME_DATABASE,
        "tables": [(name, count) for name, count in sorted(counts.items()) if name not in hidden],
    }


def readable(size: int) -> str:
    """Return a number of bytes as people say it: 12 KiB, 3.4 MiB, 1.2 GiB."""
    amount, unit = float(size), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:,.0f} {unit}" if unit in ("bytes", "KiB") else f"{amount:,.1f} {unit}"
