"""Run the functions of inside.py in a container, as its own user."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
from django.conf import settings

from deploy.engines.docker import DockerEngine
from tests.deploy.boxes import Box, wait_for

PROGRAM = Path(__file__).with_name("inside.py").read_text()
PYTHON = ("/opt/workspace/bin/python", "-IBc", PROGRAM)
USER = "10001:10001"


def client() -> docker.APIClient:
    """A client that knows nothing of ours."""
    return docker.APIClient(settings.DOCKER_HOST, version="auto", timeout=300)


def docker_engine(kind: str = "unix", namespace: str = "") -> DockerEngine:
    """A new engine, in our namespace unless told else, as a worker makes it when it begins."""
    return DockerEngine(
        url=settings.DOCKER_HOST,
        namespace=namespace or settings.NAMESPACE,
        run_dir=Path(settings.RUN_DIR),
        endpoint_kind=kind,
    )


class Inside:
    """Programs in one container."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self._client = client()

    def __call__(self, name: str, *arguments: str) -> Any:
        """Call one of inside.py's functions there; return what it returned."""
        code, output = self.run(name, *arguments)
        assert code == 0, output
        return json.loads(output)

    def run(self, name: str, *arguments: str) -> tuple[int, str]:
        """Call one of inside.py's functions there; return the exit code and what was written."""
        program = self._exec(name, *arguments)
        output = self._client.exec_start(program).decode(errors="replace")
        return int(self._client.exec_inspect(program)["ExitCode"]), output

    def begin(self, name: str, *arguments: str) -> None:
        """Call one that never returns, and wait until it has written its first words."""
        stream = self._client.exec_start(self._exec(name, *arguments), stream=True)
        assert next(stream)

    def inspect(self) -> Mapping[str, Any]:
        """What the engine reports of the container."""
        found: Mapping[str, Any] = self._client.inspect_container(self.box.container)
        return found

    def _exec(self, name: str, *arguments: str) -> str:
        command = [*PYTHON, name, *arguments]
        return str(self._client.exec_create(self.box.container, command, user=USER)["Id"])


class Program:
    """A container made through an engine, whose main program is one of inside.py's functions.

    Everything is as DockerEngine makes it but the command. Until the engine seals it, it may write
    to its socket directory.
    """

    def __init__(self, image: str, name: str, *arguments: str) -> None:
        self._client = client()
        self.engine = docker_engine()
        command = [*PYTHON, name, *arguments]
        self.engine.__dict__["_client"] = _OtherCommand(self._client, command)
        self.box = Box(self.engine, image, settings.NAMESPACE)

    def start(self) -> None:
        """Start it and wait until it has written something."""
        self.engine.create(self.box.spec)
        self.engine.start(self.box.id)
        wait_for(self.log, "the program to begin")

    def log(self) -> str:
        """What it wrote."""
        return bytes(self._client.logs(self.box.container)).decode()

    def signal(self, name: str) -> None:
        """Send it a signal."""
        self._client.kill(self.box.container, signal=name)


class _OtherCommand:
    """A Docker client that puts another command into the containers that it makes."""

    def __init__(self, real: docker.APIClient, command: list[str]) -> None:
        self._real = real
        self._command = command

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create_container(self, **options: Any) -> Any:
        return self._real.create_container(
            **options, entrypoint=self._command[:1], command=self._command[1:]
        )
