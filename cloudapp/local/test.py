"""`make test`: set up what is missing, start services for the tests, run every check."""

import contextlib
import fcntl
import os
import secrets
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO

from cloudapp.local.engine import Engine
from cloudapp.local.engine_api import EngineApi, remove_leftovers, remove_namespaces
from cloudapp.local.packages import Purpose, ensure_packages
from cloudapp.local.places import PROJECT, VAR, Places
from cloudapp.local.postgres import Postgres
from cloudapp.local.processes import bin_dir
from cloudapp.local.programs import launch_command
from cloudapp.local.redis import Redis
from cloudapp.local.say import Console, Failure
from cloudapp.local.signals import Stop, stop_on_signals
from cloudapp.local.supervisor import Supervisor
from cloudapp.local.tools import SYSTEM_PATH
from cloudapp.local.venv import DEVELOPMENT_LOCK, ensure_venv

STATE = VAR / "test" / "state"
NAMESPACE_PREFIX = "cloudapp-test-"
# Much of the time a test waits for a container or a process: two at once are done sooner, also on
# two cores. See tests/apart.py for what keeps them apart.
SIDE_BY_SIDE = ("--numprocesses=2", "--dist=loadscope", "--no-loadscope-reorder")
LINTS: Mapping[str, Sequence[str]] = {
    "ruff check": ("ruff", "check", "--output-format=concise", "."),
    "ruff format": ("ruff", "format", "--check", "--output-format=concise", "."),
    "mypy": ("mypy",),
}


class TestServices:
    """Postgres, Redis and an engine for one test run, apart from what `make run` uses."""

    __test__ = False  # pytest, this is none of yours

    def __init__(self, console: Console) -> None:
        self.namespace = f"{NAMESPACE_PREFIX}{secrets.token_hex(4)}"
        self._console = console
        # Of this run alone: two test runs of one clone may go on at once.
        self._places = _places_of(self.namespace)
        self._lock: IO[str] | None = None
        self._engine = Engine(os.environ.get("DOCKER_HOST"))
        self._supervisor: Supervisor | None = None
        self._postgres: Postgres | None = None

    def start(self) -> dict[str, str]:
        """Start them; return the environment that makes the tests use them."""
        self._places.make()
        Places.of(STATE).make()
        # Held while this run lives, so that others can tell it from one that was killed.
        self._lock = _lock_of(self.namespace).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        environment = self._base_environment()
        self._supervisor = Supervisor(self._console)
        names = []
        if not os.environ.get("DATABASE_URL"):
            self._postgres = Postgres(self._places, self._console, fast=True)
            self._postgres.prepare()
            self._supervisor.start(self._postgres.program())
            environment["DATABASE_URL"] = self._postgres.url()
            names.append(self._postgres.name)
        if not os.environ.get("REDIS_URL"):
            redis = Redis(self._places)
            redis.prepare()
            self._supervisor.start(redis.program())
            environment["REDIS_URL"] = redis.url
            names.append(redis.name)
        self._engine.start()
        self._supervisor.wait_ready(*names)
        if self._postgres:
            self._postgres.create_database()
        environment["DOCKER_HOST"] = self._engine.host
        with contextlib.suppress(OSError, Failure):
            _remove_dead_runs(self._engine.api(), self._console)
            remove_leftovers(self._engine.api(), NAMESPACE_PREFIX, timedelta(hours=1))
        return environment

    def _base_environment(self) -> dict[str, str]:
        path = f"{bin_dir()}:{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"
        return {
            **os.environ,
            "PATH": path,
            "DJANGO_SETTINGS_MODULE": "cloudapp.settings",
            "LOCAL": "1",
            "DEBUG": "0",
            "CLOUD_URL": "http://localhost:8000",
            "APPS_DOMAIN": "localhost:8000",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "ROUTER_SECRET": secrets.token_urlsafe(48),
            "NAMESPACE": self.namespace,
            # Kept from run to run, for the wheels in it.
            "STATE_DIR": str(STATE),
            "RUN_DIR": str(self._places.run),
            "STATIC_ROOT": str(VAR / "test" / "static"),
        }

    @property
    def description(self) -> str:
        """What the tests run against, in a few words."""
        return f"container engine {self._engine.description}"

    def stop(self) -> None:
        """Stop all, and leave neither containers nor data behind."""
        with contextlib.suppress(OSError, Failure):
            remove_namespaces(self._engine.api(), self.namespace)
        if self._supervisor:
            self._supervisor.close()
            self._supervisor = None
        self._engine.release()
        if self._postgres:
            self._postgres.discard()
        self._places.discard()
        if self._lock:
            Path(self._lock.name).unlink(missing_ok=True)
            self._lock.close()

    def hurry(self) -> None:
        """Kill what does not stop by itself."""
        if self._supervisor:
            self._supervisor.hurry()


