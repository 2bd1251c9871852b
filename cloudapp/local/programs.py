"""A program to run: what it is called, how it starts, how it is asked to stop."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloudapp.local.say import Failure

LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Program:
    """How to start and stop one program.

    `death_signal` is what the kernel sends it when the process that started it dies, even by
    SIGKILL. `grace` is how many seconds it may take to stop when asked, before it is killed.
    `ready` tells whether it really answers. `echo` copies its output to the terminal; `log` keeps
    it always. `user` is who it runs as, when we are root; None is who we are.
    """

    name: str
    command: Sequence[str]
    log: Path
    env: Mapping[str, str] | None = None
    cwd: Path = Path("/")
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    grace: float = 15.0
    echo: bool = True
    ready: Callable[[], bool] = field(default=lambda: True)


def launch_command(
    command: Sequence[str], death_signal: signal.Signals, user: str | None
) -> list[str]:
    """Return the command that becomes `command` and dies with this process."""
    # -I -S: a bare interpreter, a few milliseconds, and nothing of ours on its path.
    return [
        *(sys.executable, "-I", "-S", str(LAUNCH)),
        *(str(os.getpid()), str(int(death_signal)), user or "-"),
        *command,
    ]


def spawn(program: Program) -> "subprocess.Popen[bytes]":
    """Start it in a session of its own, so that Ctrl-C reaches us and not it.

    The thread that calls this must live as long as the program may: the kernel counts the
    thread's end as the parent's death.
    """
    try:
        return subprocess.Popen(
            launch_command(program.command, program.death_signal, program.user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if program.env is None else dict(program.env),
            cwd=program.cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise Failure(f"{program.name} does not start: {error}") from error


def output_of(command: Sequence[str], *, user: str | None = None, timeout: float = 60) -> str:
    """Run a short command to its end and return what it printed.

    Raise Failure with its last lines when it fails or takes longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            launch_command(command, signal.SIGKILL, user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd="/",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{command[0]} took longer than {timeout:.0f} s.") from error
    if done.returncode:
        raise Failure(f"{' '.join(command[:3])} failed:\n{last_lines(done.stdout)}")
    return done.stdout


def last_lines(text: str, count: int = 15) -> str:
    """Return the last lines of a longer text, indented, for a message."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-count:])


def tail_of(log: Path, count: int = 15) -> str:
    """Return a log file's last lines, indented; an empty text when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16384))
            return last_lines(file.read().decode(errors="replace"), count)
    except OSError:
        return ""
