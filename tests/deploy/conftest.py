"""Fixtures of the tests of the workspace image: one image for all, one engine, one container each.

The image is named by its content, so it is built once and stays on the engine for the next run.
"""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from deploy.base_image import PYTHON, ensure_base
from deploy.images import build_image, default_lock, image_inputs
from deploy.wheels import fetch_wheels
from tests.deploy.workspace_support import SdkBuilder, Workspace, workspace

WHEELS = Path(__file__).resolve().parents[2] / "var" / "wheels"


@pytest.fixture(scope="session")
def workspace_docker() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def workspace_image(workspace_docker: docker.DockerClient) -> str:
    """The reference of the default image, built when the engine does not have it."""
    builder, lock = SdkBuilder(workspace_docker), default_lock()
    architecture = builder.architecture()
    inputs = image_inputs(ensure_base(builder), lock, architecture)
    if not builder.image_exists(inputs.reference):
        build_image(builder, inputs, lock, fetch_wheels(lock, architecture, PYTHON, WHEELS))
    return inputs.reference


@pytest.fixture
def workspace_container(
    workspace_docker: docker.DockerClient, workspace_image: str, tmp_path: Path
) -> Iterator[Workspace]:
    """A fresh workspace, started and answering."""
    with workspace(workspace_docker, workspace_image, tmp_path / "run") as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def workspace_shared(
    workspace_docker: docker.DockerClient,
    workspace_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Workspace]:
    """One running workspace for the tests of a module that only ask and change nothing."""
    directory = tmp_path_factory.mktemp("workspace") / "run"
    with workspace(workspace_docker, workspace_image, directory) as made:
        made.start()
        yield made
