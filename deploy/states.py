"""The states of an instance, which may follow which, and what people see. Pure: no Django here.

`Desired` is what we want, `Observed` what the engine last said. A wrong table fails at import.
"""

from collections.abc import Mapping
from enum import StrEnum


class Desired(StrEnum):
    """What an instance should be."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    ABSENT = "absent"


class Observed(StrEnum):
    """What the engine last said. UNKNOWN means that it said nothing, and destroys nothing."""

    UNKNOWN = "unknown"
    ABSENT = "absent"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


class StopReason(StrEnum):
    """Why an instance is to be stopped. Only an idle one wakes on a request."""

    NONE = ""
    IDLE = "idle"
    OWNER = "owner"
    OPERATOR = "operator"


class Status(StrEnum):
    """What people see."""

    PROVISIONING = "provisioning"
    RUNNING = "running"
    SLEEPING = "sleeping"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


# Delete is sticky: nothing follows ABSENT.
DESIRED_AFTER: Mapping[Desired, frozenset[Desired]] = {
    Desired.RUNNING: frozenset(Desired) - {Desired.RUNNING},
    Desired.PAUSED: frozenset(Desired) - {Desired.PAUSED},
    # Stopped to stopped: the reason may change, from idle to owner to operator.
    Desired.STOPPED: frozenset({Desired.RUNNING, Desired.STOPPED, Desired.ABSENT}),
    Desired.ABSENT: frozenset(),
}

STOPPED_STATUS: Mapping[StopReason, Status] = {
    StopReason.IDLE: Status.SLEEPING,
    StopReason.OWNER: Status.STOPPED,
    StopReason.OPERATOR: Status.SUSPENDED,
}

# One failure may be a hiccup; people are told once it did not go away by itself.
FAILED_AFTER_ATTEMPTS = 3


MEBIBYTE = 1 << 20
# Of its limit, in percent: above, people are warned; below, that is over again.
WARN_ABOVE = 80
CALM_BELOW = 75
# Below this, it is over that a disk is full. A write-ahead log comes and goes at the limit.
ROOM_BELOW = 95


class DiskLevel(StrEnum):
    """What people are told of an instance's disk."""

    FINE = "fine"
    NEARLY_FULL = "nearly_full"
    FULL = "full"


def disk_level(used: int, limit: int, before: DiskLevel = DiskLevel.FINE) -> DiskLevel:
    """Return the level of a disk that holds `used` of `limit` bytes.

    Full means read-only. What people were told `before` goes on until it is clearly over: nobody
    wants to be told every minute that it comes and goes.
    """
    if used * 100 >= limit * (ROOM_BELOW if before is DiskLevel.FULL else 100):
        return DiskLevel.FULL
    bound = WARN_ABOVE if before is DiskLevel.FINE else CALM_BELOW
    return DiskLevel.NEARLY_FULL if used * 100 >= limit * bound else DiskLevel.FINE


def may_follow(now: Desired, then: Desired) -> bool:
    """Whether an instance that we want `now` may be wanted `then`."""
    return then in DESIRED_AFTER[now]


def status_of(
    desired: Desired,
    observed: Observed,
    *,
    ready: bool,
    stop_reason: StopReason = StopReason.NONE,
    attempts: int = 0,
    purged: bool = False,
) -> Status:
    """Return the status that people see: the only place where it is decided.

    `attempts` counts failures in a row; `purged` says that the data volume is gone too.
    """
    if desired is Desired.ABSENT:
        return Status.DELETED if purged else Status.DELETING
    # Unknown is not absent: what was ready goes on being served.
    up = observed in (Observed.RUNNING, Observed.PAUSED) or (ready and observed is Observed.UNKNOWN)
    if desired is Desired.STOPPED:
        # Started is not ready, and asked to stop is not stopped.
        return Status.RUNNING if up else STOPPED_STATUS[stop_reason]
    if desired is Desired.PAUSED and observed is Observed.PAUSED:
        return Status.SLEEPING
    # Ready outlives an engine that does not answer: people are still served.
    if ready:
        return Status.RUNNING
    return Status.FAILED if attempts >= FAILED_AFTER_ATTEMPTS else Status.PROVISIONING


def is_moving(desired: Desired, status: Status) -> bool:
    """Whether a status is on its way to another one, so that a page should keep looking."""
    if desired is Desired.STOPPED:
        return status is Status.RUNNING
    return status is Status.PROVISIONING


def _check_tables() -> None:
    if set(DESIRED_AFTER) != set(Desired):
        raise AssertionError("DESIRED_AFTER must name every desired state")
    if DESIRED_AFTER[Desired.ABSENT]:
        raise AssertionError("delete is sticky: nothing may follow absent")
    for state, followers in DESIRED_AFTER.items():
        if state is not Desired.ABSENT and Desired.ABSENT not in followers:
            raise AssertionError(f"{state} cannot be deleted")
    if set(STOPPED_STATUS) != set(StopReason) - {StopReason.NONE}:
        raise AssertionError("STOPPED_STATUS must name every reason to stop")
    for desired in Desired:
        for observed in Observed:
            for reason in STOPPED_STATUS:
                status_of(desired, observed, ready=False, stop_reason=reason)


_check_tables()
