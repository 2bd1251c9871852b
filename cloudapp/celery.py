"""The Celery application: queues, and work that is only ever a wake-up call.

Redis holds no truth. A task may be lost, doubled or late; the sweep finds what it missed. What each
belongs to, the request that asked for it above all, travels in the message's headers.
"""

import logging
import os
import time
from contextlib import ExitStack
from typing import Any

from celery import Celery, Task, signals

from accounts import origin
from accounts.origin import Origin, Via
from deploy import trace

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cloudapp.settings")

app = Celery("cloudapp")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

logger = logging.getLogger("cloudapp.tasks")
_HEADER = "cloudapp_trace"
# Tasks whose first argument is an instance's id.
_ABOUT_AN_INSTANCE = {"deploy.tasks.reconcile", "deploy.tasks.fetch_log"}
# Of the tasks that run in this process, by their ids: what to forget, and when each began.
_running: dict[str, tuple[ExitStack, float]] = {}


@signals.setup_logging.connect
def leave_logging_to_django(**kwargs: Any) -> None:
    """Celery would put its own handlers and levels over those of the settings."""


@signals.before_task_publish.connect
def take_along(headers: dict[str, Any], **kwargs: Any) -> None:
    """Write into the message what it belongs to."""
    headers[_HEADER] = trace.carried()


@signals.task_prerun.connect
def begin(task: Task[Any, Any], task_id: str, args: Any = (), **kwargs: Any) -> None:
    """Know what this task belongs to, until it ends."""
    carried = task.request.get(_HEADER) or {}
    stack = ExitStack()
    about = {"instance": str(args[0])} if args and task.name in _ABOUT_AN_INSTANCE else {}
    stack.enter_context(trace.within(**carried, **about, task=task.name, task_id=task_id))
    here = Origin(Via.MACHINERY, task.name, request_id=carried.get("request_id", ""))
    stack.enter_context(origin.of(here))
    _running[task_id] = stack, time.monotonic()


@signals.task_postrun.connect
def end(task: Task[Any, Any], task_id: str, state: str | None = None, **kwargs: Any) -> None:
    """Write a line, and forget what it belonged to."""
    stack, begun = _running.pop(task_id)
    ms = round((time.monotonic() - begun) * 1000)
    words = f"{task.name} {(state or 'ended').lower()} in {ms} ms"
    logger.info(words, extra={"fields": {"ms": ms}})
    stack.close()
