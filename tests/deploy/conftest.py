"""Fixtures of the tests of the workspace image: a container each, or one for a whole module."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from django.conf import settings

from deploy import logs, probe, reconcile, sweep, watcher
from deploy.engines.base import Engine
from deploy.images import release_lock
from tests.deploy.fake_engine import FakeEngine
from tests.deploy.workspace_support import ALPHA, Workspace, built_image, workspace


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """An engine in memory in the place of the installation's."""
    engine = FakeEngine(Path(settings.RUN_DIR) / "instances" / "fake")
    for module in (logs, reconcile, sweep, watcher):
        monkeypatch.setattr(module, "get_engine", lambda: engine)
    # Its containers are threads of ours, which may be late on a busy machine.
    monkeypatch.setattr(probe.health, "__defaults__", (90.0,))
    yield engine
    engine.go_away()
    engine.close()


@pytest.fixture(scope="session")
def workspace_docker() -> Iterator[docker.DockerClient]:
    client = docker.from_env(timeout=300)
    yield client
    client.close()


@pytest.fixture(scope="session")
def alpha_image(engine: Engine) -> str:
    """The reference of the image with the alpha, built and tried out when there is none."""
    return built_image(release_lock(ALPHA))


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
