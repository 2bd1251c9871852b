"""Webhooks from what happens to what a receiver verifies; the receiver is a real server."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings as project
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from standardwebhooks import WebhookVerificationError

from accounts.models import User
from deploy import lifecycle
from deploy.models import Instance
from deploy.states import Status, StopReason
from tests import factories
from tests.workspaces import receiver as receivers
from tests.workspaces.receiver import Receiver
from workspaces import activity, history, outbox, outside, sending, services, tasks, webhooks
from workspaces.api.webhook_shapes import WebhookOut
from workspaces.models import Activity, Delivery, Webhook, Workspace
from workspaces.services import Refused, TooOften

pytestmark = pytest.mark.django_db

State = Delivery.State
Hook = Callable[..., tuple[Webhook, str]]


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]
    with receivers.listening() as receiver:
        yield receiver


@pytest.fixture
def workspace(owner: User) -> Workspace:
    return factories.make_workspace(owner, "trees")


@pytest.fixture
def hook(workspace: Workspace, owner: User, receiver: Receiver) -> Hook:
    """Make a webhook of the workspace that leads to the receiver."""

    def make(**fields: Any) -> tuple[Webhook, str]:
        return webhooks.create(workspace, owner, url=receiver.url, **fields)

    return make


def send_all() -> None:
    """Do what the beat and the worker do for what is due now."""
    for delivery in sending.due():
        tasks.send_webhook(str(delivery.pk))


def pass_time(**time: float) -> None:
    """Let so much time go by for what is on its way."""
    earlier = timedelta(**time)
    Delivery.objects.update(next_attempt_at=F("next_attempt_at") - earlier)
    Delivery.objects.update(claimed_until=F("claimed_until") - earlier)
    Webhook.objects.update(failing_since=F("failing_since") - earlier)


def stop_container(workspace: Workspace, **event: Any) -> None:
    """Do what a worker does once the engine has stopped the container."""
    with transaction.atomic():
        Instance.objects.filter(pk=workspace.instance_id).update(observed="exited", ready=False)
        lifecycle._note(Instance.objects.get(pk=workspace.instance_id), "stop", **event)


def only() -> Delivery:
    return Delivery.objects.get()


# --- from what happens to what arrives -----------------------------------------------------------


def test_a_deed_arrives_and_verifies(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    _, secret = hook()
    services.rename(workspace, owner, "Trees of Lisbon")
    send_all()
    (message,) = receiver.received
    deed = Activity.objects.get(verb="renamed")
    told = message.verified(secret)
    assert told == {
        "type": "workspace.updated",
        "timestamp": told["data"]["event"]["at"],
        "data": {
            "workspace": {
                "slug": "trees",
                "name": "Trees of Lisbon",
                "status": "running",
                "url": "http://trees.localhost:8000/",
            },
            "event": {
                "id": deed.pk,
                "at": f"{deed.at:%Y-%m-%dT%H:%M:%S.}{deed.at.microsecond // 1000:03}Z",
                "kind": "renamed",
                "status": None,
                "who": "Ada",
                "text": "renamed it",
                "detail": "from “Trees” to “Trees of Lisbon”",
                "duration_ms": None,
                "failed": False,
            },
        },
    }
    assert message.headers["content-type"] == "application/json"
    assert message.headers["user-agent"].startswith("cloudapp-webhooks/")
    delivery = only()
    assert message.id == str(delivery.pk)
    assert message.body.decode() == delivery.body
    assert (delivery.state, delivery.status_code, delivery.answer) == ("delivered", 200, "thanks")
    assert delivery.attempts == 1
    assert delivery.duration_ms is not None
    with pytest.raises(WebhookVerificationError):
        message.verified("whsec_" + "A" * 44)


def test_a_status_arrives_with_the_event_that_brought_it_about(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    _, secret = hook()
    Instance.objects.update(announced="running")
    services.stop(workspace, owner)
    assert not Delivery.objects.exists(), "it is still running"
    stop_container(workspace, duration_ms=340)
    send_all()
    told = receiver.received[0].verified(secret)
    assert (told["type"], told["data"]["workspace"]["status"]) == ("workspace.stopped", "stopped")
    event = told["data"]["event"]
    assert (event["kind"], event["status"], event["who"]) == ("stop", "stopped", None)
    assert event["text"] == "Stopped the container, with all data written"
    assert event["duration_ms"] == 340


def test_every_status_is_told(hook: Hook, workspace: Workspace) -> None:
    hook()
    for status in Status:
        Delivery.objects.all().delete()
        Instance.objects.update(announced="")
        instance = factories.set_status(workspace.instance, status)
        with transaction.atomic():
            lifecycle._note(instance, "observed")
        assert only().type == f"workspace.{status}"


@pytest.mark.parametrize(
    ("verb", "type"),
    [
        ("created", "workspace.created"),
        ("renamed", "workspace.updated"),
        ("changed_metadata", "workspace.updated"),
        ("changed_plan", "workspace.updated"),
        ("restored", "workspace.restored"),
        ("changed_plugins", "plugins.changed"),
        ("changed_role", "members.changed"),
        ("removed_member", "members.changed"),
        ("left", "members.changed"),
        ("set_secret", "secrets.changed"),
        ("removed_secret", "secrets.changed"),
        ("started", None),
        ("added_webhook", None),
        ("disabled_webhook", None),
    ],
)
def test_deeds_have_types(hook: Hook, workspace: Workspace, verb: str, type: str | None) -> None:
    hook()
    with transaction.atomic():
        activity.note(workspace, None, verb)
    assert list(Delivery.objects.values_list("type", flat=True)) == [type] * bool(type)
    assert type is None or type in outbox.TYPES


def test_only_what_a_webhook_wants_is_told(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    picky, _ = hook(events=["workspace.stopped", "workspace.created"])
    assert picky.events == ["workspace.created", "workspace.stopped"]
    off, _ = hook()
    webhooks.update(off, owner, active=False)
    services.rename(workspace, owner, "Shrubs")
    assert not Delivery.objects.exists()
    services.stop(workspace, owner)
    stop_container(workspace)
    assert [d.type for d in picky.deliveries.all()] == ["workspace.stopped"]
    assert not off.deliveries.exists()


@pytest.mark.usefixtures("ready")
def test_operators_hear_of_all_workspaces_and_owners_of_theirs(
    owner: User, receiver: Receiver
) -> None:
    operator = factories.make_user(is_staff=True, is_superuser=True)
    all_of_them, secret = webhooks.create(None, operator, url=receiver.url)
    services.create_workspace(owner, "Trees", "trees")
    services.create_workspace(factories.make_user(), "Birds", "birds")
    send_all()
    told = [message.verified(secret) for message in receiver.received]
    assert [(t["type"], t["data"]["workspace"]["slug"]) for t in told] == [
        ("workspace.created", "trees"),
        ("workspace.created", "birds"),
    ]
    assert told[0]["data"]["workspace"]["status"] == "provisioning"
    # Spares are nobody's: nobody hears of them.
    Delivery.objects.all().delete()
    for workspace in Workspace.objects.all():
        factories.set_status(workspace.instance, Status.RUNNING)
    services.keep_spares()
    assert Instance.objects.filter(spare=True).exists()
    assert not all_of_them.deliveries.exists()
    with pytest.raises(Refused, match="Only operators"):
        webhooks.create(None, owner, url=receiver.url)


@pytest.mark.parametrize("loss", ["active", "staff", "permission", "account"])
def test_an_operators_webhook_hears_what_its_maker_may_see(
    workspace: Workspace, owner: User, receiver: Receiver, loss: str
) -> None:
    operator = factories.make_user(is_staff=True)
    operator.user_permissions.add(Permission.objects.get(codename="view_workspace"))
    webhook, _ = webhooks.create(None, operator, url=receiver.url)
    services.rename(workspace, owner, "Shrubs")
    send_all()
    assert len(receiver.received) == 1
    services.rename(workspace, owner, "Hedges")
    if loss == "permission":
        operator.user_permissions.clear()
    elif loss == "account":
        operator.delete()
    else:
        setattr(operator, {"active": "is_active", "staff": "is_staff"}[loss], False)
        operator.save()
    services.rename(workspace, owner, "Trees")
    assert webhook.deliveries.count() == 2, "what happens now it does not hear of"
    send_all()
    assert len(receiver.received) == 1, "nor of what was on its way"
    words = "Who made it may not see all workspaces any more."
    assert set(webhook.deliveries.values_list("state", "error")) == {
        ("delivered", ""),
        ("failed", words),
    }
    assert WebhookOut.of(Webhook.objects.get()).disabled_reason == words


def test_what_is_rolled_back_is_told_to_nobody(
    hook: Hook, workspace: Workspace, owner: User
) -> None:
    hook()

    with transaction.atomic():
        services.rename(workspace, owner, "Shrubs")
        services.stop(workspace, owner)
        assert Delivery.objects.exists()
        transaction.set_rollback(True)
    assert not Delivery.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_one_call_wakes_for_all_messages_of_a_transaction_and_the_instance_goes_first(
    hook: Hook, workspace: Workspace, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        hook()
    sent: list[tuple[str, list[str]]] = []

    def send_task(name: str, args: list[str], **_options: Any) -> None:
        sent.append((name, args))
        raise OSError  # the broker hangs: each call costs its time

    monkeypatch.setattr(outbox.current_app, "send_task", send_task)
    with transaction.atomic():
        services.delete(workspace, owner)
        with suppress(Refused), transaction.atomic():
            activity.note(workspace, owner, "renamed")
            raise Refused("no")
        activity.note(workspace, owner, "changed_plan")
    assert [name for name, _ in sent] == ["deploy.tasks.reconcile", "workspaces.tasks.send_webhook"]
    written = {str(pk) for pk in Delivery.objects.values_list("pk", flat=True)}
    assert len(written) == 6
    assert written <= set(sent[1][1])


def test_other_workers_send_the_other_messages(
    hook: Hook, workspace: Workspace, owner: User, calls: Any, receiver: Receiver
) -> None:
    for _ in range(3):
        hook()
    services.rename(workspace, owner, "Shrubs")
    tasks.send_webhook(*(str(one.pk) for one in Delivery.objects.all()))
    assert len(receiver.received) == 1
    assert len(calls.get_nowait()) == 2


def test_it_costs_one_query_when_nobody_listens(workspace: Workspace, owner: User) -> None:
    deed = Activity.objects.create(workspace=workspace, user=owner, verb="renamed")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        outbox.note_deed(deed)
    assert len(queries) == 1
    event = factories.add_event(workspace.instance, "stop", status="stopped")
    with CaptureQueriesContext(connection) as queries:
        outbox.hear(event)
    assert len(queries) == 1
    event = factories.add_event(workspace.instance, "stop")
    deed.verb = "started"
    with CaptureQueriesContext(connection) as queries:
        outbox.hear(event)
        outbox.note_deed(deed)
    assert len(queries) == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first", ["delete", "write"])
def test_deleting_an_operators_webhook_undoes_nothing_that_happens_meanwhile(
    workspace: Workspace, owner: User, receiver: Receiver, first: str
) -> None:
    operator = factories.make_user(is_staff=True, is_superuser=True)
    webhook, _ = webhooks.create(None, operator, url=receiver.url)
    failures: list[Exception] = []

    def delete() -> None:
        try:
            webhooks.delete(webhook, operator)
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    def rename() -> None:
        try:
            services.rename(workspace, owner, "Shrubs")
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    other = threading.Thread(target=delete if first == "write" else rename)
    with transaction.atomic():
        if first == "delete":
            webhooks.delete(webhook, operator)
        else:
            services.rename(workspace, owner, "Shrubs")
        other.start()
        other.join(0.5)
        assert other.is_alive() == (first == "write"), "what happens waits for nobody"
    other.join()
    assert not failures
    workspace.refresh_from_db()
    assert (workspace.name, Webhook.objects.count()) == ("Shrubs", 0)


@pytest.mark.django_db(transaction=True)
def test_who_changes_a_webhook_keeps_it_from_hearing_of_nothing(
    workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    operator = factories.make_user(is_staff=True, is_superuser=True)
    webhook, _ = webhooks.create(None, operator, url=receiver.url)

    def rename() -> None:
        services.rename(workspace, owner, "Shrubs")
        connection.close()

    other = threading.Thread(target=rename)
    with transaction.atomic():
        webhooks.rotate(webhook, operator)
        other.start()
        other.join(10)
    assert only().webhook == webhook


# --- failures and retries ------------------------------------------------------------------------


def test_it_is_tried_again_ever_later_and_then_no_more(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    _, secret = hook()
    services.rename(workspace, owner, "Shrubs")
    receiver.answers = [receivers.status(500, b"oops")] * 20
    for count, delay in enumerate(sending.DELAYS, 1):
        send_all()
        delivery = only()
        assert (delivery.state, delivery.attempts) == ("pending", count)
        assert (delivery.status_code, delivery.answer) == (500, "oops")
        wait = (delivery.next_attempt_at - timezone.now()).total_seconds()
        assert 0.8 * delay - 2 < wait < 1.2 * delay
        send_all()
        assert len(receiver.received) == count, "not before its time"
        pass_time(seconds=delay * 1.2)
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
    (line, *_) = history.entries(list(history.rows_of(workspace)[:1]))
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


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> queue.SimpleQueue[list[str] | None]:
    """The broker's queue: what workers are woken for."""
    calls: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()

    def send_task(name: str, args: list[str], **_options: Any) -> None:
        if name == "workspaces.tasks.send_webhook":
            calls.put(args)

    monkeypatch.setattr(outbox.current_app, "send_task", send_task)
    return calls


