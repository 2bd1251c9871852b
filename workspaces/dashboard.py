"""What the operators' front page shows: data only, in a fixed number of queries.

Every number comes with the address of the list behind it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any
from urllib.parse import urlencode

from django.db.models import BigIntegerField, Count, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, TruncHour
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from deploy import hosts
from deploy.finding import ASKED_FOR_NEW, ASKED_TO_WAKE, UP
from deploy.models import Image, Instance, InstanceEvent
from deploy.states import MEBIBYTE, Status
from workspaces import attention, fleet, queues
from workspaces.models import Workspace

DAYS = 14
HOURS = 24
TIMES_DAYS = 7
# Of so many of the newest ones the times are told.
TIMES = 1000
NEWEST = 8

NEEDS = ("workspaces.view_workspace", "deploy.view_instance", "deploy.view_instanceevent")


@dataclass(frozen=True)
class Number:
    """A number, what it counts, and the list behind it. `kind` is a word for its look."""

    label: str
    value: int
    url: str
    kind: str = ""


@dataclass(frozen=True)
class Point:
    """How many of something there were from `at` on, for an hour or a day."""

    at: datetime
    label: str
    value: int
    url: str


@dataclass(frozen=True)
class Series:
    """One thing over time."""

    title: str
    span: str
    points: Sequence[Point]
    url: str

    @property
    def total(self) -> int:
        """All of it."""
        return sum(point.value for point in self.points)

    @property
    def most(self) -> int:
        """The highest point."""
        return max(point.value for point in self.points)


@dataclass(frozen=True)
class Times:
    """How long something took people to wait, in ms; None while it has not happened.

    `count` is how often they began to; the times are of the newest of these that came up.
    """

    title: str
    count: int
    p50: int | None
    p95: int | None
    longest: int | None
    url: str


@dataclass(frozen=True)
class Share:
    """How much of something is taken. `total` None: nobody told. In `unit`."""

    title: str
    taken: float
    total: float | None
    unit: str
    words: str
    url: str
    # Whether something fails when more is taken than there is. Processors are shared, and not all
    # use at once what they may.
    hard: bool = True

    @property
    def is_short(self) -> bool:
        """Whether somebody should look."""
        return self.hard and self.percent > 90

    @property
    def percent(self) -> int:
        """How much that is; more than 100 where more was promised than there is."""
        return round(100 * self.taken / self.total) if self.total else 0


@dataclass(frozen=True)
class Queue:
    """How many tasks wait (None: Redis does not say), and when one last came through."""

    name: str
    depth: int | None
    last: datetime | None
    silent: bool
    url: str


def may_see(user: Any) -> bool:
    """Whether somebody has the permissions for the lists behind the numbers."""
    return all(user.has_perm(name) for name in NEEDS)


def front_page(user: Any) -> dict[str, Any]:
    """Return all of it for somebody who may see it; nothing for others."""
    if not may_see(user):
        return {}
    summary = fleet.summary()
    hourly = _hourly()
    found = attention.find(3)
    return {
        "attention": found,
        "attention_count": sum(one.count for one in found),
        "statuses": _statuses(summary.by_status),
        "workspaces": summary.workspaces,
        "workspaces_url": _list("workspaces_workspace", state="kept"),
        "series": [*_days(hourly), *_hours(hourly)],
        "times": [_provisioning(), _wakes()],
        "failing": [(cause, _instances(trouble="yes", last_error=cause.words))
                    for cause in summary.failing],
        "shares": _shares(),
        "nodes": _nodes(),
        "queues": _queues(),
        "images": _image_counts(summary.images),
        "builds": list(Image.objects.order_by("-created_at")[:NEWEST]),
        "spares": summary.spares,
        "spares_url": _instances(spare__exact=1, desired__exact="running", ready__exact=1),
        "users": summary.users,
        "new_users": summary.new_users,
        "new_users_url": _list("accounts_user", created__gte=str(timezone.now() - fleet.LATELY)),
        "newest": _newest() if user.has_perm("accounts.view_user") else None,
    }  # fmt: skip


# --- links ---------------------------------------------------------------------------------------


def _list(model: str, **query: Any) -> str:
    address = reverse(f"admin:{model}_changelist")
    return f"{address}?{urlencode(query)}" if query else address


def _instances(**query: Any) -> str:
    return _list("deploy_instance", **query)


def _span(field: str, since: datetime, until: datetime) -> dict[str, str]:
    return {f"{field}__gte": str(since), f"{field}__lt": str(until)}


# --- now -----------------------------------------------------------------------------------------


def _statuses(by_status: Mapping[str, int]) -> list[Number]:
    shown = [status for status in Status if status is not Status.DELETED]
    return [
        Number(
            status.value,
            by_status.get(status.value, 0),
            _list("workspaces_workspace", status=status.value),
            status.value,
        )
        for status in shown
    ]


def _image_counts(states: Mapping[str, int]) -> list[Number]:
    return [
        Number(
            state.value,
            states.get(state.value, 0),
            _list("deploy_image", state__exact=state.value),
            state.value,
        )
        for state in Image.State
    ]


def _shares() -> list[Share]:
    """Return what containers may use of what their machine has."""
    said = Cast(KeyTextTransform("memory_bytes", "counters"), BigIntegerField())
    there = Instance.objects.filter(UP, purged_at=None).aggregate(
        promised=Sum("memory_mb"),
        used=Sum(said, filter=Q(ready=True)),
        measured=Count("pk", filter=Q(ready=True, counters__has_key="memory_bytes")),
        cpus=Sum("cpus"),
        count=Count("pk"),
    )
    host = hosts.known().aggregate(
        memory=Sum("memory_mb"), cores=Sum("cores"), disk=Sum("disk_mb"), free=Sum("disk_free_mb")
    )
    memory = _maybe_gib(host["memory"])
    use = f"what {_containers(there['measured'])} said that they use"
    may = f"what {_containers(there['count'])} may use"
    running = _instances(up="yes")
    facts = _list("deploy_hostfacts")
    disk, free = host["disk"], host["free"]
    taken = (disk or 0) - (free or 0)
    return [
        Share("Memory", _gib((there["used"] or 0) / MEBIBYTE), memory, "GiB", use, running),
        Share("Memory promised", _gib(there["promised"]), memory, "GiB", may, running, hard=False),
        Share("CPU", float(there["cpus"] or 0), host["cores"], "cores", may, running, hard=False),
        Share("Disk", _gib(taken), _maybe_gib(disk), "GiB", "images, volumes and all else", facts),
    ]


def _nodes() -> list[Number]:
    """Return how many workspaces are on each machine, as far as a worker has seen a container."""
    there = Workspace.objects.filter(instance__purged_at=None).exclude(instance__node="")
    counted = there.order_by().values_list("instance__node").annotate(count=Count("pk"))
    return [
        Number(node, count, _list("workspaces_workspace", state="kept", node=node))
        for node, count in counted.order_by("instance__node")
    ]


def _containers(count: int) -> str:
    return "one container" if count == 1 else f"{count or 'no'} containers"


def _gib(mib: float | None) -> float:
    return (mib or 0) / 1024


def _maybe_gib(mib: int | None) -> float | None:
    return None if mib is None else mib / 1024


def _queues() -> list[Queue]:
    depths = queues.depths()
    return [
        Queue(
            name,
            depths[name] if depths else None,
            last,
            queues.is_silent(name, last),
            reverse("admin:queue", args=[name]),
        )
        for name, last in queues.last_beats().items()
    ]


def _newest() -> list[tuple[User, str]]:
    people = User.objects.with_names().order_by("-pk")[:NEWEST]
    return [(user, reverse("admin:accounts_user_change", args=[user.pk])) for user in people]


# --- over time -----------------------------------------------------------------------------------

Hourly = Mapping[datetime, int]


def _hourly() -> list[tuple[str, Hourly]]:
    """Return creations, wakes and failures by the hour in which they were."""
    since = _midnight() - timedelta(days=DAYS - 1)
    events = InstanceEvent.objects.filter(at__gte=since)
    return [
        ("created", _by_hour(Workspace.objects.filter(created_at__gte=since), "created_at")),
        ("woken", _by_hour(events.filter(kind="wake"), "at")),
        ("failed", _by_hour(events.filter(failed=True), "at")),
    ]


def _by_hour(rows: QuerySet[Any], field: str) -> Hourly:
    hours = rows.order_by().annotate(hour=TruncHour(field, tzinfo=UTC)).values("hour")
    return {row["hour"]: row["count"] for row in hours.annotate(count=Count("pk"))}


_TITLES = {"created": "Workspaces made", "woken": "Wakes", "failed": "Failures"}


def _behind(what: str, since: datetime, until: datetime) -> str:
    if what == "created":
        return _list("workspaces_workspace", **_span("created_at", since, until))
    chosen = {"kind__exact": "wake"} if what == "woken" else {"failed__exact": 1}
    return _list("deploy_instanceevent", **chosen, **_span("at", since, until))


def _days(hourly: Iterable[tuple[str, Hourly]]) -> list[Series]:
    first = _midnight() - timedelta(days=DAYS - 1)
    starts = [first + timedelta(days=n) for n in range(DAYS)]
    return [_series(what, found, starts, timedelta(days=1)) for what, found in hourly]


def _hours(hourly: Iterable[tuple[str, Hourly]]) -> list[Series]:
    now = timezone.now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    starts = [now - timedelta(hours=n) for n in reversed(range(HOURS))]
    return [_series(what, found, starts, timedelta(hours=1)) for what, found in hourly]


def _series(what: str, found: Hourly, starts: Sequence[datetime], step: timedelta) -> Series:
    daily = step >= timedelta(days=1)
    points = [
        Point(
            at,
            f"{at:%-d %b}" if daily else f"{at:%H:%M}",
            sum(n for hour, n in found.items() if at <= hour < at + step),
            _behind(what, at, at + step),
        )
        for at in starts
    ]
    span = f"{DAYS} days" if daily else f"{HOURS} hours"
    return Series(_TITLES[what], span, points, _behind(what, starts[0], starts[-1] + step))


def _midnight() -> datetime:
    return timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


# --- how long people wait ------------------------------------------------------------------------


def _provisioning() -> Times:
    """From asking for a workspace to its first answer; spares that nobody took do not count."""
    asked = InstanceEvent.objects.filter(ASKED_FOR_NEW)
    return _times("From new to its first page", asked, "new")


def _wakes() -> Times:
    """From the request that wakes one to its answer."""
    return _times("From asleep to awake", InstanceEvent.objects.filter(ASKED_TO_WAKE), "awake")


def _times(title: str, asked: QuerySet[InstanceEvent], name: str) -> Times:
    since = timezone.now() - timedelta(days=TIMES_DAYS)
    up = InstanceEvent.objects.filter(
        history=OuterRef("history"), id__gte=OuterRef("id"), status=Status.RUNNING
    ).order_by("id")
    newest = asked.filter(at__gte=since).order_by("-at")
    count = newest.count()
    pairs = newest.annotate(up_at=Subquery(up.values("at")[:1])).values_list("at", "up_at")
    spans = [up_at - at for at, up_at in pairs[:TIMES] if up_at and up_at >= at]
    took = sorted(round(span.total_seconds() * 1000) for span in spans)
    url = _list("deploy_instanceevent", asked=name, at__gte=str(since))
    if not took:
        return Times(title, count, None, None, None, url)
    return Times(title, count, _rank(took, 0.5), _rank(took, 0.95), took[-1], url)


def _rank(ordered: Sequence[int], part: float) -> int:
    """Return the value that this part of all does not exceed."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)]
