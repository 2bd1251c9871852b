"""Put instances to sleep that nobody uses.

Idle means: no request passed for the idle time, none is in flight, and the instance, asked over
its endpoint, says that it has no work of its own.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from datetime import timedelta

from django.db.models import DurationField, ExpressionWrapper, F, Value
from django.utils import timezone

from deploy import lifecycle, probe, usage
from deploy.models import Instance
from deploy.states import Desired

logger = logging.getLogger(__name__)


def put_idle_to_sleep() -> None:
    """Stop each running instance whose idle time is over. One at fault keeps no other awake."""
    now = timezone.now()
    idle_time = ExpressionWrapper(
        F("idle_seconds") * Value(timedelta(seconds=1)), output_field=DurationField()
    )
    unused = Instance.objects.filter(
        desired=Desired.RUNNING, ready=True, idle_seconds__gt=0, spare=False
    )
    idle = unused.annotate(idle_time=idle_time).filter(last_used_at__lt=now - F("idle_time"))
    with ThreadPoolExecutor(usage.THREADS, thread_name_prefix="idle") as pool:
        # Asked in threads, which touch no row. One that hangs takes seconds, of one thread.
        asked = {pool.submit(probe.health, one, one.endpoint): one for one in idle}
        for answer in as_completed(asked):
            try:
                _sleep_if_idle(asked[answer], answer)
            except Exception:
                logger.exception("%s cannot be put to sleep", asked[answer])


def _sleep_if_idle(instance: Instance, answer: Future[probe.Health]) -> None:
    try:
        health = answer.result()
    except probe.NotAnswering as error:
        # Not a reason to stop it: somebody should look at why it does not answer.
        logger.warning("%s does not answer: %s", instance, error)
        lifecycle.poke(instance.pk)
        return
    if health.is_idle(instance.idle_seconds):
        if health.usage:  # nobody can ask it while it sleeps
            usage.record({instance.pk: health.usage})
        lifecycle.sleep_if_unused(instance.pk, since=instance.last_used_at)
