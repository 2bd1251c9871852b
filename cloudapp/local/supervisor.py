"""Keep programs running: prefix what they say, restart what dies, stop all of them in order.

One thread owns every child. It has to live as long as they do (see programs.spawn), and with one
owner nobody waits for, kills or restarts a child behind another's back.
"""

import contextlib
import os
import queue
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, TypeVar

from cloudapp.local.programs import Program, spawn, tail_of
from cloudapp.local.say import Console, Failure

T = TypeVar("T")

FIRST_DELAY = 0.1
LONGEST_DELAY = 10.0
STEADY = 30.0  # seconds after which a program counts as well again
GIVE_UP_WAITING = 4  # deaths in a row after which nobody waits for readiness any longer
LOG_LIMIT = 10 * 1024 * 1024


@dataclass
class _Child:
    """One program and the process that runs it now, if any."""

    program: Program
    log: BinaryIO
    process: "subprocess.Popen[bytes] | None" = None
    pidfd: int | None = None
    rest: bytes = b""  # the beginning of a line whose end has not come yet
    started: float = 0.0
    deaths: int = 0
    due: float | None = None  # when to start it again
    stopping: bool = False
    kill_at: float | None = None
    stopped: threading.Event = field(default_factory=threading.Event)


class Supervisor:
    """Runs programs. All methods may be called from any thread."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._children: dict[str, _Child] = {}
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._closing = False
        self._hurried = False
        self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
        self._thread.start()

    # --- what others call ----------------------------------------------------------------------

    def start(self, *programs: Program) -> None:
        """Start programs, all at once; return when their processes exist."""
        self._do(self._add, *programs)

    def wait_ready(self, *names: str, timeout: float = 60) -> None:
        """Return when each of these programs answers; raise Failure with its log if it does not."""
        deadline = time.monotonic() + timeout
        for name in names:
            child = self._children[name]
            while not child.program.ready():
                if child.deaths >= GIVE_UP_WAITING or time.monotonic() > deadline:
                    tail = tail_of(child.program.log)
                    raise Failure(
                        f"{name} does not come up. The end of {child.program.log}:\n{tail}"
                    )
                time.sleep(0.02)

    def pids(self) -> dict[str, int]:
        """Return the pid of each program that runs now."""
        children = list(self._children.items())
        return {name: child.process.pid for name, child in children if child.process}

    def kill(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Send a program's main process a signal, as an accident would; it is started again."""
        pid = self.pids().get(name)
        if pid is None:
            raise Failure(f"{name} does not run.")
        os.kill(pid, with_signal)

    def stop(self, *names: str) -> None:
        """Stop these programs for good, all at once; wait until nothing of them is left."""
        known = [self._children[name] for name in names if name in self._children]
        self._do(self._ask_to_stop, *known)
        for child in known:
            child.stopped.wait()
        self._do(self._forget, *known)

    def hurry(self) -> None:
        """From now on kill what is to stop, and what was asked to and has not stopped yet."""
        self._hurried = True
        self._do(self._hurry, *list(self._children.values()), wait=False)

    def close(self) -> None:
        """Stop what still runs, last started first, and end the supervisor itself."""
        for name in reversed(list(self._children)):
            self.stop(name)
        self._closing = True
        os.write(self._wake_write, b"!")
        self._thread.join()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # --- the thread that owns the children -----------------------------------------------------

    def _do(self, order: Callable[[T], None], *subjects: T, wait: bool = True) -> None:
        """Have the owning thread carry out `order` for each subject; pass on what it raises."""
        done = threading.Event()
        raised: list[BaseException] = []

        def carry_out() -> None:
            try:
                for subject in subjects:
                    order(subject)
            except BaseException as error:  # handed to the caller, whatever it is
                raised.append(error)
            finally:
                done.set()

        self._orders.put(carry_out)
        os.write(self._wake_write, b"!")
        if wait:
            done.wait()
            if raised:
                raise raised[0]

    def _loop(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(self._patience()):
                if key.fd == self._wake_read:
                    self._carry_out_orders()
                elif isinstance(key.data, tuple):
                    child, stream = key.data
                    self._read(child, stream)
            for child in list(self._children.values()):
                self._look_after(child)

    def _patience(self) -> float | None:
        """Return how many seconds may pass until something is due."""
        children = self._children.values()
        moments = [moment for c in children for moment in (c.due, c.kill_at) if moment is not None]
        if any(c.process and c.pidfd is None for c in children):
            moments.append(time.monotonic() + 0.2)  # no pidfd here: look every now and then
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _carry_out_orders(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        with contextlib.suppress(queue.Empty):
            while True:
                self._orders.get_nowait()()

    def _add(self, program: Program) -> None:
        if program.name in self._children:
            raise Failure(f"{program.name} runs already.")
        program.log.parent.mkdir(parents=True, exist_ok=True)
        _rotate(program.log)
        child = _Child(program, program.log.open("ab", buffering=0))
        self._begin(child)
        self._children[program.name] = child

    def _begin(self, child: _Child) -> None:
        child.due = None
        child.process = process = spawn(child.program)
        child.started = time.monotonic()
        if process.stdout is None:
            raise AssertionError("programs.spawn gives every child a pipe")
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, (child, process.stdout))
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                child.pidfd = os.pidfd_open(process.pid)
                self._selector.register(child.pidfd, selectors.EVENT_READ, child.program.name)

    def _read(self, child: _Child, stream: IO[bytes]) -> None:
        """Pass on what a child said."""
        if stream.closed:  # forgotten since the selector named it
            return
        try:
            chunk = os.read(stream.fileno(), 65536)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._selector.unregister(stream)
            stream.close()
            return
        with contextlib.suppress(OSError):  # a full disk must not end the product
            child.log.write(chunk)
        if child.program.echo:
            *lines, child.rest = (child.rest + chunk).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace")
                self._console.line(f"{child.program.name:<13}| {text}")

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None and _has_ended(child.process):
            self._bury(child, child.process, now)
        if child.kill_at is not None and now >= child.kill_at:
            self._hurry(child)
        if child.due is not None and now >= child.due:
            try:
                self._begin(child)
            except Failure as failure:
                child.deaths += 1
                child.due = now + LONGEST_DELAY
                self._console.problem(f"{child.program.name:<13}| {failure}")

    def _bury(self, child: _Child, process: "subprocess.Popen[bytes]", now: float) -> None:
        """Take note of a child's end, end what it left behind, and plan its return."""
        # It is not waited for yet, so its number still is its group's and nobody else's.
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        if process.stdout is not None and not process.stdout.closed:
            self._read(child, process.stdout)
        if child.pidfd is not None:
            self._selector.unregister(child.pidfd)
            os.close(child.pidfd)
            child.pidfd = None
        child.process = None
        if child.stopping:
            child.kill_at = None
            child.stopped.set()
            return
        child.deaths = 1 if now - child.started > STEADY else child.deaths + 1
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (child.deaths - 1))
        child.due = now + delay
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        self._console.problem(
            f"{child.program.name:<13}| ended ({how}); starting it again in {delay:.1f} s"
        )

    def _ask_to_stop(self, child: _Child) -> None:
        child.stopping = True
        child.due = None
        if child.process is None:
            child.stopped.set()
            return
        child.kill_at = time.monotonic() + (0 if self._hurried else child.program.grace)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.process.pid, child.program.stop_signal)

    def _hurry(self, child: _Child) -> None:
        child.kill_at = None
        if child.stopping and child.process is not None:
            with contextlib.suppress(OSError):
                os.killpg(child.process.pid, signal.SIGKILL)

    def _forget(self, child: _Child) -> None:
        self._children.pop(child.program.name, None)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, tuple) and key.data[0] is child:
                self._selector.unregister(key.fileobj)
                key.data[1].close()
        child.log.close()


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Tell whether a child has ended, and leave it as it is: it still holds its number."""
    try:
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process.pid, look) is not None
    except ChildProcessError:
        return True


def _rotate(log: Path) -> None:
    """Keep a log file from growing for ever: one old one beside the current one."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_name(log.name + ".1"))