def _places_of(namespace: str) -> Places:
    return Places.of(VAR / "test" / namespace)


def _lock_of(namespace: str) -> Path:
    return VAR / "test" / f"{namespace}.lock"


def _remove_dead_runs(api: EngineApi, console: Console) -> None:
    """Remove what runs of this clone left that were killed: nobody holds their locks."""
    for path in (VAR / "test").glob(f"{NAMESPACE_PREFIX}*.lock"):
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            remove_namespaces(api, path.stem)
            # Its own directory, and those of the products that its tests started.
            for state in (VAR / "test").glob(f"{path.stem}*/"):
                places = Places.of(state)
                Postgres(places, console, fast=True).discard()
                places.discard()
            path.unlink(missing_ok=True)


def test() -> int:
    """Run every check; return the exit code. pytest's closing line is the last one printed."""
    console = Console()
    services = TestServices(console)
    with stop_on_signals(services.hurry):
        try:
            console.line("cloudapp tests")
            with console.step("packages") as step:
                ensure_packages(step, os.environ, purpose=Purpose.TEST)
            with console.step("python") as step:
                ensure_venv(step, DEVELOPMENT_LOCK)
            with console.step("services") as step:
                environment = services.start()
                step.detail = services.description
            with console.step("static files"):
                _must(
                    [str(bin_dir() / "python"), "-m", "cloudapp.local.prepare", "static files"],
                    environment,
                )
            lints_pass = _lint_all(console, environment)
            if not lints_pass:
                console.line("  Not all checks passed, see above. The tests run all the same.")
            pytest_code = _pytest(environment)
        except Stop:
            console.line("\nStopping the test services.")
            return 130
        finally:
            services.stop()
    return pytest_code or (0 if lints_pass else 1)


def lint() -> int:
    """Run the checks that need no services; return the exit code."""
    console = Console()
    with console.step("python") as step:
        ensure_venv(step, DEVELOPMENT_LOCK)
    secret = secrets.token_urlsafe(48)
    # mypy's Django plugin loads the settings, and these refuse to load without secrets.
    environment = {**os.environ, "LOCAL": "1", "SECRET_KEY": secret, "ROUTER_SECRET": secret}
    return 0 if _lint_all(console, environment) else 1


def format_code() -> int:
    """`make format`: let ruff repair and format what it can; return its exit code."""
    with Console().step("python") as step:
        ensure_venv(step, DEVELOPMENT_LOCK)
    ruff = str(bin_dir() / "ruff")
    fixed = subprocess.run([ruff, "check", "--fix", "."], cwd=PROJECT, check=False).returncode
    return subprocess.run([ruff, "format", "."], cwd=PROJECT, check=False).returncode or fixed


def _must(command: Sequence[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        launch_command(command, signal.SIGKILL, None),
        cwd=PROJECT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failure(f"{' '.join(command[1:])} failed:\n{done.stdout}")


def _lint_all(console: Console, environment: Mapping[str, str]) -> bool:
    """Run all checks, also after one that failed: people want to see everything at once."""
    passed = [_lint(console, name, environment) for name in LINTS]
    return all(passed)


def _lint(console: Console, name: str, environment: Mapping[str, str]) -> bool:
    """Run one check and say how it went; its output only when it found something."""
    tool, *arguments = LINTS[name]
    with console.step(name) as step:
        done = subprocess.run(
            [str(bin_dir() / tool), *arguments],
            cwd=PROJECT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            console.line(done.stdout.rstrip())
            step.fail("FAILED, see above")
        else:
            step.detail = "passed"
    return done.returncode == 0


def _arguments() -> list[str]:
    """What pytest is told: whoever names tests sees them run one after another."""
    given = shlex.split(os.environ.get("ARGS", ""))
    named = any(Path(PROJECT, one.partition("::")[0]).exists() for one in given)
    return given if named else [*SIDE_BY_SIDE, *given]


def _pytest(environment: Mapping[str, str]) -> int:
    """Run pytest with what ARGS says; wait for it to end in order, also when we are stopped."""
    process = subprocess.Popen(
        launch_command(
            [str(bin_dir() / "python"), "-m", "pytest", *_arguments()], signal.SIGINT, None
        ),
        cwd=PROJECT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
    )
    try:
        return process.wait()
    except Stop:
        # SIGINT lets it tear its fixtures down; the terminal's Ctrl-C has reached it already.
        deadline = time.monotonic() + 60
        with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
            process.send_signal(signal.SIGINT)
            process.wait(timeout=deadline - time.monotonic())
        if process.poll() is None:
            process.kill()
            process.wait()
        raise
