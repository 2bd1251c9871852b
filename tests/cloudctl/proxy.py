"""A proxy between the command and the product, on which lines can be made bad."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass(frozen=True)
class Seen:
    """A request that came through."""

    method: str
    path: str
    headers: dict[str, str]

    def is_a(self, method: str, end: str) -> bool:
        """Whether it is of this method, and its path, without the query, ends like this."""
        return self.method == method and self.path.partition("?")[0].endswith(end)


@dataclass(frozen=True)
class Bad:
    """What happens to the next `times` requests of a kind, instead of what should.

    `status` answers in the product's place. `drop` lets the product answer and then breaks the
    connection. `cut` breaks a stream after so many messages. `hold` answers after so many seconds.
    """

    method: str
    end: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    drop: bool = False
    cut: int = 0
    hold: float = 0.0


class Proxy:
    """Use as a context. `url` is where it listens; `seen` are the requests, in order."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.seen: list[Seen] = []
        self._bad: list[Bad] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def bad(self, method: str, end: str, **how: Any) -> None:
        """Make the next requests of a kind go wrong."""
        one = Bad(method, end, **how)
        self._bad += [one] * one.times

    def take(self, seen: Seen) -> Bad | None:
        """Note a request; return what shall go wrong with it."""
        with self._lock:
            self.seen.append(seen)
            for at, bad in enumerate(self._bad):
                if seen.is_a(bad.method, bad.end):
                    return self._bad.pop(at)
        return None

    def of(self, method: str, end: str) -> list[Seen]:
        """Return the requests of a kind."""
        return [seen for seen in self.seen if seen.is_a(method, end)]

    def until_seen(self, method: str, end: str, seconds: float = 90.0) -> None:
        """Return once such a request came."""
        deadline = time.monotonic() + seconds
        while not self.of(method, end):
            assert time.monotonic() < deadline, f"no {method} …{end}"
            time.sleep(0.02)


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.close_connection = True
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            bad = proxy.take(Seen(self.command, self.path, headers))
            if bad and bad.hold:
                time.sleep(bad.hold)
            if bad and bad.status:
                self._say(bad.status, bad.headers, [bad.body])
                return
            kept = {name: value for name, value in headers.items() if name not in HOP}
            with _upstream(proxy, self.command, self.path, kept, body) as answer:
                if bad and bad.drop:
                    answer.read()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                found = {n: v for n, v in answer.headers.items() if n.lower() not in HOP}
                self._say(answer.status_code, found, _cut(answer.iter_raw(), bad.cut if bad else 0))

        def _say(self, status: int, headers: dict[str, str], body: Any) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # whoever asked has left
                for chunk in body:
                    self.wfile.write(chunk)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def _upstream(
    proxy: Proxy, method: str, path: str, headers: dict[str, str], body: bytes
) -> Iterator[httpx.Response]:
    with (
        httpx.Client(base_url=proxy.upstream, timeout=120) as client,
        client.stream(method, path, headers=headers, content=body) as answer,
    ):
        yield answer


def _cut(chunks: Iterator[bytes], messages: int) -> Iterator[bytes]:
    """Pass a stream on; with `messages`, only up to the middle of the one after so many."""
    left = messages
    for chunk in chunks:
        if not messages:
            yield chunk
            continue
        for part in chunk.splitlines(keepends=True):
            if part.startswith(b"data:"):
                left -= 1
                if left < 0:
                    yield part[: len(part) // 2]
                    return
            yield part
