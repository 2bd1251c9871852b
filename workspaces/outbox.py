"""What webhooks are told, written down in the very transaction in which it happens.

So a message exists if and only if what it tells of does. It is sent once the transaction is in, by
workspaces.sending; losing that call loses nothing, because the beat looks for what is due.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.db.models import Q, Subquery
from django.utils import timezone

from accounts.models import User
from deploy.models import InstanceEvent
from deploy.states import Status
from workspaces import calls, history
from workspaces.models import Activity, Delivery, Webhook, Workspace

PING = "ping"

# The one list of what a webhook can hear of: docs, forms and API show it.
TYPES: Mapping[str, str] = {
    "workspace.created": "Somebody made a workspace; only operators' webhooks hear of it.",
    "workspace.updated": "It got another name, other metadata, another plan or another visibility.",
    "workspace.restored": "Its deletion was undone.",
    "workspace.provisioning": "It is coming up.",
    "workspace.running": "It is up and answers.",
    "workspace.sleeping": "Nobody used it for a while; the next request wakes it.",
    "workspace.stopped": "An owner stopped it.",
    "workspace.suspended": "The operators suspended it.",
    "workspace.failed": "Something keeps it from running.",
    "workspace.disk": "Its disk is nearly full, full, or has room again.",
    "workspace.deleting": "It was deleted; its data is kept for a while, and that can be undone.",
    "workspace.deleted": "Its data was removed for good.",
    "plugins.changed": "It runs another set of plugins, or another release.",
    "members.changed": "Somebody came, left, or got another role.",
    "secrets.changed": "A secret was set or removed. Its value is never told.",
}

# What people's deeds are called out there. Those that are not here bring about a status, which is
# told of then, or concern webhooks themselves.
_TYPES_OF_DEEDS: Mapping[str, str] = {
    "created": "workspace.created",
    "renamed": "workspace.updated",
    "changed_metadata": "workspace.updated",
    "changed_plan": "workspace.updated",
    "made_public": "workspace.updated",
    "made_private": "workspace.updated",
    "restored": "workspace.restored",
    "changed_plugins": "plugins.changed",
    "joined": "members.changed",
    "transferred": "members.changed",
    "changed_role": "members.changed",
    "made_owner": "members.changed",
    "removed_member": "members.changed",
    "left": "members.changed",
    "set_secret": "secrets.changed",
    "removed_secret": "secrets.changed",
}

# Events that are told of although they bring about no status.
_TYPES_OF_EVENTS: Mapping[str, str] = {
    "disk_nearly_full": "workspace.disk",
    "disk_full": "workspace.disk",
    "disk_fine": "workspace.disk",
}

if missing := {f"workspace.{status}" for status in Status} - set(TYPES):
    raise AssertionError(f"no webhook can hear of {missing}")


# --- writing -------------------------------------------------------------------------------------


def note_deed(deed: Activity) -> None:
    """Write what people's webhooks are told of a deed. In its transaction."""
    type = _TYPES_OF_DEEDS.get(deed.verb)
    if type is None:
        return
    if hooks := _listeners(type, Q(workspace=deed.workspace_id)):
        workspace = Workspace.objects.select_related("instance").get(pk=deed.workspace_id)
        told = _event(
            deed.at,
            deed.verb,
            history.words_of({"deed": True, "what": deed.verb}),
            id=deed.pk,
            who=history.name_of(deed.user, workspace) if deed.user else None,
            detail=deed.detail,
        )
        _write(hooks, type, workspace, told)


def hear(event: InstanceEvent, **_: Any) -> None:
    """Write what webhooks are told of an event, in its transaction: of those that are news to them.

    These bring about a status, or say how the disk is.
    """
    type = _TYPES_OF_EVENTS.get(event.kind) or (event.status and f"workspace.{event.status}")
    if not type:
        return
    mine = Workspace.objects.filter(instance=event.instance_id)
    # A subquery: with a join, Postgres would look at every webhook that there is.
    hooks = _listeners(type, Q(workspace=Subquery(mine.values("pk"))))
    workspace = mine.select_related("instance").first() if hooks else None
    if workspace is None:  # nobody listens, or it is a spare, which is nobody's yet
        return
    told = _event(
        event.at,
        event.kind,
        history.words_of({"deed": False, "what": event.kind, "failed": event.failed}),
        id=event.pk,
        status=event.status or None,
        detail=event.message,
        duration_ms=event.duration_ms,
        failed=event.failed,
    )
    _write(hooks, type, workspace, told)


def write_ping(webhook: Webhook, by: User) -> Delivery:
    """Write a message that tells of nothing: somebody wants to see one arrive."""
    who = history.name_of(by, webhook.workspace)
    told = _event(timezone.now(), PING, "asked for a test message", who=who)
    (delivery,) = _write([webhook], PING, webhook.workspace, told)
    return delivery


def _event(at: datetime, kind: str, text: str, **more: Any) -> dict[str, Any]:
    """Return an event as the API shows it too."""
    return {
        "id": None,
        "at": _iso(at),
        "kind": kind,
        "status": None,
        "who": None,
        "text": text,
        "detail": "",
        "duration_ms": None,
        "failed": False,
        **more,
    }


def _listeners(type: str, here: Q) -> list[Webhook]:
    """Return who wants to hear of it: one query, which is all that it costs when nobody does."""
    found = Webhook.objects.filter(here | Q(workspace=None), active=True)
    wanting = [
        webhook
        for webhook in found.select_related("created_by")
        if not webhook.events or type in webhook.events
    ]
    return [webhook for webhook in wanting if not webhook.silenced]


def _write(
    hooks: list[Webhook], type: str, workspace: Workspace | None, event: Mapping[str, Any]
) -> list[Delivery]:
    data = {"workspace": _told_of(workspace) if workspace else None, "event": event}
    body = json.dumps(
        {"type": type, "timestamp": event["at"], "data": data},
        ensure_ascii=False,
        separators=(",", ":"),
    )
    there = _hold(hooks)
    written = [Delivery(webhook=one, type=type, body=body) for one in hooks if one.pk in there]
    Delivery.objects.bulk_create(written)
    wake(*written)
    return written


def _hold(hooks: list[Webhook]) -> set[int]:
    """Keep webhooks from being deleted before this transaction is in; return those that are there.

    A message for one that is gone would fail at the commit, and undo what it tells of. So one that
    somebody is just deleting is skipped: what happens waits for nobody.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM workspaces_webhook WHERE id = ANY(%s) FOR KEY SHARE SKIP LOCKED",
            [[webhook.pk for webhook in hooks]],
        )
        return {pk for (pk,) in cursor.fetchall()}


def _told_of(workspace: Workspace) -> dict[str, str]:
    return {
        "slug": workspace.slug,
        "name": workspace.name,
        "status": workspace.status.value,
        "url": workspace.url,
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- waking a worker -----------------------------------------------------------------------------


_SEND = "workspaces.tasks.send_webhook"


def wake(*deliveries: Delivery, seconds: float = 0) -> None:
    """Have workers send them once the transaction is in, `seconds` later."""
    calls.after_commit(_SEND, [delivery.pk for delivery in deliveries], seconds)
