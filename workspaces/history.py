"""What happened to a workspace, in words: what people did, and what its instance did."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from accounts.models import User
from accounts.names import shown_name
from workspaces import events
from workspaces.models import Workspace

DEED_WORDS: Mapping[str, str] = {
    "created": "created the workspace",
    "renamed": "renamed it",
    "started": "started it",
    "stopped": "stopped it",
    "restarted": "restarted it",
    "deleted": "deleted the workspace",
    "restored": "brought the workspace back",
    "asked_for_change": "asked for a change of the plugins",
    "changed_plugins": "changed the plugins",
    "changed_metadata": "changed the metadata",
    "set_secret": "set a secret",
    "removed_secret": "removed a secret",
    "added_member": "added a member",
    "changed_role": "changed a role",
    "made_owner": "made an owner, for there was none left:",
    "removed_member": "removed a member",
    "left": "left the workspace",
    "invited": "invited",
    "resent_invitation": "sent an invitation again:",
    "withdrew_invitation": "withdrew the invitation of",
    "joined": "joined",
    "transferred": "handed the workspace over",
    "made_public": "made the workspace public: everybody may read it",
    "made_private": "made the workspace private again",
    "suspended": "suspended the workspace:",
    "resumed": "lifted the suspension",
    "changed_plan": "changed the plan",
    "retried": "had it tried again",
    "rebuilt": "had its image built anew",
    "gave_up_change": "gave up the change that was under way",
    "forgotten": "let go of it, for its container is gone for good:",
    "allowed_support": "let the operators look at the data",
    "ended_support": "closed the data to the operators",
    "entered_support": "came in to look at the data",
    "added_webhook": "added the webhook",
    "changed_webhook": "changed the webhook",
    "rotated_webhook": "gave a new secret to the webhook",
    "removed_webhook": "removed the webhook",
    "disabled_webhook": "Switched a webhook off",
}

# Deeds that nobody did: this software by itself.
_BY_ITSELF = ("disabled_webhook",)

# Requests that people make through services: the Activity beside them already says who and what.
_SAID_BY_DEEDS = (
    "create_requested",
    "want_running",
    "stop_owner",
    "stop_operator",
    "restart",
    "want_absent",
    "succeeded",
    "claimed",
    "observed",
    "set_secret",
    "retry",
    "forgotten",
)

EVENT_WORDS: Mapping[str, str] = {
    "wake": "Woke up: somebody asked for a page",
    "sleep": "Went to sleep: nobody used it for a while",
    "stop_idle": "Went to sleep: nobody used it for a while",
    "stop_operator": "The operators suspended it",
    "change_spec": "The operators changed what it may use",
    "change_limits": "The operators changed what it may use",
    "disk_nearly_full": "Its disk is nearly full",
    "disk_full": "Its disk is full, so nothing can be added",
    "disk_fine": "Its disk has room again",
    "set_secret": "A secret changed, so it is made anew",
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
    "create_requested": "Its instance was asked for",
    "claimed": "It got an instance that was ready already",
    "want_running": "Asked to run",
    "stop_owner": "Asked to stop",
    "restart": "Asked to restart",
    "want_absent": "Asked to be removed; the data stays for now",
    "succeeded": "Its data went over to a new instance",
    "observed": "It was found in another state",
    "retry": "Asked to try again",
    "forgotten": "Let go of: its container is gone",
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


def rows_of(workspace: Workspace) -> QuerySet[Any, dict[str, Any]]:
    """Return what happened as one query of plain rows, newest first; `entries` words a page of it.

    What a person did and an event says as well is there once.
    """
    return events.rows_of(workspace, leave_out=_SAID_BY_DEEDS).order_by("-id")


def recent(workspace: Workspace, limit: int) -> list[Entry]:
    """Return the newest so many, in words."""
    return entries(workspace, events.newest(workspace, limit, leave_out=_SAID_BY_DEEDS))


def entries(workspace: Workspace, rows: list[dict[str, Any]]) -> list[Entry]:
    """Return the words for some of `rows_of`'s rows, for its members."""
    names = names_in(rows, workspace)
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
    who = who_of(row, names) or ""
    return Entry(row["at"], who, words_of(row), row["more"], row["duration_ms"], row["failed"])


def names_in(rows: Iterable[Mapping[str, Any]], of: Workspace | None) -> dict[int, str]:
    """Return what those who did something are called; `of` as in `names_of`."""
    who = {row["who_id"] for row in rows} - {None}
    return names_of(User.objects.with_names().filter(pk__in=who), of)


def names_of(people: Iterable[User], of: Workspace | None) -> dict[int, str]:
    """Return what people are called by the members `of` a workspace; without one, by operators."""
    people, members = list(people), None
    if of is not None:  # no query where nobody is an operator
        staff = [person.pk for person in people if person.is_staff]
        members = set(of.members.filter(user__in=staff).values_list("user_id", flat=True))
    return {person.pk: shown_name(person, members) for person in people}


def name_of(person: User, of: Workspace | None) -> str:
    """Return what one of them is called."""
    return names_of([person], of)[person.pk]


def who_of(row: Mapping[str, Any], names: Mapping[int, str]) -> str | None:
    """Return who did what one of the rows says; None for what happened by itself."""
    if not row["deed"] or row["what"] in _BY_ITSELF:
        return None
    return names.get(row["who_id"], "Somebody who has left")


def words_of(row: Mapping[str, Any]) -> str:
    """Return what one of the rows says, in words."""
    what: str = row["what"]
    if row["deed"]:
        return DEED_WORDS.get(what, what.replace("_", " "))
    words = FAILURE_WORDS if row["failed"] and what in FAILURE_WORDS else EVENT_WORDS
    return words.get(what, what.replace("_", " ").capitalize())
