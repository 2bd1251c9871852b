"""What happened to a workspace, in words: what people did, and what its instance did.

Two tables, one list, newest first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
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

from accounts.models import User
from deploy.models import Instance, InstanceEvent
from workspaces.models import Activity, Workspace

DEED_WORDS: Mapping[str, str] = {
    "created": "created the workspace",
    "renamed": "renamed it",
    "started": "started it",
    "stopped": "stopped it",
    "restarted": "restarted it",
    "deleted": "deleted the workspace",
    "restored": "brought the workspace back",
    "changed_plugins": "changed the plugins",
}

# Requests that people make through services: the Activity beside them already says who and what.
_SAID_BY_DEEDS = (
    "create_requested",
    "want_running",
    "stop_owner",
    "restart",
    "want_absent",
    "succeeded",
)

EVENT_WORDS: Mapping[str, str] = {
    "wake": "Woke up: somebody asked for a page",
    "sleep": "Went to sleep: nobody used it for a while",
    "stop_idle": "Went to sleep: nobody used it for a while",
    "stop_operator": "The operators suspended it",
    "change_spec": "The operators changed what it may use",
    "change_plugins": "Changed over to the new set of plugins",
    "roll_back": "Went back to the old set of plugins",
    "create": "Made the container",
    "start": "Started the container",
    "await_ready": "Ready: it answered",
    "pause": "Paused",
    "unpause": "Woke from its pause",
    "stop": "Stopped the container, with all data written",
    "remove": "Removed the container; the data stays",
    "purge": "Removed the data",
    "lost": "It ended without being asked to",
    "unknown": "We could not reach it",
}

FAILURE_WORDS: Mapping[str, str] = {
    "create": "The container could not be made",
    "start": "The container could not be started",
    "await_ready": "It started, but did not answer",
    "pause": "It could not be paused",
    "unpause": "It could not be woken from its pause",
    "stop": "It could not be stopped",
    "remove": "Its container could not be removed",
    "purge": "Its data could not be removed",
}


@dataclass(frozen=True)
class Entry:
    """One line of the history. `who` is empty for what the instance did; `ms` is its duration.

    `times` counts the failures that this line stands for, of which it is the latest.
    """

    at: datetime
    who: str
    text: str
    detail: str
    ms: int | None
    failed: bool
    times: int = 1


_claims = InstanceEvent.objects.filter(instance=OuterRef("instance"), kind="claimed").order_by(
    "-id"
)


def rows_of(workspace: Workspace) -> QuerySet[Any, dict[str, Any]]:
    """Return what happened as one query of plain rows, newest first; `entries` words a page of it.

    A workspace that was deleted and restored has had several instances: all of them count.
    """
    instances = Instance.objects.filter(
        Q(pk=workspace.instance_id) | Q(successors=workspace.instance_id)
    )
    events = (
        InstanceEvent.objects.filter(
            instance__in=instances.order_by().values("pk"),
            # What a spare did before somebody claimed it is nobody's history.
            id__gt=Coalesce(Subquery(_claims.values("id")[:1]), 0),
        )
        .exclude(kind__in=_SAID_BY_DEEDS)
        .order_by()
        .annotate(what=F("kind"), more=F("message"), who_id=Value(None, IntegerField()))
        .values("at", "id", "what", "more", "duration_ms", "failed", "who_id")
        .annotate(deed=Value(False, BooleanField()))
    )
    deeds = (
        Activity.objects.filter(workspace=workspace)
        .order_by()
        .annotate(
            what=F("verb"),
            more=F("detail"),
            duration_ms=Value(None, IntegerField()),
            failed=Value(False, BooleanField()),
            who_id=F("user_id"),
        )
        .values("at", "id", "what", "more", "duration_ms", "failed", "who_id")
        .annotate(deed=Value(True, BooleanField()))
    )
    both = events.union(deeds, all=True).order_by("-at", "-deed", "-id")
    return cast("QuerySet[Any, dict[str, Any]]", both)


def entries(rows: list[dict[str, Any]]) -> list[Entry]:
    """Return the words for some of `rows_of`'s rows."""
    people = User.objects.with_names().filter(pk__in={row["who_id"] for row in rows} - {None})
    names = {person.pk: person.display_name for person in people}
    found: list[Entry] = []
    for row in rows:
        entry = _entry(row, names)
        if found and _repeats(found[-1], entry):
            found[-1] = replace(found[-1], times=found[-1].times + 1)
        else:
            found.append(entry)
    return found


def _repeats(later: Entry, entry: Entry) -> bool:
    """Whether two failures in a row say the same."""
    same = (later.text, later.detail) == (entry.text, entry.detail)
    return same and later.failed and entry.failed


def _entry(row: dict[str, Any], names: Mapping[int, str]) -> Entry:
    what: str = row["what"]
    if row["deed"]:
        who = names.get(row["who_id"], "Somebody who has left")
        text = DEED_WORDS.get(what, what.replace("_", " "))
    else:
        who = ""
        words = FAILURE_WORDS if row["failed"] and what in FAILURE_WORDS else EVENT_WORDS
        text = words.get(what, what.replace("_", " ").capitalize())
    return Entry(row["at"], who, text, row["more"], row["duration_ms"], row["failed"])
