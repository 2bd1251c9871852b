"""Find instances by what people see of them, as conditions for the database.

Status: states.status_of. A test compares the two for every state that a row can have. How full a
disk is: states.disk_level.
"""

from functools import reduce
from operator import or_

from django.db.models import BigIntegerField, F, Q
from django.db.models.functions import Cast

from deploy.states import (
    FAILED_AFTER_ATTEMPTS,
    MEBIBYTE,
    STOPPED_STATUS,
    WARN_ABOVE,
    Desired,
    DiskLevel,
    Observed,
    Status,
)

# A container is there and not stopped, as far as is known: what is unknown was up, if it was ready.
UP = Q(observed__in=[Observed.RUNNING, Observed.PAUSED]) | Q(ready=True, observed=Observed.UNKNOWN)

# Events with which somebody began to wait: for a new workspace, a spare that is claimed or not, or
# for one that slept. What a spare did before somebody claimed it is in another history.
ASKED_FOR_NEW = Q(
    kind__in=["create_requested", "claimed"],
    instance__spare=False,
    history=F("instance__history"),
)
ASKED_TO_WAKE = Q(kind="wake")


def having_status(*statuses: Status, prefix: str = "") -> Q:
    """Return the condition for instances with one of these statuses.

    `prefix` leads to the instance from the rows that are asked for, such as `instance__`.
    """
    conditions = _conditions(prefix)
    return reduce(or_, (conditions[status] for status in statuses))


def _conditions(prefix: str) -> dict[Status, Q]:
    def q(**lookups: object) -> Q:
        return Q(**{f"{prefix}{name}": value for name, value in lookups.items()})

    up = q(observed__in=[Observed.RUNNING, Observed.PAUSED]) | q(
        ready=True, observed=Observed.UNKNOWN
    )
    stopped = q(desired=Desired.STOPPED)
    paused = q(desired=Desired.PAUSED, observed=Observed.PAUSED)
    wanted = q(desired=Desired.RUNNING) | (q(desired=Desired.PAUSED) & ~paused)
    failed = q(attempts__gte=FAILED_AFTER_ATTEMPTS)
    gone = q(purged_at__isnull=False)
    found = {
        status: stopped & ~up & q(stop_reason=reason) for reason, status in STOPPED_STATUS.items()
    }
    found[Status.SLEEPING] |= paused
    found[Status.RUNNING] = (stopped & up) | (wanted & q(ready=True))
    found[Status.FAILED] = wanted & q(ready=False) & failed
    found[Status.PROVISIONING] = wanted & q(ready=False) & ~failed
    found[Status.DELETED] = q(desired=Desired.ABSENT) & gone
    found[Status.DELETING] = q(desired=Desired.ABSENT) & ~gone
    return found


def having_disk(level: DiskLevel, prefix: str = "") -> Q:
    """Return the condition for instances whose disk is so full, by the limit that they have now."""
    limit = Cast(F(f"{prefix}disk_mb"), BigIntegerField()) * MEBIBYTE
    full = Q(**{f"{prefix}disk_bytes__gte": limit})
    warned = Q(**{f"{prefix}disk_bytes__gte": (limit * WARN_ABOVE + 99) / 100})
    return {
        DiskLevel.FULL: full,
        DiskLevel.NEARLY_FULL: warned & ~full,
        DiskLevel.FINE: ~warned,
    }[level]
