"""`make clean`: remove what can be made again. The data of `make run` stays."""

import contextlib
import shutil

from cloudapp.local.places import PROJECT, VAR
from cloudapp.local.say import Console

CACHES = (".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", "staticfiles")
VAR_PARTS = ("test", "bench", "wheels", "static", "log")


def clean() -> int:
    """Remove caches, the environment, and the state of tests; say what stays and where."""
    console = Console()
    for path in (*(PROJECT / name for name in CACHES), *(VAR / name for name in VAR_PARTS)):
        if path.exists():
            shutil.rmtree(path, ignore_errors=True)
            console.line(f"  removed {path}")
    for path in PROJECT.rglob("__pycache__"):
        with contextlib.suppress(OSError):
            shutil.rmtree(path)
    if VAR.exists():
        console.line(
            f"  kept    {VAR}: workspaces, accounts, secrets. Delete it yourself to lose them."
        )
    return 0
