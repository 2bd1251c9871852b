"""What a container engine is to us. Standard library only.

An engine knows containers by instance id, never by an address or a name that may be reused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from deploy.states import Observed

SOCKET_NAME = "http.sock"


class EngineError(Exception):
    """The engine could not be asked, or did not do it. What it holds is unknown, not absent."""


class EngineRefused(EngineError):
    """The engine answered and said no: trying the same again will not help by itself."""


@dataclass(frozen=True)
class InstanceSpec:
    """What a container is made from. Everything here is given to the engine."""

    instance_id: str
    generation: int
    image: str
    volume: str
    memory_mb: int
    cpus: float
    pids: int
    internet: bool
    environment: Mapping[str, str] = field(repr=False)  # holds the instance's key


@dataclass(frozen=True)
class Observation:
    """What the engine says of one instance. `endpoint` is where it listens while it runs.

    `reachable` is False when nobody can get there: the socket is gone, or was never made.
    `node` is the machine that it is on, by the name that Host has.
    """

    observed: Observed
    generation: int | None = None
    endpoint: str = ""
    container_id: str = ""
    started_at: datetime | None = None
    exit_code: int | None = None
    out_of_memory: bool = False
    reachable: bool = True
    node: str = ""


ABSENT = Observation(Observed.ABSENT)


@dataclass(frozen=True)
class Host:
    """The machine that an engine is on. The disk is the one of images and volumes, in MiB.

    None for what cannot be seen from here.
    """

    name: str
    engine: str
    cores: int
    memory_mb: int
    disk_mb: int | None = None
    disk_free_mb: int | None = None


@dataclass(frozen=True)
class EngineEvent:
    """Something happened to a container of ours. `action` is the engine's word: die, oom, …"""

    instance_id: str
    action: str


class Engine(Protocol):
    """Where containers run. Every method raises EngineError; none takes silence for an answer."""

    def ping(self) -> None:
        """Raise EngineError unless the engine answers."""

    def host(self) -> Host:
        """Return what the engine's machine has."""

    def observe(self, instance_id: str) -> Observation:
        """Return what the engine holds for one instance; ABSENT only when it says so."""

    def observe_all(self) -> dict[str, Observation]:
        """Return what the engine holds in our namespace, by instance id."""

    def create(self, spec: InstanceSpec) -> bool:
        """Make the container and its volume. False: one is there already, and is adopted."""

    def start(self, instance_id: str) -> None:
        """Start the container; started is not ready."""

    def seal(self, instance_id: str) -> None:
        """Take the socket directory away from the container: it listens, and needs no more."""

    def stop(self, instance_id: str, timeout: int) -> None:
        """Ask it to finish, and kill it after `timeout` seconds."""

    def pause(self, instance_id: str) -> None:
        """Freeze it."""

    def unpause(self, instance_id: str) -> None:
        """Let it go on."""

    def remove(self, instance_id: str) -> None:
        """Remove the container, and keep the volume. Removing what is gone is fine."""

    def remove_volume(self, volume: str) -> None:
        """Remove the data. Removing what is gone is fine."""

    def volumes(self) -> set[str]:
        """Return the names of the data volumes in our namespace."""

    def logs(self, instance_id: str, lines: int) -> str:
        """Return the last lines that the container wrote, or an empty text."""

    def events(self) -> Iterator[EngineEvent]:
        """Listen at once; yield what happens in our namespace until the engine goes away.

        Some of it may be told twice.
        """
