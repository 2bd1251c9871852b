"""The product's real processes for the fault tests: started, killed, frozen, and always ended."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from cloudapp.local.places import PROJECT
from cloudapp.local.programs import launch_command

T = TypeVar("T")
# Generous: a machine may be busy. What happens is waited for, so it costs nothing when all is well.
SECONDS = 90.0
# In the healthy workers' Redis: the tasks that they are at, see busy.py.
BUSY = "tests-busy"


class Late(AssertionError):
    """What was waited for did not happen in time."""


def wait_for(predicate: Callable[[], T | None], what: str, timeout: float = SECONDS) -> T:
    """Return the predicate's first truthy value; raise Late with `what` at the deadline."""
    deadline = time.monotonic() + timeout
    while not (result := predicate()):
        if time.monotonic() > deadline:
            raise Late(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.01)
    return result


class Process:
    """A process, ours or a child of one of ours, by its id."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid

    def _state(self) -> str:
        """The kernel's letter for what it does; Z when it is dead, also when nobody noticed yet."""
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            return stat.rpartition(")")[2].split()[0]
        return "Z"

    @property
    def alive(self) -> bool:
        """Whether it runs, or is frozen, or some thread of it still ends.

        Until the last one has, its connections are open: a message may still be handed to it.
        """
        return self._state() not in ("Z", "X") or len(self._threads()) > 1

    def _threads(self) -> list[str]:
        with contextlib.suppress(OSError):
            return os.listdir(f"/proc/{self.pid}/task")
        return []

    @property
    def frozen(self) -> bool:
        """Whether SIGSTOP stopped it."""
        return self._state() == "T"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a dead process does not mind."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait_dead(self) -> None:
        """Return when it is dead; raise Late when it lives on."""
        wait_for(lambda: not self.alive, f"the end of {self.name}")

    def kill(self) -> None:
        """End it now, without a chance to tidy up."""
        self.signal(signal.SIGKILL)
        self.wait_dead()

    def stop(self) -> None:
        """Ask it to end, and wait for that."""
        self.signal(signal.SIGTERM)
        self.wait_dead()


class Child(Process):
    """A process of ours, output in a file. It dies when the test run dies, however that ends."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        *,
        talks: bool = False,
    ) -> None:
        """`talks`: its input and output are ours, only its errors go to the file."""
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                launch_command(command, signal.SIGKILL, None),
                cwd=PROJECT,
                env=dict(env),
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else output,
                stderr=output,
                text=True,
                # Ctrl-C is for the tests, which then end their processes in order.
                start_new_session=True,
            )
        super().__init__(name, self.popen.pid)

    @property
    def alive(self) -> bool:
        """Whether it runs, or is frozen."""
        return self.popen.poll() is None

    def ask(self, line: str) -> str:
        """Write a line to a process that talks; return the line that it answers."""
        assert self.popen.stdin
        assert self.popen.stdout
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()
        return self.popen.stdout.readline().strip()
