"""Instances made ahead of time, so that whoever comes next has theirs at once.

A spare is like any other instance, but nobody has claimed it, and it does not go to sleep. Nobody's
data has ever been in it, and it says so itself all the time: a row from a backup may call something
a spare that is somebody's by now. It is worked on by the queue `later`, for nobody waits for it.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from deploy import lifecycle, probe
from deploy.lifecycle import Limits
from deploy.models import Image, Instance
from deploy.states import FAILED_AFTER_ATTEMPTS, Desired, Observed

logger = logging.getLogger(__name__)

NOT_PRISTINE = (
    "It was listed as nobody's, and yet its volume holds data: perhaps the database was restored "
    "from a backup. It was stopped, and nothing was removed."
)


@dataclass(frozen=True)
class Stock:
    """How many spares of one spec there should be."""

    count: int
    image: Image
    limits: Limits = field(default_factory=Limits)


def keep(stocks: Iterable[Stock]) -> None:
    """Look after the spares: give up those that nobody will claim, and make the missing ones.

    None is made while somebody waits for an instance of their own: they would both be slower.
    """
    lifecycle.forget_spares()
    for instance in Instance.objects.filter(spare=True, ready=True, desired=Desired.RUNNING):
        _ask(instance)
    kept: set[UUID] = set()
    missing: list[Stock] = []
    for stock in stocks:
        # One that fails counts too: it is tried again by itself, and another would fail as well.
        fitting = Instance.objects.filter(
            spare=True, desired=Desired.RUNNING, image=stock.image, **stock.limits
        )
        oldest = fitting.order_by("created_at").values_list("pk", flat=True)
        found = list(oldest[: stock.count])
        kept.update(found)
        missing += [stock] * (stock.count - len(found))
    unwanted = Instance.objects.filter(spare=True).exclude(desired=Desired.ABSENT)
    for instance in unwanted.exclude(pk__in=kept):
        _give_up(instance)
    for stock in missing:
        if _somebody_waits():
            return
        lifecycle.create(stock.image, spare=True, **stock.limits)


def _ask(instance: Instance) -> None:
    """Have a spare say that its volume holds nobody's data; one that does not is no spare."""
    try:
        health = probe.health(instance, instance.endpoint)
    except probe.NotAnswering as error:
        logger.warning("the spare %s does not answer: %s", instance, error)
        lifecycle.poke(instance.pk)
        return
    if health.pristine:
        lifecycle.record_pristine(instance.pk, health.usage)
    else:
        logger.error("%s: %s", instance, NOT_PRISTINE)
        lifecycle.disown_spare(instance.pk, NOT_PRISTINE)


def _somebody_waits() -> bool:
    """Whether an instance of somebody's is coming up now, and not just trying again later."""
    on_the_way = Q(desired=Desired.RUNNING, ready=False, attempts__lt=FAILED_AFTER_ATTEMPTS)
    held_up = Q(next_attempt_at__gt=timezone.now()) | Q(observed=Observed.UNKNOWN)
    held_up |= Q(predecessor__isnull=False, predecessor__purged_at=None)
    return Instance.objects.filter(on_the_way, spare=False).exclude(held_up).exists()


def _give_up(instance: Instance) -> None:
    """Delete a spare, unless somebody claims it at this moment, or it may hold somebody's data."""
    with transaction.atomic():
        rows = Instance.objects.select_for_update(skip_locked=True)
        still = rows.filter(pk=instance.pk, spare=True).first()
        if still is None:
            return
        if lifecycle.is_pristine(still):
            lifecycle.want_absent(still.pk, timezone.now())
        elif still.ready_at is None:  # it cannot say so, for it never came up
            grace = timedelta(seconds=settings.DELETE_GRACE_SECONDS)
            lifecycle.want_absent(still.pk, timezone.now() + grace)
        # Any other one is asked again soon.
