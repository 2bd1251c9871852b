"""One container, made through an Engine and without a database row, for tests to look into."""

import http.client
import json
import secrets
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from deploy import probe, tokens
from deploy.engines.base import Engine, InstanceSpec, Observation
from deploy.models import Instance

# Generous: a machine may be busy. What is waited for costs nothing when all is well.
START_SECONDS = 90.0

T = TypeVar("T")


def wait_for(look: Callable[[], T], what: str, seconds: float = START_SECONDS) -> T:
    """Look again every 5 ms; return the first truthy answer, or fail at the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.005)
    return found


@dataclass
class Box:
    """An instance that no row knows. Nothing exists before `create`."""

    engine: Engine
    image: str
    namespace: str
    internet: bool = False
    memory_mb: int = 256
    cpus: float = 1.0
    pids: int = 64
    generation: int = 1
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def volume(self) -> str:
        return f"{self.namespace}-{self.id}-data"

    @property
    def container(self) -> str:
        """Its container's name at the engine."""
        return f"{self.namespace}-{self.id}"

    @property
    def instance(self) -> Instance:
        """What tokens and the probe need of a row; it is never saved."""
        return Instance(id=uuid.UUID(self.id), key=self.key)

    @property
    def spec(self) -> InstanceSpec:
        return InstanceSpec(
            instance_id=self.id,
            generation=self.generation,
            image=self.image,
            volume=self.volume,
            memory_mb=self.memory_mb,
            cpus=self.cpus,
            pids=self.pids,
            internet=self.internet,
            environment={
                "INSTANCE_ID": self.id,
                "INSTANCE_GENERATION": str(self.generation),
                "INSTANCE_KEY": self.key,
            },
        )

    def observe(self) -> Observation:
        return self.engine.observe(self.id)

    def health(self) -> probe.Health | None:
        """Its health, or None while it does not answer as itself."""
        try:
            return probe.health(self.instance, self.observe().endpoint, START_SECONDS)
        except probe.NotAnswering:
            return None

    def up(self) -> "Box":
        """Create, start, wait until it answers, seal: what the worker does."""
        self.engine.create(self.spec)
        self.engine.start(self.id)
        wait_for(self.health, f"{self.container} to answer")
        self.engine.seal(self.id)
        return self

    def down(self) -> None:
        """Remove it with its data."""
        self.engine.remove(self.id)
        self.engine.remove_volume(self.volume)

    def actor_token(self) -> str:
        """What the router would send with a request of this workspace's owner."""
        actor = {"id": "1", "name": "Ada", "role": "owner"}
        return tokens.actor_token(self.instance, actor, {"name": "Birds", "url": "http://c.test/"})

    def get(self, path: str, token: str | None) -> tuple[int, str]:
        """Ask its endpoint as the router does; return the status and the body."""
        connection = connect(self.observe().endpoint)
        try:
            headers = {"X-Cloudapp-Actor": token} if token else {}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()


def connect(endpoint: str) -> http.client.HTTPConnection:
    """Return HTTP over an endpoint of either kind."""
    if not endpoint.startswith("unix:"):
        host, _, port = endpoint.rpartition(":")
        return http.client.HTTPConnection(host, int(port), timeout=START_SECONDS)
    connection = http.client.HTTPConnection("instance", timeout=START_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(START_SECONDS)
    connection.sock.connect(endpoint.removeprefix("unix:"))
    return connection


def json_lines(text: str) -> list[Any]:
    """Parse a text of one JSON value per line."""
    return [json.loads(line) for line in text.splitlines()]
