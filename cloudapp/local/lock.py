"""`make lock`: resolve pyproject.toml into the two lock files, with hashes and no index address."""

import os
import shlex
import subprocess
import sys

from cloudapp.local.places import PROJECT, VAR
from cloudapp.local.say import Console, Failure
from cloudapp.local.venv import DEVELOPMENT_LOCK, RUNTIME_LOCK

TOOLS = VAR / "lock-tools"
OPTIONS = (
    *("pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header", "--quiet"),
)


def lock() -> int:
    """Write both lock files; return the exit code.

    What is locked stays as it is where pyproject.toml allows; ARGS=--upgrade takes newer ones.
    """
    console = Console()
    with console.step("resolver"):
        if not (TOOLS / "bin" / "uv").exists():
            _run([sys.executable, "-m", "venv", str(TOOLS)])
            _run([str(TOOLS / "bin" / "pip"), "install", "--quiet", "uv>=0.9,<1"])
    for name, more in ((RUNTIME_LOCK, []), (DEVELOPMENT_LOCK, ["--group", "dev"])):
        with console.step(name):
            _run([str(TOOLS / "bin" / "uv"), *OPTIONS, *_more(), *more, "--output-file", name])
    return 0


def _more() -> list[str]:
    return shlex.split(os.environ.get("ARGS", ""))


def _run(command: list[str]) -> None:
    if subprocess.run(command, cwd=PROJECT, check=False).returncode:
        raise Failure(f"{command[0]} failed, see above.")
