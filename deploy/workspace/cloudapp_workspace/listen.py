"""The listening socket, made before anything slow is imported."""

from __future__ import annotations

import os
import socket

from cloudapp_workspace.environment import WrongEnvironment

BACKLOG = 1024


def listen(address: str) -> socket.socket:
    """Listen on `unix:/path` (mode 0666) or `tcp:host:port`.

    The unix socket is bound under another name and renamed when it is ready, so nobody can meet
    it with the wrong mode, and a stale one of an earlier run is replaced, not tripped over.
    Raises WrongEnvironment for an address of neither kind, OSError when it cannot be bound.
    """
    kind, _, where = address.partition(":")
    if kind == "unix" and where.startswith("/"):
        return _listen_unix(where)
    host, _, port = where.rpartition(":")
    if kind == "tcp" and host and port.isdigit():
        return _listen_tcp(host, int(port))
    raise WrongEnvironment(f"INSTANCE_LISTEN is neither unix:/path nor tcp:host:port: {address}")


def _listen_unix(path: str) -> socket.socket:
    unfinished = f"{path}.new"
    if os.path.lexists(unfinished):
        os.unlink(unfinished)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(unfinished)
    # The directory around it decides who gets here; everybody in there may connect.
    os.chmod(unfinished, 0o666)  # noqa: S103
    listener.listen(BACKLOG)
    os.rename(unfinished, path)
    return listener


def _listen_tcp(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host.strip("[]"), port))
    listener.listen(BACKLOG)
    return listener
