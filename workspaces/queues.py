"""The queues, as seen from the web: how long they are, and whether they are worked off.

Redis holds no truth: when it is away, we say so and go on. Beat sends a beat through each queue,
which its worker writes down: an old one says that the queue is not worked off, whatever the reason.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery import current_app
from django.conf import settings
from django.utils import timezone

from deploy.models import Heartbeat

# How long a queue may take until the beat in it comes through.
MINUTES: Mapping[str, int] = settings.QUEUE_MINUTES


def depths() -> dict[str, int] | None:
    """Return how many tasks wait in each queue; None when Redis does not answer at once."""
    try:
        # Celery's own connection: it knows which of Redis's databases the queues are in.
        with current_app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            asked = channel.client.pipeline(transaction=False)
            for name in MINUTES:
                asked.llen(name)
            return dict(zip(MINUTES, asked.execute(), strict=True))
    except Exception:  # whatever the broker's client raises
        return None


@dataclass(frozen=True)
class Waiting:
    """A task that no worker has taken yet; `about` is what it was given: ids, never secrets."""

    task: str
    about: str


def waiting(name: str, most: int) -> list[Waiting] | None:
    """Return the tasks that come next in a queue; None when Redis does not answer at once."""
    try:
        with current_app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            messages = channel.client.lrange(name, -most, -1)
        said = [json.loads(message)["headers"] for message in reversed(messages)]
        return [Waiting(one["task"], one.get("argsrepr", "")) for one in said]
    except Exception:  # whatever the broker's client raises
        return None


def last_beats() -> dict[str, datetime | None]:
    """Return when a beat last came through each queue; None: never."""
    known = dict(Heartbeat.objects.values_list("queue", "at"))
    return {name: known.get(name) for name in MINUTES}


def is_silent(queue: str, last: datetime | None) -> bool:
    """Whether nobody works it off, by when its last beat came through."""
    return last is None or timezone.now() - last > timedelta(minutes=MINUTES[queue])
