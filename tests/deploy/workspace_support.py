"""Real workspace containers for tests, on the plain Docker SDK.

Everything made here carries the label TEST_LABEL and is removed at the end, also after a failure.
"""

import fcntl
import io
import json
import secrets
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import docker
import httpx
import jwt
import pytest
from django.conf import settings
from docker.models.containers import Container
from playwright.sync_api import Route

from cloudapp.local.places import VAR
from deploy import images
from deploy.base_image import PYTHON, ensure_base
from deploy.engines import get_builder
from deploy.images import build_image, image_inputs, try_out
from deploy.own_plugins import described
from deploy.wheels import fetch_wheels

ALPHA = "1.0a41"
TEST_LABEL = "cloudapp.test.workspace-image"
# Generous: a machine may be busy. What is waited for costs nothing when all is well.
START_SECONDS = 90.0
STOP_SECONDS = 60
SOCKET = "http.sock"

HARDENED: dict[str, Any] = {
    "user": "10001:10001",
    "network_mode": "none",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "mem_limit": "512m",
    "memswap_limit": "512m",
    "nano_cpus": 1_000_000_000,
    "pids_limit": 128,
}
TMPFS = "rw,noexec,nosuid,nodev,size=16m,mode=1777"


def built_image(lock: str, ours: Sequence[Path] = ()) -> str:
    """The reference of the image of a lock, built and tried out when the engine has none.

    `ours` are wheels of our own plugins, which no index has; the lock does not name them.
    """
    builder = get_builder()
    architecture = builder.architecture()
    whole = lock + "".join(described(wheel).requirement for wheel in ours)
    with one_builds():
        inputs = image_inputs(ensure_base(builder), whole, architecture)
        if not builder.image_exists(inputs.reference):
            cache = Path(settings.STATE_DIR) / "wheels"
            wheels = [*fetch_wheels(lock, architecture, PYTHON, cache), *ours]
            build_image(builder, inputs, wheels)
            with pytest.MonkeyPatch.context() as patch:  # a busy machine may take longer over it
                patch.setattr(images, "ANSWER_SECONDS", START_SECONDS)
                patch.setattr(images, "SMOKE_SECONDS", 4 * START_SECONDS)
                try_out(builder, inputs, wheels)
    return inputs.reference


