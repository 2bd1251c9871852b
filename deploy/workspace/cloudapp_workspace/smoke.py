"""Does this image work? Starts the real server once inside it, asks it, and stops it.

Run in a throw-away container before anybody gets the image. Prints one line of JSON and exits 0;
anything wrong is a traceback and exit 1.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import closing
from importlib.metadata import version
from typing import Any

import jwt

SOCKET = "/run/instance/http.sock"
START_SECONDS = 30


def main() -> None:
    """Raises AssertionError, HTTPException, OSError or a time-out when the image is of no use."""
    environment = {
        "INSTANCE_ID": str(uuid.uuid4()),
        "INSTANCE_GENERATION": "1",
        "INSTANCE_KEY": secrets.token_urlsafe(32),
        "INSTANCE_LISTEN": f"unix:{SOCKET}",
    }
    started = time.monotonic()
    command = [sys.executable, "-IB", "-m", "cloudapp_workspace"]
    server = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        _wait_for_socket(server)
        report = _ask(environment, started)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(START_SECONDS)
    if code != 0:
        raise AssertionError(f"the server stopped with {code} instead of 0")
    print(json.dumps(report))


def _wait_for_socket(server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not os.path.exists(SOCKET):
        if server.poll() is not None or time.monotonic() > deadline:
            raise AssertionError("the server does not listen")
        time.sleep(0.01)


def _ask(environment: dict[str, str], started: float) -> dict[str, Any]:
    health = _get("/-/instance/health", _token(environment, purpose="probe"), 200)
    seconds = time.monotonic() - started
    if json.loads(health)["instance"] != environment["INSTANCE_ID"]:
        raise AssertionError("somebody else answered")
    _get("/", {}, 403)
    member = _token(environment, **_MEMBER)
    _get("/", member, 200)
    return {
        "datasette": version("datasette"),
        "plugins": sorted(_plugins(json.loads(_get("/-/plugins.json", member, 200)))),
        "seconds": round(seconds, 3),
    }


def _plugins(answer: Any) -> list[str]:
    """The names in the answer: 0.65 gives a list, 1.0 an object around it."""
    plugins = answer["plugins"] if isinstance(answer, dict) else answer
    return [plugin["name"] for plugin in plugins]


_MEMBER: dict[str, Any] = {
    "purpose": "actor",
    "actor": {"id": "smoke", "name": "Smoke test", "role": "viewer"},
    "workspace": {"name": "Smoke test", "url": "http://smoke"},
}


def _token(environment: dict[str, str], **claims: Any) -> dict[str, str]:
    claims = {"aud": environment["INSTANCE_ID"], "exp": time.time() + 60, **claims}
    return {"X-Cloudapp-Actor": jwt.encode(claims, environment["INSTANCE_KEY"], "HS256")}


class _Connection(http.client.HTTPConnection):
    """The standard library's client, over our socket: no HTTP package is in every image."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(START_SECONDS)
        self.sock.connect(SOCKET)


def _get(path: str, headers: dict[str, str], status: int) -> bytes:
    with closing(_Connection("smoke")) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        if response.status != status:
            raise AssertionError(f"{path} answered {response.status}")
        return response.read()


if __name__ == "__main__":
    main()
