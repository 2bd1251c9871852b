"""Is the product usable right now, and if not, what is it that is missing?"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse

from cloudapp import metrics
from deploy import hosts
from deploy.models import Image
from workspaces import queues

logger = logging.getLogger(__name__)


def healthz(request: HttpRequest) -> JsonResponse:
    """Answer 200 once a person can use the product: the database and an image are there."""
    try:
        ready = Image.objects.filter(state=Image.State.READY).exists()
    except DatabaseError:
        return JsonResponse({"status": "down", "cause": "the database does not answer"}, status=503)
    if not ready:
        cause = "no workspace image is ready: run `manage.py build_image`"
        return JsonResponse({"status": "starting", "cause": cause}, status=503)
    return JsonResponse({"status": "ok"})


# --- each dependency -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a dependency: a stable code, and what to do."""

    code: str
    help: str


def _database() -> Trouble | None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return Trouble("database_down", "Postgres does not answer: see DATABASE_URL, and its log.")
    return None


_migrated = False


def _migrations() -> Trouble | None:
    """Look until all are applied: from then on, this process has seen it."""
    global _migrated  # noqa: PLW0603 - a process learns it once
    if not _migrated:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return Trouble("migrations_missing", "Run `manage.py migrate` as the tables' owner.")
        _migrated = True
    return None


def _image() -> Trouble | None:
    if Image.objects.filter(state=Image.State.READY).exists():
        return None
    return Trouble("image_missing", "No workspace can be made: run `manage.py build_image`.")


def _redis() -> Trouble | None:
    if queues.depths() is not None:
        return None
    words = "Redis does not answer: nothing starts, wakes or stops until it does."
    return Trouble("redis_down", words)


def _engine() -> Trouble | None:
    """As far as the web can tell, which may not ask it: whether a worker hears of it."""
    since = hosts.engine_silent_since()
    if since is None:
        return None
    words = f"The container engine has not answered since {since:%-d %B, %H:%M} UTC. Does it run?"
    return Trouble("engine_silent", words)


def _worker_of(queue: str) -> Callable[[], Trouble | None]:
    def look() -> Trouble | None:
        last = queues.last_beats()[queue]
        if not queues.is_silent(queue, last):
            return None
        words = f"since {last:%-d %B, %H:%M} UTC" if last else "yet"
        return Trouble(
            f"worker_{queue}_silent",
            f"No beat came through the queue {queue} {words}. Do its worker, beat and Redis run?",
        )

    return look


CHECKS: Mapping[str, Callable[[], Trouble | None]] = {
    "database": _database,
    "migrations": _migrations,
    "image": _image,
    "redis": _redis,
    "engine": _engine,
    **{f"worker_{queue}": _worker_of(queue) for queue in queues.MINUTES},
}


def readyz(request: HttpRequest) -> JsonResponse:
    """Answer 200 when each dependency is as it should be, else 503.

    Which one it is, hear those who show METRICS_TOKEN, and the log.
    """
    found: dict[str, Trouble | None] = {}
    for name, check in CHECKS.items():
        try:
            found[name] = check()
        except DatabaseError:  # not asked at all, or lost while it was
            found[name] = Trouble("not_known", "It could not be asked: the database is down.")
    troubles = [trouble for trouble in found.values() if trouble]
    if troubles:
        logger.warning("not ready: %s", ", ".join(trouble.code for trouble in troubles))
    told: dict[str, object] = {"status": "failing" if troubles else "ok"}
    if metrics.may_look_inside(request):
        told["checks"] = {
            name: {"code": trouble.code, "help": trouble.help} if trouble else {"code": "ok"}
            for name, trouble in found.items()
        }
    return JsonResponse(
        told, status=503 if troubles else 200, headers={"Cache-Control": "no-store"}
    )
