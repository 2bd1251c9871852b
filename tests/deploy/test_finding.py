"""The condition for what people see finds just the instances that have it."""

from itertools import product

import pytest
from django.utils import timezone

from deploy.finding import having_disk, having_status
from deploy.models import Instance
from deploy.states import (
    FAILED_AFTER_ATTEMPTS,
    Desired,
    DiskLevel,
    Observed,
    Status,
    StopReason,
    disk_level,
)
from tests.factories import make_image

pytestmark = pytest.mark.django_db


def test_every_state_is_found_by_its_status_and_by_no_other() -> None:
    image = make_image()
    Instance.objects.bulk_create(
        Instance(
            image=image,
            desired=desired,
            observed=observed,
            ready=ready,
            stop_reason=reason,
            attempts=attempts,
            purged_at=purged_at,
        )
        for desired, observed, ready, reason, attempts, purged_at in product(
            Desired,
            Observed,
            (False, True),
            StopReason,
            (0, FAILED_AFTER_ATTEMPTS),
            (None, timezone.now()),
        )
        if (desired is Desired.STOPPED) == (reason is not StopReason.NONE)
        and (not ready or observed in (Observed.RUNNING, Observed.UNKNOWN))
    )
    expected = {instance.pk: instance.status for instance in Instance.objects.all()}
    assert set(expected.values()) == set(Status)
    for status in Status:
        found = set(Instance.objects.filter(having_status(status)).values_list("pk", flat=True))
        assert found == {pk for pk, seen in expected.items() if seen is status}, status
    two = Instance.objects.filter(having_status(Status.RUNNING, Status.SLEEPING)).count()
    assert two == sum(s in (Status.RUNNING, Status.SLEEPING) for s in expected.values())


def test_disks_are_found_by_how_full_they_are() -> None:
    image = make_image()
    Instance.objects.bulk_create(
        Instance(image=image, disk_mb=megabytes, disk_bytes=used)
        for megabytes in (1, 3, 2**31 - 1)
        for limit in (megabytes * 2**20,)
        for used in (None, 0, limit * 4 // 5, limit * 4 // 5 + 1, limit - 1, limit, 2 * limit)
    )
    for level in DiskLevel:
        expected = {
            instance.pk
            for instance in Instance.objects.all()
            if disk_level(instance.disk_bytes or 0, instance.disk_limit) is level
        }
        assert expected
        assert {found.pk for found in Instance.objects.filter(having_disk(level))} == expected
