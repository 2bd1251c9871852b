"""Receiving an uploaded SQLite file, in place of datasette-upload-dbs' own POST.

The plugin's permission and menu entry stay. Its handler copies the file in the event loop
(everybody waits for a gigabyte) and straight onto its final name: a second upload called
"data" truncates the live data.db. This one copies in a thread, checks, and then takes a free name.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import uuid
from pathlib import Path
from typing import Any, BinaryIO

from datasette.app import Datasette
from datasette.database import Database
from datasette.utils import to_css_class
from datasette.utils.asgi import Forbidden, Request, Response
from starlette.datastructures import UploadFile
from starlette.requests import Request as StarletteRequest

from cloudapp_workspace import storage
from cloudapp_workspace.permissions import may

CHUNK = 1024 * 1024
SQLITE_MAGIC = b"SQLite format 3\x00"
RESERVED_NAMES = frozenset({"", "-", "_internal", "_memory"})

NO_FILE = "Choose a SQLite file first."
NOT_SQLITE = "That file is not a SQLite database."
NO_SPACE = "There is no room for it on the disk. Nothing was changed."


async def upload_database(
    scope: dict[str, Any], receive: Any, datasette: Datasette, request: Request
) -> Response:
    """Show the form, or take the file and add it to the running Datasette. Raises Forbidden."""
    if not await may(datasette, request.actor, "upload-dbs"):
        raise Forbidden("Permission denied for upload-dbs")
    if request.method != "POST":
        return await _form(datasette, request)
    try:
        return await _receive(scope, receive, datasette, request)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        wants_json = "application/json" in request.headers.get("accept", "")
        return await _failed(datasette, request, NO_SPACE, wants_json)


async def _receive(
    scope: dict[str, Any], receive: Any, datasette: Datasette, request: Request
) -> Response:
    # Starlette spools to TMPDIR on the data volume from one megabyte on: no memory, no tmpfs.
    async with StarletteRequest(scope, receive).form() as fields:
        wants_json = bool(fields.get("xhr"))
        file = fields.get("db")
        if not isinstance(file, UploadFile) or not file.filename:
            return await _failed(datasette, request, NO_FILE, wants_json)
        name = _name(str(fields.get("db_name") or ""), file.filename)
        directory = Path(datasette.plugin_config("datasette-upload-dbs")["directory"])
        try:
            path = await asyncio.to_thread(_store, file.file, directory, name)
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            words = NO_SPACE if full else NOT_SQLITE
            return await _failed(datasette, request, words, wants_json)
    return _added(datasette, path, wants_json)


def _name(wanted: str, filename: str) -> str:
    name = to_css_class(wanted.strip() or filename.partition(".")[0])
    return "db" if name in RESERVED_NAMES else str(name)


def _store(source: BinaryIO, directory: Path, name: str) -> Path:
    """Copy, check and name the file. Raises sqlite3.Error when it is no database."""
    if source.read(len(SQLITE_MAGIC)) != SQLITE_MAGIC:
        raise sqlite3.DatabaseError("no SQLite header")
    source.seek(0)
    unfinished = directory / ".tmp" / f"{uuid.uuid4()}.db"
    try:
        with unfinished.open("wb") as target:
            shutil.copyfileobj(source, target, CHUNK)
            target.flush()
            os.fsync(target.fileno())
        storage.make_ready(unfinished)
        return storage.add_file(unfinished, directory, name)
    finally:
        unfinished.unlink(missing_ok=True)


def _added(datasette: Datasette, path: Path, wants_json: bool) -> Response:
    storage.reported(datasette.cloudapp_disk.keep_open, path)
    database = datasette.add_database(Database(datasette, path=str(path), is_mutable=True))
    address = datasette.urls.database(database.name)
    if wants_json:
        return Response.json({"ok": True, "redirect": address})
    return Response.redirect(address)


async def _failed(
    datasette: Datasette, request: Request, message: str, wants_json: bool
) -> Response:
    if wants_json:
        return Response.json({"ok": False, "error": message})
    return await _form(datasette, request, message)


async def _form(datasette: Datasette, request: Request, error: str | None = None) -> Response:
    page = await datasette.render_template("upload_dbs.html", {"error": error}, request=request)
    return Response.html(page, status=400 if error else 200)
