"""One worker at a time, on a real database: claims, take-overs, and what a late worker may not."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from deploy import leases, lifecycle
from deploy.leases import LeaseLost
from tests.deploy.boxes import wait_for
from tests.deploy.rows import fresh, held, new, put

pytestmark = pytest.mark.django_db(transaction=True)

LAPSED = timedelta(seconds=1)


def test_one_holds_it_until_it_is_given_back() -> None:
    instance = new()
    lease, _ = held(instance)
    assert leases.claim(instance.pk) is None
    assert lease.release()
    assert leases.claim(instance.pk)


def test_of_many_who_claim_at_once_one_wins() -> None:
    instance, many = new(), 8
    with ThreadPoolExecutor(many) as pool:
        for _ in range(10):
            line = threading.Barrier(many)

            def claim(line: threading.Barrier = line) -> leases.Lease | None:
                try:
                    line.wait(60)
                    return leases.claim(instance.pk)
                finally:
                    connection.close()

            won = [lease for lease in pool.map(lambda _: claim(), range(many)) if lease]
            assert len(won) == 1
            assert won[0].load().pk == instance.pk
            assert won[0].release()


def test_what_a_dead_worker_held_is_taken_over() -> None:
    instance = new()
    dead, known = held(instance)
    put(instance, lease_expires_at=timezone.now() - LAPSED)
    alive, _ = held(instance)
    with pytest.raises(LeaseLost):
        dead.load()
    with pytest.raises(LeaseLost):
        lifecycle.record_done(dead, known, "start", 1)
    assert not dead.release()
    assert alive.load()


def test_a_request_during_the_work_keeps_the_lease() -> None:
    lease, instance = held(new())
    lifecycle.poke(instance.pk)
    assert not lease.release(instance.revision)
    assert lease.release(lease.load().revision)


def test_nothing_is_left_to_do_for_what_is_purged() -> None:
    instance = put(new(), purged_at=timezone.now())
    assert leases.claim(instance.pk) is None


def test_nobody_claims_what_is_not_there() -> None:
    assert leases.claim(uuid.uuid4()) is None


def test_it_is_renewed_while_the_worker_works(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LEASE_SECONDS = 2.0
    monkeypatch.setattr(leases, "_keeper", leases._Keeper())
    instance = new()
    with held(instance)[0]:
        first = fresh(instance).lease_expires_at
        assert first
        # What is renewed from now on holds, also when the one that renews it is held up.
        settings.LEASE_SECONDS = 120.0
        longer = first + timedelta(seconds=60)
        wait_for(lambda: (fresh(instance).lease_expires_at or first) > longer, "a renewal")
        wait_for(lambda: timezone.now() > first, "the time when it would have lapsed")
        assert leases.claim(instance.pk) is None
    assert fresh(instance).lease_token is None


def test_it_is_given_back_whatever_happened() -> None:
    instance = new()
    with pytest.raises(ZeroDivisionError), held(instance)[0]:
        raise ZeroDivisionError
    assert leases.claim(instance.pk)
