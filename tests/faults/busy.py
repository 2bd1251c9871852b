"""Loaded by the healthy workers: notes in their Redis which tasks they have and have not done.

So tests know when a worker has nothing left to do. A task is noted before its message is
acknowledged; one that is for later is noted when it begins.
"""

import os
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from celery.signals import task_postrun, task_prerun, task_received, task_revoked
from redis import Redis, RedisError

from tests.faults.processes import BUSY

_redis = Redis(unix_socket_path=urlsplit(os.environ["REDIS_URL"]).path)


@task_received.connect(weak=False)
def _received(request: Any, **_: Any) -> None:
    if not request.eta:
        _begin(request.id)


@task_prerun.connect(weak=False)
def _begin(task_id: str, **_: Any) -> None:
    with suppress(RedisError):
        _redis.sadd(BUSY, task_id)


@task_postrun.connect(weak=False)
def _end(task_id: str, **_: Any) -> None:
    with suppress(RedisError):
        _redis.srem(BUSY, task_id)


@task_revoked.connect(weak=False)
def _expired(request: Any, **_: Any) -> None:
    _end(request.id)
