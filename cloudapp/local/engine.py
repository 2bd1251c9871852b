"""Find the machine's container engine, or start one of our own and share it between runs."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from cloudapp.local.engine_api import DEFAULT_HOST, EngineApi
from cloudapp.local.keeper import KEEPER_LOCK, USERS_LOCK
from cloudapp.local.places import PROJECT, VAR, run_dir_for, short_name
from cloudapp.local.programs import tail_of
from cloudapp.local.say import Failure
from cloudapp.local.tools import as_root, find_tool, root_prefix

START_SECONDS = 60
STOP_SECONDS = 50


class OwnEngine:
    """A dockerd of our own: a unix socket, no bridge, its data in the project.

    Use it with start() and release(). Everybody who uses the same data directory shares one
    engine; it stops when the last one has released it, or died.
    """

    def __init__(self, data: Path = VAR / "docker") -> None:
        self.data = data
        self._run = run_dir_for(data)
        self._files = data.with_name(data.name + "-keeper")
        self._pidfile = self._run / "docker.pid"
        self.socket = self._run / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.log = self._files / "dockerd.log"
        self._hold: IO[str] | None = None

    @property
    def pid(self) -> int | None:
        """The engine's own process, if it runs."""
        with contextlib.suppress(OSError, ValueError):
            return int(self._pidfile.read_text())
        return None

    def start(self) -> None:
        """Use the engine that runs already, or start it; return when it really answers."""
        self._files.mkdir(parents=True, exist_ok=True)
        self._run.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + START_SECONDS
        hold = (self._files / USERS_LOCK).open("a")
        self._take(hold, deadline)
        self._hold = hold
        try:
            self._come_up(deadline)
        except BaseException:
            self.release()
            raise

    def _take(self, hold: IO[str], deadline: float) -> None:
        """Count ourselves among the users. An engine that is stopping now may finish first."""
        while True:
            try:
                fcntl.flock(hold, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failure("The container engine of this clone does not finish.") from None
                time.sleep(0.05)
            else:
                return

    def _come_up(self, deadline: float) -> None:
        api = EngineApi(self.host)
        keeper: subprocess.Popen[bytes] | None = None
        while api.version(timeout=2) is None:
            if keeper is None and not self._has_keeper():
                self._clear_stale_pid(deadline)
                keeper = self._start_keeper()
            gone = keeper is not None and keeper.poll() is not None and not self._has_keeper()
            if gone or self._keeps_failing() or time.monotonic() > deadline:
                raise Failure(
                    "The container engine does not start. The end of "
                    f"{self.log}:\n{tail_of(self.log)}"
                )
            time.sleep(0.02)

    def _keeps_failing(self) -> bool:
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace").count("keeper: the engine ended") >= 3
        return False

    def _has_keeper(self) -> bool:
        with (self._files / KEEPER_LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _clear_stale_pid(self, deadline: float) -> None:
        """End an engine of ours whose keeper died; forget a pid that is somebody else's by now."""
        pid = self.pid
        if pid is None:
            return
        while self._is_our_engine(pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
            if time.monotonic() > deadline:
                raise Failure(f"An engine from an earlier run (pid {pid}) does not stop.")
            time.sleep(0.2)
        self._pidfile.unlink(missing_ok=True)

    def _is_our_engine(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return str(self.data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return False

    def _start_keeper(self) -> "subprocess.Popen[bytes]":
        dockerd = find_tool("dockerd")
        if dockerd is None:
            raise Failure("dockerd is not installed.")
        if root_prefix() is None:
            raise Failure(
                "No container engine answers, and starting one takes root: sudo does not work "
                "for you.\nStart the machine's own (systemctl start docker) and have somebody put "
                "you into the group docker, or set DOCKER_HOST to an engine that you may use."
            )
        name = f"cloudapp-{short_name(self.data)}"
        command = [
            *(sys.executable, "-S", "-m", "cloudapp.local.keeper", str(self._files)),
            *(dockerd, "--bridge=none", "--data-root", str(self.data)),
            *("--exec-root", str(self._run / "docker"), "--pidfile", str(self._pidfile)),
            *("--host", self.host, "--group", str(os.getgid())),
            # Where the machine runs a containerd too, ours must not see its containers.
            *("--containerd-namespace", name, "--containerd-plugins-namespace", f"{name}-plugins"),
        ]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                as_root(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,  # where Python finds the module
                start_new_session=True,
            )

    def release(self) -> None:
        """Stop using it. If nobody else does, it stops, and this returns when it has."""
        hold, self._hold = self._hold, None
        if hold is None:
            return
        hold.close()
        deadline = time.monotonic() + STOP_SECONDS
        while self._has_keeper() and time.monotonic() < deadline:
            if self._others_use_it():
                return
            time.sleep(0.03)

    def _others_use_it(self) -> bool:
        """Tell whether other runs hold on to it: not the keeper, and not nobody."""
        with (self._files / USERS_LOCK).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return False  # nobody: the keeper gets the lock next
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False  # the keeper has it: the engine is stopping
        return True


class Engine:
    """The engine that a product uses: a given one, the machine's, or our own.

    `remember` is a file that keeps the choice for the next time: workspaces' data lies in the
    engine, so taking another one would seem to lose it.
    """

    def __init__(self, given: str | None = None, remember: Path | None = None) -> None:
        self._given = given
        self._remember = remember
        self._own: OwnEngine | None = None
        self.host = given or DEFAULT_HOST
        self.description = ""

    def start(self) -> None:
        """Find or start the engine, until it answers. Raise Failure in words if there is none."""
        remembered = self._remembered()
        version = None if remembered == "own" and not self._given else self._version()
        if self._given:
            if version is None:
                raise Failure(f"DOCKER_HOST is {self._given}, but no engine answers there.")
            self.description = f"{version} at {self._given}, as DOCKER_HOST says"
        elif version is not None:
            self._note("machine")
            self.description = f"{version}, the machine's own; it stays as it is"
        elif remembered == "machine":
            raise Failure(
                "The workspaces of this clone live in the machine's Docker engine, and that one "
                "does not answer.\nStart it (sudo systemctl start docker). Or, to begin afresh "
                f"with an engine of our own, delete {self._remember}."
            )
        else:
            self._own = OwnEngine()
            self._own.start()
            self.host = self._own.host
            self._note("own")
            self.description = f"{EngineApi(self.host).version()}, our own, in {self._own.data}"

    def _version(self) -> str | None:
        return EngineApi(self.host).version()

    def _remembered(self) -> str:
        with contextlib.suppress(OSError):
            if self._remember:
                return self._remember.read_text().strip()
        return ""

    def _note(self, choice: str) -> None:
        if self._remember:
            self._remember.write_text(choice + "\n")

    def api(self) -> EngineApi:
        """Return the engine's door."""
        return EngineApi(self.host)

    def release(self) -> None:
        """Stop using it. An engine of our own stops when nobody uses it any more."""
        if self._own:
            self._own.release()
            self._own = None
