"""How much instances use: each that runs is asked every minute, and it is added up by the hour.

What an instance says are counters that begin anew with each run of its process. Its row keeps what
it said last; the difference is what it used since. So a restart loses a minute at most.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from deploy import lifecycle, probe
from deploy.models import Instance, UsageHour
from deploy.probe import Usage
from deploy.states import Desired

logger = logging.getLogger(__name__)

THREADS = 16
# So many rows are written in one transaction: nobody waits long for one of them.
ROWS = 500

_ADD_UP = """
INSERT INTO deploy_usagehour AS kept
    (history, hour, samples, memory_peak, memory_sum, cpu_seconds, requests, awake_seconds,
     disk_bytes)
SELECT history, %s, 1, memory, memory, cpu, requests, awake, disk
FROM unnest(%s::uuid[], %s::bigint[], %s::float[], %s::bigint[], %s::float[], %s::bigint[])
    AS said (history, memory, cpu, requests, awake, disk)
ON CONFLICT (history, hour) DO UPDATE SET
    samples = kept.samples + 1,
    memory_peak = GREATEST(kept.memory_peak, EXCLUDED.memory_peak),
    memory_sum = kept.memory_sum + EXCLUDED.memory_sum,
    cpu_seconds = kept.cpu_seconds + EXCLUDED.cpu_seconds,
    requests = kept.requests + EXCLUDED.requests,
    awake_seconds = kept.awake_seconds + EXCLUDED.awake_seconds,
    disk_bytes = GREATEST(kept.disk_bytes, EXCLUDED.disk_bytes)
"""


@dataclass(frozen=True)
class Spent:
    """What an instance used since it was asked before; `usage` is what it says now."""

    instance: Instance
    usage: Usage
    cpu_seconds: float
    requests: int
    awake_seconds: float


def measure() -> int:
    """Ask every instance that runs, and write down what it says; return how many answered.

    With a constant number of queries for each ROWS instances. Spares are nobody's.
    """
    running = Instance.objects.filter(desired=Desired.RUNNING, ready=True, spare=False)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="usage") as pool:
        answers = pool.map(_ask, running.only("key", "endpoint", "disk_mb"))
        said = {pk: usage for pk, usage in answers if usage is not None}
    record(said)
    return len(said)


def _ask(instance: Instance) -> tuple[UUID, Usage | None]:
    """Touches no row: it runs in a thread."""
    try:
        return instance.pk, probe.health(instance, instance.endpoint).usage
    except probe.NotAnswering as error:
        logger.warning("%s does not say what it uses: %s", instance, error)
        return instance.pk, None


def record(said: Mapping[UUID, Usage]) -> None:
    """Write down what instances say: their disk, what is news about it, and what they used.

    One that somebody else writes to just now is left for the next time. So is a part of them that
    cannot be written: it keeps nothing from the others.
    """
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    everybody = sorted(said)
    for start in range(0, len(everybody), ROWS):
        part = everybody[start : start + ROWS]
        try:
            _record(part, said, hour)
        except Exception:  # of whatever kind: each says what it likes
            logger.exception("what %s instances use is not written down", len(part))


def _record(part: Sequence[UUID], said: Mapping[UUID, Usage], hour: datetime) -> None:
    with transaction.atomic():
        rows = Instance.objects.select_for_update(skip_locked=True, no_key=True)
        spent = list(_spent(rows.filter(pk__in=part).order_by("pk"), said))
        lifecycle.record_usage({one.instance: one.usage for one in spent})
        _add_up(hour, spent)


def _spent(instances: QuerySet[Instance], said: Mapping[UUID, Usage]) -> Iterator[Spent]:
    for instance in instances:
        usage, before = said[instance.pk], instance.counters
        if not before or before["run"] != usage.run:
            yield Spent(instance, usage, usage.cpu_seconds, usage.requests, usage.up_seconds)
        elif usage.up_seconds >= before["up_seconds"]:  # else it is older than what is known
            yield Spent(
                instance,
                usage,
                max(0.0, usage.cpu_seconds - before["cpu_seconds"]),
                max(0, usage.requests - before["requests"]),
                usage.up_seconds - before["up_seconds"],
            )


def _add_up(hour: datetime, spent: list[Spent]) -> None:
    if not spent:
        return
    columns: list[list[Any]] = [
        [one.instance.history for one in spent],
        [one.usage.memory_bytes for one in spent],
        [one.cpu_seconds for one in spent],
        [one.requests for one in spent],
        [one.awake_seconds for one in spent],
        [one.usage.disk_bytes for one in spent],
    ]
    with connection.cursor() as cursor:
        cursor.execute(_ADD_UP, [hour, *columns])


def hours(history: UUID, since: datetime) -> QuerySet[UsageHour]:
    """Return what the instances of one history used, by the hour; hours without use are missing."""
    return UsageHour.objects.filter(history=history, hour__gte=since).order_by("hour")


def forget() -> None:
    """Remove what is older than USAGE_DAYS."""
    oldest = timezone.now() - timedelta(days=settings.USAGE_DAYS)
    UsageHour.objects.filter(hour__lt=oldest).delete()
