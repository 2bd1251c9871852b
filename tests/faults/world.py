"""One installation under test: its processes, its own Redis, and what its engine really holds."""

import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import docker
from django.conf import settings
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from docker.types import Mount
from redis import ConnectionError as RedisAway
from redis import Redis

from cloudapp.celery import app
from cloudapp.local.processes import beat_command, manage, worker_command
from deploy import lifecycle, probe, sweep
from deploy.engines import get_engine
from deploy.models import Image, Instance, InstanceEvent, Orphan
from deploy.states import Desired, Observed
from tests.faults.processes import BUSY, SECONDS, Child, Late, Process, wait_for

BROKEN_IMAGES = "cloudapp-faults"
WORKSPACE_PYTHON = ("/opt/workspace/bin/python", "-IB", "-c")
_WRITE = """
import sqlite3, sys
with sqlite3.connect("/data/data.db", timeout=10) as db:
    db.execute("create table if not exists marker (word text)")
    db.execute("insert into marker values (?)", sys.argv[1:])
"""
_READ = """
import json, sqlite3
rows = sqlite3.connect("/data/data.db").execute("select * from marker")
print(json.dumps([word for word, in rows]))
"""
# Never answers, and ends when it is asked to.
RUNS_ON = (
    "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"
)
# Redis keeps the queues of the healthy and of the dying workers apart by database number.
HEALTHY, DYING = 0, 1
SWEEP_EVERY = 0.25  # seconds


# It is served, and nobody works on it.
READY: dict[str, Any] = {"desired": Desired.RUNNING, "ready": True, "lease_token": None}


