"""One installation for all fault tests: real processes, a real engine, rows that really commit."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.db import connection
from pytest_django import DjangoDbBlocker

from deploy.engines import get_engine
from tests.faults.world import World

# A lease is longer than any worker may stall here, so that only the dead lose theirs: tests let
# that time pass by World.leases_lapse.
SETTINGS = {
    "LEASE_SECONDS": 30.0,
    "SWEEP_SECONDS": 0.5,
    "START_TIMEOUT_SECONDS": 60.0,
    "STOP_TIMEOUT_SECONDS": 60,
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and report.when == "call":
        item.stash[FAILED] = True
    return report


FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="package")
def fault_settings() -> Iterator[None]:
    """Short times and a namespace of our own, in this process and in those it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setattr(django_settings, name, value)
        patch.setattr(django_settings, "NAMESPACE", f"{django_settings.NAMESPACE}-faults")
        get_engine.cache_clear()
        yield
    get_engine.cache_clear()


@pytest.fixture(scope="package")
def installation(
    fault_settings: None, django_db_setup: None, workspace_image: str
) -> Iterator[World]:
    """The one installation; its processes are there for all the tests that need them."""
    # Not pytest's tmp_path: a socket's path may have 107 characters.
    directory = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        with World(directory, workspace_image, django_settings.DOCKER_HOST) as world:
            yield world
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def database(
    fault_settings: None, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """The test database, with rows that are really committed: other processes must see them.

    `World.clear` takes them away again; a flush would take what the migrations wrote too.
    """
    with django_db_blocker.unblock():
        yield
        connection.close()


@pytest.fixture
def world(installation: World, database: None, request: pytest.FixtureRequest) -> Iterator[World]:
    """The installation, without instances before and after. A failure is told with all logs."""
    yield from in_order(installation, request)


def in_order(world: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """Hand it out clean, and tell all about it when the test failed."""
    world.redis()
    world.clear()
    world.begin_report()
    try:
        yield world
    finally:
        if request.node.stash.get(FAILED, False):
            print(world.report())
        world.clear()
