"""Instances made ahead of time, so that whoever comes next has theirs at once.

A spare is like any other instance, but nobody has claimed it, and it does not go to sleep. Nobody's
data has ever been in it: each has its own key, volume and container from the beginning. It is
started on the queue `later`, for nobody waits for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from deploy import lifecycle
from deploy.lifecycle import Limits
from deploy.models import Image, Instance
from deploy.states import FAILED_AFTER_ATTEMPTS, Desired


@dataclass(frozen=True)
class Stock:
    """How many spares of one spec there should be."""

    count: int
    image: Image
    limits: Limits = field(default_factory=Limits)


def keep(stocks: Iterable[Stock]) -> None:
    """Give up the spares that nobody will claim, and make the missing ones, one task at a time.

    None is made while somebody waits for an instance of their own: they would both be slower.
    """
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


def _somebody_waits() -> bool:
    on_the_way = Q(desired=Desired.RUNNING, ready=False, attempts__lt=FAILED_AFTER_ATTEMPTS)
    return Instance.objects.filter(on_the_way, spare=False).exists()


def _give_up(instance: Instance) -> None:
    """Delete a spare, unless somebody claims it at this moment."""
    with transaction.atomic():
        rows = Instance.objects.select_for_update(skip_locked=True)
        if rows.filter(pk=instance.pk, spare=True).exists():
            lifecycle.want_absent(instance.pk, timezone.now())
