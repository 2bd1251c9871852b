"""What can be done with webhooks. Pages, admin and REST API call these and nothing else.

As workspaces.services: each is one transaction that writes its Activity, and what cannot be done
raises Refused. A webhook without a workspace is an operator's, and hears of all workspaces; what is
done to it stands in the admin's history.
"""

import base64
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.contrib.admin.models import ADDITION, CHANGE, DELETION
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts import audit
from accounts.models import User
from deploy import vault
from workspaces import activity, deeds, outbox, outside, sending, services
from workspaces.models import Delivery, Webhook, Workspace
from workspaces.services import Refused, TooOften

MAX_WEBHOOKS = 10
MAX_NAME = 80
PINGS_A_MINUTE = 5
# For how long the secret before the present one signs too.
OVERLAP = timedelta(hours=24)
# So many requests of one process wait for name servers, which may be the customer's own, at a time.
LOOK_UPS = 2
LOOK_UP_RETRY_SECONDS = 5

_look_ups = threading.BoundedSemaphore(LOOK_UPS)


def webhooks_of(workspace: Workspace | None) -> QuerySet[Webhook]:
    """Return the webhooks of a workspace, or of the operators."""
    return Webhook.objects.filter(workspace=workspace).select_related("created_by")


def create(
    workspace: Workspace | None, by: User, *, url: str, name: str = "", events: Iterable[str] = ()
) -> tuple[Webhook, str]:
    """Make a webhook; return it and its secret, which nobody can read again. Raises Refused."""
    if workspace is None and not by.is_staff:
        raise Refused("Only operators hear of all workspaces.")
    fields = {"url": _checked_url(url), "name": _checked_name(name), "events": _checked(events)}
    secret = _new_secret()
    with _holding(workspace, by) as current:
        if current and webhooks_of(current).count() >= MAX_WEBHOOKS:
            raise Refused(f"A workspace has at most {MAX_WEBHOOKS} webhooks.")
        webhook = Webhook.objects.create(
            workspace=current, created_by=by, secret=vault.seal(secret), **fields
        )
        _note(current, by, "added_webhook", webhook)
    return webhook, secret


def update(
    webhook: Webhook,
    by: User,
    *,
    url: str | None = None,
    name: str | None = None,
    events: Iterable[str] | None = None,
    active: bool | None = None,
) -> Webhook:
    """Change what is given, and return it as it is then. Raises Refused.

    Switching it on forgives what failed before.
    """
    changes: dict[str, Any] = {}
    if url is not None:
        changes["url"] = _checked_url(url)
    if name is not None:
        changes["name"] = _checked_name(name)
    if events is not None:
        changes["events"] = _checked(events)
    with _holding(webhook.workspace, by) as current:
        row = _locked(webhook)
        if active is not None and active != row.active:
            changes |= {"active": active, "disabled_reason": "", "failing_since": None}
        changes = {key: value for key, value in changes.items() if value != getattr(row, key)}
        if changes:
            _set(row, **changes)
            if not row.active:
                sending.give_up_waiting(row.pk, sending.SWITCHED_OFF)
            _note(current, by, "changed_webhook", row)
    return row


def delete(webhook: Webhook, by: User) -> None:
    """Remove it, with its log. What is on its way is not sent any more."""
    with _holding(webhook.workspace, by) as current:
        row = _locked(webhook, to_delete=True)
        _note(current, by, "removed_webhook", row)
        row.delete()


def rotate(webhook: Webhook, by: User) -> str:
    """Give it a new secret, and return it. For a day the old one signs too. Raises Refused."""
    secret = _new_secret()
    with _holding(webhook.workspace, by) as current:
        row = _locked(webhook)
        _set(
            row,
            secret=vault.seal(secret),
            old_secret=row.secret,
            old_secret_until=timezone.now() + OVERLAP,
        )
        _note(current, by, "rotated_webhook", row)
    return secret


def ping(webhook: Webhook, by: User) -> Delivery:
    """Send a test message, once. Raises Refused."""
    with transaction.atomic():
        row = _locked(webhook)
        _demand_active(row)
        lately = timezone.now() - timedelta(minutes=1)
        sent = row.deliveries.filter(type=outbox.PING, created_at__gt=lately)
        if sent.count() >= PINGS_A_MINUTE:
            words = f"{PINGS_A_MINUTE} test messages a minute must do. Try again shortly."
            raise TooOften(words, "too_many_requests", 60)
        audit.note(by, "tested_webhook", row)
        return outbox.write_ping(row, by)


