"""Workspaces whose plugins are changed for real: a worker, the engine, a shop, and somebody who
asks for pages all the while."""

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import docker
from celery.contrib.testing.worker import start_worker
from django.conf import settings
from django.db import connection

from accounts.models import User
from cloudapp.celery import app
from deploy import images, locks, logs, notify, tokens
from deploy.builder import Builder
from deploy.engines import get_engine
from deploy.models import Image, Instance, InstanceEvent, LogTail
from deploy.states import Desired
from tests.deploy.boxes import connect, wait_for
from tests.factories import make_plan, make_release, make_user
from tests.faults.processes import PROJECT
from tests.plugins.shop import Shop, lock_of
from workspaces import changes, services
from workspaces.models import (
    Activity,
    Approval,
    Change,
    Grant,
    Plan,
    Plugin,
    Release,
    Rollout,
    Workspace,
)

# Generous: a machine may be busy.
SECONDS = 600.0
_numbers = itertools.count(1)
_PYTHON = ("/opt/workspace/bin/python", "-IB", "-c")
_WRITE = """
import sqlite3
with sqlite3.connect("/data/{}") as db:
    db.execute("create table if not exists t (a)")
    db.execute("insert into t values (1)")
"""
_COUNT = """
import sqlite3
print(len([*sqlite3.connect("/data/{}").execute("select a from t")]))
"""
# The tables that these tests fill, those that point at others first.
TABLES = (
    Change,
    Rollout,
    Activity,
    Grant,
    Workspace,
    InstanceEvent,
    LogTail,
    Instance,
    Approval,
    Plugin,
)


class World:
    """One installation: an owner, the default release, a shop."""

    def __init__(self, builder: Builder, image: str, shop: Shop) -> None:
        self.builder = builder
        self.shop = shop
        self.docker = docker.APIClient(settings.DOCKER_HOST, version="auto", timeout=300)
        self._default = image
        self._worker: Any = None

    def __enter__(self) -> Self:
        self.owner = make_user()
        plan = make_plan()
        self._plan = {"memory_mb": plan.memory_mb, "max_workspaces": plan.max_workspaces}
        Plan.objects.update(memory_mb=256, max_workspaces=100)
        release = make_release()
        image = images.ensure_image(self.builder, images.default_lock(), settings.STATE_DIR)
        assert image.reference == self._default, "the release's image is the default image"
        Release.objects.filter(pk=release.pk).update(image=image)
        self.release = Release.objects.get(pk=release.pk)
        app.control.purge()
        self._worker = start_worker(
            app, pool="threads", concurrency=6, queues="now,later,builds", perform_ping_check=False
        )
        self._worker.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        Instance.objects.update(purged_at="2000-01-01T00:00Z", lease_token=None)
        self._worker.__exit__(None, None, None)
        self._remove_objects()
        ours = [image.reference for image in Image.objects.exclude(reference=self._default)]
        for model in TABLES:
            model.objects.all().delete()
        Release.objects.all().delete()
        Image.objects.all().delete()
        Plan.objects.update(**self._plan)
        User.objects.all().delete()
        for reference in ours:
            self.builder.remove_image(reference)
        self.docker.close()

    def _remove_objects(self) -> None:
        label = {"label": f"cloudapp.namespace={settings.NAMESPACE}"}
        for container in self.docker.containers(all=True, filters=label):
            self.docker.remove_container(container["Id"], force=True)
        for instance in Instance.objects.all():
            get_engine().remove(str(instance.pk))
            get_engine().remove_volume(instance.volume)

    # --- catalogue -----------------------------------------------------------------------------

    def approve(
        self,
        *wheels: Path,
        reach: str = Approval.Reach.EVERYONE,
        needs: Sequence[dict[str, str]] = (),
    ) -> str:
        """Approve the plugin in the first wheel, with all of them; return its name."""
        name, version, *_ = wheels[0].name.split("-")
        name = name.replace("_", "-")
        plugin, _ = Plugin.objects.get_or_create(name=name, defaults={"state": "known"})
        Approval.objects.filter(plugin=plugin, state="active").update(state="replaced")
        Approval.objects.create(
            plugin=plugin,
            release=self.release,
            version=version,
            lock=lock_of(*wheels),
            state="active",
            reach=reach,
            needs=list(needs),
        )
        return name

    def plugin(self, name: str, code: str, **more: Any) -> str:
        """Make a plugin and approve it for everyone; return its name."""
        return self.approve(self.shop.plugin(name, code, **more))

    # --- workspaces ------------------------------------------------------------------------------

    def workspace(self) -> "Place":
        """A new workspace that answers."""
        number = next(_numbers)
        made = services.create_workspace(self.owner, f"Place {number}", f"place-{number}")
        place = Place(self, made.pk)
        place.wait_ready()
        return place

    def finished(self, change: Change) -> Change:
        """Wait until a change is over; return it as it is then."""
        done = Change.objects.filter(pk=change.pk).exclude(state=Change.State.OPEN)
        return wait_for(done.first, f"the end of {change}", SECONDS)

    def run_command(self, container: str, *command: str) -> str:
        """Run something in a container; return what it wrote."""
        run = self.docker.exec_create(container, list(command))["Id"]
        output = bytes(self.docker.exec_start(run)).decode()
        assert self.docker.exec_inspect(run)["ExitCode"] == 0, output
        return output


