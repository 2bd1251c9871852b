"""The real Celery worker, which dies or freezes at one given point of its work.

    python -m tests.faults.dying_worker ORDER_FILE CELERY_ARGUMENTS...

Loads everything once. Then, for each line on its input, which names a log file, it forks a worker
and prints that one's process id.

The order file holds `kill engine.create before`, or `freeze …`; the worker that comes to this
point first carries it out, and the order is gone. `kill * 0.05 SEED` kills at one point in twenty,
again and again. Nothing is replaced: the real calls are made, before or after.
"""

import ctypes
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import django

SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
# Where a worker may die: each call of these, before and after it.
ENGINE = ("observe", "create", "start", "seal", "stop", "remove", "remove_volume")
LIFECYCLE = ("record_observation", "record_closed", "record_done", "record_ready", "record_purged")
PR_SET_PDEATHSIG = 1


class Fate:
    """What the order file says should happen to this process."""

    def __init__(self, order: Path) -> None:
        self._order = order
        self._random: random.Random | None = None

    def meets(self, point: str, moment: str) -> None:
        """Die or freeze here, if that is the order."""
        try:
            how, where, when, *seed = self._order.read_text().split()
        except (FileNotFoundError, ValueError):
            return
        if where == "*":
            self._random = self._random or random.Random(f"{seed}{os.getpid()}")
            if self._random.random() < float(when):
                os.kill(os.getpid(), SIGNALS[how])
        elif (where, when) == (point, moment):
            self._order.unlink(missing_ok=True)
            # To this very thread: one that the kernel chose might stop all a moment later.
            signal.pthread_kill(threading.get_ident(), SIGNALS[how])

    def wrap(self, owner: Any, name: str, point: str) -> None:
        """Put this fate before and after each call of `owner.name`."""
        call: Callable[..., Any] = getattr(owner, name)

        @wraps(call)
        def fated(*args: Any, **kwargs: Any) -> Any:
            self.meets(point, "before")
            result = call(*args, **kwargs)
            self.meets(point, "after")
            return result

        setattr(owner, name, fated)


def main() -> None:
    """Fork a worker for each line."""
    order, *arguments = sys.argv[1:]
    django.setup()
    from celery.bin import worker  # noqa: F401, PLC0415 - loaded once, for all the forks

    from cloudapp.celery import app  # noqa: PLC0415 - the models need django.setup()
    from deploy import leases, lifecycle, probe, tasks  # noqa: F401, PLC0415
    from deploy.engines.docker import DockerEngine  # noqa: PLC0415

    fate = Fate(Path(order))
    for name in ENGINE:
        fate.wrap(DockerEngine, name, f"engine.{name}")
    for name in LIFECYCLE:
        fate.wrap(lifecycle, name, f"lifecycle.{name}")
    fate.wrap(leases, "claim", "leases.claim")
    fate.wrap(probe, "health", "probe.health")

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    nursery = os.getpid()
    while log := sys.stdin.readline().strip():
        child = os.fork()
        if child == 0:
            _prepare_child(nursery, log)
            app.worker_main(arguments)
            os._exit(0)
        print(child, flush=True)


def _prepare_child(nursery: int, log: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != nursery:
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(source, number)


if __name__ == "__main__":
    main()
