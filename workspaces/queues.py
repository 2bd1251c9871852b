"""How long the queues are. Redis holds no truth: when it is away, we say so and go on."""

import redis
from django.conf import settings

SECONDS = 0.5


def depths() -> dict[str, int] | None:
    """Return how many tasks wait in each queue; None when Redis does not answer at once."""
    names = [queue.name for queue in settings.CELERY_TASK_QUEUES]
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=SECONDS, socket_timeout=SECONDS
    )
    try:
        with client, client.pipeline(transaction=False) as asked:
            for name in names:
                asked.llen(name)
            return dict(zip(names, asked.execute(), strict=True))
    except (redis.RedisError, OSError):
        return None
