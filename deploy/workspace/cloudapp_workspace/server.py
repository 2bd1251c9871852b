"""Build the Datasette application, serve it, and stop without cutting anything."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Any

from cloudapp_workspace import lazy

lazy.install()

import uvicorn  # noqa: E402
from datasette.app import Datasette  # noqa: E402
from datasette.plugins import pm  # noqa: E402
from datasette.version import __version__  # noqa: E402

from cloudapp_workspace import encoding, plugin, spill, storage  # noqa: E402
from cloudapp_workspace.activity import Activity  # noqa: E402
from cloudapp_workspace.disk import UNFINISHED, Disk  # noqa: E402
from cloudapp_workspace.environment import Environment  # noqa: E402
from cloudapp_workspace.guard import Guard  # noqa: E402

# Longer than nginx keeps idle upstream connections (30 s), so it is never us who hangs up first:
# a POST on a connection that closes at that moment would be an error page for somebody.
KEEP_ALIVE_SECONDS = 75

pm.register(plugin, name="cloudapp-workspace")
encoding.install()


def build_datasette(environment: Environment, disk: Disk) -> Datasette:
    """Datasette over every usable database in the data directory, which it prepares first."""
    data = environment.data
    storage.prepare_directory(data)
    files, only_readable = storage.usable_databases(data, disk.keep_open)
    for file in files:
        # A full disk must not keep people from reading: the log says what could not be written.
        storage.reported(storage.mark_interrupted_imports, file)
    uploads = {"directory": str(data), "skip_startup_scan": True}
    return Datasette(
        files=[str(file) for file in files],
        immutables=[str(file) for file in only_readable],
        secret=environment.datasette_secret(),
        # Ours last: nobody's setting moves the uploads to another place.
        metadata={"plugins": {**environment.plugin_settings, "datasette-upload-dbs": uploads}},
        template_dir=str(Path(__file__).parent / "templates"),
        **_only_in_1_0(data),
    )


def _only_in_1_0(data: Path) -> dict[str, str]:
    """Where 1.0 keeps stored queries and column types; without it they die at a stop.

    0.65 keeps nothing of its own and does not know the argument.
    """
    if not hasattr(Datasette, "get_internal_database"):
        return {}
    return {"internal": str(storage.internal_database(data))}


def serve(environment: Environment, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; returns when everything is finished and written down.

    Raises SystemExit(3) when Datasette or a plugin failed at its start.
    """
    activity, disk = Activity(), Disk(environment.data)
    disk.hold_all_writes()
    spill.keep_reads_off(environment.data / UNFINISHED)
    datasette = build_datasette(environment, disk)
    datasette.cloudapp_disk = disk
    _show_what_is_known(datasette)
    guard = Guard(datasette.app(), datasette, environment, activity, disk)
    config = uvicorn.Config(
        guard,
        loop="asyncio",
        http="h11",
        ws=_websocket_protocol,  # type: ignore[arg-type]
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        # Only the router gets past the guard, so its word on scheme and client is good.
        forwarded_allow_ips="*",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    _say(f"Datasette {__version__} starts with {', '.join(sorted(datasette.databases))}")
    asyncio.run(_Server(config).serve(sockets=[listener]))
    disk.let_go()
    _close(datasette, environment.data)
    _say("stopped: nothing was cut, everything is written down")


def _show_what_is_known(datasette: Datasette) -> None:
    """With a full disk, 1.0 cannot note what is new in the databases: it shows what it knows."""
    refresh = datasette._refresh_schemas

    async def refresh_if_there_is_room() -> None:
        try:
            await refresh()
        except sqlite3.Error as error:
            if not storage.is_for_want_of_room(error):
                raise

    datasette._refresh_schemas = refresh_if_there_is_room


def _say(line: str) -> None:
    """Tell whoever reads the log. Datasette itself only writes when something goes wrong."""
    print(line, file=sys.stderr, flush=True)


def _close(datasette: Datasette, data: Path) -> None:
    """Let go of every file, so that the checkpoint has them for itself."""
    for database in datasette.databases.values():
        database.close()
    storage.for_each_database(data, storage.mark_interrupted_imports)
    if not storage.for_each_database(data, storage.checkpoint):
        _say("some databases keep their write-ahead log; nothing is lost")


def _websocket_protocol(*args: Any, **kwargs: Any) -> Any:
    """Imported when the first WebSocket comes, not at every start."""
    from uvicorn.protocols.websockets.wsproto_impl import WSProtocol  # noqa: PLC0415

    return WSProtocol(*args, **kwargs)


class _Server(uvicorn.Server):
    """Uvicorn that sleeps until it is told to stop, and whose stop is a success.

    The original wakes up ten times a second, which thirty idle workspaces feel, and raises the
    signal again at the end, which makes the exit code 143 instead of 0.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        # What has been imported stays: nobody need look through it for garbage again and again.
        gc.freeze()
        gc.enable()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if not self.should_exit:
            await self._stop.wait()

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.should_exit = True
