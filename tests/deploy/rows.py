"""Instances as rows, for the tests of what happens to them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils import timezone

from deploy import leases, lifecycle
from deploy.leases import Lease
from deploy.models import Image, Instance
from deploy.states import StopReason
from tests.factories import make_image


def new(image: Image | None = None, **spec: Any) -> Instance:
    """An instance that somebody has just asked for."""
    return lifecycle.create(image or make_image(), **spec)


def fresh(instance: Instance) -> Instance:
    """The instance as the tables have it now."""
    return Instance.objects.get(pk=instance.pk)


def put(instance: Instance, **changes: Any) -> Instance:
    """Write into its row what a test needs there; return it anew."""
    Instance.objects.filter(pk=instance.pk).update(**changes)
    return fresh(instance)


def held(instance: Instance) -> tuple[Lease, Instance]:
    """Claim it as a worker does."""
    lease = leases.claim(instance.pk)
    assert lease
    return lease, lease.load()


def kinds(instance: Instance) -> list[str]:
    """What was asked of it, done to it and seen of it, in order."""
    return list(instance.events.values_list("kind", flat=True))


def delete(instance: Instance, grace: float = 3600.0) -> None:
    """Ask for its deletion; its data stays for `grace` seconds."""
    lifecycle.want_absent(instance.pk, timezone.now() + timedelta(seconds=grace))


# How to bring a new instance to what is wanted of it.
WANTED: dict[str, Callable[[Instance], object]] = {
    "running": lambda instance: None,
    "asleep": lambda instance: lifecycle.want_stopped(instance.pk, StopReason.IDLE),
    "stopped": lambda instance: lifecycle.want_stopped(instance.pk, StopReason.OWNER),
    "suspended": lambda instance: lifecycle.want_stopped(instance.pk, StopReason.OPERATOR),
    "deleted": delete,
}
