"""Instances on a Docker engine.

Every container is hardened in `_host_config`; tests read back from the engine what became of it.
"""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.types import Mount

from deploy import mounts
from deploy.engines import firewall
from deploy.engines.base import (
    ABSENT,
    EngineError,
    EngineEvent,
    Host,
    InstanceSpec,
    Observation,
)
from deploy.engines.docker_client import AWAY, USER, client, hardening, translated
from deploy.engines.sockets import SocketDirs
from deploy.states import Observed

NAMESPACE_LABEL = "cloudapp.namespace"
INSTANCE_LABEL = "cloudapp.instance"
GENERATION_LABEL = "cloudapp.generation"

PORT = 8001
DATA_PATH = "/data"
SOCKET_PATH = "/run/instance"
REMOVAL_SECONDS = 15
MIB = 1024 * 1024
LEAST_SCRATCH_MB = 16

# Docker's words for ours. A container that restarts or is dead is not running for anybody.
_OBSERVED = {
    "created": Observed.CREATED,
    "running": Observed.RUNNING,
    "paused": Observed.PAUSED,
    "restarting": Observed.EXITED,
    "removing": Observed.EXITED,
    "exited": Observed.EXITED,
    "dead": Observed.EXITED,
}
_NO_IPV6 = {"net.ipv6.conf.all.disable_ipv6": "1"}
_NO_DNS = ["127.0.0.1"]  # the container's own: nobody is there
_EVENTS = ("create", "start", "die", "oom", "stop", "kill", "pause", "unpause", "destroy")


