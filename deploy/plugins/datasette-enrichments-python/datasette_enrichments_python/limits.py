"""What user code may use, from the plugin's configuration."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

PLUGIN = "datasette-enrichments-python"


@dataclass(frozen=True)
class Limits:
    """Limits of a run and of each of its rows. The defaults fit a machine with 512 MB."""

    row_seconds: float = 1.0  # a row, by the clock
    memory_mb: int = 64  # all that the interpreter of a row may hold, 13 of them Python's own
    run_seconds: float = 3600.0  # user code of a whole run
    max_result_characters: int = 1_000_000  # what one row may return, as JSON
    max_columns: int = 20  # how many columns a dictionary may make


_SMALLEST = {"row_seconds": 0.02, "memory_mb": 40, "run_seconds": 1}
_LARGEST = {"row_seconds": 600, "memory_mb": 2048, "max_result_characters": 50_000_000}


def read_limits(config: dict[str, Any] | None) -> Limits:
    """Limits from plugin configuration. Raises ValueError that names a setting which is wrong."""
    given = {name: value for name, value in (config or {}).items() if name != "runtime"}
    known = {field.name: int if field.type == "int" else float for field in fields(Limits)}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{PLUGIN}: there is no setting {name!r}; known: {', '.join(known)}")
        low, high = _SMALLEST.get(name, 1), _LARGEST.get(name, float("inf"))
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise ValueError(f"{PLUGIN}: {name} must be a number from {low} to {high}: {value!r}")
        given[name] = known[name](value)
    return Limits(**given)


def runtime_directory(config: dict[str, Any] | None) -> Path | None:
    """Where the prepared runtime lies, if the configuration says so."""
    found = (config or {}).get("runtime")
    return Path(found) if found else None