@contextmanager
def one_builds() -> Iterator[None]:
    """One of the processes that share an engine at a time: the next one finds the image there."""
    VAR.joinpath("test").mkdir(parents=True, exist_ok=True)
    with VAR.joinpath("test", "building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Executed(NamedTuple):
    """How a command inside a container ended, and what it wrote."""

    code: int | None
    output: bytes


class Workspace:
    """One hardened container with its own volume, and HTTP clients that hold its tokens."""

    def __init__(
        self,
        client: docker.DockerClient,
        image: str,
        directory: Path,
        disk: dict[str, str] | None = None,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.key = secrets.token_urlsafe(32)
        self.generation = 7
        self.socket = directory / SOCKET
        directory.mkdir(parents=True)
        directory.chmod(0o777)
        labels = {TEST_LABEL: "1"}
        name = f"cloudapp-test-{self.id}-data"
        self.volume = client.volumes.create(name, labels=labels, driver_opts=disk)
        self.container: Container = client.containers.create(
            image,
            name=f"cloudapp-test-{self.id}",
            labels=labels,
            environment={
                "INSTANCE_ID": self.id,
                "INSTANCE_GENERATION": str(self.generation),
                "INSTANCE_KEY": self.key,
                "INSTANCE_LISTEN": f"unix:/run/instance/{SOCKET}",
            },
            tmpfs={"/tmp": TMPFS},
            volumes={
                self.volume.name: {"bind": "/data", "mode": "rw"},
                str(directory): {"bind": "/run/instance", "mode": "rw"},
            },
            **HARDENED,
        )

    def start(self) -> float:
        """Start it and return the seconds until it answered its health."""
        self.socket.unlink(missing_ok=True)
        began = time.monotonic()
        self.container.start()
        wait_until(self._answers, "an answer")
        assert self.health()["instance"] == self.id
        return time.monotonic() - began

    def _answers(self) -> bool:
        with suppress(httpx.TransportError):  # it is there a moment before it listens
            return bool(self.health())
        return False

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.container.stop(timeout=STOP_SECONDS)
        return int(self.container.wait()["StatusCode"])

    def token(self, *, key: str | None = None, **claims: Any) -> str:
        claims = {"aud": self.id, "exp": time.time() + 3600, "purpose": "probe", **claims}
        return jwt.encode(claims, key or self.key, "HS256")

    def actor_token(self, role: str, **claims: Any) -> str:
        actor = {"id": f"u-{role}", "name": f"Ada {role}", "role": role}
        workspace = {"name": "Birds", "url": "http://cloud.test/workspaces/birds"}
        return self.token(**{"purpose": "actor", "actor": actor, "workspace": workspace, **claims})

    def client(self, token: str | None = None, **headers: str) -> httpx.Client:
        if token is not None:
            headers["X-Cloudapp-Actor"] = token
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)),
            base_url="http://birds.test",
            headers=headers,
            timeout=START_SECONDS,
        )

    def as_role(self, role: str, **headers: str) -> httpx.Client:
        return self.client(self.actor_token(role), **headers)

    def health(self, **claims: Any) -> dict[str, Any]:
        with self.client(self.token(**claims)) as client:
            response = client.get("/-/instance/health")
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def execute(self, *command: str, environment: dict[str, str] | None = None) -> Executed:
        """Run something inside, as the container's own user."""
        done = self.container.exec_run(list(command), environment=environment)
        assert isinstance(done.output, bytes)
        return Executed(done.exit_code, done.output)

    def put_file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file of uid 10001 into the container's /data (it may be stopped)."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo(path.removeprefix("/data/"))
            entry.size, entry.mode, entry.uid, entry.gid = len(data), mode, 10001, 10001
            tar.addfile(entry, io.BytesIO(data))
        assert self.container.put_archive("/data", buffer.getvalue())

    def get_file(self, path: str) -> bytes:
        stream, _ = self.container.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            member = tar.extractfile(tar.getmembers()[0])
            assert member is not None
            return member.read()

    def files(self) -> list[str]:
        """The names in /data, also while it is stopped."""
        stream, _ = self.container.get_archive("/data")
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            return sorted(name.removeprefix("data/") for name in tar.getnames())

    def remove(self) -> None:
        self.container.remove(force=True, v=True)
        self.volume.remove(force=True)

    def report(self) -> str:
        """What to look at when a test failed."""
        state = self.container.attrs.get("State")
        return f"{self.container.logs().decode()}\n{json.dumps(state, indent=1)}"


@contextmanager
def workspace(
    client: docker.DockerClient,
    image: str,
    directory: Path,
    disk: dict[str, str] | None = None,
) -> Iterator[Workspace]:
    """A workspace that is removed whatever happens; its log is printed when something did.

    `disk` are options of its volume.
    """
    made = Workspace(client, image, directory, disk)
    try:
        yield made
    except BaseException:
        made.container.reload()
        print(made.report())
        raise
    finally:
        made.remove()


def wait_until(condition: Any, what: str, seconds: float = START_SECONDS) -> None:
    """Look again every 5 ms until it holds; fail with words at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.005)


def fulfil_from(client: httpx.Client) -> Callable[[Route], None]:
    """Give a browser what the container answers."""

    def fulfil(route: Route) -> None:
        asked = route.request
        told = {"Content-Type": asked.headers.get("content-type", "")}
        got = client.request(asked.method, asked.url, content=asked.post_data_buffer, headers=told)
        kind = got.headers.get("content-type", "")
        route.fulfill(status=got.status_code, body=got.content, content_type=kind)

    return fulfil
