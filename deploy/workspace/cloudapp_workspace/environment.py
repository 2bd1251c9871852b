"""What the control plane tells a container about itself: a few variables, nothing else."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MINIMUM_KEY_LENGTH = 32


class WrongEnvironment(Exception):
    """A variable is missing or makes no sense; the text says which."""


@dataclass(frozen=True)
class Environment:
    """Who this instance is and where it listens. The key never shows in a repr."""

    instance: str
    generation: int
    key: str = field(repr=False)
    listen: str
    plugin_settings: Mapping[str, Any] = field(default_factory=dict)
    data: Path = Path("/data")

    def datasette_secret(self) -> str:
        """Stable over restarts, so that cookies and CSRF tokens of open pages go on working."""
        return hmac.new(self.key.encode(), b"datasette-secret", hashlib.sha256).hexdigest()


def read_environment(environ: MutableMapping[str, str] = os.environ) -> Environment:
    """Read the variables and take the key out of the environment, so that no plugin inherits it.

    Raises WrongEnvironment.
    """
    missing = [name for name in _NAMES if not environ.get(name)]
    if missing:
        raise WrongEnvironment(f"not set: {', '.join(missing)}")
    key = environ.pop("INSTANCE_KEY")
    if len(key) < MINIMUM_KEY_LENGTH:
        raise WrongEnvironment(f"INSTANCE_KEY is shorter than {MINIMUM_KEY_LENGTH} characters")
    try:
        generation = int(environ["INSTANCE_GENERATION"])
    except ValueError:
        raise WrongEnvironment("INSTANCE_GENERATION is not a number") from None
    return Environment(
        environ["INSTANCE_ID"],
        generation,
        key,
        environ["INSTANCE_LISTEN"],
        _plugin_settings(environ.get("INSTANCE_PLUGIN_SETTINGS", "{}")),
    )


def _plugin_settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise WrongEnvironment("INSTANCE_PLUGIN_SETTINGS is no JSON object")
    return settings


_NAMES = ("INSTANCE_ID", "INSTANCE_GENERATION", "INSTANCE_KEY", "INSTANCE_LISTEN")
