"""The product's own processes, as production runs them too (see docs/): one program each."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from cloudapp.local.places import PROJECT, Places
from cloudapp.local.programs import Program
from cloudapp.local.say import Failure
from cloudapp.local.tools import find_tool
from cloudapp.local.venv import VENV

WEB_WORKERS = 2
WEB_THREADS = 16
# Each holds a request that waits, and nothing else: no connection to the database, no processor.
WAITING_THREADS = 160
WAITING_HOLDS = 150
# The worker of each queue, with its threads. `now`: most of a task's time is waiting for the
# engine; START_SLOTS limits what costs the processor. `later` and `builds`: one thing at a time,
# so that they take little from those who wait. `outside`: it only waits, for other people's
# machines; as threads are a process's, not a queue's, it has one of its own.
WORKERS: Mapping[str, tuple[str, int]] = {
    "worker": ("now", max(8, 2 * (os.cpu_count() or 1))),
    "worker-later": ("later", 1),
    "worker-builds": ("builds", 1),
    "worker-outside": ("outside", 8),
}

# For PYTHONWARNINGS. Celery warns of it at each start, in lines that are no JSON; the workers that
# hold the engine's socket are as good as root anyway.
ROOT_IS_MEANT = "ignore:You're running the worker with superuser privileges"

# In the order in which they stop: first nobody comes in, then nobody gives work, then nobody works.
STOP_ORDER: tuple[tuple[str, ...], ...] = (
    ("nginx",),
    ("web", "waiting", "beat", "watcher"),
    tuple(WORKERS),
)


def router_config(run_dir: Path) -> Path:
    """Return where the router's rendered configuration lies."""
    return run_dir / "nginx.conf"


def bin_dir() -> Path:
    """Return where gunicorn and celery are: in .venv, or beside the Python that runs us."""
    return VENV / "bin" if (VENV / "bin" / "gunicorn").exists() else Path(sys.executable).parent


def manage(*arguments: str) -> list[str]:
    """Return the command of one of Django's management commands."""
    return [str(bin_dir() / "python"), str(PROJECT / "manage.py"), *arguments]


def web_command(bind: str, scratch: str) -> list[str]:
    """Return gunicorn's command. `bind` is unix:<path> or host:port; `scratch` a directory."""
    return _gunicorn(bind, scratch, WEB_WORKERS, WEB_THREADS, grace=8)


def waiting_command(bind: str, scratch: str) -> list[str]:
    """Return the command of the gunicorn for requests that wait."""
    holds = ("--env", f"API_HOLDS={WAITING_HOLDS}")
    # Whoever waits asks again, and streams are taken up where they ended.
    return [*_gunicorn(bind, scratch, 1, WAITING_THREADS, grace=1), *holds]


def _gunicorn(bind: str, scratch: str, workers: int, threads: int, *, grace: int) -> list[str]:
    return [
        *(str(bin_dir() / "gunicorn"), "cloudapp.wsgi:application"),
        *("--bind", bind, "--worker-class", "gthread"),
        *("--workers", str(workers), "--threads", str(threads)),
        # One import for all workers: quicker, less memory, and a crashed one is back at once.
        *("--preload", "--timeout", "60", "--graceful-timeout", str(grace), "--no-control-socket"),
        *("--log-level", "warning", "--worker-tmp-dir", scratch),
    ]


def worker_command(queue: str, threads: int) -> list[str]:
    """Return the command of the Celery worker of one queue."""
    return [
        *(str(bin_dir() / "celery"), "--app", "cloudapp.celery:app", "--quiet", "worker"),
        *("--queues", queue, "--hostname", f"{queue}@%h", "--pool", "threads"),
        *("--concurrency", str(threads), "--loglevel", "WARNING"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]


def beat_command(schedule: Path) -> list[str]:
    """Return the command of Celery's clock."""
    return [
        *(str(bin_dir() / "celery"), "--app", "cloudapp.celery:app", "--quiet", "beat"),
        *("--schedule", str(schedule), "--pidfile", "", "--loglevel", "WARNING"),
    ]


def product_programs(places: Places, env: Mapping[str, str]) -> list[Program]:
    """Return the product's programs, the router last, with this environment."""

    def program(
        name: str,
        command: list[str],
        *,
        grace: float = 15,
        death_signal: signal.Signals = signal.SIGKILL,
        ready: Callable[[], bool] = lambda: True,
    ) -> Program:
        log = places.logs / f"{name}.log"
        return Program(
            name=name,
            command=command,
            log=log,
            env=env,
            cwd=PROJECT,
            grace=grace,
            death_signal=death_signal,
            ready=ready,
        )

    socket = places.run / "web.sock"
    waiting = places.run / "waiting.sock"
    # Killing a worker loses nothing (the sweep finds what it held), and it leaves no child behind:
    # the pool is threads. gunicorn and nginx do have children, and end them when they are asked.
    return [
        program(
            "web",
            web_command(f"unix:{socket}", str(places.run)),
            grace=12,
            death_signal=signal.SIGTERM,
            ready=socket.is_socket,
        ),
        program(
            "waiting",
            waiting_command(f"unix:{waiting}", str(places.run)),
            grace=12,
            death_signal=signal.SIGTERM,
            ready=waiting.is_socket,
        ),
        *(
            program(name, worker_command(*of), grace=40 if name == "worker" else 15)
            for name, of in WORKERS.items()
        ),
        program("beat", beat_command(places.state / "celerybeat-schedule"), grace=5),
        program("watcher", manage("watch"), grace=5),
        _router(places),
    ]


def _router(places: Places) -> Program:
    """Return nginx, in the foreground."""
    binary = find_tool("nginx")
    if binary is None:
        raise Failure("nginx is not installed.")
    return Program(
        name="nginx",
        command=[
            *(binary, "-c", str(router_config(places.run)), "-g", "daemon off;"),
            *("-e", str(places.logs / "nginx-error.log")),
        ],
        log=places.logs / "nginx.log",
        echo=False,  # a line for each request
        cwd=places.run,
        stop_signal=signal.SIGQUIT,  # finish what is in flight
        death_signal=signal.SIGTERM,
        grace=5,
    )