@dataclass
class Place:
    """One workspace of the world."""

    world: World
    pk: Any

    @property
    def row(self) -> Workspace:
        """The workspace, with what belongs to it, as it is now."""
        return Workspace.objects.select_related("instance__image", "release", "plan").get(
            pk=self.pk
        )

    @property
    def container(self) -> str:
        """Its container's name at the engine."""
        return f"{settings.NAMESPACE}-{self.row.instance_id}"

    def inspect(self) -> dict[str, Any]:
        """What the engine says of its container."""
        return dict(self.world.docker.inspect_container(self.container))

    def wait_ready(self) -> None:
        """Wait until it runs what its row says, and nobody works on it."""

        def ready() -> bool:
            it = self.row.instance
            return it.ready and it.observed_generation == it.generation and not it.lease_token

        wait_for(ready, f"{self.row} to be ready", SECONDS)

    def ask_for(self, *names: str, **more: Any) -> Change:
        """Ask for a set of plugins."""
        return changes.request(self.row, self.world.owner, names, **more)

    def change(self, *names: str, **more: Any) -> Change:
        """Have a set of plugins; return the change when it is over."""
        return self.world.finished(self.ask_for(*names, **more))

    def get(self, path: str) -> tuple[int, str]:
        """Ask it for a page, as the router does."""
        return get(self.row.instance, path)

    def run(self, code: str) -> str:
        """Run Python inside."""
        return self.world.run_command(self.container, *_PYTHON, code)

    def write(self, database: str) -> None:
        """Have a database with a row in it."""
        self.run(_WRITE.format(database))

    def rows(self, database: str) -> int:
        """How many rows there are in it."""
        return int(self.run(_COUNT.format(database)))

    @contextmanager
    def visited(self) -> Iterator["Visitor"]:
        """Somebody asks it for pages all the while."""
        with Visitor(self) as visitor:
            yield visitor


def get(instance: Instance, path: str) -> tuple[int, str]:
    """Ask an instance for a page as the router does, for its owner."""
    actor = {"id": "1", "name": "Ada", "role": "owner"}
    token = tokens.actor_token(instance, actor, {"name": "Owls", "url": "http://c.test/"})
    connected = connect(instance.endpoint)
    try:
        connected.request("GET", path, headers={tokens.HEADER: token})
        answer = connected.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connected.close()


@dataclass
class Visit:
    """One request: how it ended, and how long it took and was held, in seconds."""

    outcome: str
    seconds: float
    held: bool


@dataclass
class Visitor:
    """Asks for pages, one after another, as the gateway and the router let people do.

    What is not ready is waited for as long as the gateway holds a request. What was promised and is
    gone when it is asked is asked once more, as the router does.
    """

    place: Place
    visits: list[Visit] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)
        self._thread.start()
        wait_for(lambda: self.visits, "the first answer")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seen = len(self.visits)
        wait_for(lambda: len(self.visits) > seen + 1, "two more answers")
        self._over.set()
        self._thread.join()

    def _ask_on(self) -> None:
        while not self._over.wait(0.01):
            began = time.monotonic()
            outcome, held = self._ask()
            self.visits.append(Visit(outcome, time.monotonic() - began, held))
        connection.close()

    def _ask(self) -> tuple[str, bool]:
        held = False
        for _ in range(2):
            instance = self.place.row.instance
            if not instance.ready:
                held = True
                if not notify.wait_until(instance.pk, self._ready, settings.WAKE_HOLD_SECONDS):
                    return "held for too long", held
                instance = self.place.row.instance
            try:
                status, _ = get(instance, "/")
            except OSError as gone:
                outcome, held = f"{type(gone).__name__}: {gone}", True
                continue
            return str(status), held
        return outcome, held

    def _ready(self) -> bool:
        instance = self.place.row.instance
        return instance.ready and instance.desired == Desired.RUNNING

    @property
    def lost(self) -> list[Visit]:
        """Requests that got no page."""
        return [visit for visit in self.visits if visit.outcome != "200"]

    @property
    def longest_hold(self) -> float:
        """For how long somebody had to wait; 0 when the instance was there all the time."""
        return max((visit.seconds for visit in self.visits if visit.held), default=0.0)


# --- a worker that dies --------------------------------------------------------------------------


class Mortals:
    """Processes that make a change and are killed at a point of it: see dying_change.py."""

    def __init__(self, directory: Path) -> None:
        server = urlsplit(os.environ["DATABASE_URL"])
        url = server._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "NAMESPACE": settings.NAMESPACE,
            "STATE_DIR": str(settings.STATE_DIR),
            "SWITCH_SECONDS": str(settings.SWITCH_SECONDS),
            "PYTHONPATH": str(PROJECT),
        }
        self._log = (directory / "mortals.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.plugins.dying_change"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def run(self, change: Change, point: str) -> int:
        """Have one make a change until it comes to a point; return how it ended (-9: killed)."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{change.pk} {point}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process that they come from."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._log.close()


def steps_of(world: World, names: Iterable[str], *, anew: bool = False) -> tuple[Image, list[str]]:
    """Have the image of a set; return it with the steps that it took."""
    chosen = Approval.objects.filter(plugin__name__in=list(names), state="active")
    parts = {"release": world.release.pins, **{a.plugin.name: a.pins for a in chosen}}
    lock = locks.text_of(locks.merge(parts).values())
    taken: list[str] = []
    image = images.ensure_image(
        world.builder, lock, settings.STATE_DIR, taken.append, world.release.pins, anew=anew
    )
    return image, taken


def log_tail(place: Place) -> str:
    """Its log, as a page would show it."""
    logs.fetch(place.row.instance_id)
    return LogTail.objects.get(instance=place.row.instance).text
