"""A world outside of the host, without leaving it: a network namespace behind a virtual cable.

It answers at an address that looks public, and at one of each kind that no container may reach.
Everything of it is on this machine, and the routes to it hold only while it is there.
"""

import fcntl
import ipaddress
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = str(Path(__file__).with_name("inside.py"))
PORT = 4242
HOST_SIDE, PUBLIC = "11.22.33.1", "11.22.33.2"
NOT_PUBLIC = (
    "10.99.99.2",
    "100.64.99.2",
    "169.254.169.254",
    "172.31.99.2",
    "192.0.0.99",
    "192.168.99.2",
    "198.18.99.2",
    "198.51.100.99",
    "203.0.113.99",
)
GREETING = "neighbour"


def ip(*arguments: str) -> str:
    """Run `ip`; raises CalledProcessError."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@dataclass
class Outside:
    """The world: its namespace, and a program in it that greets everybody who connects."""

    name: str = field(default_factory=lambda: f"ca{secrets.token_hex(4)}")

    def __enter__(self) -> "Outside":
        self._wait_for_turn()
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_for_turn(self) -> None:
        """One world at a time on this machine: the routes to it are the same ones in each."""
        path = Path(tempfile.gettempdir(), "cloudapp-outside.lock")
        self._turn = os.open(path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._turn, fcntl.LOCK_EX)

    def _make(self) -> None:
        name = self.name
        ip("netns", "add", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{HOST_SIDE}/24", "dev", name)
        ip("link", "set", name, "up")
        ip("-n", name, "addr", "add", f"{PUBLIC}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "route", "add", "default", "via", HOST_SIDE)
        for address in NOT_PUBLIC:
            ip("-n", name, "addr", "add", f"{address}/32", "dev", "lo")
            ip("route", "add", f"{address}/32", "via", PUBLIC, "dev", name)
        self._server = self._start("listen", str(PORT))
        assert self._server.stdout
        assert self._server.stdout.readline()

    def __exit__(self, *error: object) -> None:
        if hasattr(self, "_server"):
            self._server.kill()
            self._server.wait()
        # The cable goes with the namespace's end of it, and its routes with the cable.
        for command in (("link", "del", self.name), ("netns", "del", self.name)):
            with suppress(subprocess.CalledProcessError):
                ip(*command)
        os.close(self._turn)

    def connect(self, address: str) -> str:
        """Try to connect from out there; return the greeting or the error."""
        said, _ = self._start("connect", address).communicate(timeout=120)
        return str(json.loads(said)[address])

    def _start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = ["ip", "netns", "exec", self.name, sys.executable, "-I", PROGRAM, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def host_addresses() -> list[str]:
    """Return every address of this host but the loopback ones, as a client writes them."""
    found = []
    for interface in json.loads(ip("-j", "addr")):
        for entry in interface.get("addr_info", ()):
            address = ipaddress.ip_address(entry["local"])
            if not address.is_loopback:
                # Inside of a container there is one interface, and this is its name.
                found.append(f"{address}%eth0" if address.is_link_local else str(address))
    return found


@contextmanager
def greeter() -> Iterator[dict[int, int]]:
    """Listen on all addresses of the host, and greet; yield the ports by IP version."""
    servers = {
        4: socket.create_server(("0.0.0.0", 0)),  # noqa: S104
        6: socket.create_server(("::", 0), family=socket.AF_INET6),
    }
    for server in servers.values():
        threading.Thread(target=_greet, args=[server], daemon=True).start()
    try:
        yield {version: server.getsockname()[1] for version, server in servers.items()}
    finally:
        for server in servers.values():
            server.shutdown(socket.SHUT_RDWR)
            server.close()


def _greet(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            client.sendall(GREETING.encode())
            client.close()
