"""One installation for all fault tests: real processes, a real engine, rows that really commit."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.db import connection
from pytest_django import DjangoDbBlocker

from deploy.engines import get_engine
from tests.faults.world import HEALTHY, World

# A lease is short, so that a dead worker's work is taken over while the test waits.
SETTINGS = {
    "LEASE_SECONDS": 1.0,
    "SWEEP_SECONDS": 1.0,
    "START_TIMEOUT_SECONDS": 20.0,
    "STOP_TIMEOUT_SECONDS": 10,
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and report.when == "call":
        item.stash[FAILED] = True
    return report


FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def fault_settings() -> Iterator[None]:
    """Short times and a namespace of our own, in this process and in those it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setattr(django_settings, name, value)
        patch.setattr(django_settings, "NAMESPACE", f"{django_settings.NAMESPACE}-faults")
        get_engine.cache_clear()
        yield
    get_engine.cache_clear()


@pytest.fixture(scope="session")
def installation(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    fault_settings: None,
    workspace_image: str,
) -> Iterator[World]:
    """The one installation. Its rows are committed: other processes must see them."""
    # Not pytest's tmp_path: a socket's path may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="faults-") as directory, django_db_blocker.unblock():
        world = World(
            Path(directory),
            django_settings.NAMESPACE,
            workspace_image,
            django_settings.DOCKER_HOST,
        )
        try:
            world.redis()
            with world.calls_go_to(HEALTHY):
                yield world
        finally:
            world.close()
            world.remove_objects()
            connection.close()


@pytest.fixture
def world(
    installation: World, django_db_blocker: DjangoDbBlocker, request: pytest.FixtureRequest
) -> Iterator[World]:
    """The installation, without instances before and after. A failure is told with all logs."""
    with django_db_blocker.unblock():
        installation.redis()
        installation.clear()
        for log in installation.directory.glob("*.log"):
            log.write_bytes(b"")
        try:
            yield installation
        finally:
            if request.node.stash.get(FAILED, False):
                print(installation.report())
            installation.clear()
