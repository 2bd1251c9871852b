"""Where programs are, and how to run one as root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache

# Debian keeps servers here, and leaves it out of an ordinary user's PATH.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def find_tool(name: str) -> str | None:
    """Return the path of a program, or None."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}")


@cache
def root_prefix() -> tuple[str, ...] | None:
    """Return what makes a command run as root: nothing, or sudo. None when neither works.

    Asks for the password if there is a person to ask. The environment goes along, because
    package mirrors and their certificates are often named there.
    """
    if os.geteuid() == 0:
        return ()
    sudo = shutil.which("sudo")
    if sudo is None:
        return None
    ask = [sudo, "-n", "true"] if not sys.stdin.isatty() else [sudo, "-v"]
    allowed = subprocess.run(ask, stderr=subprocess.DEVNULL, check=False).returncode == 0
    return (sudo, "-n", "--preserve-env") if allowed else None


def as_root(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` as root; PermissionError when we may not."""
    prefix = root_prefix()
    if prefix is None:
        raise PermissionError("neither root nor sudo")
    return [*prefix, *command]
