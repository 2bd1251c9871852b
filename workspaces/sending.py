"""Send what the outbox holds: signed, one worker at a time for each message, again if it fails.

A worker claims a message by moving `claimed_until`; if it dies, the claim runs out and the beat
sends another one. So a message arrives at least once, with the same id each time, and in no
particular order. No receiver keeps the others waiting, however slowly it answers: of one webhook,
and of one workspace, so many are under way at a time; each that ends has the next ones sent.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, F, Q, QuerySet, Window
from django.db.models.functions import RowNumber
from django.utils import timezone
from standardwebhooks import Webhook as Signer

from deploy import vault
from workspaces import activity, outbox, outside
from workspaces.models import Delivery, Webhook, Workspace

AGENT = "cloudapp-webhooks/1"
# Seconds from one attempt to the next, as Standard Webhooks recommends.
DELAYS = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600)
_NO_ANSWER: dict[str, Any] = {"status_code": None, "answer": "", "duration_ms": None}
# So much more or less by chance, lest all that failed together comes back together.
JITTER = 0.2
# Longer than an attempt can take.
CLAIM = timedelta(seconds=60)
# So many messages are under way at a time; of a webhook that is failing, one.
AT_ONCE = 2
AT_ONCE_OF_WORKSPACE = 4
# Postgres' name for the lock under which workers take turns to claim.
_CLAIMING = 0x776562686F6F6B
GIVE_UP_AFTER = timedelta(days=5)
KEPT = timedelta(days=30)
# So many messages of one webhook wait, as long as they fail or the receiver is slow.
MOST_PENDING = 1000
SWITCHED_OFF = "The webhook was switched off."
# What a broker keeps in mind for us; what is due later, the beat finds.
SOON_SECONDS = 60
TAKEN_UP_AT_ONCE = 500
GONE = 410

State = Delivery.State
logger = logging.getLogger(__name__)


def send(pk: UUID | str) -> None:
    """Make the next attempt at a message, if it is due and nobody else is at it."""
    delivery = _claim(pk)
    if delivery is None:
        return
    _attempt(delivery)
    _wake_next(delivery)


def _attempt(delivery: Delivery) -> None:
    if not delivery.webhook.active:
        _give_up(delivery, SWITCHED_OFF)
        return
    if words := delivery.webhook.silenced:
        _give_up(delivery, words)
        return
    began = time.monotonic()
    try:
        answer = outside.post(delivery.webhook.url, delivery.body.encode(), _headers(delivery))
    except outside.NotAllowed as refusal:
        _give_up(delivery, str(refusal))
    except (outside.Unreachable, vault.Unreadable) as failure:
        _try_again(delivery, str(failure), duration_ms=_since(began))
    except Exception:  # what we did not think of must not be tried for ever
        logger.exception("the message %s could not be sent", delivery.pk)
        _try_again(delivery, "Something went wrong on our side.")
    else:
        _take(delivery, answer, _since(began))


# --- who sends it --------------------------------------------------------------------------------


def _ready(now: datetime) -> QuerySet[Delivery]:
    """Return what is to be sent now, and what a worker died at."""
    free = Q(claimed_until=None) | Q(claimed_until__lte=now)
    return Delivery.objects.filter(free, state=State.PENDING, next_attempt_at__lte=now)


def due() -> QuerySet[Delivery]:
    """Return what the beat has sent: of each webhook as many as may be under way."""
    now = timezone.now()
    turn = Window(RowNumber(), partition_by="webhook_id", order_by=("next_attempt_at", "pk"))
    ready = _ready(now).exclude(_waits(now)).annotate(turn=turn)
    mine = ready.filter(Q(turn=1) | Q(turn__lte=AT_ONCE, webhook__failing_since=None))
    return mine.order_by("next_attempt_at")[:TAKEN_UP_AT_ONCE]


def _waits(now: datetime) -> Q:
    """Return what has to wait until something that is under way ends: few rows."""
    claimed = Delivery.objects.filter(claimed_until__gt=now).select_related("webhook")
    places = [(one.webhook_id, one.webhook.workspace_id) for one in claimed]
    webhooks = Counter(webhook for webhook, _ in places)
    full = [webhook for webhook, count in webhooks.items() if count >= AT_ONCE]
    waits = Q(webhook__in=full) | Q(webhook__in=[*webhooks], webhook__failing_since__isnull=False)
    for workspace, count in Counter(workspace for _, workspace in places).items():
        if count >= AT_ONCE_OF_WORKSPACE:  # the operators' have none, and count as one
            waits |= Q(webhook__workspace=workspace)
    return waits


def _claim(pk: UUID | str) -> Delivery | None:
    """Make a message ours for a while; None when it is not due, somebody else's, or has to wait."""
    with transaction.atomic():
        with connection.cursor() as cursor:  # two at once would not see each other's claims
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_CLAIMING])
        now = timezone.now()
        mine = _ready(now).filter(pk=pk).exclude(_waits(now))
        if not mine.update(claimed_until=now + CLAIM, attempts=F("attempts") + 1):
            return None
    found = Delivery.objects.filter(pk=pk, claimed_until=now + CLAIM)
    return found.select_related("webhook__workspace", "webhook__created_by").first()


def _wake_next(ended: Delivery) -> None:
    """Have the workspace's next messages sent, which may have had to wait for this one's end."""
    now = timezone.now()
    beside = _ready(now).exclude(_waits(now)).filter(webhook__workspace=ended.webhook.workspace_id)
    outbox.wake(*beside.order_by("next_attempt_at")[:AT_ONCE])


def _record(delivery: Delivery, **changes: Any) -> bool:
    """Write what came of an attempt, unless our claim ran out and the message is another's."""
    mine = Delivery.objects.filter(pk=delivery.pk, claimed_until=delivery.claimed_until)
    return bool(mine.update(claimed_until=None, attempted_at=timezone.now(), **changes))


