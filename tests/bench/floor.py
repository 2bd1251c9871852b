"""The floor: the same image on the bare engine, started as fast as can be, asked until it answers.

No database, no queue, no router: what is left is what any control plane must pay at least.
"""

import secrets
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
from docker.types import Mount

from deploy import tokens
from deploy.models import Instance
from deploy.probe import open_connection

POLL_SECONDS = 0.002
ACTOR = {"id": "0", "name": "bench", "role": "owner"}
WORKSPACE = {"name": "bench", "url": "http://localhost/"}


class BareContainer:
    """One container of the image, started by hand. As a context manager it is removed."""

    def __init__(self, client: docker.APIClient, image: str, label: str, directory: Path) -> None:
        self._client = client
        self._image = image
        self._label = label
        # Only for its id and key: no row is written.
        self._instance = Instance(id=uuid.uuid4(), key=secrets.token_urlsafe(32))
        self._sockets = directory / str(self._instance.pk)
        self._volume = f"bench-{self._instance.pk}"
        self._id = ""

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"unix:{self._sockets / 'http.sock'}"

    @property
    def token(self) -> str:
        """An actor token that it accepts."""
        return tokens.actor_token(self._instance, ACTOR, WORKSPACE)

    def run(self) -> None:
        """What `docker run` does, then wait for the first page."""
        self._sockets.mkdir(parents=True)
        self._sockets.chmod(0o777)
        self._id = self._client.create_container(
            image=self._image,
            environment={
                "INSTANCE_ID": str(self._instance.pk),
                "INSTANCE_GENERATION": "1",
                "INSTANCE_KEY": self._instance.key,
                "INSTANCE_LISTEN": "unix:/run/instance/http.sock",
            },
            labels={"cloudapp.namespace": self._label},
            host_config=self._client.create_host_config(
                network_mode="none",
                mounts=[
                    Mount("/data", self._volume, labels={"cloudapp.namespace": self._label}),
                    Mount("/run/instance", str(self._sockets), type="bind"),
                ],
            ),
        )["Id"]
        self.start()

    def start(self) -> None:
        """Start it and wait for the first page."""
        (self._sockets / "http.sock").unlink(missing_ok=True)
        self._client.start(self._id)
        headers = {tokens.HEADER: self.token}
        while not _page(self.endpoint, headers):
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Stop it."""
        self._client.stop(self._id, timeout=10)

    def __enter__(self) -> "BareContainer":
        return self

    def __exit__(self, *error: object) -> None:
        if self._id:
            self._client.remove_container(self._id, force=True)
            self._client.remove_volume(self._volume)
        shutil.rmtree(self._sockets, ignore_errors=True)


def _page(endpoint: str, headers: Mapping[str, str]) -> bool:
    connection = open_connection(endpoint, timeout=5)
    try:
        connection.request("GET", "/", headers=dict(headers))
        response = connection.getresponse()
        response.read()
        return response.status == 200
    except OSError:
        return False
    finally:
        connection.close()


def many_at_once(make: Callable[[], BareContainer], count: int, at_a_time: int) -> float:
    """Start `count` containers, some at a time, each held until it answers. Return the seconds."""
    containers = [make() for _ in range(count)]
    try:
        started = time.monotonic()
        with ThreadPoolExecutor(at_a_time) as pool:
            list(pool.map(BareContainer.run, containers))
        return time.monotonic() - started
    finally:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(_leave, containers))


def _leave(container: BareContainer) -> None:
    container.__exit__()


def clean_up(client: docker.APIClient, label: str) -> None:
    """Remove whatever an interrupted run left."""
    mine: dict[str, Any] = {"filters": {"label": f"cloudapp.namespace={label}"}}
    for container in client.containers(all=True, **mine):
        client.remove_container(container["Id"], force=True)
    for volume in client.volumes(**mine)["Volumes"] or ():
        client.remove_volume(volume["Name"])
