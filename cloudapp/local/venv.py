"""The virtual environment: exactly what the lock file says, every file checked by its hash."""

import fcntl
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cloudapp.local.places import PROJECT
from cloudapp.local.programs import last_lines
from cloudapp.local.say import Failure, Step

VENV = PROJECT / ".venv"
PYTHON = VENV / "bin" / "python"
RUNTIME_LOCK = "requirements.txt"
# The development lock holds all of the other one, in the same versions.
DEVELOPMENT_LOCK = "requirements-dev.txt"


def ensure_venv(step: Step, lock: str) -> None:
    """Make or update the environment so that it holds what `lock` (a file's name) says."""
    PROJECT.joinpath("var").mkdir(exist_ok=True)
    # `make run` and `make test` may come here at once.
    with PROJECT.joinpath("var", "venv.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        wanted = {name: _digest(name) for name in _covered_by(lock)}
        stamp = VENV / "cloudapp-locks.json"
        have = _read(stamp)
        if PYTHON.exists() and all(have.get(key) == value for key, value in wanted.items()):
            step.detail = "as the lock file says"
            return
        step.now(f"installing what {lock} says")
        _create(have)
        stamp.unlink(missing_ok=True)
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--no-input"]
        _run([*pip, "--require-hashes", "-r", lock], "pip install")
        stamp.write_text(json.dumps(wanted))
        step.detail = f"installed {lock}"


def _covered_by(lock: str) -> tuple[str, ...]:
    return (RUNTIME_LOCK, DEVELOPMENT_LOCK) if lock == DEVELOPMENT_LOCK else (RUNTIME_LOCK,)


def _digest(lock: str) -> str:
    """Return what an installed lock is known by: its content and the Python it is for."""
    content = hashlib.sha256(PROJECT.joinpath(lock).read_bytes()).hexdigest()
    return f"{content} {sys.version.split()[0]}"


def _read(stamp: Path) -> dict[str, str]:
    try:
        return dict(json.loads(stamp.read_text()))
    except (OSError, ValueError):
        return {}


def _create(have: dict[str, str]) -> None:
    """Make the environment anew if it is not there, or was made by another Python."""
    version = sys.version.split()[0]
    same_python = any(value.endswith(f" {version}") for value in have.values())
    if not PYTHON.exists() or (have and not same_python):
        _run([sys.executable, "-m", "venv", "--clear", str(VENV)], "making .venv")


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(
        command,
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise Failure(f"{what} failed. Its last lines:\n{last_lines(done.stdout)}")
