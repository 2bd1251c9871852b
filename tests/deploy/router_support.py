"""A real nginx before a real web process, and small programs that stand where containers would."""

import contextlib
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection
from websockets.sync.server import Server, ServerConnection, unix_serve

from accounts.models import User
from cloudapp.local.product import free_port
from deploy.models import Instance
from deploy.states import Observed
from workspaces.handoff_tokens import SESSION_COOKIE
from workspaces.models import Workspace

PROJECT = Path(__file__).resolve().parents[2]
# Generous: a machine may be busy. What is waited for costs nothing when all is well.
START_SECONDS = 90.0
PATIENCE = "60"


def until(true: Callable[[], object], seconds: float = START_SECONDS) -> None:
    """Return when `true()` is; fail when it is not after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def database_url() -> str:
    """The test database, for processes that we start."""
    told = connection.get_connection_params()
    user = f"{told.get('user') or ''}:{told.get('password') or ''}@"
    host, port = str(told.get("host") or ""), told.get("port")
    if host.startswith("/"):
        return f"postgres://{user}/{told['dbname']}?host={quote(host)}"
    return f"postgres://{user}{host}{f':{port}' if port else ''}/{told['dbname']}"


class Stack:
    """nginx and gunicorn in private directories, on a port of their own."""

    def __init__(self, **environment: str) -> None:
        # Not below pytest's own directory, which nginx's workers could not enter.
        self.directory = Path(tempfile.mkdtemp(prefix="router-"))
        self.directory.chmod(0o711)
        self.port = free_port()
        self.netloc = f"localhost:{self.port}"
        self.environment = {
            **os.environ,
            "LOCAL": "1",
            "CLOUD_URL": f"http://{self.netloc}",
            "APPS_DOMAIN": self.netloc,
            "DATABASE_URL": database_url(),
            "RUN_DIR": str(self.directory),
            "STATE_DIR": str(self.directory),
            "STATIC_ROOT": str(self.directory / "static"),
            "ROUTER_ACCESS_LOG": str(self.directory / "access.log"),
            "WAKE_HOLD_SECONDS": "3",
            **environment,
        }
        self.config = self.directory / "nginx.conf"
        self._web: subprocess.Popen[bytes] | None = None
        self._nginx: subprocess.Popen[bytes] | None = None

    # --- processes -----------------------------------------------------------------------------

    def start(self) -> None:
        """Render the configuration and start both."""
        self._manage("collectstatic", "--noinput", "--verbosity", "0")
        # The router waits for the gateway as long as the most patient one here may take.
        self._manage("render_router", "--output", str(self.config), WAKE_HOLD_SECONDS=PATIENCE)
        self.start_web()
        self._nginx = self._start("nginx", "-c", str(self.config), "-g", "daemon off;")
        until(self._listens)

    def start_web(self, program: str = "cloudapp.wsgi", **environment: str) -> None:
        """Have a web process; with other settings than the stack's, if some are given."""
        (self.directory / "web.sock").unlink(missing_ok=True)
        self._web = self._start(
            *(sys.executable, "-m", "gunicorn", f"{program}:application"),
            *("--bind", f"unix:{self.directory}/web.sock", "--worker-class", "gthread"),
            *("--threads", "16", "--access-logfile", str(self.directory / "web.log")),
            *("--access-logformat", "%(r)s", "--no-control-socket"),
            **environment,
        )
        until(self._web_answers)

    def _web_answers(self) -> bool:
        transport = httpx.HTTPTransport(uds=f"{self.directory}/web.sock")
        with (
            httpx.Client(transport=transport, timeout=START_SECONDS) as probe,
            contextlib.suppress(httpx.TransportError),
        ):
            return probe.get(f"http://{self.netloc}/healthz").status_code in (200, 503)
        return False

    def stop_web(self) -> None:
        assert self._web
        _end(self._web)
        self._web = None

    @contextmanager
    def patient_web(self) -> Iterator[None]:
        """Have a web process that gives nobody up because this machine is busy."""
        self.stop_web()
        self.start_web("tests.deploy.patient", WAKE_HOLD_SECONDS=PATIENCE)
        try:
            yield
        finally:
            self.stop_web()
            self.start_web()

    def stop(self) -> None:
        """Stop everything and remove what it left."""
        for process in (self._nginx, self._web):
            if process:
                _end(process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def nginx_memory(self) -> int:
        """The resident memory of nginx's workers in KiB."""
        assert self._nginx
        pids = subprocess.check_output(["pgrep", "-P", str(self._nginx.pid)], text=True).split()
        lines = [
            line
            for pid in pids
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("VmRSS")
        ]
        return sum(int(line.split()[1]) for line in lines)

    def _start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        log = (self.directory / f"{Path(command[0]).name}.out").open("ab")
        with log:
            return subprocess.Popen(
                command, cwd=PROJECT, env=self.environment | environment, stdout=log, stderr=log
            )

    def _manage(self, *arguments: str, **environment: str) -> None:
        subprocess.run(
            [sys.executable, str(PROJECT / "manage.py"), *arguments],
            env=self.environment | environment,
            cwd=PROJECT,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 60):
            return True
        return False

    # --- logs ----------------------------------------------------------------------------------

    def gateway_calls(self) -> int:
        """How often the gateway was asked so far."""
        return (self.directory / "web.log").read_text().count("/_gateway/authorize")

    def access_log(self) -> str:
        return (self.directory / "access.log").read_text()

    def error_log(self) -> str:
        return (self.directory / "nginx.out").read_text()

    # --- browsers ------------------------------------------------------------------------------

    def cloud(self, user: User | None = None) -> httpx.Client:
        """A browser at the cloud host; signed in, if a user is given."""
        client = self._client(self.netloc)
        if user:
            session = SessionStore()
            session[SESSION_KEY] = str(user.pk)
            session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
            session[HASH_SESSION_KEY] = user.get_session_auth_hash()
            session.create()
            client.headers["Cookie"] = f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
        return client

    def stranger(self, slug: str) -> httpx.Client:
        """A browser at a workspace's host that is not signed in there."""
        return self._client(f"{slug}.{self.netloc}")

    def visitor(self, user: User, workspace: Workspace) -> httpx.Client:
        """A browser that a user signed in with, at a workspace's host, all the way round."""
        there, cloud = self.stranger(workspace.slug), self.cloud(user)
        with cloud:
            begun = there.get("/-/cloudapp/start")
            entered = cloud.get(_path(begun))
            redeemed = there.get(
                _path(entered), headers={"Cookie": f"cloudapp_state={_cookie(begun)}"}
            )
        assert redeemed.status_code == 302, redeemed.text
        there.headers["Cookie"] = f"{SESSION_COOKIE}={_cookie(redeemed)}"
        return there

    def _client(self, host: str) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Host": host, "Accept": "application/json"},
            timeout=START_SECONDS,
            # Cookies are sent by hand: one address plays many hosts.
            cookies=NoCookies(),
        )


