"""What owners do with webhooks, and what is refused."""

import threading
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from pytest_django import Settings
from standardwebhooks import WebhookVerificationError

from accounts.models import User
from deploy import lifecycle
from deploy.states import StopReason
from tests.workspaces.webhooks import receiver as receivers
from tests.workspaces.webhooks.receiver import Receiver
from tests.workspaces.webhooks.support import Hook, only, send_all, stop_container
from workspaces import history, outside, services, webhooks
from workspaces.models import Delivery, Webhook, Workspace
from workspaces.services import Refused, TooOften

pytestmark = pytest.mark.django_db

State = Delivery.State


def test_sending_again_keeps_the_id(
    hook: Hook, workspace: Workspace, owner: User, receiver: Receiver
) -> None:
    _, secret = hook()
    services.rename(workspace, owner, "Shrubs")
    send_all()
    webhooks.redeliver(only(), owner)
    assert only().state == "pending"
    send_all()
    assert (only().state, only().attempts) == ("delivered", 1)
    first, second = receiver.received
    assert first.id == second.id
    assert first.body == second.body
    second.verified(secret)
    # What waits for its next attempt is tried at once.
    receiver.answers = [receivers.status(500)] * 2
    webhooks.redeliver(only(), owner)
    before = timezone.now()
    send_all()
    assert only().next_attempt_at > before
    webhooks.redeliver(only(), owner)
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
    webhooks.redeliver(only(), owner)
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
    webhooks.redeliver(only(), owner)
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
        assert over.wait(60)

    def create() -> None:
        webhooks.create(Workspace.objects.get(), owner, url="https://93.184.216.34/")
        connection.close()

    monkeypatch.setattr(outside, "check", slowly)
    requests = [threading.Thread(target=create) for _ in range(webhooks.LOOK_UPS)]
    try:
        for request in requests:
            request.start()
            assert begun.acquire(timeout=60)
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
    lines = history.entries(workspace, list(history.rows_of(workspace)))
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
