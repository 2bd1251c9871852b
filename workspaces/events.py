"""What happened to a workspace: its people's deeds and its instance's events, in one order.

The ids of both come from one sequence, and whoever writes one holds the row of the workspace or of
its instance. So they become visible in their order: a reader that has seen an id misses nothing by
asking for what is greater.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from django.db.models import (
    BooleanField,
    F,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
)
from django.db.models.functions import Coalesce

from deploy.models import Instance, InstanceEvent
from workspaces.models import Activity, Workspace

_FIELDS = ("id", "at", "what", "more", "duration_ms", "failed", "status", "who_id")

_claims = InstanceEvent.objects.filter(instance=OuterRef("instance"), kind="claimed").order_by(
    "-id"
)


def rows_of(
    workspace: Workspace, ids: Mapping[str, int] | None = None, *, leave_out: Iterable[str] = ()
) -> QuerySet[Any, dict[str, Any]]:
    """Return what happened, as plain rows of one query; `deed` tells people's from the instance's.

    `ids` are lookups of the id, such as `{"id__gt": 7}`. A workspace that was deleted and restored
    has had several instances: all of them count.
    """
    ids = ids or {}
    both = _events(workspace, leave_out, ids).union(_deeds(workspace, ids), all=True)
    return cast("QuerySet[Any, dict[str, Any]]", both)


def _events(
    workspace: Workspace, leave_out: Iterable[str], ids: Mapping[str, int]
) -> QuerySet[Any]:
    instances = Instance.objects.filter(
        Q(pk=workspace.instance_id) | Q(successors=workspace.instance_id)
    )
    found = InstanceEvent.objects.filter(
        instance__in=instances.order_by().values("pk"),
        # What a spare did before somebody claimed it is nobody's history.
        id__gte=Coalesce(Subquery(_claims.values("id")[:1]), 0),
    )
    rows: QuerySet[Any] = (
        found.filter(**ids)
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
