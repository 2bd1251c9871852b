"""The webhook pages, as a browser without JavaScript has them."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import User
from tests import factories
from tests.workspaces import html
from tests.workspaces.html import Page
from tests.workspaces.webhooks import receiver as receivers
from tests.workspaces.webhooks.receiver import Receiver
from workspaces import outbox, sending, services, webhooks
from workspaces.models import Delivery, Webhook, Workspace

pytestmark = pytest.mark.django_db

ADDRESS = "/workspaces/trees/webhooks/"


@pytest.fixture
def webhook(workspace: Workspace, owner: User, receiver: Receiver) -> Webhook:
    made, _ = webhooks.create(workspace, owner, url=receiver.url, name="Chat room")
    return made


def shown(client: Client, path: str = ADDRESS, status: int = 200) -> str:
    response = client.get(path)
    assert response.status_code == status
    text = response.content.decode()
    assert html.problems(text) == []
    return text


def send_all() -> None:
    for delivery in sending.due():
        sending.send(delivery.pk)


@pytest.mark.usefixtures("workspace")
def test_adding_shows_the_secret_once_and_it_verifies(
    client_of_owner: Client, receiver: Receiver
) -> None:
    assert "Webhooks" in shown(client_of_owner, "/workspaces/trees/")
    page = Page(shown(client_of_owner))
    assert f"{ADDRESS}add/" in page.actions
    kinds = [box.get("value") for box in page.all("input") if box.get("name") == "events"]
    assert kinds == list(outbox.TYPES)
    response = client_of_owner.post(
        f"{ADDRESS}add/",
        {"url": f" {receiver.url} ", "name": "Chat", "events": ["plugins.changed"]},
    )
    webhook = Webhook.objects.get()
    assert (webhook.url, webhook.name, webhook.events) == (
        receiver.url,
        "Chat",
        ["plugins.changed"],
    )
    here = f"{ADDRESS}{webhook.pk}/"
    assert (response.status_code, response["Location"]) == (302, here)
    response = client_of_owner.get(here)
    assert "no-store" in response["Cache-Control"]
    secret = Page(response.content.decode()).by_id("secret").text
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    assert secret not in shown(client_of_owner, here)
    client_of_owner.post(f"{here}test/")
    assert "On its way" in shown(client_of_owner, here)
    send_all()
    receiver.received[0].verified(secret)
    text = shown(client_of_owner, here)
    assert "Delivered" in text
    assert "thanks" in text, "the answer"
    assert "http-equiv" not in text


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "Where should messages go?"),
        ("https://169.254.169.254/latest/", "not lead to the public internet"),
        ("http://93.184.216.34/", "Begin with https://"),
    ],
)
def test_a_refused_address_is_explained_where_it_was_typed(
    client_of_owner: Client, url: str, words: str
) -> None:
    response = client_of_owner.post(f"{ADDRESS}add/", {"url": url, "events": ["plugins.changed"]})
    assert response.status_code == 422
    text = response.content.decode()
    assert html.problems(text) == []
    page = Page(text)
    assert words in page.by_id("id_url_error").text
    assert page.by_id("id_url").get("value") == url
    (ticked,) = [box for box in page.all("input") if "checked" in box.attributes]
    assert ticked.get("value") == "plugins.changed"
    assert not Webhook.objects.exists()


def test_the_log_shows_what_went_wrong_and_sends_again(
    client_of_owner: Client,
    workspace: Workspace,
    owner: User,
    webhook: Webhook,
    receiver: Receiver,
) -> None:
    here = f"{ADDRESS}{webhook.pk}/"
    receiver.answers = [receivers.status(503, b"<b>down</b> for lunch")]
    services.rename(workspace, owner, "Shrubs")
    send_all()
    Delivery.objects.update(next_attempt_at=timezone.now() + timedelta(minutes=5))
    text = shown(client_of_owner, here)
    for words in ("It answered 503.", "&lt;b&gt;down&lt;/b&gt; for lunch", "Waiting", "Failing"):
        assert words in text
    assert "workspace.updated" in text
    delivery = Delivery.objects.get()
    assert str(delivery.pk) in text
    client_of_owner.post(f"{here}redeliver/", {"delivery": str(delivery.pk)})
    send_all()
    text = shown(client_of_owner, here)
    assert "Delivered" in text
    assert "Failing" not in text
    for bad in ("", "nonsense", "6b3f64c1-6f83-4d2c-9a64-0c0d3a3a5c1e"):
        response = client_of_owner.post(f"{here}redeliver/", {"delivery": bad}, follow=True)
        assert "not kept any more" in response.content.decode()


def test_change_switch_rotate_and_remove(
    client_of_owner: Client, webhook: Webhook, receiver: Receiver
) -> None:
    here = f"{ADDRESS}{webhook.pk}/"
    client_of_owner.post(f"{here}change/", {"url": receiver.url, "name": "", "events": []})
    webhook.refresh_from_db()
    assert (webhook.name, webhook.events) == ("", [])
    response = client_of_owner.post(f"{here}change/", {"url": "https://10.0.0.1/"})
    assert response.status_code == 422
    assert html.problems(response.content.decode()) == []
    client_of_owner.post(f"{here}switch/", {"to": "off"})
    text = shown(client_of_owner, here)
    assert "An owner switched it off." in text
    assert f"{here}test/" not in Page(text).actions
    refused = client_of_owner.post(f"{here}test/", follow=True).content.decode()
    assert "Switch it on first" in refused
    client_of_owner.post(f"{here}switch/", {"to": "on"})
    client_of_owner.post(f"{here}rotate/")
    text = shown(client_of_owner, here)
    assert "whsec_" in text
    assert "the one before" in text
    response = client_of_owner.post(f"{here}remove/", follow=True)
    assert "is removed" in response.content.decode()
    shown_again = client_of_owner.get(here)
    assert shown_again.status_code == 404


def test_webhooks_of_other_workspaces_are_not_there(
    client_of_owner: Client, owner: User, webhook: Webhook
) -> None:
    other = factories.make_workspace(factories.make_user(), "birds")
    factories.make_workspace(owner, "shrubs")
    theirs = other.webhooks.create(url="https://93.184.216.34/", secret="sealed")
    delivery = theirs.deliveries.create(type="ping", body="{}", state="delivered")
    for path in (f"/workspaces/shrubs/webhooks/{webhook.pk}/", f"{ADDRESS}{theirs.pk}/"):
        assert client_of_owner.get(path).status_code == 404
        assert client_of_owner.post(f"{path}rotate/").status_code == 404
    client_of_owner.post(f"{ADDRESS}{webhook.pk}/redeliver/", {"delivery": str(delivery.pk)})
    delivery.refresh_from_db()
    assert delivery.state == "delivered"


def test_ten_are_enough(client_of_owner: Client, workspace: Workspace, webhook: Webhook) -> None:
    for _ in range(webhooks.MAX_WEBHOOKS - 1):
        workspace.webhooks.create(url=webhook.url, secret="sealed")
    assert f"{ADDRESS}add/" not in Page(shown(client_of_owner)).actions


def test_a_long_log_has_pages_and_costs_few_queries(
    client_of_owner: Client, webhook: Webhook, django_assert_max_num_queries: object
) -> None:
    Delivery.objects.bulk_create(
        Delivery(webhook=webhook, type="ping", body="{}", state="delivered") for _ in range(50)
    )
    with django_assert_max_num_queries(15):  # type: ignore[operator]
        text = shown(client_of_owner, f"{ADDRESS}{webhook.pk}/?page=2")
    assert "Page 2 of 3" in text
