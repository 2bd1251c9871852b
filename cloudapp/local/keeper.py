"""Keep one container engine alive for as long as somebody uses it, and stop it after the last.

Several runs of one clone (`make run` and `make test` at once) share the engine, and whoever
started it may leave first. So it belongs to none of them but to this small process. Every user
holds a shared lock on a file, which the kernel lets go of however the user dies; when the keeper
gets the same lock for itself alone, nobody is left.

Run as a module: the directory for its files, then dockerd's command.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from cloudapp.local.mounts import unmount_below

LAUNCH = Path(__file__).with_name("launch.py")
USERS_LOCK = "users.lock"
KEEPER_LOCK = "keeper.lock"
STOP_SECONDS = 40  # containers get 10 to 15 s to end, then the engine itself


class Keeper:
    """The engine's parent."""

    def __init__(self, files: Path, command: Sequence[str]) -> None:
        self._files = files
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()

    def run(self) -> None:
        """Start the engine, restart it when it dies, return when nobody needs it any more."""
        signal.signal(signal.SIGTERM, lambda *_: self._finish())
        threading.Thread(target=self._wait_for_the_last, daemon=True).start()
        delay = 0.2
        while not self._over.is_set():
            started = time.monotonic()
            _forget_dead_containerd(Path(_option(self._command, "--exec-root")))
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(LAUNCH)),
                    *(str(os.getpid()), str(int(signal.SIGTERM)), "-"),
                    *self._command,
                ],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            if self._over.is_set():  # it came between the question above and the start
                self._process.terminate()
            code = self._process.wait()
            delay = 0.2 if time.monotonic() - started > 30 else min(10.0, delay * 2)
            if not self._over.is_set():
                print(f"keeper: the engine ended ({code}); again in {delay} s", flush=True)
                self._over.wait(delay)

    def _wait_for_the_last(self) -> None:
        with (self._files / USERS_LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._finish()
            # Held until this process is gone: who comes now waits, and then starts a new engine.
            threading.Event().wait()

    def _finish(self) -> None:
        self._over.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            threading.Timer(STOP_SECONDS, process.kill).start()


def _option(command: Sequence[str], name: str) -> str:
    return command[command.index(name) + 1]


def _forget_dead_containerd(exec_root: Path) -> None:
    """Remove the pid file of the engine's containerd when that one is dead.

    It dies with a killed engine, but where nobody collects orphans it stays as a zombie, and the
    next engine waits 15 s for it.
    """
    pidfile = exec_root / "containerd" / "containerd.pid"
    for _ in range(40):
        try:
            pid = int(pidfile.read_text())
            # "pid (name) state ...": the name may hold anything, so split after it.
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            state = "gone"
        except (OSError, ValueError, IndexError):
            return
        if state in ("Z", "X", "gone"):
            pidfile.unlink(missing_ok=True)
            return
        time.sleep(0.05)  # it was sent its death signal a moment ago


def main(arguments: Sequence[str]) -> None:
    """Keep the engine, unless another keeper of the same files does."""
    files, *command = arguments
    with (Path(files) / KEEPER_LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        Keeper(Path(files), command).run()
        unmount_below(Path(_option(command, "--data-root")))
    # Not sys.exit: a timer or the lock's thread must not keep a finished keeper.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
