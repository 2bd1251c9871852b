"""Secrets of a local product: made once, kept in files that only we can read."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

NAMES = ("SECRET_KEY", "ROUTER_SECRET")


def ensure_secrets(directory: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Return NAME_FILE for each secret that `given` does not hold, making the missing files."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    found: dict[str, str] = {}
    for name in NAMES:
        if given.get(name) or given.get(f"{name}_FILE"):
            continue
        path = directory / name
        if not path.exists() or not path.read_text().strip():
            _write(path, secrets.token_urlsafe(48))
        path.chmod(0o600)
        found[f"{name}_FILE"] = str(path)
    return found


def _write(path: Path, value: str) -> None:
    """Write whole or not at all, and never readable by others, not even for a moment."""
    half = path.with_name(path.name + ".new")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(value + "\n")
    half.replace(path)
