"""Wake a worker up for an instance. Losing the call loses nothing: the sweep finds the work."""

import logging
from functools import partial
from uuid import UUID

from celery import current_app
from django.db import transaction

logger = logging.getLogger(__name__)


def _send(instance_id: str, seconds: float, queue: str | None) -> None:
    try:
        current_app.send_task(
            "deploy.tasks.reconcile", [instance_id], countdown=seconds or None, queue=queue
        )
    except Exception as error:  # whatever the client raises: it must never fail a request
        logger.warning("no worker was woken for %s, the sweep will: %s", instance_id, error)


def after_commit(
    instance_id: UUID | str, seconds: float = 0, *, somebody_waits: bool = True
) -> None:
    """Have a worker reconcile this instance once the transaction is in, `seconds` later."""
    queue = None if somebody_waits else "later"
    transaction.on_commit(partial(_send, str(instance_id), seconds, queue))
