"""Ask an instance over its endpoint: is it there, as itself, and has it work to do?"""

import http.client
import json
import math
import re
import socket
import time
from dataclasses import dataclass
from typing import Any

from deploy import tokens
from deploy.models import Instance

HEALTH_PATH = "/-/instance/health"
# More than any disk has bytes, and little enough that the database can add them up.
MOST = 2**50
_RUN = re.compile(r"[0-9a-f]{32}", re.ASCII)

# What reading an answer raises that is none: it may be anything at all.
_NONSENSE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


class NotAnswering(Exception):
    """Nobody answers at the endpoint, or somebody else does."""


@dataclass(frozen=True)
class Usage:
    """What an instance uses. The counters begin anew with each `run`: one process, one name."""

    run: str
    up_seconds: float
    cpu_seconds: float
    requests: int
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Health:
    """What an instance says of itself."""

    in_flight: int
    idle_seconds: float
    busy: tuple[str, ...]
    pristine: bool  # it holds nobody's data
    usage: Usage | None = None  # None: its image is older than this

    def is_idle(self, seconds: float) -> bool:
        """Whether nobody used it for so long, nobody does now, and it has no work of its own."""
        return not self.in_flight and not self.busy and self.idle_seconds >= seconds


class _Socket(socket.socket):
    """A socket whose reads end by one time, however slowly the other side tells something."""

    ends_at = math.inf

    def recv_into(self, *args: Any, **options: Any) -> int:
        if self.ends_at < math.inf:
            left = self.ends_at - time.monotonic()
            if left <= 0:
                raise TimeoutError("it takes too long to answer")
            self.settimeout(left)
        return super().recv_into(*args, **options)


class _Connection(http.client.HTTPConnection):
    """HTTP to an endpoint: `unix:/path` or `host:port`."""

    def __init__(self, endpoint: str, timeout: float) -> None:
        super().__init__("instance", timeout=timeout)
        self._endpoint = endpoint
        # When all that it reads has to be there, on the monotonic clock.
        self.ends_at = math.inf

    def connect(self) -> None:
        if self._endpoint.startswith("unix:"):
            ours = _Socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock = ours
            ours.settimeout(self.timeout)
            ours.connect(self._endpoint.removeprefix("unix:"))
        else:
            host, _, port = self._endpoint.rpartition(":")
            connected = socket.create_connection((host, int(port)), self.timeout)
            ours = _Socket(fileno=connected.detach())
            ours.settimeout(self.timeout)
            self.sock = ours
        ours.ends_at = self.ends_at


def open_connection(endpoint: str, timeout: float) -> http.client.HTTPConnection:
    """Return an HTTP connection to an endpoint; it connects with the first request."""
    return _Connection(endpoint, timeout)


def _parse(body: bytes, instance: Instance) -> Health:
    said = json.loads(body)
    if said["instance"] != str(instance.pk):
        raise NotAnswering(f"another instance answers: {said['instance']!a:.80}")
    return Health(
        int(said["in_flight"]),
        float(said["idle_seconds"]),
        tuple(said["busy"]),
        pristine=bool(said["pristine"]),
        usage=_usage(said["usage"]) if "usage" in said else None,
    )


def _usage(said: dict[str, Any]) -> Usage:
    """Parse it. A customer's container says it: nothing else than numbers in bounds gets further.

    Raises ValueError, KeyError, TypeError or OverflowError.
    """
    usage = Usage(
        _run(said["run"]),
        float(said["up_seconds"]),
        float(said["cpu_seconds"]),
        int(said["requests"]),
        int(said["memory_bytes"]),
        int(said["disk_bytes"]),
    )
    numbers = (usage.up_seconds, usage.cpu_seconds, usage.requests, usage.memory_bytes)
    if not all(0 <= number < MOST for number in (*numbers, usage.disk_bytes)):
        raise ValueError(f"no such usage: {usage}")
    return usage


def _run(said: Any) -> str:
    if not isinstance(said, str) or not _RUN.fullmatch(said):
        raise ValueError("no such name of a run")
    return said


def health(instance: Instance, endpoint: str, timeout: float = 5.0) -> Health:
    """Return the instance's health; raise NotAnswering when it does not answer as itself.

    All of it takes `timeout` seconds at most: one that tells it byte by byte keeps nobody.
    A container with another key refuses the probe's token, so a 200 comes from the right one.
    """
    connection = _Connection(endpoint, timeout)
    connection.ends_at = time.monotonic() + timeout
    try:
        connection.connect()  # first: while it starts, nobody is there for most of the time
        token = tokens.probe_token(instance)
        connection.request("GET", HEALTH_PATH, headers={tokens.HEADER: token})
        with connection.getresponse() as response:
            if response.status != http.HTTPStatus.OK:
                raise NotAnswering(f"it answers with status {response.status}")
            return _parse(response.read(65536), instance)
    except (OSError, http.client.HTTPException, *_NONSENSE) as error:
        raise NotAnswering(str(error) or type(error).__name__) from error
    finally:
        connection.close()
