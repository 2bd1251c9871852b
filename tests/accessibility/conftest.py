"""What tests of accessibility share: the world, and a browser in which somebody is signed in."""

from collections.abc import Callable

import pytest
from django.conf import settings as configured
from django.core.cache import cache
from playwright.sync_api import Page
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.models import User
from tests.accessibility import world as worlds
from tests.accessibility.world import World
from tests.browser import NewPage
from workspaces import progress

Visit = Callable[..., Page]


@pytest.fixture(autouse=True)
def plain_settings(settings: Settings, live_server: LiveServer) -> None:
    """Static files as they lie in the source, a quick password hash, and this server's address."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.ALLOWED_HOSTS = ["*"]
    settings.CLOUD_URL = live_server.url
    settings.CSRF_TRUSTED_ORIGINS = [live_server.url]
    settings.GOOGLE_CLIENT_ID = "google"
    google = {**settings.SOCIALACCOUNT_PROVIDERS["google"]}
    google["APPS"] = [{"client_id": "google", "secret": "never asked"}]
    settings.SOCIALACCOUNT_PROVIDERS = {"google": google}
    cache.clear()  # rate limits count on otherwise: no model has their table


@pytest.fixture
def world(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> World:
    """Rows of all kinds. Pages of what is busy ask for news, and are not kept waiting for it."""
    monkeypatch.setattr(progress, "HOLD_SECONDS", 0.1)
    return worlds.make()


@pytest.fixture
def visit(new_page: NewPage, live_server: LiveServer) -> Visit:
    """Open a browser; with a user, they are signed in. Addresses begin at our site."""

    def visit(user: User | None = None, **options: str) -> Page:
        page = new_page(base_url=live_server.url, reduced_motion="reduce", **options)
        if user:
            value = worlds.cookie_of(user)
            name = configured.SESSION_COOKIE_NAME
            page.context.add_cookies([{"name": name, "value": value, "url": live_server.url}])
        return page

    return visit
