"""Where a deed comes from: set at each door, so that what does the deed need not be told.

A door is a request (cloudapp.middleware), a token that came with it, a management command or a
worker's task. Nothing of Django is needed here, so that manage.py can say it before all else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import StrEnum


class Via(StrEnum):
    """By which door."""

    SESSION = "session"  # a browser
    TOKEN = "token"  # noqa: S105 - the word, not one
    COMMAND = "command"
    MACHINERY = "machinery"


@dataclass(frozen=True)
class Origin:
    """A door. `name` is that of the token, command or task; `address` the client's, if any."""

    via: Via = Via.MACHINERY
    name: str = ""
    address: str = ""
    request_id: str = ""


_NOWHERE = Origin()
_current: ContextVar[Origin] = ContextVar("origin", default=_NOWHERE)


def current() -> Origin:
    """Return where the deeds of this thread come from now."""
    return _current.get()


@contextmanager
def of(origin: Origin) -> Iterator[None]:
    """Have deeds come from there, inside of the block."""
    before = _current.set(origin)
    try:
        yield
    finally:
        _current.reset(before)


def begin(origin: Origin) -> None:
    """Have all further deeds of this thread come from there."""
    _current.set(origin)


def by_token(name: str) -> None:
    """Say that this request came with a token, known by this name, until the request's end."""
    _current.set(replace(_current.get(), via=Via.TOKEN, name=name))