@pytest.mark.django_db(transaction=True)
def test_a_slow_receiver_keeps_no_other_workspace_waiting(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver, calls: Any
) -> None:
    webhook, _ = hook()
    for number in range(20):
        services.rename(workspace, owner, f"Trees {number}")
    under_way = threading.Semaphore(sending.AT_ONCE)
    too_many: list[bool] = []

    def slowly(handler: Any) -> None:
        free = under_way.acquire(blocking=False)
        too_many.append(not free)
        time.sleep(0.3)
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
            assert len(receiver.received) < 10, "the other one did not wait for these"
            receiver.wait_for(20)  # nothing but the end of one message has the next one sent
        finally:
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


# --- what owners do ------------------------------------------------------------------------------


def test_sending_again_keeps_the_id(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    _, secret = hook()
    services.rename(workspace, owner, "Shrubs")
    send_all()
    webhooks.redeliver(only())
    assert only().state == "pending"
    send_all()
    assert (only().state, only().attempts) == ("delivered", 1)
    first, second = receiver.received
    assert first.id == second.id
    assert first.body == second.body
    second.verified(secret)
    # What waits for its next attempt is tried at once.
    receiver.answers = [receivers.status(500)] * 2
    webhooks.redeliver(only())
    send_all()
    assert only().next_attempt_at > timezone.now()
    webhooks.redeliver(only())
    send_all()
    assert (len(receiver.received), only().attempts) == (4, 2)


def test_a_rotated_secret_signs_beside_the_old_one_for_a_day(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    webhook, old = hook()
    new = webhooks.rotate(webhook, owner)
    assert new != old
    services.rename(workspace, owner, "Shrubs")
    send_all()
    receiver.received[0].verified(old)
    receiver.received[0].verified(new)
    Webhook.objects.update(old_secret_until=timezone.now())
    webhooks.redeliver(only())
    send_all()
    receiver.received[1].verified(new)
    with pytest.raises(WebhookVerificationError):
        receiver.received[1].verified(old)


def test_secrets_are_kept_sealed_and_survive_new_keys(  # noqa: PLR0917 - fixtures
    hook: Hook,
    workspace: Workspace,
    owner: User,
    receiver: Receiver,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    webhook, old = hook()
    new = webhooks.rotate(webhook, owner)
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(w)::text FROM workspaces_webhook w")
        (row,) = cursor.fetchone()
    for secret in (old, new):
        assert secret.removeprefix("whsec_") not in row
    keys = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = ["another-key-that-is-long-enough", *keys]
    call_command("rotate_secrets")
    assert "1 webhooks" in capsys.readouterr().out
    settings.ENCRYPTION_KEYS = settings.ENCRYPTION_KEYS[:1]
    services.rename(workspace, owner, "Shrubs")
    send_all()
    receiver.received[0].verified(old)
    receiver.received[0].verified(new)
    settings.ENCRYPTION_KEYS = ["a-key-that-opens-nothing-at-all"]
    webhooks.redeliver(only())
    send_all()
    assert only().state == "pending"
    assert "ENCRYPTION_KEYS" in only().error


def test_a_ping_tells_of_nothing_and_is_tried_once(
    hook: Hook, owner: User, receiver: Receiver
) -> None:
    webhook, secret = hook(events=["workspace.created"])
    webhooks.ping(webhook, owner)
    send_all()
    told = receiver.received[0].verified(secret)
    assert (told["type"], told["data"]["event"]["who"]) == ("ping", "Ada")
    assert told["data"]["workspace"]["slug"] == "trees"
    Delivery.objects.all().delete()
    receiver.answers = [receivers.status(500)]
    webhooks.ping(webhook, owner)
    send_all()
    assert only().state == "failed"
    webhook.refresh_from_db()
    assert webhook.failing_since is None
    for _ in range(webhooks.PINGS_A_MINUTE - 1):
        webhooks.ping(webhook, owner)
    with pytest.raises(Refused, match="a minute"):
        webhooks.ping(webhook, owner)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"url": "https://10.0.0.1/"}, "url", "not lead to the public internet"),
        ({"url": "nonsense"}, "url", "Begin with https://"),
        ({"name": "x" * 81}, "name", "at most 80"),
        ({"events": ["workspace.eaten"]}, "events", "no events of the type 'workspace.eaten'"),
    ],
)
def test_what_cannot_be_is_refused_by_field(  # noqa: PLR0917 - fixtures
    hook: Hook, workspace: Workspace, owner: User, fields: dict[str, Any], field: str, words: str
) -> None:
    webhook, _ = hook()
    with pytest.raises(Refused, match=words) as caught:
        webhooks.create(workspace, owner, **{"url": "https://93.184.216.34/"} | fields)
    assert caught.value.field == field
    with pytest.raises(Refused, match=words):
        webhooks.update(webhook, owner, **fields)


