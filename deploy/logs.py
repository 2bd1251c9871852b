"""The last lines of an instance's log: the web asks, a worker that may touch the engine fetches."""

import logging
from uuid import UUID

from celery import current_app
from django.db import transaction
from django.utils import timezone

from deploy import notify
from deploy.engines import get_engine
from deploy.engines.base import EngineError
from deploy.models import LogTail

logger = logging.getLogger(__name__)

LINES = 200


def tail(instance_id: UUID | str, timeout: float = 3.0) -> LogTail | None:
    """Return the log as it is now, or the newest that was fetched when no worker answers in time.

    None when there never was one.
    """
    asked_at = timezone.now()
    try:
        current_app.send_task("deploy.tasks.fetch_log", [str(instance_id)])
    except Exception:  # whatever the broker's client raises: an older log is better than none
        logger.warning("no worker could be asked for the log of %s", instance_id)
    stored = LogTail.objects.filter(instance_id=instance_id)
    fresh = stored.filter(fetched_at__gte=asked_at)
    return notify.wait_until(instance_id, fresh.first, timeout) or stored.first()


def fetch(instance_id: UUID | str) -> None:
    """Ask the engine for the log and store it, in the worker."""
    try:
        text = get_engine().logs(str(instance_id), LINES)
    except EngineError:
        logger.exception("the log of %s cannot be read", instance_id)
        return
    with transaction.atomic():
        LogTail.objects.update_or_create(
            instance_id=instance_id,
            # Postgres holds no NUL characters, a log may.
            defaults={"text": text.replace("\0", ""), "fetched_at": timezone.now()},
        )
        notify.send(instance_id)
