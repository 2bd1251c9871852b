"""The engine goes away and comes back: what it does not say is unknown, and destroys nothing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from deploy import lifecycle
from deploy.models import Instance
from deploy.states import Observed, Status, StopReason
from tests.faults.conftest import in_order
from tests.faults.private_engine import PrivateEngine
from tests.faults.world import READY, World


@pytest.fixture(scope="module")
def private_engine(workspace_image: str) -> Iterator[PrivateEngine]:
    """An engine that no other test uses, with the workspace image."""
    if os.geteuid() != 0:
        pytest.skip("an engine of our own needs root")
    # A short path: sockets lie in it.
    engine = PrivateEngine(Path(tempfile.mkdtemp(prefix="fe-")), os.environ)
    try:
        engine.start()
        engine.load(workspace_image, settings.DOCKER_HOST)
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def installation_there(
    private_engine: PrivateEngine,
    workspace_image: str,
    fault_settings: None,
    django_db_setup: None,
) -> Iterator[World]:
    """An installation whose containers run on the private engine."""
    directory = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        with World(directory, workspace_image, private_engine.url) as world:
            yield world
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def there(
    installation_there: World,
    private_engine: PrivateEngine,
    database: None,
    request: pytest.FixtureRequest,
) -> Iterator[World]:
    """The same with all its processes, and no instances."""
    for world in in_order(installation_there, request):
        world.worker()
        world.watcher()
        world.beat()
        try:
            yield world
        finally:
            private_engine.start()
            world.without("beat", "watcher")


def status(instance: Instance) -> Status:
    """What people see now."""
    return Instance.objects.get(pk=instance.pk).status


def test_killed_and_started_again(there: World, private_engine: PrivateEngine) -> None:
    world = there
    served, asleep, deleted = world.created(), world.created(), world.created()
    for instance in (served, asleep, deleted):
        world.write(instance, "kept")
    lifecycle.want_stopped(asleep.pk, StopReason.IDLE)
    world.wait(asleep, "asleep", observed=Observed.EXITED, lease_token=None)

    private_engine.kill()
    for instance in (served, asleep):
        lifecycle.poke(instance.pk)
        world.wait(instance, "not known", observed=Observed.UNKNOWN)
    # The containers outlive their engine, and people do not notice that it is away.
    assert status(served) == Status.RUNNING
    assert world.answers(Instance.objects.get(pk=served.pk))
    assert status(asleep) == Status.SLEEPING
    # What people ask for meanwhile is kept.
    lifecycle.want_absent(deleted.pk, timezone.now() + timedelta(hours=1))
    made = world.create()
    world.wait(made, "not known", observed=Observed.UNKNOWN)
    assert status(made) == Status.PROVISIONING
    private_engine.start()

    world.wait(served, "back", started_at__gt=served.started_at, **READY)
    world.wait_ready(made)
    assert world.answers(fresh(served))
    world.wait(deleted, "gone", observed=Observed.ABSENT)
    world.wait(asleep, "as it was", observed=Observed.EXITED)
    assert status(asleep) == Status.SLEEPING
    world.assert_engine_holds_what_the_rows_say()
    assert world.read(served) == ["kept"]
    assert lifecycle.wake(asleep.pk)
    back = lifecycle.succeed(deleted.pk)
    assert world.read(world.wait_ready(asleep)) == ["kept"]
    assert world.read(world.wait_ready(back)) == ["kept"]
    world.wait_purged(deleted)
    world.assert_engine_holds_what_the_rows_say()


def test_stopped_and_started_again(there: World, private_engine: PrivateEngine) -> None:
    world = there
    served = world.created()
    world.write(served, "kept")

    private_engine.stop()  # with its containers
    lifecycle.poke(served.pk)
    world.wait(served, "not known", observed=Observed.UNKNOWN)
    assert status(served) in (Status.RUNNING, Status.PROVISIONING), "it is not failed"
    private_engine.start()

    world.wait(served, "back", started_at__gt=served.started_at, **READY)
    world.assert_engine_holds_what_the_rows_say()
    assert world.read(served) == ["kept"]
    assert world.events(served).count("lost!") == 1
    assert world.answers(fresh(served))


def fresh(instance: Instance) -> Instance:
    """The row as it is now."""
    return Instance.objects.get(pk=instance.pk)