@pytest.mark.django_db(transaction=True)
def test_slow_name_servers_hold_two_requests_up_and_no_database_connection(
    workspace: Workspace, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds_connection: list[bool] = []
    begun, over = threading.Semaphore(0), threading.Event()

    def slowly(_url: str) -> None:
        holds_connection.append(connection.connection is not None)
        begun.release()
        assert over.wait(10)

    def create() -> None:
        webhooks.create(Workspace.objects.get(), owner, url="https://93.184.216.34/")
        connection.close()

    monkeypatch.setattr(outside, "check", slowly)
    requests = [threading.Thread(target=create) for _ in range(webhooks.LOOK_UPS)]
    try:
        for request in requests:
            request.start()
            assert begun.acquire(timeout=10)
        with pytest.raises(TooOften, match="Try again shortly") as caught:
            webhooks.create(workspace, owner, url="https://93.184.216.34/")
        assert (caught.value.code, caught.value.retry_after) == ("too_many_waiting", 5)
    finally:
        over.set()
        for request in requests:
            request.join()
    assert holds_connection == [False, False]
    webhooks.create(workspace, owner, url="https://93.184.216.34/")
    assert workspace.webhooks.count() == 3


def test_a_workspace_has_ten_at_most(hook: Hook, workspace: Workspace, owner: User) -> None:
    made = [hook()[0] for _ in range(webhooks.MAX_WEBHOOKS)]
    with pytest.raises(Refused, match="at most 10"):
        hook()
    webhooks.delete(made[0], owner)
    hook()
    with pytest.raises(Refused, match="not there any more"):
        webhooks.rotate(made[0], owner)


def test_what_owners_do_is_in_the_history_without_what_is_secret_in_the_address(
    workspace: Workspace, owner: User
) -> None:
    url = "https://93.184.216.34/services/T0KEN?key=T0KEN"
    webhook, _ = webhooks.create(workspace, owner, url=url)
    webhooks.rotate(webhook, owner)
    webhook = webhooks.update(webhook, owner, name="Chat room", events=["workspace.created"])
    webhooks.update(webhook, owner, name="Chat room")
    webhooks.delete(webhook, owner)
    lines = history.entries(list(history.rows_of(workspace)))
    said = [f"{line.who} {line.text} {line.detail}" for line in lines if line.who]
    assert said == [
        "Ada removed the webhook Chat room",
        "Ada changed the webhook Chat room",
        "Ada gave a new secret to the webhook 93.184.216.34",
        "Ada added the webhook 93.184.216.34",
    ]
    services.delete(workspace, owner)
    with pytest.raises(Refused, match="deleted"):
        webhooks.create(workspace, owner, url=url)


def test_the_suspended_are_told_too(hook: Hook, workspace: Workspace, receiver: Receiver) -> None:
    _, secret = hook()
    lifecycle.want_stopped(workspace.instance_id, StopReason.OPERATOR)
    stop_container(workspace)
    send_all()
    assert receiver.received[-1].verified(secret)["type"] == "workspace.suspended"
