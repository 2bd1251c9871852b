"""An engine in memory, whose containers answer HTTP for real on unix sockets.

Its knobs make it what real ones are on bad days: slow, never ready, broken, unreachable, crashing
after N requests; and it can kill the worker that uses it after N calls.
"""

import http.server
import json
import queue
import shutil
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import jwt

from deploy.engines.base import (
    ABSENT,
    SOCKET_NAME,
    EngineError,
    EngineEvent,
    EngineRefused,
    Host,
    InstanceSpec,
    Observation,
)
from deploy.states import Observed

NODE = "fake"

P = ParamSpec("P")
R = TypeVar("R")


class WorkerKilled(BaseException):
    """The process that asked the engine is gone: no handler of Exception may see this."""


@dataclass
class Knobs:
    """How bad the day is."""

    slow: float = 0.0  # seconds that each call takes
    unreachable: bool = False  # every call fails
    broken: set[str] = field(default_factory=set)  # these calls fail
    refused: set[str] = field(default_factory=set)  # these are answered with no
    ready_after: float = 0.0  # seconds from start to the first answer
    never_ready: bool = False
    crash_at_start: bool = False
    crash_after: int | None = None  # the container exits after so many answers
    deaf: bool = False  # it takes no notice of SIGTERM
    in_flight: int = 0  # what its containers say of themselves
    idle_seconds: float = 0.0
    busy: list[str] = field(default_factory=list)
    pristine: bool = True
    usage: dict[str, object] | None = None
    told_disk: object = None  # how much the last probe said that the disk may hold
    # What happens at that moment, such as a request from a person, by the name of the call.
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    after: dict[str, Callable[[], object]] = field(default_factory=dict)
    kill_worker_before: str = ""  # the next call of this name never begins
    kill_worker_after: str = ""  # the next call of this name is done, and nobody learns of it


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    container: "_Container"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        container = self.server.container
        body = container.answer(self.headers.get("X-Cloudapp-Actor", ""))
        self.send_response(HTTPStatus.OK if body else HTTPStatus.FORBIDDEN)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        self.server.container.log.append(format % args)


@dataclass
class _Container:
    spec: InstanceSpec
    knobs: Knobs
    socket: Path
    on_exit: Callable[["_Container", str], None]
    observed: Observed = Observed.CREATED
    started_at: datetime | None = None
    exit_code: int = 0
    answers: int = 0
    crash_after: int | None = None
    log: list[str] = field(default_factory=list)
    server: _Server | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def answer(self, token: str) -> Mapping[str, Any] | None:
        """Return its health to somebody who has its key, None to others."""
        with suppress(jwt.InvalidTokenError):
            key = self.spec.environment["INSTANCE_KEY"]
            said = jwt.decode(token, key, algorithms=["HS256"], audience=self.spec.instance_id)
            self.knobs.told_disk = said.get("disk")
            self.answers += 1
            if self.crash_after is not None and self.answers > self.crash_after:
                self.exit(1, "die")
                return None
            return {
                "instance": self.spec.instance_id,
                "generation": self.spec.generation,
                "in_flight": self.knobs.in_flight,
                "idle_seconds": self.knobs.idle_seconds,
                "busy": self.knobs.busy,
                "pristine": self.knobs.pristine,
                **({"usage": self.knobs.usage} if self.knobs.usage else {}),
            }
        return None

    def listen(self) -> None:
        with self.lock:
            if self.observed is not Observed.RUNNING or self.server:
                return
            self.socket.parent.mkdir(parents=True, exist_ok=True)
            self.socket.unlink(missing_ok=True)
            self.server = _Server(str(self.socket), _Handler)
            self.server.container = self
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()

    def exit(self, code: int, action: str) -> None:
        with self.lock:
            if self.observed not in (Observed.RUNNING, Observed.PAUSED):
                return
            self.observed, self.exit_code = Observed.EXITED, code
            server, self.server = self.server, None
        self.socket.unlink(missing_ok=True)
        if server:
            # Not from one of its own threads, which it would wait for.
            threading.Thread(target=server.shutdown, daemon=True).start()
            server.server_close()
        self.on_exit(self, action)

    def observation(self) -> Observation:
        return Observation(
            observed=self.observed,
            generation=self.spec.generation,
            endpoint=f"unix:{self.socket}",
            container_id=f"{self.spec.instance_id}.{id(self)}",
            started_at=self.started_at,
            exit_code=self.exit_code,
            node=NODE,
        )


def _called(
    method: Callable[Concatenate["FakeEngine", P], R],
) -> Callable[Concatenate["FakeEngine", P], R]:
    """Let the day's badness have its way with a call."""
    name = method.__name__

    @wraps(method)
    def call(self: "FakeEngine", *args: P.args, **kwargs: P.kwargs) -> R:
        knobs = self.knobs
        self.calls.append(name)
        if knobs.kill_worker_before == name:
            knobs.kill_worker_before = ""
            raise WorkerKilled(name)
        knobs.before.get(name, bool)()
        time.sleep(knobs.slow)
        if knobs.unreachable or name in knobs.broken:
            raise EngineError(f"{name}: it does not answer")
        if name in knobs.refused:
            raise EngineRefused(f"{name}: no")
        result = method(self, *args, **kwargs)
        knobs.after.get(name, bool)()
        if knobs.kill_worker_after == name:
            knobs.kill_worker_after = ""
            raise WorkerKilled(name)
        return result

    return call


