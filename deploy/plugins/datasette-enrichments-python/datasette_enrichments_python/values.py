"""From what the sandbox says to what may go into SQLite. Everything in here distrusts its input."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from datasette_enrichments_python.limits import Limits

Value = str | int | float | bytes | None
UNREADABLE = "The code destroyed the interpreter that ran it."
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Result:
    """What became of one row: values by column (None is the chosen output column), or an error."""

    values: dict[str | None, Value] = field(default_factory=dict)
    error: str | None = None


def read_result(line: str, limits: Limits) -> Result:
    """What one line of the sandbox means. Never raises."""
    try:
        kind, what = json.loads(line)
        if kind == "value":
            return Result({None: _value(what)})
        if kind == "columns":
            return Result(_columns(what, limits))
        if kind == "error" and isinstance(what, str):
            return Result(error=_text(what)[:4000])
    except _Unfit as error:
        return Result(error=str(error))
    except (ValueError, TypeError, RecursionError, AttributeError):
        pass
    return Result(error=UNREADABLE)


class _Unfit(Exception):
    """SQLite cannot hold it; the text says why."""


def _value(value: Any) -> Value:
    if isinstance(value, bool):
        return int(value)
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _Unfit("The number is too large for SQLite; return it as a text.")
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _Unfit("The text has half a character (a lone surrogate) in it.") from error
        return value
    if isinstance(value, dict) and set(value) == {"$base64", "encoded"}:
        try:
            return base64.b64decode(value["encoded"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise _Unfit(UNREADABLE) from error
    raise _Unfit(UNREADABLE)


def _columns(found: Any, limits: Limits) -> dict[str | None, Value]:
    if not isinstance(found, dict):
        raise _Unfit(UNREADABLE)
    if len(found) > limits.max_columns:
        raise _Unfit(f"The dictionary has more than {limits.max_columns} keys.")
    for name in found:
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            raise _Unfit(f"{_text(name)[:_LONGEST_NAME]!r} cannot be the name of a column.")
    return {name: _value(value) for name, value in found.items()}


def _text(text: str) -> str:
    """Readable whatever is in it."""
    return text.encode("utf-8", "replace").decode()


def column_type(values: Iterable[Value]) -> str | None:
    """The type of a new column that keeps these values as they are; None when all are None."""
    types = {type(value) for value in values if value is not None}
    if not types:
        return None
    if types == {int}:
        return "INTEGER"
    if types <= {int, float}:
        return "FLOAT"
    return "BLOB" if types == {bytes} else "TEXT"
