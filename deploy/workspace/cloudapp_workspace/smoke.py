"""Does this image work? Starts the real server once inside it, asks it, and stops it.

Run in a throw-away container before anybody gets the image. Prints one line of JSON and exits 0;
otherwise the cause in words, the last lines of the server's log, and exit 1. It always ends.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from threading import Thread
from typing import IO, Any

import jwt

# faulthandler: one that hangs tells on SIGABRT where.
COMMAND = [sys.executable, "-IB", "-X", "faulthandler", "-m", "cloudapp_workspace"]
SOCKET = "/run/instance/http.sock"
DATABASE = "/data/smoke.db"
TABLE = """
create table birds (id integer primary key, name text, latitude real, longitude real);
insert into birds values (1, 'owl', 51.5, -0.1), (2, 'wren', 52.5, -0.2);
"""
ROWS = "/smoke/birds.json?_shape=array&name=wren"
WREN = {"id": 2, "name": "wren", "latitude": 52.5, "longitude": -0.2}
# What a stop may take: work that a request left behind gets 20 seconds (guard.py).
STOP_SECONDS = 25.0
LOG_LINES = 12
STACK_LINES = 5
KEPT_LINES = 400
LOG_LINE_LENGTH = 300


class Unfit(Exception):
    """The image is not fit for use; the text says why."""


def main(seconds: float) -> None:
    """Exits 1 with the cause when the image is not fit for use.

    From the start of the server to its last answer it may take so many seconds.
    """
    with closing(sqlite3.connect(DATABASE)) as connection:
        connection.executescript(TABLE)
    environment = {
        "INSTANCE_ID": str(uuid.uuid4()),
        "INSTANCE_GENERATION": "1",
        "INSTANCE_KEY": secrets.token_urlsafe(32),
        "INSTANCE_LISTEN": f"unix:{SOCKET}",
    }
    server = _Server(environment)
    try:
        report = _try_out(server, _Visitor(environment), seconds)
        server.stop()
    except Unfit as cause:
        sys.exit("\n".join([str(cause), *server.last_words()]))
    print(json.dumps(report))


class _Server:
    """The real server, and the end of what it writes to its log."""

    def __init__(self, environment: dict[str, str]) -> None:
        # Nobody reads what plugins print; on our own output it would spoil the report.
        self._process = subprocess.Popen(
            COMMAND,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._log: deque[bytes] = deque(maxlen=KEPT_LINES)
        self._reader = Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    def _read(self, log: IO[bytes]) -> None:
        while line := log.readline(LOG_LINE_LENGTH):
            self._log.append(line)

    def ended(self, seconds: float = 0) -> int | None:
        """How it ended, if it does so within these seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """Raises Unfit when the stop is not a clean one."""
        self._process.send_signal(signal.SIGTERM)
        code = self.ended(STOP_SECONDS)
        if code is None:
            raise Unfit(f"the server did not stop in {STOP_SECONDS:.0f} s")
        if code != 0:
            raise Unfit(f"the server stopped with {code} instead of 0")

    def whereabouts(self) -> list[str]:
        """Where it hangs: the innermost lines that its main thread is at. It ends by that."""
        self._process.send_signal(signal.SIGABRT)
        self.ended(1)
        self._reader.join(1)
        lines = [line.decode(errors="replace").rstrip() for line in tuple(self._log)]
        self._log.clear()
        starts = [n for n, line in enumerate(lines) if "(most recent call first)" in line]
        # The main thread is told last.
        return ["it hangs here:", *lines[starts[-1] + 1 :][:STACK_LINES]] if starts else []

    def last_words(self) -> list[str]:
        """End it, if it still runs, and return the last lines of its log."""
        self._process.kill()
        self._process.wait()
        self._reader.join(1)  # not for ever: a child of the server may hold the pipe
        return [line.decode(errors="replace").rstrip() for line in tuple(self._log)[-LOG_LINES:]]


def _try_out(server: _Server, visitor: _Visitor, limit: float) -> dict[str, Any]:
    """What the report says. Raises Unfit."""
    started = time.monotonic()
    try:
        with _alarm(limit):
            while not os.path.exists(SOCKET) and server.ended(0.01) is None:
                pass
            visitor.meet_the_right_one()
            seconds = time.monotonic() - started
            plugins = visitor.look_around()
    except TimeoutError as error:
        cause = f"the server did not answer in {limit:.0f} s, asked for {visitor.path}"
        raise Unfit("\n".join([cause, *server.whereabouts()])) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if (code := server.ended(1)) is not None:
            raise Unfit(f"the server ended by itself, with exit code {code}") from error
        raise Unfit(f"the server gave no proper answer to {visitor.path}: {error!r}") from error
    return {
        "datasette": version("datasette"),
        "plugins": sorted(plugins),
        "seconds": round(seconds, 3),
    }


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the middle of what takes longer: one answer, or many small parts."""

    def too_late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Visitor:
    """Asks the server in every way that people do. Raises Unfit for a wrong answer."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self.path = "nothing yet"

    def meet_the_right_one(self) -> None:
        """It answers, as itself, and to nobody without a token."""
        health = json.loads(self._get("/-/instance/health", self._token(purpose="probe")))
        if health["instance"] != self._environment["INSTANCE_ID"]:
            raise Unfit("somebody else answered")
        self._get("/", {}, expected=403)

    def look_around(self) -> list[str]:
        """Every kind of page that a plugin adds to, for everybody; the names of the plugins."""
        # A viewer and an owner: many plugins add nothing for those who may not use them.
        for role in ("viewer", "owner"):
            member = self._member(role)
            self._get("/", member)
            self._get("/smoke/birds", member)
            if (rows := json.loads(self._get(ROWS, member))) != [WREN]:
                raise Unfit(f"{ROWS} answered {rows} to the {role}")
        answer = json.loads(self._get("/-/plugins.json", member))
        # 0.65 gives a list, 1.0 an object around it.
        plugins = answer["plugins"] if isinstance(answer, dict) else answer
        return [plugin["name"] for plugin in plugins]

    def _get(self, path: str, headers: dict[str, str], expected: int = 200) -> bytes:
        self.path = path
        with closing(_Connection("smoke")) as connection:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        if response.status != expected:
            raise Unfit(f"{path} answered {response.status} instead of {expected}")
        return body

    def _member(self, role: str) -> dict[str, str]:
        return self._token(
            purpose="actor",
            actor={"id": "smoke", "name": "Smoke test", "role": role},
            workspace={"name": "Smoke test", "url": "http://smoke"},
        )

    def _token(self, **claims: Any) -> dict[str, str]:
        claims = {"aud": self._environment["INSTANCE_ID"], "exp": time.time() + 60, **claims}
        return {"X-Cloudapp-Actor": jwt.encode(claims, self._environment["INSTANCE_KEY"], "HS256")}


class _Connection(http.client.HTTPConnection):
    """The standard library's client, over our socket: no HTTP package is in every image."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(SOCKET)


if __name__ == "__main__":
    main(float(sys.argv[1]))
