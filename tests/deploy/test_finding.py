"""The condition for a status finds just the instances that have it."""

from itertools import product

import pytest
from django.utils import timezone

from deploy.finding import having_status
from deploy.models import Instance
from deploy.states import FAILED_AFTER_ATTEMPTS, Desired, Observed, Status, StopReason
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
