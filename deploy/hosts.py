"""What pages want to know of the machines: a worker writes it down, for the web may not ask."""

import logging
from dataclasses import asdict
from datetime import datetime, timedelta

from django.db.models import QuerySet, Subquery
from django.utils import timezone

from deploy.engines import get_engine
from deploy.engines.base import EngineError
from deploy.models import Heartbeat, HostFacts

logger = logging.getLogger(__name__)

# The queue whose worker asks.
ASKS = "later"
# What was told longer ago says nothing of now: a machine may be gone, or have another name.
FRESH = timedelta(minutes=10)
KEPT = timedelta(days=1)
# A worker asks every minute, and may wait a minute or two until it gives up.
SILENT_AFTER = timedelta(minutes=4)


def look() -> None:
    """Write down what the engine's machine has now. A silent engine leaves what was known."""
    try:
        facts = asdict(get_engine().host())
    except EngineError as error:
        logger.warning("the engine cannot be asked about its machine: %s", error)
        return
    now = timezone.now()
    HostFacts.objects.update_or_create(name=facts.pop("name"), defaults={**facts, "at": now})
    HostFacts.objects.filter(at__lt=now - KEPT).delete()


def known() -> QuerySet[HostFacts]:
    """Return the machines that there are now, as far as workers told lately."""
    return HostFacts.objects.filter(at__gt=timezone.now() - FRESH)


def engine_silent_since() -> datetime | None:
    """When an engine was last heard of, if the queue that asks it has been worked off long since.

    None when it answers, and also when that queue stands still: then nobody asked.
    """
    worked = Subquery(Heartbeat.objects.filter(queue=ASKS).values("at"))
    newest = HostFacts.objects.annotate(worked=worked).order_by("-at").values_list("at", "worked")
    heard, last = newest.first() or (None, None)
    return heard if heard and last and last - heard > SILENT_AFTER else None


def note_beat(queue: str) -> None:
    """Write down that a queue is worked off."""
    Heartbeat.objects.update_or_create(queue=queue[:40], defaults={"at": timezone.now()})