# --- what is sent --------------------------------------------------------------------------------


def _headers(delivery: Delivery) -> dict[str, str]:
    now = timezone.now()
    id = str(delivery.pk)
    signatures = [
        Signer(secret).sign(id, now, delivery.body) for secret in _secrets(delivery.webhook, now)
    ]
    return {
        "Content-Type": "application/json",
        "User-Agent": AGENT,
        "webhook-id": id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _secrets(webhook: Webhook, now: datetime) -> Iterator[str]:
    """Yield what signs: the secret, and for a while the one before it. Raises vault.Unreadable."""
    yield from vault.open_all({"of this webhook": webhook.secret}).values()
    if webhook.old_secret and webhook.old_secret_until and webhook.old_secret_until > now:
        yield from vault.open_all({"of this webhook before": webhook.old_secret}).values()


# --- what came of it -----------------------------------------------------------------------------


def _take(delivery: Delivery, answer: outside.Answer, duration_ms: int) -> None:
    """Write what the receiver said."""
    told = {"status_code": answer.status, "answer": answer.text, "duration_ms": duration_ms}
    if 200 <= answer.status < 300:
        _delivered(delivery, **told)
    elif answer.status == GONE:
        words = "It answered 410: it wants no more messages."
        _give_up(delivery, words, **told)
        _switch_off(delivery.webhook, words)
    elif 300 <= answer.status < 400:
        _try_again(delivery, f"It answered {answer.status}. We follow no redirects.", **told)
    else:
        _try_again(delivery, f"It answered {answer.status}.", **told)


def _delivered(delivery: Delivery, **told: Any) -> None:
    done = {"state": State.DELIVERED, "delivered_at": timezone.now(), "error": ""}
    if _record(delivery, **done, **told):
        failing = Webhook.objects.filter(pk=delivery.webhook_id).exclude(failing_since=None)
        failing.update(failing_since=None)


def _try_again(delivery: Delivery, error: str, **told: Any) -> None:
    """Write that it failed, and when the next attempt is; after the last one, that it was that."""
    if delivery.attempts > len(DELAYS) or delivery.type == outbox.PING:
        _give_up(delivery, error, **told)
        return
    seconds = DELAYS[delivery.attempts - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    changes = _NO_ANSWER | told | {"next_attempt_at": timezone.now() + timedelta(seconds=seconds)}
    if _record(delivery, error=error[:300], **changes):
        _note_failure(delivery)
        if seconds < SOON_SECONDS:
            outbox.wake(delivery, seconds=seconds)


def _give_up(delivery: Delivery, error: str, **told: Any) -> None:
    """Write that it failed and is not tried again by itself."""
    changes = _NO_ANSWER | told | {"state": State.FAILED, "error": error[:300]}
    if _record(delivery, **changes):
        _note_failure(delivery)


def _note_failure(delivery: Delivery) -> None:
    """Note since when a webhook fails; switch it off when that is too long. A ping tells nothing.

    A worker that dies before this does no harm: the next failure is noted instead.
    """
    webhook = delivery.webhook
    if not webhook.active or delivery.type == outbox.PING:
        return
    now, mine = timezone.now(), Webhook.objects.filter(pk=webhook.pk)
    mine.filter(failing_since=None).update(failing_since=now)
    if mine.filter(failing_since__lt=now - GIVE_UP_AFTER).exists():
        _switch_off(webhook, f"Nothing got through for {GIVE_UP_AFTER.days} days.")


@transaction.atomic
def _switch_off(webhook: Webhook, reason: str) -> None:
    """Send it nothing more, and say so in the workspace's history."""
    workspace = None
    if webhook.workspace_id:  # held first, as whoever changes a webhook does
        rows = Workspace.objects.select_for_update(of=("self", "instance"), no_key=True)
        workspace = rows.select_related("instance").get(pk=webhook.workspace_id)
    # With another address meanwhile it is not the one that said so.
    on = Webhook.objects.filter(pk=webhook.pk, active=True, url=webhook.url)
    if on.update(active=False, disabled_reason=reason):
        give_up_waiting(webhook.pk, SWITCHED_OFF)
        if workspace:
            activity.note(workspace, None, "disabled_webhook", f"{webhook}. {reason}")


def give_up_waiting(webhook: int, reason: str, *, but: int = 0) -> None:
    """Give up what waits for a webhook and nobody is at, but the newest; it can be sent again."""
    free = Q(claimed_until=None) | Q(claimed_until__lte=timezone.now())
    waiting = Delivery.objects.filter(free, webhook=webhook, state=State.PENDING)
    if but:
        waiting = waiting.filter(pk__in=waiting.order_by("-created_at").values("pk")[but:])
    waiting.update(state=State.FAILED, error=reason, claimed_until=None)


def give_up_too_many() -> None:
    """Give up the oldest messages of each webhook for which too many wait."""
    pending = Delivery.objects.filter(state=State.PENDING).order_by().values("webhook")
    many = pending.annotate(count=Count("pk")).filter(count__gt=MOST_PENDING)
    reason = f"More than {MOST_PENDING} messages waited for this webhook: the oldest were given up."
    for webhook in many.values_list("webhook", flat=True):
        give_up_waiting(webhook, reason, but=MOST_PENDING)


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


# --- what is kept --------------------------------------------------------------------------------


def prune() -> None:
    """Remove what nobody reads any more: old messages, and webhooks of what is gone for long."""
    old = timezone.now() - KEPT
    Delivery.objects.filter(created_at__lt=old).exclude(state=State.PENDING).delete()
    Webhook.objects.filter(workspace__purged_at__lt=old).delete()
