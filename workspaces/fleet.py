"""How all of it is, for operators: in a fixed number of queries, however much there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, Min, Q, QuerySet
from django.utils import timezone

from accounts.models import User
from deploy.finding import having_status
from deploy.models import Image, Instance, Orphan
from deploy.states import Desired, Status
from workspaces.models import Change, Plan, Rollout, Workspace

# So many different causes of failures are told, the most frequent ones first.
CAUSES = 20
LATELY = timedelta(hours=24)


@dataclass(frozen=True)
class Cause:
    """What went wrong at some instances; `example` is the slug of one, None for spares."""

    words: str
    count: int
    example: str | None


@dataclass(frozen=True)
class Spares:
    """Instances that nobody has claimed yet: how many are ready, and how many there should be."""

    ready: int
    coming: int
    wanted: int


@dataclass(frozen=True)
class Fleet:
    """The summary. Deleted workspaces count while their data is kept."""

    workspaces: int
    by_status: Mapping[str, int]
    spares: Spares
    failing: Sequence[Cause]
    open_changes: Mapping[str, int]
    rollouts: int
    images: Mapping[str, int]
    orphans: Mapping[str, int]
    users: int
    new_users: int


def summary() -> Fleet:
    """Look at everything."""
    by_status = _by_status()
    lately = timezone.now() - LATELY
    users = User.objects.aggregate(all=Count("pk"), new=Count("pk", filter=Q(created__gte=lately)))
    return Fleet(
        workspaces=sum(by_status.values()),
        by_status=by_status,
        spares=spares(),
        failing=_failing(),
        open_changes=_counts(Change.objects.filter(state=Change.State.OPEN), "step"),
        rollouts=Rollout.objects.filter(state=Rollout.State.RUNNING).count(),
        images=_counts(Image.objects.all(), "state"),
        orphans=_counts(Orphan.objects.all(), "kind"),
        users=users["all"],
        new_users=users["new"],
    )


def _by_status() -> dict[str, int]:
    there = Workspace.objects.filter(purged_at=None, instance__purged_at=None)
    counts = {
        status.value: Count("pk", filter=having_status(status, prefix="instance__"))
        for status in Status
        if status is not Status.DELETED
    }
    found: dict[str, int] = there.aggregate(**counts)
    return found


def spares() -> Spares:
    """Count the spares."""
    wanted = Plan.objects.filter(is_default=True).values_list("spares", flat=True).first()
    there = Instance.objects.filter(spare=True, desired=Desired.RUNNING)
    found = there.aggregate(
        up=Count("pk", filter=Q(ready=True)), down=Count("pk", filter=Q(ready=False))
    )
    return Spares(ready=found["up"], coming=found["down"], wanted=wanted or 0)


def _failing() -> list[Cause]:
    """Those whose last attempt at something did not work, by what was said of it."""
    rows = (
        Instance.objects.filter(attempts__gt=0, purged_at=None)
        .values("last_error")
        .annotate(count=Count("pk"), example=Min("workspace__slug"))
        .order_by("-count", "last_error")
    )
    return [Cause(row["last_error"], row["count"], row["example"]) for row in rows[:CAUSES]]


def _counts(rows: QuerySet[Any], field: str) -> dict[str, int]:
    found = rows.order_by().values_list(field).annotate(count=Count("pk")).order_by(field)
    return dict(found)
