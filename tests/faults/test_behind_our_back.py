"""Something happens to a container that we did not do: it is noticed at once, or by the sweep."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from deploy import lifecycle, mounts, reconcile, tokens
from deploy.models import Instance, InstanceEvent
from deploy.probe import open_connection
from deploy.states import Observed, Status, StopReason
from tests.faults.world import READY, RUNS_ON, World


def kill(world: World, instance: Instance) -> None:
    world.docker.kill(world.name(instance))


def remove(world: World, instance: Instance) -> None:
    world.docker.remove_container(world.name(instance), force=True)


def run_out_of_memory(world: World, instance: Instance) -> None:
    """Have Datasette itself, the first process of the container, allocate more than there is."""
    token = tokens.actor_token(
        instance,
        {"id": "1", "name": "owner", "role": "owner"},
        {"name": "w", "url": "http://localhost/"},
    )
    connection = open_connection(instance.endpoint, timeout=30)
    with suppress(OSError, EOFError):  # it dies over it
        query = "/data.json?sql=select+length(randomblob(900000000))"
        connection.request("GET", query, headers={"X-Cloudapp-Actor": token})
        connection.getresponse()
    connection.close()


ACCIDENTS = [
    (kill, "It stopped by itself (exit code 137)."),
    (remove, "Its container was removed from outside."),
    (run_out_of_memory, "It stopped by itself: it ran out of memory."),
]


def assert_mended(world: World, instance: Instance, message: str) -> None:
    """It was lost once, for this reason, and is the same again."""
    lost = InstanceEvent.objects.get(instance=instance, kind="lost")
    assert lost.message == message
    world.assert_engine_holds_what_the_rows_say()
    assert world.read(instance) == ["kept"]
    assert world.container(instance)["Mounts"], "its data is mounted"
    failures = [kind for kind in world.events(instance) if kind.endswith("!")]
    assert failures == ["lost!"]


@pytest.mark.parametrize(("accident", "message"), ACCIDENTS)
def test_the_watcher_notices_at_once(
    world: World, accident: Callable[[World, Instance], None], message: str
) -> None:
    instance = world.created(memory_mb=128)
    world.write(instance, "kept")
    world.watcher()
    accident(world, instance)
    # Nobody else tells anybody: without the watcher this would wait for ever.
    world.wait(instance, "noticed", events__kind="lost")
    world.wait_ready(instance)

    assert_mended(world, instance, message)


@pytest.mark.parametrize(("accident", "message"), ACCIDENTS)
def test_the_sweep_alone_notices(
    world: World, accident: Callable[[World, Instance], None], message: str
) -> None:
    world.without("watcher")
    instance = world.created(memory_mb=128)
    world.write(instance, "kept")
    accident(world, instance)
    world.swept_until(instance, events__kind="lost")
    world.swept_until(instance, **READY)

    assert_mended(world, instance, message)


def test_the_socket_is_lost(world: World) -> None:
    """It runs, and nobody can get in: a fresh start puts the socket back."""
    instance = world.created()
    world.write(instance, "kept")
    directory = Path(settings.RUN_DIR) / "instances" / str(instance.pk)
    mounts.unmount(directory)
    shutil.rmtree(directory)
    assert not world.answers(instance)

    world.swept_until(instance, started_at__gt=instance.started_at, **READY)

    assert world.answers(instance)
    assert world.events(instance)[4:] == ["unreachable!", "stop", "start", "await_ready"]
    assert world.read(instance) == ["kept"]
    world.assert_engine_holds_what_the_rows_say()


def test_paused_by_somebody_else(world: World) -> None:
    instance = world.created()
    world.watcher()
    world.docker.pause(world.name(instance))
    world.wait(instance, "let go on", events__kind="unpause")
    world.wait_ready(instance)
    world.assert_engine_holds_what_the_rows_say()


def test_started_by_somebody_else(world: World) -> None:
    """It would run on if nobody stopped it: a workspace ends by itself, its door is closed."""
    world.worker()
    instance = world.create(image=world.image_that_runs(RUNS_ON))
    world.wait(instance, "started", events__kind="start")
    lifecycle.want_stopped(instance.pk, StopReason.OWNER)
    world.wait(instance, "stopped", observed=Observed.EXITED, lease_token=None)
    before = world.last_event(instance)
    world.watcher()
    world.docker.start(world.name(instance))
    world.swept_until(instance, events__kind="stop", events__pk__gt=before)
    world.swept_until(instance, observed=Observed.EXITED, lease_token=None)
    world.assert_engine_holds_what_the_rows_say()


def test_a_container_that_crashes_at_every_start_backs_off(world: World) -> None:
    """Also while the watcher tells of every crash: that is not a new request."""
    world.worker()
    image = world.image_that_runs("import time; time.sleep(0.2); raise SystemExit(3)")
    world.watcher()
    instance = world.create(image=image)
    instance = world.wait(instance, "failed", attempts__gte=3)
    # Nobody started it more often than failures were counted, also since we looked.
    assert world.container(instance)["RestartCount"] == 0
    events = world.events(instance)
    instance.refresh_from_db()
    assert events.count("start") <= instance.attempts + 1, events
    assert instance.status == Status.FAILED
    assert "stopped right after it started (exit code 3)" in instance.last_error

    # A person's wish does not wait for the next attempt, however far off that is.
    Instance.objects.filter(pk=instance.pk).update(
        next_attempt_at=timezone.now() + timedelta(hours=1)
    )
    lifecycle.want_absent(instance.pk, timezone.now())
    world.wait_purged(instance)
    world.assert_engine_holds_what_the_rows_say()


def test_one_that_hangs_keeps_no_other_waiting(world: World) -> None:
    healthy = world.created()
    image = world.image_that_runs(
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"
    )
    hung = world.create(image=image)
    world.wait(hung, "hangs", events__kind="start")

    kill(world, healthy)
    world.swept_until(healthy, events__kind="lost")
    world.swept_until(healthy, **READY)
    assert Instance.objects.get(pk=hung.pk).status == Status.PROVISIONING

    # Nor does it keep its owner waiting.
    lifecycle.want_absent(hung.pk, timezone.now() + timedelta(hours=1))
    world.wait(hung, "removed", observed=Observed.ABSENT, lease_token=None)
    world.assert_engine_holds_what_the_rows_say()


def test_only_our_own_orphans_are_removed_and_no_data(world: World) -> None:
    """The engine has a container that no row knows; and others that are none of our business."""
    world.without("watcher")
    ours, other = world.orphan(world.namespace), world.orphan(f"{world.namespace}-other")
    being_tried = world.orphan(world.namespace, instance="")  # an image's smoke test
    instance = world.created()
    world.settle()
    with world.in_process(ORPHAN_GRACE_SECONDS=3600) as sweep:
        sweep()
    assert ours.exists(), "it is reported first"
    assert {(o.kind, o.name) for o in world.orphans()} == {
        ("container", ours.instance),
        ("volume", ours.volume),
        ("volume", being_tried.volume),
    }
    with world.in_process(ORPHAN_GRACE_SECONDS=0) as sweep:
        sweep()

    assert not ours.exists()
    assert other.exists()
    assert being_tried.exists()
    assert {ours.volume, being_tried.volume, instance.volume} <= world.volumes(), "data stays"
    assert world.answers(instance), "its socket is where it was"


def test_an_engine_that_does_not_answer_is_no_reason_to_do_anything(world: World) -> None:
    world.without("watcher")
    instance = world.created()
    world.settle()
    with world.in_process(DOCKER_HOST="unix:///nowhere/docker.sock") as sweep:
        assert sweep() == 0, "nothing was looked at"
        reconcile.reconcile(instance.pk)
        instance = Instance.objects.get(pk=instance.pk)
        assert instance.observed == Observed.UNKNOWN
        assert instance.status == Status.RUNNING
        assert instance.attempts == 0
        assert world.answers(instance)
    instance = world.swept_until(instance, observed=Observed.RUNNING, **READY)
    assert world.events(instance)[-1] == "unknown!"
    assert not instance.last_error
    world.assert_engine_holds_what_the_rows_say()
