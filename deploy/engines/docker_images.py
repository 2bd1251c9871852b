"""Images on a Docker engine: look them up, pull, import, build offline, try them out."""

import json
import time
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import BinaryIO

import docker
from docker.errors import APIError, ImageNotFound
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from deploy.builder import RunResult
from deploy.engines.base import EngineError, EngineRefused
from deploy.engines.docker_client import USER, client, hardening, translated

BUILD_SECONDS = 900


class DockerImages:
    """The Builder of deploy.builder, on Docker."""

    def __init__(self, *, url: str, namespace: str, runtime: str = "runc") -> None:
        self._url = url
        self._namespace = namespace
        self._runtime = runtime

    @cached_property
    def _client(self) -> docker.APIClient:
        return client(self._url)

    @translated
    def architecture(self) -> str:
        """The engine's machine, in the kernel's word."""
        return str(self._client.info()["Architecture"])

    @translated
    def image_id(self, reference: str) -> str | None:
        """The id of an image, or None when the engine says that it has none."""
        try:
            return str(self._client.inspect_image(reference)["Id"])  # type: ignore[no-untyped-call]
        except ImageNotFound:
            return None

    def image_exists(self, reference: str) -> bool:
        """Whether the engine has this image."""
        return self.image_id(reference) is not None

    @translated
    def pull(self, reference: str, timeout: float) -> bool:
        """Pull an image; False when no registry gave its first answer within `timeout` seconds."""
        repository, _, tag = reference.partition(":")
        try:
            client(self._url, timeout=round(timeout)).pull(repository, tag=tag)
        except (APIError, RequestException, HTTPError):
            return False
        return True

    @translated
    def import_image(self, tar: BinaryIO, reference: str) -> str:
        """Make an image from the tar of a root file system; return its id."""
        repository, _, tag = reference.partition(":")
        # A generator and not the file: the client announces chunks, and only then sends them.
        chunks = iter(lambda: tar.read(1024 * 1024), b"")
        said = self._client.import_image_from_stream(chunks, repository=repository, tag=tag)
        outcome = json.loads(said.strip().splitlines()[-1])
        if "error" in outcome:
            raise EngineRefused(outcome["error"])
        return str(outcome["status"])

    @translated
    def build(
        self,
        context: BinaryIO,
        tag: str,
        labels: Mapping[str, str],
        build_args: Mapping[str, str],
        *,
        anew: bool = False,
    ) -> str:
        """Build a tar of a Dockerfile and its files with no network; return the image's id."""
        steps = client(self._url, timeout=BUILD_SECONDS).build(
            fileobj=context,
            custom_context=True,
            tag=tag,
            labels=dict(labels),
            buildargs=dict(build_args),
            network_mode="none",
            nocache=anew,
            rm=True,
            forcerm=True,
            decode=True,
        )
        said: list[str] = []
        for step in steps:
            if "error" in step:
                raise EngineRefused(step["error"] + "\n" + "".join(said[-30:]))
            said.append(step.get("stream", ""))
        built = self.image_id(tag)
        if built is None:
            raise EngineError(f"the engine built {tag}, but does not have it")
        return built

    @translated
    def tag_image(self, reference: str, name: str) -> None:
        """Give an image one more name."""
        repository, _, tag = name.partition(":")
        self._client.tag(reference, repository, tag)

    @translated
    def remove_image(self, reference: str) -> None:
        """Remove an image that no container uses."""
        try:
            self._client.remove_image(reference)
        except ImageNotFound:
            return

    @translated
    def remove_leftovers(self, label: str, before: datetime) -> int:
        """Remove untagged images with this label that nothing stands on, from the leaves down."""
        removed = 0
        filters = {"dangling": True, "label": label}
        while old := [
            image["Id"]
            for image in self._client.images(filters=filters)
            if image["Created"] < before.timestamp()
        ]:
            for image in old:
                # Not its parents: they may have another label, and be worth keeping.
                self._client.remove_image(image, noprune=True)
            removed += len(old)
        return removed

    @translated
    def run_once(self, reference: str, command: tuple[str, ...], timeout: float) -> RunResult:
        """Run a command instead of the image's own, hardened like an instance, and remove it."""
        owned = "rw,nosuid,nodev,size=64m,uid=10001,gid=10001,mode=700"
        config = self._client.create_host_config(
            network_mode="none",
            tmpfs={
                "/data": owned,
                "/run/instance": owned,
                "/tmp": "rw,noexec,nosuid,nodev,size=16m,mode=1777",  # noqa: S108
            },
            **hardening(memory_mb=512, cpus=1.0, pids=128, runtime=self._runtime),
        )
        container = self._client.create_container(
            image=reference,
            entrypoint=list(command[:1]),
            command=list(command[1:]),
            user=USER,
            host_config=config,
            labels={"cloudapp.namespace": self._namespace, "cloudapp.smoke": reference},
        )["Id"]
        try:
            self._client.start(container)
            return self._outcome(container, time.monotonic() + timeout)
        finally:
            self._client.remove_container(container, force=True, v=True)

    def _outcome(self, container: str, deadline: float) -> RunResult:
        try:
            ended = self._client.wait(container, timeout=max(1, round(deadline - time.monotonic())))
        except (RequestException, HTTPError) as error:
            raise EngineError("it was not over in time") from error
        output = bytes(self._client.logs(container)).decode(errors="replace")
        return RunResult(int(ended["StatusCode"]), output)
