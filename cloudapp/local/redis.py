"""A Redis of our own: on a unix socket, in memory only. It wakes people up and holds no truth."""

import contextlib
import shutil
import socket

from cloudapp.local.places import Places
from cloudapp.local.programs import Program
from cloudapp.local.say import Failure


class Redis:
    """One server. Prepare() it, then run its program."""

    name = "redis"

    def __init__(self, places: Places) -> None:
        self._places = places
        self.socket = places.run / "redis.sock"

    @property
    def url(self) -> str:
        """The REDIS_URL of this server."""
        return f"unix://{self.socket}"

    def prepare(self) -> None:
        """Clear away what a crash left."""
        self.socket.unlink(missing_ok=True)

    def program(self) -> Program:
        """Return the server as a program to run."""
        binary = shutil.which("redis-server")
        if binary is None:
            raise Failure("redis-server is not installed.")
        return Program(
            name=self.name,
            command=[
                *(binary, "--port", "0", "--unixsocket", str(self.socket)),
                *("--unixsocketperm", "700", "--save", "", "--appendonly", "no"),
                *("--dir", str(self._places.run), "--daemonize", "no", "--maxmemory", "256mb"),
            ],
            log=self._places.logs / "redis.log",
            grace=5,
            echo=False,
            ready=self.is_ready,
        )

    def is_ready(self) -> bool:
        """Tell whether it answers a PING."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            client.connect(str(self.socket))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        return False
