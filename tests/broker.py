"""What waits in the queues of the tests' own broker."""

import json
from typing import Any

from cloudapp.celery import app


def waiting(queue: str) -> list[dict[str, Any]]:
    """The messages that no worker has taken yet."""
    with app.connection_for_read() as connection:
        messages = connection.default_channel.client.lrange(queue, 0, -1)
    return [json.loads(message) for message in messages]