class World:
    """The processes and the engine of one installation; `with` it, so that nothing is left."""

    def __init__(self, directory: Path, image: str, engine_url: str) -> None:
        self.directory = directory
        self.namespace = settings.NAMESPACE
        self.engine_url = engine_url
        self.docker = docker.APIClient(engine_url, version="auto", timeout=60)
        self.redis_socket = directory / "redis.sock"
        self.order = directory / "order"
        self._image = image
        self._numbers = itertools.count(1)
        self._broken: list[str] = []
        self._strays: list[Stray] = []
        self._logged: dict[Path, int] = {}
        self._processes: dict[str, Child] = {}
        self._nursery: Child | None = None
        self._dying: list[Process] = []

    # --- processes -------------------------------------------------------------------------

    def environment(self, broker: int = HEALTHY) -> dict[str, str]:
        """The environment of a process of this installation."""
        return {
            **os.environ,
            "DATABASE_URL": _database_url(),
            "REDIS_URL": f"unix://{self.redis_socket}?virtual_host={broker}",
            "DOCKER_HOST": self.engine_url,
            "NAMESPACE": self.namespace,
            "RUN_DIR": str(settings.RUN_DIR),
            "LEASE_SECONDS": str(settings.LEASE_SECONDS),
            "SWEEP_SECONDS": str(settings.SWEEP_SECONDS),
            "START_TIMEOUT_SECONDS": str(settings.START_TIMEOUT_SECONDS),
            "STOP_TIMEOUT_SECONDS": str(settings.STOP_TIMEOUT_SECONDS),
            "PYTHONUNBUFFERED": "1",
        }

    def _ensure(self, name: str, command: list[str], **environment: str) -> Child:
        found = self._processes.get(name)
        if found is None or not found.alive:
            log = self.directory / f"{name}.log"
            told = self.environment() | environment
            found = self._processes[name] = Child(name, command, told, log)
        return found

    def redis(self) -> Child:
        """Have the Redis of these tests run, and answer."""
        server = self._ensure(
            "redis",
            [
                *("redis-server", "--port", "0", "--unixsocket", str(self.redis_socket)),
                *("--save", "", "--appendonly", "no", "--dir", str(self.directory)),
            ],
        )
        wait_for(self._redis_answers, "Redis answers")
        return server

    def redis_client(self) -> Redis:
        """A connection to it."""
        return Redis(unix_socket_path=str(self.redis_socket))

    def _redis_answers(self) -> bool:
        try:
            with self.redis_client() as client:
                return bool(client.ping())
        except RedisAway:
            return False

    def worker(self, name: str = "worker", **environment: str) -> Child:
        """Have a healthy worker of the queue `now` run; by another name, another one."""
        command = [*worker_command("now", 8), "--include", "tests.faults.busy"]
        return self._ensure(name, command, **environment)

    def beat(self) -> Child:
        """Have the clock run that asks for sweeps."""
        return self._ensure("beat", beat_command(self.directory / "beat"))

    def watcher(self) -> Child:
        """Have the watcher run, and listen."""
        log = self.directory / "watcher.log"
        watcher = self._ensure("watcher", manage("watch"))
        wait_for(lambda: "listening to the engine" in log.read_text(), "the watcher listens")
        return watcher

    def without(self, *names: str) -> None:
        """Have these processes not run."""
        for name in names:
            if process := self._processes.pop(name, None):
                process.kill()
                process.log.unlink()

    def dying_worker(self, order: str = "") -> Process:
        """Start a worker that carries out `order`, see dying_worker.py; it has its own queue."""
        if order:
            self.order.write_text(order)
        name = f"dying-{next(self._numbers)}"
        pid = self._ensure_nursery().ask(str(self.directory / f"{name}.log"))
        process = Process(name, int(pid))
        self._dying.append(process)
        return process

    def _ensure_nursery(self) -> Child:
        if self._nursery is None:
            program = [sys.executable, "-m", "tests.faults.dying_worker", str(self.order)]
            # The same worker, called in the same way.
            arguments = worker_command("now", 4)
            arguments = arguments[arguments.index("worker") :]
            log = self.directory / "nursery.log"
            self._nursery = Child(
                "nursery", [*program, *arguments], self.environment(DYING), log, talks=True
            )
        return self._nursery

    @contextmanager
    def calls_go_to(self, broker: int) -> Iterator[None]:
        """Wake-up calls of the test's own requests go to the healthy or to the dying workers.

        These get what is asked for now only when the healthy ones have no calls left.
        """
        if broker == DYING:
            self.settle()
        before = app.conf.broker_url
        self._use_broker(f"redis+socket://{self.redis_socket}?virtual_host={broker}")
        try:
            yield
        finally:
            self._use_broker(before)

    def settle(self) -> None:
        """Return when the healthy workers have nothing left to do but what is for later."""
        running = [name for name, process in self._processes.items() if process.alive]
        # The clock always has something for them.
        if any(name.endswith("worker") for name in running) and "beat" not in running:
            wait_for(self._healthy_are_idle, "the healthy workers have nothing left to do")

    def _healthy_are_idle(self) -> bool:
        with self.redis_client() as client:
            # In the order in which a task comes along.
            if client.llen("now"):
                return False
            taken = [json.loads(message)[0] for message in client.hvals("unacked")]
            return all(one["headers"].get("eta") for one in taken) and not client.scard(BUSY)

    @staticmethod
    def _use_broker(url: str) -> None:
        # Celery keeps a pool of connections per address; these two remember which one is used.
        app.conf.broker_url = url
        app._pool = None
        app.amqp._producer_pool = None

    @staticmethod
    def leases_lapse(*instances: Instance) -> None:
        """Let the time pass after which leases are over; those of all when none is named."""
        held = Instance.objects.exclude(lease_token=None)
        if instances:
            held = held.filter(pk__in=[instance.pk for instance in instances])
        held.update(lease_expires_at=timezone.now() - timedelta(seconds=1))

    def ask_for_a_sweep(self) -> None:
        """Ask a healthy worker for a sweep, as the clock does: one that comes late is dropped.

        Otherwise they would queue up on a slow machine, and the work behind them.
        """
        app.send_task("deploy.tasks.sweep", expires=settings.SWEEP_SECONDS)

    # --- instances -------------------------------------------------------------------------

    def image(self) -> Image:
        """The row of the workspace image."""
        fields = {"reference": self._image, "state": Image.State.READY}
        return Image.objects.get_or_create(digest=self._image, defaults=fields)[0]

    def image_that_runs(self, code: str) -> Image:
        """An image that runs this Python instead of a workspace."""
        entry = json.dumps([*WORKSPACE_PYTHON, code])
        container = self.docker.create_container(self._image)["Id"]
        tag = f"{self.namespace}-{next(self._numbers)}"  # others may use this engine, too
        changes = f"ENTRYPOINT {entry}\nCMD []"
        self.docker.commit(container, BROKEN_IMAGES, tag, changes=changes)
        self.docker.remove_container(container)
        reference = f"{BROKEN_IMAGES}:{tag}"
        self._broken.append(reference)
        return Image.objects.create(digest=reference, reference=reference, state=Image.State.READY)

    def create(self, image: Image | None = None, **spec: Any) -> Instance:
        """Ask for an instance."""
        return lifecycle.create(image or self.image(), **{"memory_mb": 256, **spec})

    def created(self, **spec: Any) -> Instance:
        """An instance that runs and is ready."""
        self.worker()
        instance = self.create(**spec)
        return self.wait_ready(instance)

    def wait(
        self, instance: Instance, what: str, timeout: float = SECONDS, **fields: Any
    ) -> Instance:
        """Wait until the row has these values, and return it."""
        return self._or_tell(instance, lambda: _row(instance, fields), f"{what}: {fields}", timeout)

    def _or_tell(
        self, instance: Instance, look: Callable[[], Instance | None], what: str, timeout: float
    ) -> Instance:
        """Wait for it, or raise Late with all that is known of the instance."""
        try:
            return wait_for(look, what, timeout)
        except Late as late:
            now = Instance.objects.get(pk=instance.pk)
            raise Late(f"{late}; {describe(now)}") from None

    def wait_ready(self, instance: Instance, timeout: float = SECONDS) -> Instance:
        """Wait until it is ready and nobody works on it."""
        return self.wait(instance, "ready", timeout, **READY)

    def wait_purged(self, instance: Instance, timeout: float = SECONDS) -> Instance:
        """Wait until nothing is left of it."""
        return self.wait(instance, "purged", timeout, purged_at__isnull=False)

    def swept_until(self, instance: Instance, timeout: float = SECONDS, **fields: Any) -> Instance:
        """Ask for sweeps, as the clock does, until the row has these values; return it."""
        asked = float("-inf")

        def swept() -> Instance | None:
            nonlocal asked
            if time.monotonic() - asked > SWEEP_EVERY:
                self.ask_for_a_sweep()
                asked = time.monotonic()
            return _row(instance, fields)

        return self._or_tell(instance, swept, f"{fields} of {instance}", timeout)

    def events(self, instance: Instance, after: int = 0) -> list[str]:
        """What happened to it, in order; failures are marked with an exclamation mark.

        Not what was only seen: who sees first what a dead worker did, is a matter of the moment.
        """
        found = InstanceEvent.objects.filter(instance=instance, pk__gt=after).order_by("pk")
        found = found.exclude(kind="observed")
        return [event.kind + "!" * event.failed for event in found]

    def last_event(self, instance: Instance) -> int:
        """The number of its last event."""
        last = InstanceEvent.objects.filter(instance=instance).order_by("pk").last()
        return last.pk if last else 0

    # --- what the engine really holds ----------------------------------------------------------

    def containers(self, instance: Instance | None = None) -> list[dict[str, Any]]:
        """What the engine lists, of all instances or of one."""
        labels = [f"cloudapp.namespace={self.namespace}"]
        if instance:
            labels.append(f"cloudapp.instance={instance.pk}")
        return list(self.docker.containers(all=True, filters={"label": labels}))

    def container(self, instance: Instance) -> dict[str, Any]:
        """What the engine says of the one container of an instance; there must be just one."""
        found = self.containers(instance)
        assert len(found) == 1, f"{len(found)} containers of {instance}: {found}"
        return dict(self.docker.inspect_container(found[0]["Id"]))

    def volumes(self) -> set[str]:
        """The names of the data volumes."""
        label = {"label": [f"cloudapp.namespace={self.namespace}"]}
        return {volume["Name"] for volume in self.docker.volumes(filters=label)["Volumes"] or ()}

    def name(self, instance: Instance) -> str:
        """The name of its container."""
        return f"{self.namespace}-{instance.pk}"

    def run_inside(self, instance: Instance, code: str, *arguments: str) -> str:
        """Run Python inside its container; return what it printed.

        One that an accident killed a moment ago, which nobody noticed yet, is waited for.
        """
        command = [*WORKSPACE_PYTHON, code, *arguments]

        def begin() -> str:
            try:
                return str(self.docker.exec_create(self.name(instance), command)["Id"])
            except docker.errors.APIError as error:
                if error.status_code != HTTPStatus.CONFLICT:  # it does not run
                    raise
                return ""

        run = wait_for(begin, f"the container of {instance} to run")
        output = bytes(self.docker.exec_start(run)).decode()
        assert self.docker.exec_inspect(run)["ExitCode"] == 0, output
        return output

    def write(self, instance: Instance, word: str) -> None:
        """Write a marker row into its database."""
        self.run_inside(instance, _WRITE, word)

    def read(self, instance: Instance) -> list[str]:
        """The marker rows of its database."""
        return list(json.loads(self.run_inside(instance, _READ)))

    def answers(self, instance: Instance) -> bool:
        """Whether it answers now, as itself."""
        try:
            probe.health(instance, instance.endpoint)
        except probe.NotAnswering as error:
            print(f"{instance} does not answer: {error}")
            return False
        return True

    def orphan(self, namespace: str, instance: str | None = None) -> "Stray":
        """A container that no row knows, with a data volume."""
        stray = Stray(self.docker, self._image, namespace, instance)
        self._strays.append(stray)
        return stray

    def orphans(self) -> list[Orphan]:
        """What the sweep reported."""
        return list(Orphan.objects.order_by("kind"))

    @contextmanager
    def in_process(self, **changes: Any) -> Iterator[Callable[[], int]]:
        """Sweep in this process, with other settings."""
        with override_settings(**changes):
            get_engine.cache_clear()
            try:
                yield sweep.sweep
            finally:
                get_engine.cache_clear()

    def assert_engine_holds_what_the_rows_say(self) -> None:
        """Compare every row with the engine: containers, their states and generations, volumes."""
        rows = list(Instance.objects.all())
        listed = {c["Labels"]["cloudapp.instance"]: c for c in self.containers()}
        assert len(listed) == len(self.containers()), "an instance has several containers"
        wanted_volumes = set()
        for row in rows:
            held = listed.pop(str(row.pk), None)
            if row.desired == Desired.ABSENT:
                assert held is None, f"deleted, but there: {describe(row)}"
                assert row.observed == Observed.ABSENT, describe(row)
            elif row.desired == Desired.RUNNING:
                assert held, f"not there: {describe(row)}"
                assert held["State"] == "running", f"{held['State']}: {describe(row)}"
                assert held["Labels"]["cloudapp.generation"] == str(row.generation), describe(row)
                assert row.ready, describe(row)
            else:
                assert held is None or held["State"] != "running", describe(row)
            if row.volume and not row.purged_at and row.observed_generation is not None:
                wanted_volumes.add(row.volume)
        assert not listed, f"no row knows {listed}"
        volumes = self.volumes()
        assert wanted_volumes <= volumes, f"volumes are gone: {wanted_volumes - volumes}"
        known = {row.volume for row in rows if not row.purged_at}
        assert volumes <= known, f"nobody's volumes: {volumes - known}"

    # --- tidying up ------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget all instances, here and at the engine; the processes stay."""
        self.order.unlink(missing_ok=True)
        for process in self._dying:
            process.kill()
        self._dying.clear()
        if self._redis_answers():
            with suppress(Late):  # the test has failed, most likely
                self.settle()
        # Nobody may work on them any more.
        Instance.objects.update(purged_at=timezone.now(), lease_token=None, ready=False)
        self.remove_objects()
        with self.redis_client() as client:
            if self._redis_answers():
                client.flushall()
        for pk in Instance.objects.values_list("pk", flat=True):
            shutil.rmtree(settings.RUN_DIR / "instances" / str(pk), ignore_errors=True)
        Instance.objects.all().delete()
        Orphan.objects.all().delete()
        Image.objects.filter(digest__in=[self._image, *self._broken]).delete()
        for reference in self._broken:
            _gone_is_fine(self.docker.remove_image, reference, force=True)
        self._broken.clear()

    def remove_objects(self) -> None:
        """Remove what the engine holds in our namespace. What is gone already is fine."""
        for stray in self._strays:
            stray.remove()
        self._strays.clear()
        for container in self.containers():
            _gone_is_fine(self.docker.remove_container, container["Id"], force=True)
        wait_for(lambda: not self.containers(), "the containers are gone")
        wait_for(self._volumes_removed, "the volumes are gone")

    def _volumes_removed(self) -> bool:
        for volume in self.volumes():
            _gone_is_fine(self.docker.remove_volume, volume, force=True)
        return not self.volumes()

    def __enter__(self) -> Self:
        self.redis()
        self._calls = self.calls_go_to(HEALTHY)
        self._calls.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._calls.__exit__(None, None, None)
        self.close()
        self.remove_objects()

    def close(self) -> None:
        """End every process."""
        for process in (*self._dying, *self._processes.values(), self._nursery):
            if process:
                process.kill()
        self._processes.clear()
        self._nursery = None

    def begin_report(self) -> None:
        """What was logged until now is nobody's business any more."""
        self._logged = {log: log.stat().st_size for log in self.directory.glob("*.log")}

    def report(self) -> str:
        """Everything that helps to understand a failure."""
        parts = [describe(row) for row in Instance.objects.order_by("created_at")]
        for container in self.containers():
            inspected = self.docker.inspect_container(container["Id"])
            parts.append(f"{inspected['Name']} {json.dumps(inspected['State'])}")
        for log in sorted(self.directory.glob("*.log")):
            text = log.read_bytes()[self._logged.get(log, 0) :].decode(errors="replace")
            if text.strip():
                parts.append(f"--- {log.name}\n{text[-6000:]}")
        return "\n".join(parts)


