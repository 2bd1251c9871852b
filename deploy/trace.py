"""Which request, workspace, task and instance the work of this thread belongs to.

Lines of logs say it, tasks carry it along to the worker, and events keep the request's id. So one
id leads from the router's log through all that followed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

# What goes along with a task.
CARRIED = ("request_id", "workspace")

_NOTHING: Mapping[str, str] = {}
_fields: ContextVar[Mapping[str, str]] = ContextVar("trace", default=_NOTHING)


def fields() -> Mapping[str, str]:
    """Return what is known: of request_id, workspace, task_id, task, instance."""
    return _fields.get()


def request_id() -> str:
    """Return the id of the request that this work follows from; empty for what none asked for."""
    return _fields.get().get("request_id", "")


@contextmanager
def within(**more: str) -> Iterator[None]:
    """Know this as well, inside of the block."""
    before = _fields.set({**_fields.get(), **more})
    try:
        yield
    finally:
        _fields.reset(before)


def add(**more: str) -> None:
    """Know this as well, until the block around it ends."""
    _fields.set({**_fields.get(), **more})


def carried() -> dict[str, str]:
    """Return what a task that is sent now takes along."""
    known = _fields.get()
    return {name: known[name] for name in CARRIED if name in known}
