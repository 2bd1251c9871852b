"""Requests that wait: for a status, for the end of a change, for what happens next.

A waiting request holds a thread and no database connection. So many may wait in one process, and so
many of one person, that the others are always answered.
"""

import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone

from deploy.models import Instance
from deploy.states import STOPPED_STATUS, Desired, Observed, Status, StopReason
from workspaces.api.callers import Caller
from workspaces.api.problems import Problem

# A look at whether the one who waits is still there.
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT

_lock = threading.Lock()
_waiting: Counter[int] = Counter()


class Holds:
    """The right of one request to wait; given back once, however it ends."""

    def __init__(self, caller: Caller) -> None:
        self._user = caller.user.pk
        self._held = False

    def take(self) -> None:
        """Take a place among those who wait. Raises Problem when there is none."""
        with _lock:
            full = _waiting.total() >= settings.API_HOLDS
            if full or _waiting[self._user] >= settings.API_HOLDS_PER_USER:
                raise Problem("too_many_waiting", headers={"Retry-After": "2"})
            _waiting[self._user] += 1
            self._held = True

    def give_back(self) -> None:
        """Free the place."""
        with _lock:
            if self._held:
                self._held = False
                _waiting[self._user] -= 1
                if not _waiting[self._user]:
                    del _waiting[self._user]


@contextmanager
def a_place(caller: Caller) -> Iterator[None]:
    """Hold a place among those who wait, while the block runs. Raises Problem."""
    holds = Holds(caller)
    holds.take()
    try:
        yield
    finally:
        holds.give_back()


class HasLeft(Exception):
    """Nobody waits any more: the connection was closed."""


def look_for(request: HttpRequest) -> None:
    """Raise HasLeft when whoever sent the request has closed the connection meanwhile.

    Otherwise clients that come and go would use up the places of those who wait.
    """
    connection: socket.socket | None = request.META.get("gunicorn.socket")
    if connection is None:
        return
    try:
        gone = connection.recv(1, _PEEK) == b""
    except BlockingIOError:
        return
    except OSError:
        gone = True
    if gone:
        raise HasLeft


# --- will it ever be? ----------------------------------------------------------------------------


def is_so(instance: Instance, wanted: Status) -> bool:
    """Whether people see this status, and it is not about to become another one.

    What is being stopped, or replaced after a restart, still says `running`: it is not gone yet,
    and nobody waits for that.
    """
    if instance.status is not wanted or _about_to_start(instance):
        return False
    return wanted is not Status.RUNNING or (
        instance.desired == Desired.RUNNING
        and instance.ready
        and instance.observed_generation == instance.generation
    )


def _about_to_start(instance: Instance) -> bool:
    """Whether a worker has just made its container, and may not know yet that it is not wanted."""
    held = instance.lease_expires_at is not None and instance.lease_expires_at > timezone.now()
    return held and instance.lease_token is not None and instance.observed == Observed.CREATED


def why_never(instance: Instance, wanted: Status) -> str:
    """Return why an instance will not have a status unless somebody asks; empty if it may."""
    desired = Desired(instance.desired)
    if desired is Desired.ABSENT:
        if wanted in (Status.DELETING, Status.DELETED):
            return ""
        return "It is deleted. POST …/undelete brings it back until its data is removed."
    if desired is Desired.STOPPED and wanted not in (Status.DELETING, Status.DELETED):
        return _why_not_while_stopped(StopReason(instance.stop_reason), wanted)
    if wanted is Status.RUNNING and instance.status is Status.FAILED:
        return (
            f"It failed: {instance.last_error} It is tried again later by itself; "
            "POST …/start tries at once."
        )
    return _UNASKED.get(wanted, "")


# What comes of nothing but a request.
_UNASKED: Mapping[Status, str] = {
    Status.STOPPED: "Nobody asked for it to stop: POST …/stop first.",
    Status.SUSPENDED: "Nobody suspended it.",
    Status.DELETING: "Nobody asked for its deletion: DELETE it first.",
    Status.DELETED: "Nobody asked for its deletion: DELETE it first.",
}


def _why_not_while_stopped(reason: StopReason, wanted: Status) -> str:
    coming = STOPPED_STATUS[reason]
    if wanted is coming:
        return ""
    what_helps = {
        StopReason.IDLE: "It sleeps: POST …/wake, or a request to its address, wakes it.",
        StopReason.OWNER: "It was stopped: POST …/start makes it run again.",
        StopReason.OPERATOR: "The operators suspended it, and only they can start it.",
    }
    return what_helps[reason]