class Stray:
    """A container that the product did not make, and its volume."""

    def __init__(
        self, client: docker.APIClient, image: str, namespace: str, instance: str | None
    ) -> None:
        self._docker = client
        self.instance = str(uuid4()) if instance is None else instance
        self.volume = f"{namespace}-{self.instance or uuid4()}-data"
        labels = {"cloudapp.namespace": namespace}
        client.create_volume(self.volume, labels=labels)
        if self.instance:
            labels["cloudapp.instance"] = self.instance
        name = f"{namespace}-{self.instance}" if self.instance else None
        mounts = [Mount("/data", self.volume)]
        self._id: str = client.create_container(
            image,
            name=name,
            labels=labels,
            host_config=client.create_host_config(mounts=mounts, network_mode="none"),
        )["Id"]

    def exists(self) -> bool:
        """Whether the engine still has the container."""
        try:
            self._docker.inspect_container(self._id)
        except docker.errors.NotFound:
            return False
        return True

    def remove(self) -> None:
        """Remove both."""
        _gone_is_fine(self._docker.remove_container, self._id, force=True)
        _gone_is_fine(self._docker.remove_volume, self.volume)


def _row(instance: Instance, fields: Mapping[str, Any]) -> Instance | None:
    """The row, when it has these values."""
    return Instance.objects.filter(pk=instance.pk, **fields).first()


def describe(row: Instance) -> str:
    """One instance in a few lines, for a failure's message."""
    fields = {
        name: getattr(row, name)
        for name in (
            *("desired", "stop_reason", "observed", "ready", "generation", "observed_generation"),
            *("attempts", "next_attempt_at", "last_error", "revision", "lease_token"),
            *("lease_expires_at", "purge_at", "purged_at", "volume", "predecessor_id"),
        )
        if getattr(row, name)
    }
    events = [f"  {e.at:%M:%S.%f} {e.kind}{'!' * e.failed} {e.message}" for e in row.events.all()]
    return "\n".join([f"{row} {row.status}: {fields}", *events])


def _gone_is_fine(remove: Any, *args: Any, **kwargs: Any) -> None:
    try:
        remove(*args, **kwargs)
    except docker.errors.APIError as error:
        if error.status_code not in (404, 409):
            raise


def _database_url() -> str:
    """The test database, as another process must be told of it: the server is the given one."""
    server = urlsplit(os.environ["DATABASE_URL"])
    return server._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
