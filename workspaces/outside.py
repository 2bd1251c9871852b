"""Send something to an address that a customer gave: to the public internet, and nowhere else.

Customers decide what their names resolve to, and may decide anew after we looked. So the check is
where the connection is made: the name is resolved once, every address of it is looked at, and the
socket is opened to one of these very addresses; TLS and the Host header go by the name. Nothing is
redirected, and no proxy of our own environment is asked: httpcore does neither.

Operators may name further networks (WEBHOOK_ALLOWED_NETWORKS). Only to these goes plain http.
"""

import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

import httpcore
from django.conf import settings

MAX_LENGTH = 500
LOOK_UP_SECONDS = 5.0
# While somebody's request waits for it; whoever sends looks again, and may take longer.
CHECK_SECONDS = 1.5
CONNECT_SECONDS = 5.0
WHOLE_SECONDS = 15.0
MAX_ANSWER = 2048

_PORTS = (80, 443)
_FIRST_FREE_PORT = 1024
_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


class NotAllowed(Exception):
    """Nothing is sent there, however often one asks. The text says why."""


class Unreachable(Exception):
    """No answer came. The text says what went wrong; another time it may go well."""


@dataclass(frozen=True)
class Answer:
    """What came back: the status, and as much of the body as is worth keeping."""

    status: int
    text: str


def check(url: str) -> None:
    """Raise NotAllowed unless something may be sent to this address, as things are now."""
    target = _Target.of(url)
    try:
        target.addresses(CHECK_SECONDS)
    except Unreachable as error:
        raise NotAllowed(str(error)) from error


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Send it, once; return the answer, whatever it says. Raises NotAllowed or Unreachable."""
    target = _Target.of(url)
    backend = _Guarded(target, time.monotonic() + WHOLE_SECONDS)
    sent: list[tuple[bytes | str, bytes | str]] = [("Host", target.netloc), *headers.items()]
    with httpcore.ConnectionPool(_tls(), network_backend=backend) as pool:
        try:
            with pool.stream("POST", url, headers=sent, content=body) as response:
                return Answer(response.status, _beginning(response))
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise Unreachable(_words(target.host, error)) from error


# --- what may be reached -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Target:
    """Where an address leads, if it is one that may be given to us."""

    host: str
    port: int
    netloc: str
    plain: bool

    @classmethod
    def of(cls, url: str) -> "_Target":
        """Read an address. Raises NotAllowed, in words for who typed it."""
        if len(url) > MAX_LENGTH or not all("!" <= character <= "~" for character in url):
            raise NotAllowed(
                f"Write the address in at most {MAX_LENGTH} plain characters, without spaces."
            )
        try:
            parts = urlsplit(url)
            port = parts.port or (80 if parts.scheme == "http" else 443)
        except ValueError:
            raise NotAllowed("This is no web address.") from None
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise NotAllowed("Begin with https:// and the name of a host.")
        if "@" in parts.netloc:
            raise NotAllowed("Leave user and password out: every message is signed instead.")
        if port not in _PORTS and port < _FIRST_FREE_PORT:
            raise NotAllowed(f"Port {port} is not for the web. Use 443, or one above 1023.")
        return cls(parts.hostname, port, parts.netloc, parts.scheme == "http")

    def addresses(self, seconds: float) -> list[str]:
        """Resolve the name, once. Raises NotAllowed if any of its addresses must not be reached."""
        found = _resolve(self.host, self.port, seconds)
        addresses = [ip_address(text.partition("%")[0]) for text in found]
        if self.plain and not all(_is_named(address) for address in addresses):
            raise NotAllowed("Begin with https://: nobody on the way may read or change messages.")
        if not all(_is_named(address) or _is_public(address) for address in addresses):
            raise NotAllowed(_leads_nowhere(self.host))
        return found


def _is_named(address: Address) -> bool:
    """Whether the operators allow it by name, all that it stands for included."""
    networks = settings.WEBHOOK_ALLOWED_NETWORKS
    return all(any(one in network for network in networks) for one in _stands_for(address))


def _is_public(address: Address) -> bool:
    """Whether it is on the public internet, with all that it stands for."""
    return all(
        one.is_global
        and not (one.is_multicast or one.is_reserved)
        and (one.version == 4 or one in _UNICAST)
        for one in _stands_for(address)
    )


def _stands_for(address: Address) -> Iterator[Address]:
    """Yield the IPv4 addresses that an IPv6 address leads to; else the address itself."""
    inside: Iterable[IPv4Address | None] = ()
    if isinstance(address, IPv6Address):
        nat64 = IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        inside = (address.ipv4_mapped, address.sixtofour, *(address.teredo or ()), nat64)
    found: list[Address] = [one for one in inside if one is not None]
    yield from found or [address]


def _resolve(host: str, port: int, seconds: float) -> list[str]:
    """Return the addresses of a name. The system's resolver knows no deadline, so it runs aside."""
    told: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            told.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            told.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = told.get(timeout=max(seconds, 0.01))
    except queue.Empty:
        raise Unreachable(f"The name {host} was not found in time.") from None
    if isinstance(answer, Exception) or not answer:
        raise Unreachable(_leads_nowhere(host))
    return list(dict.fromkeys(str(entry[4][0]) for entry in answer))


