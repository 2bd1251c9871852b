"""Lists in parts: a cursor names the last thing that was seen, so nothing is skipped or doubled."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from django.db.models import Model, Q, QuerySet

from workspaces.api.problems import invalid

M = TypeVar("M", bound=Model)
LIMIT = 50
MAX_LIMIT = 200


def cursor_of(*values: Any) -> str:
    """Return a text that stands for these values."""
    text = json.dumps([str(value) for value in values], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, *kinds: Callable[[str], Any]) -> list[Any]:
    """Return the values that a cursor stands for. Raises Problem for one that we did not make."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError
        return [kind(value) for kind, value in zip(kinds, values, strict=True)]
    except (ValueError, binascii.Error, OverflowError) as error:
        words = "This is no cursor of this list: use `next` of an earlier answer as it is."
        raise invalid("query.cursor", words) from error


def newest_first(
    rows: QuerySet[M], cursor: str | None, limit: int, *, key: Callable[[str], Any] = int
) -> tuple[list[M], str | None]:
    """Return a part of the rows by `created_at` and key, newest first, and the cursor behind it."""
    if cursor:
        at, pk = read_cursor(cursor, _moment, key)
        rows = rows.filter(Q(created_at__lt=at) | Q(created_at=at, pk__lt=pk))
    found = list(rows.order_by("-created_at", "-pk")[: limit + 1])
    return _cut(found, limit, lambda row: cursor_of(_created_at(row), row.pk))


def _moment(text: str) -> datetime:
    """Return a time in UTC: Postgres takes fewer zones than Python. Raises what no time is."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError
    return at.astimezone(UTC)


def _created_at(row: Model) -> str:
    at: datetime = row.created_at  # type: ignore[attr-defined]  # the lists by time have it
    return at.isoformat()


def by_id(rows: QuerySet[M], cursor: str | None, limit: int) -> tuple[list[M], str | None]:
    """Return a part of the rows by their number, newest first, and the cursor behind it."""
    if cursor:
        (last,) = read_cursor(cursor, number)
        rows = rows.filter(pk__lt=last)
    found = list(rows.order_by("-pk")[: limit + 1])
    return _cut(found, limit, lambda row: cursor_of(row.pk))


def number(text: str) -> int:
    """Return a row's number. Raises ValueError for what no row can have."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise ValueError
    return value


def _cut(found: list[M], limit: int, mark: Callable[[M], str]) -> tuple[list[M], str | None]:
    items: Sequence[M] = found[:limit]
    return list(items), mark(items[-1]) if len(found) > limit else None