def redeliver(delivery: Delivery, by: User) -> Delivery:
    """Send a message again, with the same id; one that waits for its next attempt, now.

    Return it as it is then. Raises Refused.
    """
    with transaction.atomic():
        rows = Delivery.objects.select_for_update(of=("self",)).select_related("webhook")
        row = rows.filter(pk=delivery.pk).first()
        if row is None:
            raise Refused("This message is not kept any more.", code="not_found")
        _demand_active(row.webhook)
        row.next_attempt_at = timezone.now()
        if row.state != Delivery.State.PENDING:
            row.state, row.attempts, row.delivered_at = Delivery.State.PENDING, 0, None
        row.save(update_fields=["next_attempt_at", "state", "attempts", "delivered_at"])
        about = {"message": str(row.pk), "type": row.type}
        audit.note(by, "sent_again", row.webhook, detail=about)
        outbox.wake(row)
    return row


def reseal_secrets() -> int:
    """Encrypt all secrets with the first key; return how many webhooks there are.

    All or none: raises vault.Unreadable.
    """
    with transaction.atomic():
        rows = list(Webhook.objects.select_for_update(no_key=True))
        for row in rows:
            old = {"of a webhook before": row.old_secret} if row.old_secret else {}
            fresh = vault.reseal({"of a webhook": row.secret, **old})
            _set(row, secret=fresh.pop("of a webhook"), old_secret="".join(fresh.values()))
    return len(rows)


# --- helpers -------------------------------------------------------------------------------------


@contextmanager
def _holding(workspace: Workspace | None, by: User) -> Iterator[Workspace | None]:
    """Open a transaction, in which the webhook's workspace is held if it has one."""
    if workspace is None:
        with transaction.atomic():
            yield None
    else:
        with services.changing(workspace, by, "manage_webhooks") as current:
            yield current


def _locked(webhook: Webhook, *, to_delete: bool = False) -> Webhook:
    """Hold its row. Only who deletes it waits for those who write to it, and is skipped by them."""
    rows = Webhook.objects.select_for_update(of=("self",), no_key=not to_delete)
    row = rows.filter(pk=webhook.pk).first()
    if row is None:
        raise Refused("This webhook is not there any more.", code="not_found")
    return row


def _set(row: Webhook, **changes: Any) -> None:
    for name, value in changes.items():
        setattr(row, name, value)
    row.save(update_fields=[*changes])


# What a deed leaves in the admin's history of an operators' webhook, which has no workspace.
_LINES: Mapping[str, tuple[str, int]] = {
    "added_webhook": ("Added.", ADDITION),
    "changed_webhook": ("Changed.", CHANGE),
    "rotated_webhook": ("It has a new secret.", CHANGE),
    "removed_webhook": ("Removed.", DELETION),
}


def _note(workspace: Workspace | None, by: User, verb: str, webhook: Webhook) -> None:
    if workspace is not None:
        activity.note(workspace, by, verb, str(webhook))
    else:
        deeds.note(by, webhook, verb, *_LINES[verb])


def _demand_active(webhook: Webhook) -> None:
    if not webhook.active:
        raise Refused("This webhook is off. Switch it on first.")


def _new_secret() -> str:
    """Return a secret as Standard Webhooks writes them: 256 bits of chance."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _checked_url(url: str) -> str:
    url = url.strip()
    if not _look_ups.acquire(blocking=False):
        words = "Other addresses are being looked up just now. Try again shortly."
        raise TooOften(words, "too_many_waiting", LOOK_UP_RETRY_SECONDS)
    try:
        if not connection.in_atomic_block:
            connection.close()  # while this waits it is others'
        outside.check(url)
    except outside.NotAllowed as refusal:
        raise Refused(str(refusal), "url") from refusal
    finally:
        _look_ups.release()
    return url


def _checked_name(name: str) -> str:
    name = " ".join(name.split())
    if len(name) > MAX_NAME:
        raise Refused(f"Use at most {MAX_NAME} characters.", "name")
    return name


def _checked(events: Iterable[str]) -> list[str]:
    """Return types of events in the order of the table, each once."""
    wanted = set(events)
    if unknown := sorted(wanted - set(outbox.TYPES)):
        raise Refused(f"There are no events of the type {unknown[0]!r}.", "events")
    return [type for type in outbox.TYPES if type in wanted]