def _leads_nowhere(host: str) -> str:
    """Say the same of unknown names and private ones: which there are inside is our business."""
    return f"{host} does not lead to the public internet. Messages go nowhere else."


# --- the connection ------------------------------------------------------------------------------


class _Guarded(httpcore.NetworkBackend):
    """Connects to the addresses that were checked, and to no others, until a deadline."""

    def __init__(self, target: _Target, deadline: float) -> None:
        self._target = target
        self._deadline = deadline
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Try the addresses of our target one after the other."""
        failure: Exception = httpcore.ConnectTimeout()
        for address in self._target.addresses(min(LOOK_UP_SECONDS, _left(self._deadline))):
            seconds = min(CONNECT_SECONDS, _left(self._deadline))
            try:
                stream = self._inner.connect_tcp(address, self._target.port, seconds)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Hurried(stream, self._deadline)
        raise failure


class _Hurried(httpcore.NetworkStream):
    """A connection whose every step must be over by a deadline: many small ones are no way out."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there."""
        return self._inner.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it."""
        self._inner.write(buffer, _left(self._deadline))

    def close(self) -> None:
        """Close it."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Speak TLS from here on."""
        seconds = min(CONNECT_SECONDS, _left(self._deadline))
        inner = self._inner.start_tls(ssl_context, server_hostname, seconds)
        return _Hurried(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Tell httpcore what it wants to know of the connection."""
        return self._inner.get_extra_info(info)


def _left(deadline: float) -> float:
    """Return the seconds until a deadline. Raises what httpcore does when the time is over."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise httpcore.ReadTimeout
    return seconds


@cache
def _tls() -> ssl.SSLContext:
    """Return what checks certificates, with the authorities that this machine trusts."""
    return ssl.create_default_context()


def _beginning(response: httpcore.Response) -> str:
    """Return the first part of the body. The status was there before: that is what counts."""
    held = b""
    with suppress(httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        for chunk in response.iter_stream():
            held += chunk
            if len(held) >= MAX_ANSWER:
                break
    return held[:MAX_ANSWER].decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _words(host: str, error: Exception) -> str:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"The certificate of {host} was refused: {cause.verify_message}."
    if isinstance(cause, ssl.SSLError):
        return f"{host} does not speak TLS as we do."
    if isinstance(error, httpcore.ConnectTimeout | httpcore.ConnectError):
        return f"{host} took no connection."
    if isinstance(error, httpcore.TimeoutException):
        return f"{host} did not answer within {WHOLE_SECONDS:.0f} seconds."
    return f"{host} ended the connection without an answer that is HTTP."
