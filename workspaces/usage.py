"""How much a workspace uses: its disk now, and all of it over the last days, to look at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.safestring import SafeString

from deploy import usage
from deploy.models import Instance, UsageHour
from deploy.states import MEBIBYTE, DiskLevel, disk_level
from workspaces import plots
from workspaces.models import Workspace

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Span:
    """A time to look back on, and how long a bar of it is."""

    words: str
    hours: int
    each: int

    @property
    def bars(self) -> int:
        """How many bars there are."""
        return self.hours // self.each


SPANS: Mapping[str, Span] = {
    "day": Span("Last day", 24, 1),
    "week": Span("Last week", 168, 6),
    "month": Span("Last 30 days", 720, 24),
}
USUAL_SPAN = "week"


@dataclass(frozen=True)
class Disk:
    """What its volume holds, in bytes; `used` is None while nobody has measured it."""

    used: int | None
    limit: int
    level: DiskLevel
    measured_at: datetime | None

    @classmethod
    def of(cls, instance: Instance) -> "Disk":
        """Return what is known of an instance's disk.

        By the limit that it has now: the plan of one that sleeps may have changed since it said.
        """
        used, limit = instance.disk_bytes, instance.disk_limit
        return cls(used, limit, disk_level(used or 0, limit), instance.disk_measured_at)

    @property
    def percent(self) -> int:
        """How much of it is used, 100 at most."""
        return min(100, (self.used or 0) * 100 // max(1, self.limit))


@dataclass(frozen=True)
class Bucket:
    """What was used from `at` on, for as long as a bar is; None where nothing is known."""

    at: datetime
    disk_mb: float | None
    memory_mb: float | None
    cpu_seconds: float
    requests: int
    awake_hours: float


@dataclass(frozen=True)
class Figure:
    """A plot, with its numbers for a table."""

    title: str
    unit: str
    plot: SafeString
    rows: Sequence[tuple[str, str]]


def hours_of(workspace: Workspace, hours: int) -> list[UsageHour]:
    """Return the hours of which something is known, oldest first; the present one is not over."""
    since = _this_hour() - (hours - 1) * HOUR
    return list(usage.hours(workspace.instance.history, since))


def buckets(workspace: Workspace, span: Span) -> list[Bucket]:
    """Return a span in bars, oldest first; the last one ends with the present hour. One query."""
    first = _this_hour() - (span.hours - 1) * HOUR
    parts: list[list[UsageHour]] = [[] for _ in range(span.bars)]
    for row in hours_of(workspace, span.hours):
        parts[min(span.bars - 1, int((row.hour - first) / HOUR) // span.each)].append(row)
    return [_bucket(first + at * span.each * HOUR, rows) for at, rows in enumerate(parts)]


def _this_hour() -> datetime:
    return timezone.now().replace(minute=0, second=0, microsecond=0)


def _bucket(at: datetime, rows: Sequence[UsageHour]) -> Bucket:
    return Bucket(
        at,
        disk_mb=max((row.disk_bytes / MEBIBYTE for row in rows), default=None),
        memory_mb=max((row.memory_peak / MEBIBYTE for row in rows), default=None),
        cpu_seconds=sum(row.cpu_seconds for row in rows),
        requests=sum(row.requests for row in rows),
        awake_hours=min(sum(row.awake_seconds for row in rows) / 3600, len(rows)),
    )


# Title, unit, which value, and which limit of the instance belongs to it.
_FIGURES: Sequence[tuple[str, str, Callable[[Bucket], Any], str]] = (
    ("Disk", "MiB", lambda bucket: bucket.disk_mb, "disk_mb"),
    ("Memory", "MiB", lambda bucket: bucket.memory_mb, "memory_mb"),
    ("CPU", "seconds", lambda bucket: bucket.cpu_seconds, ""),
    ("Requests", "", lambda bucket: bucket.requests, ""),
    ("Awake", "hours", lambda bucket: bucket.awake_hours, ""),
)


def figures(workspace: Workspace, span: Span) -> list[Figure]:
    """Return the plots of a span, with their numbers; none when nothing is known of it."""
    found = buckets(workspace, span)
    if all(bucket.memory_mb is None for bucket in found):
        return []
    labels = [_label(bucket.at, span) for bucket in found]
    shown = []
    for title, unit, value, limit in _FIGURES:
        values = [value(bucket) for bucket in found]
        bound = getattr(workspace.instance, limit) if limit else None
        # A limit far above everything would make all bars flat: then the page says it in words.
        near = bound is not None and max((v or 0 for v in values), default=0) * 4 > bound
        plot = plots.bars(values, labels, title, unit, limit=bound if near else None)
        numbers = ["not known" if v is None else f"{plots.in_words(v)} {unit}" for v in values]
        shown.append(Figure(title, unit, plot, list(zip(labels, numbers, strict=True))))
    return shown


def _label(at: datetime, span: Span) -> str:
    there = timezone.localtime(at)
    if span.each >= 24:
        return f"{there:%-d %b}"
    return f"{there:%H:%M}" if span.hours <= 24 else f"{there:%-d %b %H:%M}"
