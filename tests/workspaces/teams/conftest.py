"""What tests of teams share: a workspace, and a mail server that really speaks SMTP."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from accounts.models import User
from tests import factories
from tests.workspaces.teams import smtp
from tests.workspaces.teams.smtp import MailServer
from workspaces.models import Workspace


@pytest.fixture
def workspace(owner: User) -> Workspace:
    """The owner's."""
    return factories.make_workspace(owner, "trees")


@pytest.fixture
def mail_server(settings: Settings) -> Iterator[MailServer]:
    """Where mail goes to."""
    with smtp.listening() as server:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
        settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
        yield server
