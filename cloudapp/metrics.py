"""/metrics: numbers for Prometheus, read from Postgres and Redis when it asks.

So all processes together say one thing, and a restart forgets nothing. A fixed number of queries,
however many workspaces there are.
"""

import hmac
from collections.abc import Iterator, Mapping
from datetime import timedelta

from django.conf import settings
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from deploy.models import Instance
from workspaces import fleet, mailing, queues, sending
from workspaces.fleet import Fleet

WINDOW = timedelta(minutes=15)
# Events are looked at from the newest one back, and never more than this: their ids follow time.
MOST_EVENTS = 20_000
_STEPS = """
SELECT kind, failed, count(*),
       percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY duration_ms)
FROM deploy_instanceevent
WHERE id > (SELECT coalesce(max(id), 0) - %s FROM deploy_instanceevent)
  AND at > %s AND duration_ms IS NOT NULL
GROUP BY kind, failed
"""


def may_look_inside(request: HttpRequest) -> bool:
    """Whether a request shows METRICS_TOKEN."""
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    good = hmac.compare_digest(given.strip().encode(), settings.METRICS_TOKEN.encode())
    return bool(settings.METRICS_TOKEN) and kind.lower() == "bearer" and good


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer Prometheus, in its text format 0.0.4. Without METRICS_TOKEN there is nothing here."""
    if not settings.METRICS_TOKEN:
        raise Http404
    if not may_look_inside(request):
        return HttpResponse(
            "Send the token: Authorization: Bearer …\n",
            status=401,
            content_type="text/plain; charset=utf-8",
            headers={"WWW-Authenticate": 'Bearer realm="metrics"'},
        )
    text = generate_latest(_Numbers())
    return HttpResponse(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Numbers(Collector):
    """All numbers, as they are now."""

    def collect(self) -> Iterator[Metric]:
        yield from _of_fleet(fleet.summary())
        yield from _of_steps()
        yield _gauge("webhook_messages_due", "Webhooks' messages that wait.", sending.due().count())
        yield _gauge("mails_due", "Mails about workspaces that wait.", mailing.due().count())
        yield _by("mails", "Mails of the last day, by state.", "state", mailing.lately())
        lengths = queues.depths()
        yield _gauge("redis_up", "Whether Redis answers.", int(lengths is not None))
        yield _by("queue_tasks", "Tasks that no worker has taken yet.", "queue", lengths or {})
        now = timezone.now()
        beats = queues.last_beats()
        ages = {queue: (now - at).total_seconds() if at else -1 for queue, at in beats.items()}
        yield _by("worker_silent_seconds", "Since a worker's last sign of life.", "queue", ages)


def _of_fleet(now: Fleet) -> Iterator[Metric]:
    spares = {
        "ready": now.spares.ready,
        "coming": now.spares.coming,
        "wanted": now.spares.wanted,
    }
    failing = Instance.objects.filter(attempts__gt=0, purged_at=None).count()
    yield _by("workspaces", "Workspaces by the status that people see.", "status", now.by_status)
    yield _by("spares", "Instances kept ready for new workspaces.", "state", spares)
    yield _gauge("failing_instances", "Instances whose last attempt failed.", failing)
    yield _by("open_changes", "Changes of plugins under way.", "step", now.open_changes)
    yield _gauge("rollouts", "Roll-outs under way.", now.rollouts)
    yield _by("images", "Images by state.", "state", now.images)
    yield _by("orphans", "What the engine has and no row knows.", "kind", now.orphans)
    yield _gauge("users", "People with an account.", now.users)


def _of_steps() -> Iterator[Metric]:
    """Yield what workers did to instances lately, and how long it took."""
    count = _family("steps", "Steps of the last 15 minutes, by action.", ["action", "failed"])
    took = _family("step_seconds", "How long steps took that went well.", ["action", "quantile"])
    with connection.cursor() as cursor:
        cursor.execute(_STEPS, [MOST_EVENTS, timezone.now() - WINDOW])
        for action, failed, times, quantiles in cursor.fetchall():
            count.add_metric([action, "true" if failed else "false"], times)
            if not failed:
                for name, ms in zip(("0.5", "0.95"), quantiles, strict=True):
                    took.add_metric([action, name], ms / 1000)
    yield count
    yield took


def _family(name: str, words: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"cloudapp_{name}", words, labels=labels)


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"cloudapp_{name}", words, value=value)


def _by(name: str, words: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    found = _family(name, words, [label])
    for value, number in values.items():
        found.add_metric([value], number)
    return found
