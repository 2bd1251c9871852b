"""What happened to a workspace: its people's deeds and its instance's events, in one order.

The ids of both come from one sequence, and whoever writes one holds the row of the workspace or of
its instance. So they become visible in their order: a reader that has seen an id misses nothing by
asking for what is greater. A workspace that was deleted and restored has had several instances, one
after the other; their events are one history.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from django.db.models import BooleanField, F, IntegerField, QuerySet, Value

from deploy.models import InstanceEvent
from workspaces.models import Activity, Workspace

_FIELDS = ("id", "at", "what", "more", "duration_ms", "failed", "status", "who_id")


def rows_of(
    workspace: Workspace, *, leave_out: Iterable[str] = ()
) -> QuerySet[Any, dict[str, Any]]:
    """Return all that happened, as plain rows; `deed` tells people's from the instance's."""
    both = _events(workspace, leave_out, {}).union(_deeds(workspace, {}), all=True)
    return cast("QuerySet[Any, dict[str, Any]]", both)


def newest(
    workspace: Workspace,
    limit: int,
    ids: Mapping[str, int] | None = None,
    *,
    leave_out: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Return the newest so many, newest first. It costs the same however long the history is.

    `ids` are lookups of the id, such as `{"id__lt": 7}`.
    """
    return _some(workspace, "-id", limit, ids or {}, leave_out)


def following(workspace: Workspace, after: int, limit: int) -> list[dict[str, Any]]:
    """Return the first so many behind the id `after`, oldest first."""
    return _some(workspace, "id", limit, {"id__gt": after}, ())


def _some(
    workspace: Workspace,
    order: str,
    limit: int,
    ids: Mapping[str, int],
    leave_out: Iterable[str],
) -> list[dict[str, Any]]:
    """Ask once: in two questions a row could become visible behind the one, before the other."""
    events = _events(workspace, leave_out, ids).order_by(order)[:limit]
    deeds = _deeds(workspace, ids).order_by(order)[:limit]
    return list(events.union(deeds, all=True).order_by(order)[:limit])


def _events(
    workspace: Workspace, leave_out: Iterable[str], ids: Mapping[str, int]
) -> QuerySet[Any]:
    rows: QuerySet[Any] = (
        InstanceEvent.objects.filter(history=workspace.instance.history, **ids)
        .exclude(kind__in=[*leave_out])
        .order_by()
        .annotate(what=F("kind"), more=F("message"), who_id=Value(None, IntegerField()))
        .values(*_FIELDS)
        .annotate(deed=Value(False, BooleanField()))
    )
    return rows


def _deeds(workspace: Workspace, ids: Mapping[str, int]) -> QuerySet[Any]:
    rows: QuerySet[Any] = (
        Activity.objects.filter(workspace=workspace, **ids)
        .order_by()
        .annotate(
            what=F("verb"),
            more=F("detail"),
            duration_ms=Value(None, IntegerField()),
            failed=Value(False, BooleanField()),
            status=Value(""),
            who_id=F("user_id"),
        )
        .values(*_FIELDS)
        .annotate(deed=Value(True, BooleanField()))
    )
    return rows