class DockerEngine:
    """Containers on one Docker engine, those of one namespace."""

    def __init__(
        self,
        *,
        url: str,
        namespace: str,
        run_dir: Path,
        endpoint_kind: str = "unix",
        endpoint_host: str = "127.0.0.1",
        runtime: str = "runc",
        router_group: str = "",
    ) -> None:
        self.namespace = namespace
        self._url = url
        self._tcp = endpoint_kind == "tcp"
        self._endpoint_host = endpoint_host
        self._runtime = runtime
        self._run_dir = run_dir
        self._router_group = router_group
        self._network_lock = threading.Lock()

    @cached_property
    def _client(self) -> docker.APIClient:
        return client(self._url)

    @cached_property
    def _sockets(self) -> SocketDirs:
        server = self._url.removeprefix("unix://")
        limited = os.geteuid() == 0 and server != self._url and mounts.shares_mounts(Path(server))
        return SocketDirs(self._run_dir / "instances", self._router_group, limited=limited)

    # --- looking ---------------------------------------------------------------------------

    @translated
    def ping(self) -> None:
        """Raise EngineError unless the engine answers."""
        self._client.ping()

    @translated
    def host(self) -> Host:
        """Return what the engine's machine has."""
        info = self._client.info()
        disk = _disk_of(Path(info.get("DockerRootDir", "")), self._url)
        return Host(
            name=self._name_in(info),
            engine=f"Docker {info.get('ServerVersion', '')}".strip(),
            cores=int(info["NCPU"]),
            memory_mb=int(info["MemTotal"]) // MIB,
            disk_mb=disk[0] // MIB if disk else None,
            disk_free_mb=disk[1] // MIB if disk else None,
        )

    @translated
    def observe(self, instance_id: str) -> Observation:
        """Return what the engine holds for one instance."""
        try:
            container = self._client.inspect_container(self._name(instance_id))
            if container["State"]["Status"] == "removing":
                # Nothing can be done with it until it is absent, or dead.
                self._client.wait(container["Id"], REMOVAL_SECONDS, condition="removed")
                container = self._client.inspect_container(self._name(instance_id))
            return self._observation(container)
        except NotFound:
            return ABSENT

    @translated
    def observe_all(self) -> dict[str, Observation]:
        """Return what the engine holds in our namespace, by instance id."""
        found = {}
        # With both labels: images are tried out in our namespace too, and are no instances.
        labels = [self._label_filter, INSTANCE_LABEL]
        for container in self._client.containers(all=True, filters={"label": labels}):
            instance_id = container["Labels"][INSTANCE_LABEL]
            try:
                found[instance_id] = self._observation(
                    self._client.inspect_container(container["Id"])
                )
            except NotFound:
                continue  # gone since it was listed
        return found

    @translated
    def volumes(self) -> set[str]:
        """Return the names of the data volumes in our namespace."""
        listed = self._client.volumes(filters={"label": [self._label_filter]})
        return {volume["Name"] for volume in listed["Volumes"] or ()}

    @translated
    def logs(self, instance_id: str, lines: int) -> str:
        """Return the last lines that the container wrote."""
        try:
            written = self._client.logs(self._name(instance_id), tail=lines, timestamps=True)
        except NotFound:
            return ""
        return bytes(written).decode(errors="replace")

    @translated
    def events(self) -> Iterator[EngineEvent]:
        """Listen at once; yield what happens in our namespace until the engine goes away."""
        filters = {"type": "container", "label": self._label_filter, "event": list(_EVENTS)}
        # Since this second: the engine answers a moment before it really listens.
        since = int(time.time())
        return self._told(self._client.events(since=since, decode=True, filters=filters))

    def _told(self, events: Iterable[Mapping[str, Any]]) -> Iterator[EngineEvent]:
        try:
            for event in events:
                attributes = event["Actor"]["Attributes"]
                yield EngineEvent(attributes.get(INSTANCE_LABEL, ""), event["Action"])
        except (*AWAY, ValueError) as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error

    # --- doing -----------------------------------------------------------------------------

    @translated
    def create(self, spec: InstanceSpec) -> bool:
        """Make the container and its volume. False: one is there already, and is adopted."""
        network = self._network(spec)
        if not self._tcp:
            self._sockets.make(spec.instance_id)
        try:
            self._client.create_container(
                image=spec.image,
                name=self._name(spec.instance_id),
                hostname="workspace",
                user=USER,
                environment={**spec.environment, "INSTANCE_LISTEN": self._listen},
                labels={
                    NAMESPACE_LABEL: self.namespace,
                    INSTANCE_LABEL: spec.instance_id,
                    GENERATION_LABEL: str(spec.generation),
                },
                ports=[PORT] if self._tcp else None,
                host_config=self._host_config(spec, network),
            )
        except APIError as error:
            if error.status_code != 409:  # the name is taken: a crash lay between doing and noting
                raise
            return False
        return True

    @translated
    def start(self, instance_id: str) -> None:
        """Start the container; started is not ready. One that runs is left alone."""
        container = self._client.inspect_container(self._name(instance_id))
        if container["State"]["Running"]:
            return  # a late worker must not pull the socket away from under it
        network = container["HostConfig"]["NetworkMode"]
        if network != "none":
            self._ensure_network(firewall.Reach(network.removeprefix(f"{self.namespace}-")))
        if not self._tcp:
            self._sockets.open(instance_id)
        self._client.start(self._name(instance_id))

    @translated
    def seal(self, instance_id: str) -> None:
        """Take the socket directory away from the container."""
        if not self._tcp:
            self._sockets.seal(instance_id)

    @translated
    def stop(self, instance_id: str, timeout: int) -> None:
        """Ask it to finish, and kill it after `timeout` seconds. What is gone has stopped."""
        try:
            self._client.stop(self._name(instance_id), timeout=timeout)
        except NotFound:
            return

    @translated
    def pause(self, instance_id: str) -> None:
        """Freeze it."""
        self._client.pause(self._name(instance_id))

    @translated
    def unpause(self, instance_id: str) -> None:
        """Let it go on."""
        self._client.unpause(self._name(instance_id))

    @translated
    def remove(self, instance_id: str) -> None:
        """Remove the container, and keep the volume."""
        with contextlib.suppress(NotFound):
            self._client.remove_container(self._name(instance_id), force=True)
        if not self._tcp:
            self._sockets.remove(instance_id)

    @translated
    def remove_volume(self, volume: str) -> None:
        """Remove the data."""
        try:
            self._client.remove_volume(volume)
        except NotFound:
            return

    # --- what a container is made of -----------------------------------------------------------

    def _name(self, instance_id: str) -> str:
        return f"{self.namespace}-{instance_id}"

    @property
    def _label_filter(self) -> str:
        return f"{NAMESPACE_LABEL}={self.namespace}"

    @property
    def _listen(self) -> str:
        return f"tcp:0.0.0.0:{PORT}" if self._tcp else f"unix:{SOCKET_PATH}/http.sock"

    def _host_config(self, spec: InstanceSpec, network: str) -> Mapping[str, Any]:
        return self._client.create_host_config(
            network_mode=network,
            tmpfs=_scratch(spec),
            mounts=self._mounts(spec),
            port_bindings={PORT: (self._endpoint_host, None)} if self._tcp else None,
            # On a bridge the host would have an address that answers on IPv6, past the firewall.
            sysctls=_NO_IPV6 if network != "none" and firewall.has_ipv6() else None,
            # The engine would ask the host's resolver for it, past the firewall too.
            dns=_NO_DNS if network == self._network_name(firewall.Reach.NOTHING) else None,
            **hardening(spec.memory_mb, spec.cpus, spec.pids, self._runtime),
        )

    def _mounts(self, spec: InstanceSpec) -> list[Mount]:
        labels = {NAMESPACE_LABEL: self.namespace, INSTANCE_LABEL: spec.instance_id}
        data = Mount(DATA_PATH, spec.volume, type="volume", labels=labels)
        if self._tcp:
            return [data]
        source = str(self._sockets.path(spec.instance_id))
        return [data, Mount(SOCKET_PATH, source, type="bind", propagation="rprivate")]

    def _observation(self, container: Mapping[str, Any]) -> Observation:
        state = container["State"]
        labels = container["Config"]["Labels"]
        return Observation(
            observed=_OBSERVED[state["Status"]],
            # A dead one, the rest of a failed removal, cannot be started: it counts as outdated.
            generation=0 if state["Dead"] else int(labels.get(GENERATION_LABEL) or 0),
            endpoint=self._endpoint(container),
            container_id=container["Id"],
            started_at=_time(state["StartedAt"]),
            exit_code=state["ExitCode"],
            out_of_memory=bool(state["OOMKilled"]),
            reachable=self._tcp or self._sockets.has_socket(labels[INSTANCE_LABEL]),
            node=self._node,
        )

    @cached_property
    def _node(self) -> str:
        """Ask once what the machine is called: it takes longer than to look at a container."""
        return self._name_in(self._client.info())

    def _name_in(self, info: Mapping[str, Any]) -> str:
        return str(info.get("Name") or self._url)

    def _endpoint(self, container: Mapping[str, Any]) -> str:
        if not self._tcp:
            return self._sockets.endpoint(container["Config"]["Labels"][INSTANCE_LABEL])
        published = container["NetworkSettings"]["Ports"].get(f"{PORT}/tcp") or ()
        for binding in published:
            return f"{binding['HostIp']}:{binding['HostPort']}"
        return ""

    # --- networks ----------------------------------------------------------------------------

    def _network(self, spec: InstanceSpec) -> str:
        """Return the network that the container joins; it and its firewall are there then."""
        if spec.internet:
            return self._ensure_network(firewall.Reach.INTERNET)
        return self._ensure_network(firewall.Reach.NOTHING) if self._tcp else "none"

    def _network_name(self, reach: firewall.Reach) -> str:
        return f"{self.namespace}-{reach}"

    def _ensure_network(self, reach: firewall.Reach) -> str:
        name = self._network_name(reach)
        bridge = firewall.interface(self.namespace, reach)
        with self._network_lock:
            if not self._client.networks(names=[f"^{name}$"]):
                self._create_network(name, bridge)
            firewall.ensure(bridge, reach)
        return name

    def _create_network(self, name: str, bridge: str) -> None:
        try:
            self._client.create_network(
                name,
                driver="bridge",
                labels={NAMESPACE_LABEL: self.namespace},
                check_duplicate=True,
                options={
                    "com.docker.network.bridge.enable_icc": "false",
                    "com.docker.network.bridge.name": bridge,
                },
            )
        except APIError as error:
            if error.status_code != 409:  # another worker was faster
                raise


def _scratch(spec: InstanceSpec) -> dict[str, str]:
    """A file system in memory. What readers' queries sort goes there, and is limited by it."""
    size = max(LEAST_SCRATCH_MB, spec.memory_mb // 8)
    return {"/tmp": f"rw,noexec,nosuid,nodev,size={size}m,mode=1777"}  # noqa: S108


def _disk_of(root: Path, url: str) -> tuple[int, int] | None:
    """Return size and free bytes of the engine's disk, where we are on its machine and see it."""
    if not url.startswith("unix:") or not root.is_absolute():
        return None
    try:
        usage = shutil.disk_usage(root)
    except OSError:
        return None
    return usage.total, usage.free


def _time(text: str) -> datetime | None:
    """Parse the engine's time; it writes nanoseconds, and the year 1 for never."""
    if text.startswith("0001"):
        return None
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")