class NoCookies(httpx.Cookies):
    """A cookie jar that keeps nothing."""

    def extract_cookies(self, response: httpx.Response) -> None:
        pass


def _path(response: httpx.Response) -> str:
    assert response.status_code == 302, response.text
    parts = urlsplit(response.headers["Location"])
    return f"{parts.path}?{parts.query}"


def _cookie(response: httpx.Response) -> str:
    return str(response.headers["Set-Cookie"].split("=", 1)[1].split(";")[0])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- where containers would be -------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: "Upstream"

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        return "router"

    def _answer(self) -> None:
        answer = self.upstream.answers.get(self.path.split("?")[0], Handler.echo)
        answer(self)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def echo(self) -> None:
        """Say what was asked, headers and body."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        said = {
            "method": self.command,
            "path": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body": body.decode(),
        }
        self.reply(json.dumps(said).encode())

    def reply(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str, handler: type[Handler]) -> None:
        super().__init__(path, handler)
        self.connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        request, _ = super().get_request()
        self.connections.append(request)
        return request, ("router", 0)

    def hang_up(self) -> None:
        """End the connections that the router keeps, as a process that ends does."""
        for kept in self.connections:
            with contextlib.suppress(OSError):  # closed already
                kept.shutdown(socket.SHUT_RDWR)


class Upstream:
    """A program on a unix socket that answers any path with what it was asked.

    `answers` maps a path to a function that answers it in another way.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Callable[[Any], None]] = {}
        handler = type("Handler", (Handler,), {"upstream": self})
        self._server = _Server(str(path), handler)
        path.chmod(0o666)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"unix:{self.path}"

    @property
    def connections(self) -> int:
        """How many connections the router has made to it so far."""
        return len(self._server.connections)

    def hang_up(self) -> None:
        """End the connections that the router keeps to it."""
        self._server.hang_up()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server.hang_up()
        self.path.unlink()


@contextmanager
def websocket_echo(path: Path) -> Iterator[Server]:
    """A program on a unix socket that sends back what a WebSocket says."""

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with unix_serve(echo, str(path), open_timeout=START_SECONDS) as server:
        path.chmod(0o666)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def point(workspace: Workspace, endpoint: str) -> None:
    """Say where a workspace's instance listens, and that it is ready."""
    Instance.objects.filter(pk=workspace.instance_id).update(
        endpoint=endpoint, ready=True, observed=Observed.RUNNING
    )
