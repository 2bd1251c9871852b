"""Instances made ahead of time: as many as wanted, claimed once, and never in anybody's way."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks

from deploy import lifecycle, spares
from deploy.idle import put_idle_to_sleep
from deploy.lifecycle import Limits
from deploy.models import Image, Instance
from deploy.reconcile import reconcile
from deploy.spares import Stock
from deploy.states import Desired, Observed, Status
from tests.deploy.fake_engine import FakeEngine
from tests.deploy.rows import fresh, new, put
from tests.factories import make_image

pytestmark = pytest.mark.django_db

LIMITS = Limits(memory_mb=256, idle_seconds=60)


def wanted() -> list[Instance]:
    """The spares that should be there, oldest first."""
    return list(Instance.objects.filter(spare=True, desired=Desired.RUNNING).order_by("created_at"))


def ready_spare(image: Image, **limits: Any) -> Instance:
    made = lifecycle.create(image, spare=True, **{**LIMITS, **limits})
    reconcile(made.pk)
    assert fresh(made).status is Status.RUNNING
    lifecycle.record_pristine(made.pk)
    return made


def test_as_many_as_wanted_and_no_more() -> None:
    stock = Stock(2, make_image(), LIMITS)
    for _ in range(3):
        spares.keep([stock])
    assert [(spare.memory_mb, spare.idle_seconds) for spare in wanted()] == [(256, 60)] * 2
    newest = wanted()[1]
    spares.keep([Stock(1, stock.image, LIMITS)])
    assert newest not in wanted()
    assert len(wanted()) == 1
    assert fresh(newest).desired == Desired.ABSENT
    spares.keep([])
    assert wanted() == []


@pytest.mark.parametrize("change", ["image", "limits"])
def test_what_fits_no_more_is_replaced(change: str) -> None:
    image = make_image()
    spares.keep([Stock(1, image, LIMITS)])
    [old] = wanted()
    fitting = Stock(1, make_image() if change == "image" else image, Limits(memory_mb=128))
    spares.keep([fitting])
    [new_one] = wanted()
    assert new_one != old
    assert fresh(old).desired == Desired.ABSENT


def test_none_is_made_while_somebody_waits(fake: FakeEngine) -> None:
    image = make_image()
    waiting = new(image)
    spares.keep([Stock(1, image, LIMITS)])
    assert wanted() == []
    reconcile(waiting.pk)
    spares.keep([Stock(1, image, LIMITS)])
    assert len(wanted()) == 1


def test_one_that_fails_is_tried_again_and_not_replaced_for_ever() -> None:
    stock = Stock(1, make_image(), LIMITS)
    spares.keep([stock])
    [failing] = wanted()
    put(failing, attempts=7, last_error="It does not start.")
    spares.keep([stock])
    assert wanted() == [failing]


def test_a_spare_is_started_where_nobody_waits(
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    queues: list[str | None] = []
    monkeypatch.setattr(
        "deploy.wakeup.current_app.send_task",
        lambda name, args, queue=None, **options: queues.append(queue),
    )
    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.create(make_image(), spare=True)
        lifecycle.create(make_image())
    assert queues == ["later", None]


def test_the_oldest_that_is_ready_is_claimed_once(fake: FakeEngine) -> None:
    image = make_image()
    first, second = ready_spare(image), ready_spare(image)
    claimed = lifecycle.claim_spare(image, **LIMITS)
    assert claimed == first
    assert not fresh(first).spare
    lifecycle.record_claimed(claimed)
    # Its new owner hears of its status as if it were new.
    assert first.events.values_list("kind", "status").last() == ("claimed", "running")
    assert lifecycle.claim_spare(image, **LIMITS) == second
    assert lifecycle.claim_spare(image, **LIMITS) is None


def test_only_a_ready_one_of_just_this_spec_is_claimed(fake: FakeEngine) -> None:
    image = make_image()
    ready_spare(image)
    lifecycle.create(image, spare=True, memory_mb=512)  # not started
    assert lifecycle.claim_spare(make_image(), **LIMITS) is None
    assert lifecycle.claim_spare(image, memory_mb=512) is None
    assert lifecycle.claim_spare(image, memory_mb=256, idle_seconds=61) is None
    assert lifecycle.claim_spare(image, **LIMITS)


def test_one_that_is_given_up_is_not_claimed(fake: FakeEngine) -> None:
    spare = ready_spare(make_image())
    spares.keep([])
    assert lifecycle.claim_spare(spare.image, **LIMITS) is None
    reconcile(spare.pk)
    assert fresh(spare).status is Status.DELETED


def test_a_spare_stays_awake_until_it_is_claimed(fake: FakeEngine) -> None:
    spare = ready_spare(make_image())
    fake.knobs.idle_seconds = 9999
    long_ago = timezone.now() - timedelta(days=1)
    put(spare, last_used_at=long_ago)
    put_idle_to_sleep()
    assert fresh(spare).desired == Desired.RUNNING
    assert lifecycle.claim_spare(spare.image, **LIMITS)
    assert fresh(spare).last_used_at > long_ago, "its idle time begins with its owner"
    put(spare, last_used_at=long_ago)
    put_idle_to_sleep()
    assert fresh(spare).desired == Desired.STOPPED


def test_what_holds_data_is_no_spare_whatever_the_row_says(fake: FakeEngine) -> None:
    """A database from before somebody claimed it was restored."""
    spare = ready_spare(make_image())
    put(spare, pristine_at=timezone.now() - timedelta(hours=3))
    assert lifecycle.claim_spare(spare.image, **LIMITS) is None, "its word is too old"
    fake.knobs.pristine = False
    spares.keep([Stock(1, spare.image, LIMITS)])
    now = fresh(spare)
    assert (now.spare, now.desired, now.stop_reason) == (False, "stopped", "operator")
    assert now.purge_at is None
    assert "nothing was removed" in now.last_error
    assert spare not in wanted()
    assert lifecycle.claim_spare(spare.image, **LIMITS) is None


def test_a_spare_says_again_and_again_that_it_is_empty(fake: FakeEngine) -> None:
    spare = ready_spare(make_image())
    put(spare, pristine_at=None)
    spares.keep([Stock(1, spare.image, LIMITS)])
    assert lifecycle.claim_spare(spare.image, **LIMITS) == spare


def test_one_that_is_not_wanted_any_more_is_removed_only_if_it_is_empty(fake: FakeEngine) -> None:
    empty, silent = ready_spare(make_image()), ready_spare(make_image())
    put(silent, pristine_at=None, ready=False, endpoint="")
    spares.keep([])
    assert fresh(empty).desired == Desired.ABSENT
    assert fresh(silent).desired == Desired.RUNNING
    never = lifecycle.create(make_image(), spare=True)
    spares.keep([])
    purge_at = fresh(never).purge_at
    assert purge_at is not None
    assert purge_at > timezone.now() + timedelta(days=1)


def test_nothing_is_left_of_a_spare_that_is_gone(fake: FakeEngine) -> None:
    spare = ready_spare(make_image())
    spares.keep([])
    reconcile(spare.pk)
    spares.keep([])
    assert not Instance.objects.filter(pk=spare.pk).exists()


@pytest.mark.parametrize(
    "held_up",
    [
        {"next_attempt_at": timezone.now() + timedelta(days=1), "attempts": 1},
        {"observed": Observed.UNKNOWN},
    ],
    ids=["trying again later", "engine away"],
)
def test_one_that_is_held_up_does_not_keep_spares_from_being_made(held_up: dict[str, Any]) -> None:
    image = make_image()
    put(new(image), **held_up)
    spares.keep([Stock(1, image, LIMITS)])
    assert len(wanted()) == 1


@pytest.mark.django_db(transaction=True)
def test_two_at_once_never_get_the_same_one(fake: FakeEngine) -> None:
    image = make_image()
    for _ in range(3):
        ready_spare(image)
    start, got = threading.Barrier(8), []

    def claim() -> None:
        start.wait()
        try:
            got.append(lifecycle.claim_spare(image, **LIMITS))
        finally:
            connection.close()

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    claimed = [instance.pk for instance in got if instance]
    assert len(claimed) == len(set(claimed)) == 3
    assert got.count(None) == 5
