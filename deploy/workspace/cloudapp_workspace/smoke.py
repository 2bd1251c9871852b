"""Does this image work? Starts the real server once inside it, asks it, and stops it.

Run in a throw-away container before anybody gets the image. Prints one line of JSON and exits 0;
anything wrong is a traceback and exit 1.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import uuid
from importlib.metadata import version
from typing import Any

import httpx
import jwt

SOCKET = "/run/instance/http.sock"
START_SECONDS = 30


def main() -> None:
    """Raises AssertionError, httpx.HTTPError or a time-out when the image is not fit for use."""
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
    transport = httpx.HTTPTransport(uds=SOCKET)
    with httpx.Client(
        transport=transport, base_url="http://smoke", timeout=START_SECONDS
    ) as client:
        health = client.get("/-/instance/health", headers=_token(environment, purpose="probe"))
        seconds = time.monotonic() - started
        _check(health, 200)
        if health.json()["instance"] != environment["INSTANCE_ID"]:
            raise AssertionError("somebody else answered")
        _check(client.get("/"), 403)
        member = _token(environment, **_MEMBER)
        _check(client.get("/", headers=member), 200)
        plugins = client.get("/-/plugins.json", headers=member)
        _check(plugins, 200)
    return {
        "datasette": version("datasette"),
        "plugins": sorted(plugin["name"] for plugin in plugins.json()),
        "seconds": round(seconds, 3),
    }


_MEMBER: dict[str, Any] = {
    "purpose": "actor",
    "actor": {"id": "smoke", "name": "Smoke test", "role": "viewer"},
    "workspace": {"name": "Smoke test", "url": "http://smoke"},
}


def _token(environment: dict[str, str], **claims: Any) -> dict[str, str]:
    claims = {"aud": environment["INSTANCE_ID"], "exp": time.time() + 60, **claims}
    return {"X-Cloudapp-Actor": jwt.encode(claims, environment["INSTANCE_KEY"], "HS256")}


def _check(response: httpx.Response, status: int) -> None:
    if response.status_code != status:
        raise AssertionError(f"{response.request.url} answered {response.status_code}")


if __name__ == "__main__":
    main()
