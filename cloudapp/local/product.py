"""The whole product on one machine: services, database, processes, router.

`make run`, the tests and the benchmark all use this one class, so what is tested is what runs.
"""

import contextlib
import fcntl
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import IO
from urllib.parse import urlsplit

from cloudapp.local.engine import Engine
from cloudapp.local.mounts import unmount_below
from cloudapp.local.places import PROJECT, VAR, Places, short_name
from cloudapp.local.postgres import RUNTIME_ROLE, Postgres
from cloudapp.local.processes import (
    ROOT_IS_MEANT,
    STOP_ORDER,
    bin_dir,
    manage,
    product_programs,
)
from cloudapp.local.programs import launch_command, tail_of
from cloudapp.local.redis import Redis
from cloudapp.local.say import Console, Failure
from cloudapp.local.secret_files import ensure_secrets
from cloudapp.local.supervisor import Supervisor
from cloudapp.local.tools import SYSTEM_PATH

IMAGE_SECONDS = 900
READY_SECONDS = 60
PORTS = range(12_000, 32_000)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has."""
    # Below those that the kernel hands out: until it is used, nobody else happens to get it.
    for port in SystemRandom().sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise Failure("No port of 127.0.0.1 is free.")


class Product:
    """One running product. start() it, use it at `base_url`, stop() it.

    `state` is a directory that keeps everything worth keeping. `namespace` sets its containers
    apart from those of every other product on the same engine; by default it follows from
    `state`. `env` are settings as in docs/configuration.md; with DATABASE_URL, REDIS_URL or
    DOCKER_HOST among them, nothing of that kind is started. `fast` gives up the database's safety
    against a crash of the machine; without `echo` what the processes say goes to their logs only.
    A product that does not start raises Failure in words, and
    leaves nothing running.
    """

    def __init__(
        self,
        state: Path = VAR,
        port: int = 8000,
        namespace: str | None = None,
        *,
        env: Mapping[str, str] | None = None,
        console: Console | None = None,
        fast: bool = False,
        echo: bool = True,
    ) -> None:
        self.places = Places.of(state)
        self.port = port
        self.given = dict(env or {})
        self.namespace = (
            namespace or self.given.get("NAMESPACE") or f"cloudapp-{short_name(self.places.state)}"
        )
        self.base_url = self.given.get("CLOUD_URL") or f"http://localhost:{port}"
        self.notes: list[str] = []  # what a person should read once it runs
        self.engine = Engine(self.given.get("DOCKER_HOST"), self.places.state / "engine")
        self.environment: dict[str, str] = {}  # what the processes get; known once started
        self.supervisor: Supervisor | None = None
        self._console = console or Console(quiet=True)
        self._fast = fast
        self._echo = echo
        self._postgres: Postgres | None = None
        self._redis: Redis | None = None
        self._lock: IO[str] | None = None
        self._image: subprocess.Popen[bytes] | None = None

    # --- start ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything; return when the router answers /healthz with 200."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self._claim()
        self._refuse_taken_port()
        self.supervisor = Supervisor(self._console if self._echo else Console(quiet=True))
        with self._console.step("services") as step:
            self._start_services(self.supervisor)
            step.detail = f"container engine {self.engine.description}"
        self.environment = self._make_environment()
        self._prepare()
        with self._console.step("processes") as step:
            programs = product_programs(self.places, self.environment)
            for name in ("web", "waiting"):
                (self.places.run / f"{name}.sock").unlink(missing_ok=True)
            self.supervisor.start(*programs)
            self.supervisor.wait_ready(*(program.name for program in programs))
            step.detail = ", ".join(program.name for program in programs)
        self._wait_for_image()
        with self._console.step("answering") as step:
            self.wait_healthy()
            step.detail = f"{self.base_url}/healthz says 200"

    def _claim(self) -> None:
        """Make sure that nobody else runs a product with this state."""
        self.places.make()
        lock = (self.places.state / "product.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise Failure(f"It runs already: {holder or self.places.state}.") from None
        lock.truncate(0)
        lock.write(f"pid {os.getpid()}, {self.base_url}")
        lock.flush()
        self._lock = lock

    def _refuse_taken_port(self) -> None:
        for family, host in loopbacks():
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, self.port))
                except OSError as error:
                    raise Failure(
                        f"Port {self.port} cannot be used: {error.strerror}. "
                        f"Choose another one: make run PORT={self.port + 1}"
                    ) from None

    def _start_services(self, supervisor: Supervisor) -> None:
        """Start what was not given: database and Redis while the engine comes up beside them."""
        services: list[Postgres | Redis] = []
        if not self.given.get("DATABASE_URL"):
            self._postgres = Postgres(self.places, self._console, fast=self._fast)
            services.append(self._postgres)
        if not self.given.get("REDIS_URL"):
            self._redis = Redis(self.places)
            services.append(self._redis)
        failures: list[BaseException] = []

        def start_engine() -> None:
            try:
                self.engine.start()
            except BaseException as error:  # raised below, in the caller's thread
                failures.append(error)

        beside = threading.Thread(target=start_engine)
        beside.start()
        try:
            for service in services:
                service.prepare()
                supervisor.start(service.program())
            supervisor.wait_ready(*(service.name for service in services))
            if self._postgres:
                self._postgres.create_database()
                self._postgres.create_runtime_role()
        finally:
            beside.join()
        if failures:
            raise failures[0]

    def _make_environment(self) -> dict[str, str]:
        """Return the environment of every process: ours, then defaults, then what was given."""
        environment = {k: v for k, v in os.environ.items() if k not in _OURS_TO_SET}
        environment["PATH"] = f"{bin_dir()}:{environment.get('PATH', os.defpath)}:{SYSTEM_PATH}"
        environment |= {
            "DJANGO_SETTINGS_MODULE": "cloudapp.settings",
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": ROOT_IS_MEANT,
            "LOCAL": "1",
            "CLOUD_URL": self.base_url,
            "APPS_DOMAIN": f"localhost:{self.port}",
            "ROUTER_LISTEN": ",".join(
                f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
                for _, host in loopbacks()
            ),
            "STATIC_ROOT": str(self.places.state / "static"),
            **ensure_secrets(self.places.secrets, self.given),
            **({} if self.given.get("EMAIL_URL") else {"MAIL_DIR": str(self.places.mail)}),
            **self.given,
            "PORT": str(self.port),
            "NAMESPACE": self.namespace,
            "STATE_DIR": str(self.places.state),
            "RUN_DIR": str(self.places.run),
            "DOCKER_HOST": self.engine.host,
        }
        if self._postgres:
            environment["DATABASE_URL"] = self._postgres.url(role=RUNTIME_ROLE)
        if self._redis:
            environment["REDIS_URL"] = self._redis.url
        return environment

    def _owner(self) -> dict[str, str]:
        """Return what makes a process act as the owner of the tables, where that is another."""
        if self._postgres is None:
            return {}
        return {"DATABASE_URL": self._postgres.url(), "RUNTIME_ROLE": RUNTIME_ROLE}

    def _prepare(self) -> None:
        """Run prepare.py and pass on what it says; the image's build begins as soon as it can."""
        log = self.places.logs / "prepare.log"
        with log.open("ab") as errors:
            process = subprocess.Popen(
                _child([str(bin_dir() / "python"), "-m", "cloudapp.local.prepare"]),
                cwd=PROJECT,
                env={**self.environment, **self._owner()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            with process:
                for line in process.stdout or ():
                    self._hear(line.rstrip("\n"))
        if process.returncode:
            raise Failure(f"Setting up failed. The end of {log}:\n{tail_of(log)}")

    def _hear(self, line: str) -> None:
        kind, *words = line.split("\t")
        if kind == "step":
            name, detail, seconds = words
            self._console.done("✓", name, detail, float(seconds))
            if name == "database":
                self._start_image_build()
        elif kind == "note":
            self.notes.append(words[0])

    def _start_image_build(self) -> None:
        """Have the workspace image made, beside everything else: it may take a minute."""
        log = self.places.logs / "image.log"
        with log.open("ab") as output:
            self._image = subprocess.Popen(
                _child(manage("build_image")),
                cwd=PROJECT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for_image(self) -> None:
        if self._image is None:
            return
        log = self.places.logs / "image.log"
        with self._console.step("image") as step:
            try:
                code = self._image.wait(timeout=3)
            except subprocess.TimeoutExpired:
                step.now("the workspace image; where it must be built, that takes a minute")
                try:
                    code = self._image.wait(timeout=IMAGE_SECONDS)
                except subprocess.TimeoutExpired:
                    raise Failure(
                        f"The workspace image is not done after {IMAGE_SECONDS // 60} minutes. "
                        f"The end of {log}:\n{tail_of(log)}"
                    ) from None
            if code:
                raise Failure(f"The workspace image failed. The end of {log}:\n{tail_of(log)}")
            step.detail = "the workspace image is there"
        self._image = None

    def wait_healthy(self, timeout: float = READY_SECONDS) -> None:
        """Return when /healthz answers 200 through the router."""
        deadline = time.monotonic() + timeout
        answer = "nobody answers"
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                with contextlib.closing(connection):
                    host = urlsplit(self.base_url).netloc
                    connection.request("GET", "/healthz", headers={"Host": host})
                    response = connection.getresponse()
                    if response.status == 200:
                        return
                    answer = f"{response.status} {response.read(500).decode(errors='replace')}"
            time.sleep(0.05)
        raise Failure(
            f"{self.base_url}/healthz does not say 200 after {timeout:.0f} s: {answer}\n"
            f"The logs are in {self.places.logs}."
        )

    # --- use -----------------------------------------------------------------------------------

    @property
    def logs(self) -> Path:
        """The directory with a log file for each process."""
        return self.places.logs

    @property
    def mail(self) -> Path:
        """The directory with a file for each mail that was sent."""
        return self.places.mail

    def pids(self) -> dict[str, int]:
        """Return the pid of each process by its name (web, worker, beat, nginx, postgres ...)."""
        return self.supervisor.pids() if self.supervisor else {}

    def kill(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Send a process a signal, as an accident would. It is started again soon."""
        self._running().kill(name, with_signal)

    def stop_process(self, name: str) -> None:
        """Stop one process and leave it stopped; start_process() brings it back."""
        self._running().stop(name)

    def start_process(self, name: str) -> None:
        """Start one of the product's own processes that was stopped."""
        programs = {p.name: p for p in product_programs(self.places, self.environment)}
        if name in ("web", "waiting"):
            (self.places.run / f"{name}.sock").unlink(missing_ok=True)
        self._running().start(programs[name])
        self._running().wait_ready(name)

    def restart_process(self, name: str) -> None:
        """Stop one process in the orderly way and start it again."""
        self.stop_process(name)
        self.start_process(name)

    def manage(self, *arguments: str) -> str:
        """Run a management command inside this product; return what it printed."""
        done = subprocess.run(
            _child(manage(*arguments)),
            cwd=PROJECT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failure(f"manage.py {' '.join(arguments)} failed:\n{done.stdout}")
        return done.stdout

    def _running(self) -> Supervisor:
        if self.supervisor is None:
            raise Failure("The product does not run.")
        return self.supervisor

    # --- stop ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop everything that was started, in order. May be called again, or half started."""
        if self._image is not None and self._image.poll() is None:
            os.killpg(self._image.pid, signal.SIGKILL)
            self._image.wait()
        self._image = None
        supervisor = self.supervisor
        if supervisor is not None:
            for names in STOP_ORDER:
                supervisor.stop(*names)
            self._stop_containers()
            supervisor.close()  # Redis, then Postgres
            self.supervisor = None
        self.engine.release()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def hurry(self) -> None:
        """Kill what does not stop by itself; from another thread or a signal handler."""
        if self.supervisor is not None:
            self.supervisor.hurry()

    def _stop_containers(self) -> None:
        with contextlib.suppress(OSError, Failure):
            self.engine.api().stop_containers(self.namespace)
            # Their sockets' directories are mounts; each start of a container makes them anew.
            unmount_below(self.places.run / "instances")

    def discard(self) -> None:
        """Stop, then delete containers, volumes and all state: for tests."""
        if self.supervisor is not None:
            for names in STOP_ORDER:
                self.supervisor.stop(*names)
            with contextlib.suppress(OSError, Failure):
                self.engine.api().remove_namespace(self.namespace)
        self.stop()
        if self._postgres:
            self._postgres.discard()
        self.places.discard()


def _child(command: Sequence[str]) -> list[str]:
    """Return the command that ends with us, should we be killed while it runs."""
    return launch_command(command, signal.SIGKILL, None)


# What a product sets for its processes, whatever the environment that started it says.
_OURS_TO_SET = frozenset(
    (
        *("DATABASE_URL", "REDIS_URL", "DOCKER_HOST", "NAMESPACE", "STATE_DIR", "RUN_DIR"),
        *("CLOUD_URL", "APPS_DOMAIN", "STATIC_ROOT", "MAIL_DIR", "LOCAL", "DEBUG", "PORT"),
        *("SECRET_KEY", "SECRET_KEY_FILE", "ROUTER_SECRET", "ROUTER_SECRET_FILE"),
    )
)


def loopbacks() -> Iterable[tuple[socket.AddressFamily, str]]:
    """Return this machine's loopback addresses; browsers take *.localhost to either of them."""
    yield socket.AF_INET, "127.0.0.1"
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        yield socket.AF_INET6, "::1"
