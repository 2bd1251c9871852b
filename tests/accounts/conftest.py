"""What tests of accounts share."""

from collections.abc import Callable, Iterator

import pytest
from allauth.account.models import EmailAddress
from django.core.cache import cache
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.models import User
from tests.accounts.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider

PASSWORD = "correct horse battery"

MakeUser = Callable[..., User]


@pytest.fixture(autouse=True)
def plain_settings(settings: Settings) -> None:
    """Static files as they lie in the source, and a password hash that costs no time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture
def make_user(db: None) -> MakeUser:
    """Make somebody with a verified address."""

    def make(email: str = "ada@example.com", password: str | None = PASSWORD) -> User:
        user = User.objects.create_user(password)
        EmailAddress.objects.create(user=user, email=email, primary=True, verified=True)
        return user

    return make


@pytest.fixture
def site(live_server: LiveServer, settings: Settings) -> Iterator[str]:
    """Our own address, in front of a real server."""
    settings.CLOUD_URL = live_server.url
    cache.clear()
    yield str(live_server.url)
    # Rate limits count on in the next test otherwise: no model has their table.
    cache.clear()


@pytest.fixture
def provider(settings: Settings, site: str) -> Iterator[Provider]:
    """An OpenID provider that stands in for Google, and the settings for it."""
    provider = Provider()
    provider.redirect_uri = f"{site}/account/google/login/callback/"
    settings.GOOGLE_ISSUER_URL = provider.issuer
    settings.SOCIALACCOUNT_REQUESTS_TIMEOUT = 60  # it is a thread of ours, on a busy machine
    settings.GOOGLE_CLIENT_ID = CLIENT_ID
    settings.SOCIALACCOUNT_PROVIDERS = {
        "google": {
            **settings.SOCIALACCOUNT_PROVIDERS["google"],
            "APPS": [{"client_id": CLIENT_ID, "secret": CLIENT_SECRET}],
        }
    }
    directives = settings.CONTENT_SECURITY_POLICY["DIRECTIVES"]
    settings.CONTENT_SECURITY_POLICY = {
        "DIRECTIVES": {**directives, "form-action": ["'self'", provider.issuer]}
    }
    yield provider
    provider.close()
