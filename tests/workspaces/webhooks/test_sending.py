"""Retries, slow receivers, workers that die: a message gets through once, or is given up."""

import os
import queue
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings as project
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from tests import factories
from tests.workspaces.webhooks import receiver as receivers
from tests.workspaces.webhooks.receiver import Receiver
from tests.workspaces.webhooks.support import Hook, only, pass_time, send_all
from workspaces import history, outside, sending, services, tasks, webhooks
from workspaces.models import Delivery, Webhook, Workspace
from workspaces.services import Refused

pytestmark = pytest.mark.django_db

State = Delivery.State
SECONDS = 60


# --- failures and retries ------------------------------------------------------------------------


def test_it_is_tried_again_ever_later_and_then_no_more(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    _, secret = hook()
    services.rename(workspace, owner, "Shrubs")
    receiver.answers = [receivers.status(500, b"oops")] * 20
    for count, delay in enumerate(sending.DELAYS, 1):
        before = timezone.now()
        send_all()
        delivery = only()
        assert (delivery.state, delivery.attempts) == ("pending", count)
        assert (delivery.status_code, delivery.answer) == (500, "oops")
        assert delivery.next_attempt_at >= before + timedelta(seconds=0.8 * delay)
        assert delivery.next_attempt_at <= timezone.now() + timedelta(seconds=1.2 * delay)
        pass_time(hours=-1)  # for as long as this machine may take
        send_all()
        assert len(receiver.received) == count, "not before its time"
        pass_time(hours=1, seconds=delay * 1.2)
    send_all()
    delivery = only()
    assert (delivery.state, delivery.attempts) == ("failed", 8)
    assert delivery.error == "It answered 500."
    pass_time(days=1)
    send_all()
    assert len(receiver.received) == 8
    # Each was the same message, signed anew.
    assert {message.id for message in receiver.received} == {str(delivery.pk)}
    assert {message.body for message in receiver.received} == {delivery.body.encode()}
    for message in receiver.received:
        message.verified(secret)


def test_it_gets_through_when_the_receiver_is_back(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    webhook, _ = hook()
    services.rename(workspace, owner, "Shrubs")
    receiver.answers = [receivers.status(302, Location="/elsewhere")]
    send_all()
    webhook.refresh_from_db()
    assert webhook.failing_since is not None
    assert only().error == "It answered 302. We follow no redirects."
    pass_time(seconds=6)
    send_all()
    webhook.refresh_from_db()
    assert webhook.failing_since is None
    assert (only().state, only().error, only().attempts) == ("delivered", "", 2)


def test_what_takes_no_connection_is_tried_again_and_what_turned_private_is_not(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver, settings: Settings
) -> None:
    webhook, _ = hook()
    services.rename(workspace, owner, "Shrubs")
    Webhook.objects.update(url="http://127.0.0.1:1024/hook")
    send_all()
    assert (only().state, only().status_code) == ("pending", None)
    assert only().error == "127.0.0.1 took no connection."
    settings.WEBHOOK_ALLOWED_NETWORKS = []
    Webhook.objects.update(url=receiver.url.replace("http:", "https:"))
    pass_time(seconds=6)
    send_all()
    assert only().state == "failed"
    assert "not lead to the public internet" in only().error
    assert not receiver.received
    webhook.refresh_from_db()
    with pytest.raises(Refused, match="not lead to the public internet"):
        webhooks.update(webhook, owner, url="https://169.254.169.254/latest/meta-data/")


def test_a_mistake_of_ours_is_tried_again_and_not_for_ever(
    hook: Hook, workspace: Workspace, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook()
    services.rename(workspace, owner, "Shrubs")

    def broken(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(outside, "post", broken)
    send_all()
    assert (only().state, only().error) == ("pending", "Something went wrong on our side.")
    Delivery.objects.update(attempts=len(sending.DELAYS))
    pass_time(days=1)
    send_all()
    assert only().state == "failed"


def test_of_a_failing_webhook_one_message_is_tried_at_a_time(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    webhook, _ = hook()
    for name in ("One", "Two", "Three"):
        services.rename(workspace, owner, name)
    assert sending.due().count() == sending.AT_ONCE
    webhook.failing_since = timezone.now()
    webhook.save()
    assert sending.due().count() == 1
    one, two, _ = Delivery.objects.order_by("created_at")
    later = timezone.now() + sending.CLAIM
    Delivery.objects.filter(pk=one.pk).update(claimed_until=later)
    sending.send(two.pk)
    assert not receiver.received
    Delivery.objects.filter(pk=one.pk).update(claimed_until=None)
    sending.send(two.pk)
    assert len(receiver.received) == 1
    assert sending.due().count() == 2, "it took one, so it may have the rest"


def test_410_switches_it_off(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    webhook, _ = hook(name="Chat room")
    services.rename(workspace, owner, "Shrubs")
    services.rename(workspace, owner, "Trees")
    receiver.answers = [receivers.status(410)]
    send_all()
    webhook.refresh_from_db()
    assert not webhook.active
    assert "410" in webhook.disabled_reason
    states = webhook.deliveries.order_by("created_at").values_list("state", "error")
    assert list(states) == [
        ("failed", "It answered 410: it wants no more messages."),
        ("failed", "The webhook was switched off."),
    ]
    assert len(receiver.received) == 1
    (line, *_) = history.entries(workspace, list(history.rows_of(workspace)[:1]))
    assert (line.who, line.text) == ("", "Switched a webhook off")
    assert line.detail.startswith("Chat room. It answered 410")
    with pytest.raises(Refused, match="off"):
        webhooks.ping(webhook, owner)


def test_what_fails_for_five_days_is_switched_off_and_can_be_switched_on(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    webhook, _ = hook()
    receiver.answers = [receivers.status(500)] * 3
    services.rename(workspace, owner, "One")
    send_all()
    Delivery.objects.all().delete()
    pass_time(days=4.9)
    services.rename(workspace, owner, "Two")
    send_all()
    webhook.refresh_from_db()
    assert webhook.active
    Delivery.objects.all().delete()
    pass_time(days=0.2)
    services.rename(workspace, owner, "Three")
    send_all()
    webhook.refresh_from_db()
    assert (webhook.active, webhook.disabled_reason) == (False, "Nothing got through for 5 days.")
    assert workspace.activities.filter(verb="disabled_webhook").count() == 1
    webhook = webhooks.update(webhook, owner, active=True)
    assert (webhook.disabled_reason, webhook.failing_since) == ("", None)
    services.rename(workspace, owner, "Four")
    send_all()
    assert Delivery.objects.order_by("created_at").last().state == "delivered"  # type: ignore[union-attr]


def test_410_of_an_address_that_was_changed_meanwhile_switches_nothing_off(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    webhook, _ = hook()
    services.rename(workspace, owner, "Shrubs")
    claimed = sending._claim(only().pk)
    assert claimed
    webhooks.update(webhook, owner, url=f"{receiver.url}&new")
    sending._take(claimed, outside.Answer(410, ""), 5)
    webhook.refresh_from_db()
    assert webhook.active
    assert only().state == "failed"


def test_what_waits_when_it_is_switched_off_is_given_up_at_once(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    webhook, _ = hook()
    for reason in ("the receiver", "the owner"):
        for name in ("One", "Two", "Three"):
            services.rename(workspace, owner, name)
        under_way = sending._claim(Delivery.objects.filter(state="pending")[0].pk)
        assert under_way
        if reason == "the receiver":
            receiver.answers = [receivers.status(410)]
            sending.send(Delivery.objects.filter(state="pending", claimed_until=None)[0].pk)
        else:
            webhooks.update(webhook, owner, active=False)
        assert Delivery.objects.get(state="pending") == under_way
        assert Delivery.objects.filter(error=sending.SWITCHED_OFF).exists()
        Delivery.objects.all().delete()
        webhook = webhooks.update(webhook, owner, active=True)


def test_of_too_many_that_wait_the_oldest_are_given_up(
    hook: Hook, workspace: Workspace, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "MOST_PENDING", 3)
    busy, _ = hook()
    for name in ("One", "Two", "Three", "Four", "Five"):
        services.rename(workspace, owner, name)
    quiet, _ = hook()
    services.rename(workspace, owner, "Six")
    tasks.take_up()
    assert quiet.deliveries.get().state == "pending"
    found = list(busy.deliveries.order_by("created_at"))
    assert [one.state for one in found] == ["failed"] * 3 + ["pending"] * 3
    assert found[0].error.startswith("More than 3 messages waited")


# --- receivers that take their time --------------------------------------------------------------


class Workers:
    """As many as there are of worker-outside: each takes the next call of the queue."""

    def __init__(self, calls: queue.SimpleQueue[list[str] | None], count: int = 8) -> None:
        self._calls = calls
        self._threads = [threading.Thread(target=self._work) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while (args := self._calls.get()) is not None:
            tasks.send_webhook(*args)
        connection.close()

    def stop(self) -> None:
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()


@pytest.mark.django_db(transaction=True)
def test_a_slow_receiver_keeps_no_other_workspace_waiting(
    hook: Hook,
    workspace: Workspace,
    owner: User,
    receiver: Receiver,
    calls: Any,
) -> None:
    webhook, _ = hook()
    for number in range(20):
        services.rename(workspace, owner, f"Trees {number}")
    under_way = threading.Semaphore(sending.AT_ONCE)
    too_many: list[bool] = []
    go_on = threading.Event()

    def slowly(handler: Any) -> None:
        free = under_way.acquire(blocking=False)
        too_many.append(not free)
        go_on.wait(SECONDS)
        if free:
            under_way.release()
        receivers.status(204)(handler)

    receiver.answers = [slowly] * 20
    with receivers.listening() as quick:
        other = factories.make_workspace(owner, "birds")
        webhooks.create(other, owner, url=quick.url)
        workers = Workers(calls)
        try:
            receiver.wait_for(sending.AT_ONCE)
            services.rename(other, owner, "Birds of Kyiv")
            quick.wait_for(1)
            assert len(receiver.received) == sending.AT_ONCE, "the other one waited for these"
            go_on.set()
            receiver.wait_for(20)  # nothing but the end of one message has the next one sent
        finally:
            go_on.set()
            workers.stop()
    assert not any(too_many)
    states = webhook.deliveries.values_list("state", "attempts")
    assert list(states) == [("delivered", 1)] * 20


def test_of_one_workspace_so_many_are_under_way(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    made = [hook()[0] for _ in range(sending.AT_ONCE_OF_WORKSPACE + 1)]
    other = factories.make_workspace(owner, "birds")
    webhooks.create(other, owner, url=receiver.url)
    services.rename(workspace, owner, "Shrubs")
    services.rename(other, owner, "Owls")
    claimed = [sending._claim(webhook.deliveries.get().pk) for webhook in made]
    assert [one is not None for one in claimed] == [True] * 4 + [False]
    (due,) = sending.due()
    assert due.webhook.workspace == other
    assert sending._claim(due.pk)
    assert claimed[0]
    sending._delivered(claimed[0])
    assert [one.webhook for one in sending.due()] == [made[-1]]


# --- workers that die, and tasks that come twice -------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_doubled_task_sends_once(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    hook()
    services.rename(workspace, owner, "Shrubs")
    receiver.answers = [receivers.silent(0.3)] * 5
    pk = str(only().pk)

    def work() -> None:
        tasks.send_webhook(pk)
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    tasks.send_webhook(pk)
    assert len(receiver.received) == 1
    assert (only().state, only().attempts) == ("delivered", 1)


DYING = """
import sys, django
django.setup()
from workspaces import sending
sending.send(sys.argv[1])
"""


@pytest.mark.django_db(transaction=True)
def test_what_a_killed_worker_was_at_is_taken_up(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    _, secret = hook()
    services.rename(workspace, owner, "Shrubs")
    receiver.answers = [receivers.silent(30)]
    database = urlsplit(os.environ["DATABASE_URL"])
    here = database._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    worker = subprocess.Popen(
        [sys.executable, "-c", DYING, str(only().pk)],
        cwd=project.BASE_DIR,
        env={**os.environ, "DATABASE_URL": here, "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"},
    )
    receiver.wait_for(1)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert (only().state, only().attempts) == ("pending", 1)
    send_all()
    assert len(receiver.received) == 1, "its claim holds for a while"
    pass_time(seconds=sending.CLAIM.total_seconds())
    send_all()
    assert [message.id for message in receiver.received] == [str(only().pk)] * 2
    receiver.received[1].verified(secret)
    assert (only().state, only().attempts) == ("delivered", 2)


def test_a_worker_whose_claim_ran_out_writes_nothing(
    hook: Hook, workspace: Workspace, owner: User
) -> None:
    hook()
    services.rename(workspace, owner, "Shrubs")
    stale = sending._claim(only().pk)
    assert stale is not None
    pass_time(seconds=sending.CLAIM.total_seconds())
    send_all()
    sending._try_again(stale, "Late.")
    assert (only().state, only().error) == ("delivered", "")


def test_the_beat_finds_what_is_due(
    hook: Hook, workspace: Workspace, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook()
    services.rename(workspace, owner, "Shrubs")
    sent: list[Any] = []
    monkeypatch.setattr(
        tasks.current_app, "send_task", lambda name, args, **_options: sent.append((name, args))
    )
    tasks.take_up()
    assert ("workspaces.tasks.send_webhook", [only().pk]) in sent


def test_old_messages_are_pruned(hook: Hook, workspace: Workspace, owner: User) -> None:
    webhook, _ = hook()
    for name in ("One", "Two", "Three", "Four"):
        services.rename(workspace, owner, name)
    done, failed, pending, fresh = Delivery.objects.order_by("created_at")
    old = timezone.now() - sending.KEPT - timedelta(minutes=1)
    Delivery.objects.exclude(pk=fresh.pk).update(created_at=old)
    for delivery, state in ((done, "delivered"), (failed, "failed"), (fresh, "delivered")):
        Delivery.objects.filter(pk=delivery.pk).update(state=state)
    tasks.clear_expired()
    assert set(Delivery.objects.values_list("pk", flat=True)) == {pending.pk, fresh.pk}
    Workspace.objects.update(deleted_at=old, purged_at=old)
    tasks.clear_expired()
    assert not Webhook.objects.filter(pk=webhook.pk).exists()