class FakeEngine:
    """deploy.engines.base.Engine, in memory."""

    def __init__(
        self,
        run_dir: Path,
        world: "dict[str, dict[str, _Container]] | None" = None,
        namespace: str = "fake",
    ) -> None:
        self.knobs = Knobs()
        self.calls: list[str] = []
        self.namespace = namespace
        self.world = {} if world is None else world  # namespaces share one engine
        self._run_dir = run_dir
        self._volumes: set[str] = set()
        self._listeners: list[queue.SimpleQueue[EngineEvent | None]] = []

    @property
    def _containers(self) -> "dict[str, _Container]":
        return self.world.setdefault(self.namespace, {})

    # --- the Engine protocol -------------------------------------------------------------------

    @_called
    def ping(self) -> None:
        """Answer."""

    @_called
    def host(self) -> Host:
        return Host(NODE, "Fake 1", cores=2, memory_mb=4096)

    @_called
    def observe(self, instance_id: str) -> Observation:
        container = self._containers.get(instance_id)
        return container.observation() if container else ABSENT

    @_called
    def observe_all(self) -> dict[str, Observation]:
        return {name: found.observation() for name, found in dict(self._containers).items()}

    @_called
    def create(self, spec: InstanceSpec) -> bool:
        self._volumes.add(spec.volume)
        directory = self._run_dir / spec.instance_id[:8]
        made = _Container(spec, self.knobs, directory / SOCKET_NAME, self._exited)
        if self._containers.setdefault(spec.instance_id, made) is not made:
            return False
        self._tell(spec.instance_id, "create")
        return True

    @_called
    def start(self, instance_id: str) -> None:
        container = self._get(instance_id)
        if container.observed is Observed.RUNNING:
            return
        container.observed, container.started_at = Observed.RUNNING, datetime.now(UTC)
        container.answers, container.crash_after = 0, self.knobs.crash_after
        container.log.append("started")
        self._tell(instance_id, "start")
        if self.knobs.crash_at_start:
            container.exit(3, "die")
        elif self.knobs.ready_after:
            threading.Timer(self.knobs.ready_after, container.listen).start()
        elif not self.knobs.never_ready:
            container.listen()

    @_called
    def seal(self, instance_id: str) -> None:
        self._get(instance_id)

    @_called
    def stop(self, instance_id: str, timeout: int) -> None:
        if container := self._containers.get(instance_id):
            time.sleep(timeout if self.knobs.deaf else 0)
            container.exit(137 if self.knobs.deaf else 0, "die")

    @_called
    def pause(self, instance_id: str) -> None:
        self._change(instance_id, Observed.RUNNING, Observed.PAUSED, "pause")

    @_called
    def unpause(self, instance_id: str) -> None:
        self._change(instance_id, Observed.PAUSED, Observed.RUNNING, "unpause")

    @_called
    def remove(self, instance_id: str) -> None:
        if container := self._containers.get(instance_id):
            container.exit(137, "die")
            del self._containers[instance_id]
            shutil.rmtree(container.socket.parent, ignore_errors=True)
            self._tell(instance_id, "destroy")

    @_called
    def remove_volume(self, volume: str) -> None:
        if any(c.spec.volume == volume for c in self._containers.values()):
            raise EngineRefused("the volume is in use")
        self._volumes.discard(volume)

    @_called
    def volumes(self) -> set[str]:
        return set(self._volumes)

    @_called
    def logs(self, instance_id: str, lines: int) -> str:
        container = self._containers.get(instance_id)
        return "".join(f"{line}\n" for line in container.log[-lines:]) if container else ""

    @_called
    def events(self) -> Iterator[EngineEvent]:
        heard: queue.SimpleQueue[EngineEvent | None] = queue.SimpleQueue()
        self._listeners.append(heard)
        return self._told(heard)

    def _told(self, heard: "queue.SimpleQueue[EngineEvent | None]") -> Iterator[EngineEvent]:
        while (event := heard.get()) is not None:
            yield event
        raise EngineError("it went away")

    # --- what happens behind our back ------------------------------------------------------------

    def crash(self, instance_id: str, code: int = 1) -> None:
        """The container ends by itself."""
        self._get(instance_id).exit(code, "die")

    def vanish(self, instance_id: str) -> None:
        """Somebody removes the container."""
        container = self._containers.pop(instance_id)
        container.exit(137, "die")

    def restarted(self, instance_id: str) -> None:
        """Somebody restarts the container."""
        container = self._get(instance_id)
        container.exit(0, "die")
        container.observed, container.started_at = Observed.RUNNING, datetime.now(UTC)
        container.listen()

    def go_away(self) -> None:
        """End the event streams, as a restart of the engine does."""
        for listener in self._listeners:
            listener.put(None)
        self._listeners.clear()

    def close(self) -> None:
        """Stop every container's server."""
        for container in list(self._containers.values()):
            container.exit(0, "die")

    def _get(self, instance_id: str) -> _Container:
        try:
            return self._containers[instance_id]
        except KeyError:
            raise EngineRefused("no such container") from None

    def _change(self, instance_id: str, now: Observed, then: Observed, action: str) -> None:
        container = self._get(instance_id)
        if container.observed is not now:
            raise EngineRefused(f"it is {container.observed}")
        container.observed = then
        self._tell(instance_id, action)

    def _exited(self, container: _Container, action: str) -> None:
        self._tell(container.spec.instance_id, action)

    def _tell(self, instance_id: str, action: str) -> None:
        for listener in self._listeners:
            listener.put(EngineEvent(instance_id, action))
