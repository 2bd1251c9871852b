"""The last lines of an instance's log: the web asks, a worker that may touch the engine fetches."""

import logging
import re
from datetime import timedelta
from uuid import UUID

from celery import current_app
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from deploy import notify, vault
from deploy.engines import get_engine
from deploy.engines.base import EngineError
from deploy.models import Instance, LogTail

logger = logging.getLogger(__name__)

LINES = 200
# One that is no older is shown as it is: many who look at once cost one look at the engine.
FRESH_SECONDS = 1.0
LINE_LENGTH = 300
# The end of a traceback: the exception and its words.
_RAISED = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)\b")


def tail(instance_id: UUID | str, timeout: float = 3.0) -> LogTail | None:
    """Return the log as it is now, or the newest that was fetched when no worker answers in time.

    None when there never was one.
    """
    fresh = _fresh(instance_id)
    if known := fresh.first():
        return known
    try:
        # Whoever waits has gone by then: what piles up keeps no reconciling waiting.
        current_app.send_task("deploy.tasks.fetch_log", [str(instance_id)], expires=timeout)
    except Exception:  # whatever the broker's client raises: an older log is better than none
        logger.warning("no worker could be asked for the log of %s", instance_id)
    stored = LogTail.objects.filter(instance_id=instance_id)
    return notify.wait_until(instance_id, fresh.first, timeout) or stored.first()


def _fresh(instance_id: UUID | str) -> QuerySet[LogTail]:
    """Return the log, if it is no older than a moment at the time of this call."""
    since = timezone.now() - timedelta(seconds=FRESH_SECONDS)
    return LogTail.objects.filter(instance_id=instance_id, fetched_at__gte=since)


def last_words(instance: Instance) -> str:
    """Return the line of a container's log that says best why it failed; empty without a log."""
    try:
        written = _read(instance, LINES)
    except EngineError:
        return ""
    # Each begins with its time.
    lines = [line.partition(" ")[2].strip() for line in written.splitlines()]
    raised = [line for line in lines if _RAISED.match(line)]
    return next(reversed(raised or [line for line in lines if line]), "")[:LINE_LENGTH]


def _read(instance: Instance, lines: int) -> str:
    """Return the log without the instance's secrets: a plugin may have written them into it."""
    return vault.redacted(storable(get_engine().logs(str(instance.pk), lines)), instance.secrets)


def storable(text: str) -> str:
    """Return a text as Postgres can hold it: without NULs, which what a program says may have."""
    return text.replace("\0", "")


def fetch(instance_id: UUID | str) -> None:
    """Ask the engine for the log and store it, in the worker."""
    if _fresh(instance_id).exists():  # somebody else asked just before
        return
    try:
        text = _read(Instance.objects.get(pk=instance_id), LINES)
    except EngineError:
        logger.exception("the log of %s cannot be read", instance_id)
        return
    with transaction.atomic():
        LogTail.objects.update_or_create(
            instance_id=instance_id,
            defaults={"text": text, "fetched_at": timezone.now()},
        )
        notify.send(instance_id)
