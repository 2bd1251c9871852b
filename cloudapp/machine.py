"""Defaults that depend on the machine: whom nginx's workers run as, and where it listens."""

import contextlib
import grp
import os
import pwd
import socket
from urllib.parse import urlsplit

# Debian's name for the user of web servers, and other systems' names.
_UNPRIVILEGED = ("www-data", "nginx", "nobody")


def unprivileged_user() -> str:
    """Return whom nginx's workers should run as; empty when we are not root and cannot choose."""
    if os.geteuid() != 0:
        return ""
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return ""


def group_of(user: str) -> str:
    """Return the name of a user's own group; empty for nobody, or one that is not known here."""
    with contextlib.suppress(KeyError):
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    return ""


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def listen_addresses(url: str, *, only_loopback: bool, tls: bool) -> list[str]:
    """Return where the router listens, as nginx writes it: the port of `url`, IPv4 and IPv6.

    An https address without our own certificate means that somebody in front of us ends the TLS.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if tls else 80)
    hosts = ("127.0.0.1", "[::1]") if only_loopback else ("0.0.0.0", "[::]")  # noqa: S104
    return [f"{host}:{port}" for host in hosts if host[0] != "[" or _has_ipv6()]
