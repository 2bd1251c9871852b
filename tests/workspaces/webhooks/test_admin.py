"""The operators' own webhooks, in the admin."""

import pytest
from django.test import Client

from accounts.models import User
from tests import factories
from tests.workspaces.html import Page
from tests.workspaces.webhooks.receiver import Receiver
from workspaces import sending, services, webhooks
from workspaces.models import Delivery, Webhook

pytestmark = pytest.mark.django_db

LIST = "/admin/workspaces/webhook/"


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    return client


def send_all() -> None:
    for delivery in sending.due():
        sending.send(delivery.pk)


def test_an_operators_webhook_from_adding_to_removing(
    operator: Client, owner: User, receiver: Receiver
) -> None:
    assert "Add an operators" in operator.get(f"{LIST}add/").content.decode()
    refused = operator.post(f"{LIST}add/", {"url": "https://10.0.0.1/"})
    assert refused.status_code == 422
    assert "not lead to the public internet" in refused.content.decode()
    added = operator.post(f"{LIST}add/", {"url": receiver.url, "name": "Pager"})
    webhook = Webhook.objects.get()
    here = f"{LIST}{webhook.pk}/"
    assert (webhook.workspace, added["Location"]) == (None, f"{here}change/")
    shown = operator.get(f"{here}change/")
    assert "no-store" in shown["Cache-Control"]
    secret = Page(shown.content.decode()).by_id("secret").text.rsplit(" ", 1)[1].strip()
    assert secret not in operator.get(f"{here}change/").content.decode()
    workspace = factories.make_workspace(owner, "trees")
    services.rename(workspace, owner, "Shrubs")
    operator.post(f"{here}ping/")
    send_all()
    assert [m.verified(secret)["type"] for m in receiver.received] == ["workspace.updated", "ping"]
    log = operator.get(f"/admin/workspaces/delivery/?webhook={webhook.pk}").content.decode()
    assert "workspace.updated" in log
    chosen = {
        "action": "send_again",
        "_selected_action": [str(Delivery.objects.earliest("created_at").pk)],
    }
    again = operator.post("/admin/workspaces/delivery/", chosen, follow=True)
    assert "1 on their way again" in again.content.decode()
    operator.post(f"{here}switch/", {"to": "off"})
    webhook.refresh_from_db()
    assert not webhook.active
    operator.post(f"{here}rotate/")
    assert "whsec_" in operator.get(f"{here}change/").content.decode()
    assert "its log is gone" in operator.get(f"{here}remove/").content.decode()
    assert operator.post(f"{here}remove/")["Location"] == LIST
    assert not Webhook.objects.exists()


def test_customers_webhooks_are_only_looked_at(operator: Client, owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    webhook, secret = webhooks.create(workspace, owner, url="https://93.184.216.34/")
    here = f"{LIST}{webhook.pk}/"
    text = operator.get(f"{here}change/").content.decode()
    assert "93.184.216.34" in text
    for hidden in (secret, webhook.secret, "New secret", "Remove…"):
        assert hidden not in text
    for deed in ("ping", "rotate", "switch", "remove"):
        assert operator.post(f"{here}{deed}/").status_code == 403
    for path in (f"{here}change/", f"{here}delete/"):
        assert operator.post(path, {"post": "yes"}).status_code == 403
    for whose, there in (("customers", True), ("operators", False), ("", True)):
        listed = operator.get(f"{LIST}?whose={whose}").content.decode()
        assert (f"{here}change/" in listed) == there


def test_staff_without_the_permission_may_not(receiver: Receiver) -> None:
    client = Client()
    client.force_login(factories.make_user(is_staff=True))
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}add/", {"url": receiver.url}).status_code == 403


def test_its_page_says_why_it_hears_of_nothing(operator: Client) -> None:
    webhook = Webhook.objects.create(url="https://93.184.216.34/", secret="-")
    shown = operator.get(f"{LIST}{webhook.pk}/change/").content.decode()
    assert "Who made it may not see all workspaces any more." in shown
