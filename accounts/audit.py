"""Write down who did what to what, from where, and when. The only writer of AuditEntry.

In the transaction of the deed: what is rolled back has not been done, and what is done is written.
Postgres refuses to change or remove a row, see the migration; docs/operating.md tells how the
application's role cannot even switch that off.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry, LogEntryManager
from django.db import transaction
from django.db.models import Model
from django.utils import timezone

from accounts import origin
from accounts.models import AuditEntry, User

# Failed sign-ins that are written down in a minute: from everywhere, and of one address on the net
# or for one person, so that nobody uses all of them up to hide behind. Strangers cause them, and
# nothing can be removed again.
MAX_FAILED = 100
MAX_FAILED_OF_ONE = 10
_OF_ADMIN = {ADDITION: "admin_added", CHANGE: "admin_changed", DELETION: "admin_removed"}


def note(
    actor: User | None,
    verb: str,
    thing: Model | None = None,
    *,
    label: str = "",
    workspace: UUID | None = None,
    detail: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Write down one deed. `actor` is None for what strangers or our machinery did.

    `verb` is a stable code; `label` says what the thing was called, by default what it calls
    itself. `detail` is for people and programs to read, so it never holds a secret.
    """
    name, email = _names(actor)
    came = origin.current()
    return AuditEntry.objects.create(
        actor=actor.pk if actor else None,
        actor_name=name,
        actor_email=email,
        by_operator=bool(actor and actor.is_staff),
        via=came.via,
        via_name=came.name[:120],
        address=came.address or None,
        request_id=came.request_id,
        verb=verb,
        kind=(thing._meta.model_name or "") if thing else "",
        object_id=str(thing.pk) if thing else "",
        label=(label or (str(thing) if thing else ""))[:200],
        workspace=workspace or _workspace_of(thing),
        detail=dict(detail or {}),
    )


def _names(actor: User | None) -> tuple[str, str]:
    """Return what somebody is called and their address, as they are now, in one query."""
    if actor is None:
        return "", ""
    found = User.objects.with_names().filter(pk=actor.pk).first()
    return (found.display_name, found.email) if found else (f"user {actor.pk}", "")


def _workspace_of(thing: Model | None) -> UUID | None:
    """Return the id of the workspace that a thing belongs to, if it says so."""
    of: UUID | None = getattr(thing, "workspace_id", None)
    return of


def note_failed_sign_in(email: str) -> None:
    """Write down that somebody gave a wrong password; of too many, that some are left out."""
    lately = AuditEntry.objects.filter(at__gt=timezone.now() - timedelta(minutes=1))
    failed = list(lately.filter(verb="sign_in_failed").values_list("address", "label"))
    came, label = origin.current().address, email[:200]
    same = max(
        sum(bool(came) and address == came for address, _ in failed),
        sum(bool(label) and known == label for _, known in failed),
    )
    if len(failed) < MAX_FAILED and same < MAX_FAILED_OF_ONE:
        note(None, "sign_in_failed", label=label)
    elif not lately.filter(verb="sign_in_failures_left_out").exists():
        note(None, "sign_in_failures_left_out", label=label)


# --- Django's admin ------------------------------------------------------------------------------

_log_actions = LogEntryManager.log_actions


def _hear(
    manager: LogEntryManager,
    user_id: int,
    queryset: Iterable[Model],
    action_flag: int,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Write the admin's lines, as Django does, and an entry for each."""
    rows = list(queryset)
    with transaction.atomic():
        written: Any = _log_actions(manager, user_id, rows, action_flag, *args, **kwargs)
        lines = [written] if isinstance(written, LogEntry) else written
        actor = User.objects.filter(pk=user_id).first()
        for row, line in zip(rows, lines, strict=True):
            words = {"words": line.get_change_message()}
            note(actor, _OF_ADMIN[action_flag], row, label=line.object_repr, detail=words)
    return written


def hear_the_admin() -> None:
    """Have an entry for each line of the admin's own history, which every page of it writes to.

    The method is replaced and not the manager, which is part of the admin's migrations.
    """
    LogEntryManager.log_actions = _hear  # type: ignore[method-assign, assignment]


def log_deed(
    by: User,
    row: Model,
    verb: str,
    words: Any,
    kind: int = CHANGE,
    *,
    workspace: UUID | None = None,
) -> None:
    """Write a line into a row's history in the admin, and an entry with a verb of its own."""
    with transaction.atomic():
        line: Any = _log_actions(LogEntry.objects, by.pk, [row], kind, words, single_object=True)
        note(by, verb, row, workspace=workspace, detail={"words": line.get_change_message()})
