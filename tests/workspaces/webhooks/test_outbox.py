"""From what happens to what a receiver verifies; the receiver is a real server."""

import json
import threading
from contextlib import suppress
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from standardwebhooks import WebhookVerificationError

from accounts.models import User
from deploy import lifecycle, usage
from deploy.models import Instance
from deploy.probe import Usage
from deploy.states import Status
from tests import factories
from tests.database import somebody_waits_for_a_lock
from tests.deploy.boxes import wait_for
from tests.workspaces.webhooks.receiver import Receiver
from tests.workspaces.webhooks.support import Hook, only, send_all, stop_container
from workspaces import activity, calls, outbox, services, tasks, webhooks
from workspaces.api.webhook_shapes import WebhookOut
from workspaces.models import Activity, Delivery, Webhook, Workspace
from workspaces.services import Refused

pytestmark = pytest.mark.django_db

State = Delivery.State


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


def test_a_disk_that_fills_is_told(hook: Hook, workspace: Workspace) -> None:
    hook(events=["workspace.disk"])
    pk = workspace.instance_id
    for up, part in ((1, 0.5), (2, 0.9), (3, 1.0), (4, 0.1)):
        used = int(workspace.instance.disk_limit * part)
        usage.record({pk: Usage("run", up, 0, 0, 0, used)})
    messages = Delivery.objects.order_by("created_at")
    told = [json.loads(message.body)["data"]["event"] for message in messages]
    assert [event["kind"] for event in told] == ["disk_nearly_full", "disk_full", "disk_fine"]
    assert told[0]["text"] == "Its disk is nearly full"
    assert told[1]["status"] is None


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

    monkeypatch.setattr(calls.current_app, "send_task", send_task)
    with transaction.atomic():
        services.delete(workspace, owner)
        with suppress(Refused), transaction.atomic():
            activity.note(workspace, owner, "renamed")
            raise Refused("no")
        activity.note(workspace, owner, "changed_plan")
    # One each for webhooks and for mail, however many there are.
    assert [name for name, _ in sent] == [
        "deploy.tasks.reconcile",
        "workspaces.tasks.send_webhook",
        "workspaces.tasks.send_mail",
    ]
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
        if first == "write":
            wait_for(somebody_waits_for_a_lock, "the deletion to wait for what happens")
        else:
            other.join(60)
            assert not other.is_alive(), "what happens waits for nobody"
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
        other.join(60)
    assert only().webhook == webhook
