"""How the queues and their workers are, as seen from the web."""

import time
from collections.abc import Mapping
from typing import Any

from celery import current_app
from django.conf import settings
from django.core.cache import cache

# Those whose workers get something to do every few seconds, so that they show that they are there.
# The others may be busy with one thing for minutes, or have nothing to do for days.
BEATING = ("now", "later")
_EVERY = 5.0
_KEPT = 86400
_noted: dict[str, float] = {}


def lengths() -> Mapping[str, int] | None:
    """Return how many tasks wait in each queue; None when Redis does not answer."""
    names = [queue.name for queue in settings.CELERY_TASK_QUEUES]
    try:
        with current_app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            pipeline = channel.client.pipeline(transaction=False)
            for name in names:
                pipeline.llen(name)
            return dict(zip(names, pipeline.execute(), strict=True))
    except Exception:  # whatever the broker's client raises
        return None


def note_alive(queue: str) -> None:
    """Say that this queue's worker has just done something; every few seconds is enough."""
    now = time.monotonic()
    if now - _noted.get(queue, -_EVERY) >= _EVERY:
        _noted[queue] = now
        cache.set(_key(queue), time.time(), _KEPT)


def silent_seconds() -> dict[str, float]:
    """Return for how long each of BEATING has shown no sign of life; -1 when it never did."""
    seen = cache.get_many([_key(queue) for queue in BEATING])
    now = time.time()
    return {
        queue: max(0.0, now - seen[_key(queue)]) if _key(queue) in seen else -1.0
        for queue in BEATING
    }


def _key(queue: str) -> str:
    return f"alive:{queue}"
