"""What tests of workspaces share."""

from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest
from django.test import Client
from pytest_django import Settings

from accounts.models import User
from tests import factories
from tests.workspaces.webhooks import receiver as receivers
from tests.workspaces.webhooks.receiver import Receiver
from workspaces import outside

SignIn = Callable[[User], Client]


@pytest.fixture(autouse=True)
def plain_settings(settings: Settings) -> None:
    """Static files as they lie in the source: nothing was collected."""
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No address outside is given up because this machine is busy. Tests of giving up say when."""
    for name in ("LOOK_UP_SECONDS", "CHECK_SECONDS", "CONNECT_SECONDS"):
        monkeypatch.setattr(outside, name, 60.0)
    monkeypatch.setattr(outside, "WHOLE_SECONDS", 120.0)


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    """Where messages of webhooks arrive; the operators allow this machine by name."""
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]
    with receivers.listening() as receiver:
        yield receiver


@pytest.fixture
def ready(db: None) -> None:
    """What must be there before anybody can make a workspace: the default plan and an image."""
    factories.make_plan()
    factories.make_image()


@pytest.fixture
def owner(db: None) -> User:
    """Somebody with an account."""
    return factories.make_user("ada@example.org", name="Ada")


@pytest.fixture
def sign_in() -> SignIn:
    """Return a browser without JavaScript in which somebody is signed in."""

    def sign_in(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return sign_in


@pytest.fixture
def client_of_owner(owner: User, sign_in: SignIn) -> Client:
    """The owner's browser, without JavaScript."""
    return sign_in(owner)
