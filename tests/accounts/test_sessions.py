"""Ended sessions are gone from the database, where the doors of the workspaces look."""

import pytest
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.core.mail import EmailMessage
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from accounts.models import User
from accounts.sessions import end_sessions
from tests.accounts.conftest import PASSWORD, MakeUser
from tests.accounts.test_signup import is_signed_in, link_in, sign_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def user(make_user: MakeUser) -> User:
    return make_user()


@pytest.fixture
def here(user: User) -> Client:
    """The browser in use."""
    client = Client()
    sign_in(client)
    return client


@pytest.fixture
def there(user: User) -> Client:
    """Another browser, signed in too."""
    client = Client()
    sign_in(client)
    return client


def key(client: Client) -> str:
    """The session's key."""
    return str(client.session.session_key)


def exists(session_key: str) -> bool:
    """Whether the session still has its row."""
    return Session.objects.filter(session_key=session_key).exists()


def test_sign_out_of_others(here: Client, there: Client) -> None:
    page = here.get("/account/sessions/").text
    assert page.count("127.0.0.1") == 2
    theirs = key(there)
    assert here.post("/account/sessions/").status_code == 302
    assert not exists(theirs)
    assert is_signed_in(here)
    assert not is_signed_in(there)


def test_a_changed_password_ends_the_others(here: Client, there: Client) -> None:
    mine, theirs = key(here), key(there)
    fields = {"oldpassword": PASSWORD, "password1": "another good one"}
    here.post("/account/password/change/", {**fields, "password2": "another good one"})
    assert not exists(theirs)
    assert not exists(mine), "the session went on under another key"
    assert is_signed_in(here)
    assert not is_signed_in(there)


def test_a_reset_ends_all(here: Client, there: Client, mailoutbox: list[EmailMessage]) -> None:
    keys = [key(here), key(there)]
    here.post("/account/password/reset/", {"email": "ada@example.com"})
    form = here.get(link_in(mailoutbox[0], "password/reset/key"), follow=True)
    fields = {"password1": "another good one", "password2": "another good one"}
    response = here.post(form.request["PATH_INFO"], fields, follow=True)
    assert response.status_code == 200
    assert not any(map(exists, keys))
    assert not is_signed_in(here)
    assert not is_signed_in(there)


def test_deactivating_ends_all(user: User, here: Client, there: Client) -> None:
    keys = [key(here), key(there)]
    user.is_active = False
    user.save()
    assert not any(map(exists, keys))
    assert not is_signed_in(here)
    assert sign_in(here)["Location"] == "/account/inactive/"
    assert here.get("/account/inactive/").status_code == 200


def test_signing_out_ends_this_one(here: Client, there: Client) -> None:
    mine = key(here)
    here.post("/account/logout/")
    assert not exists(mine)
    assert is_signed_in(there)


def test_end_sessions_keeps_what_it_is_told_to_keep(
    user: User, here: Client, there: Client
) -> None:
    assert end_sessions(user, keep=key(here)) == 1
    assert is_signed_in(here)
    assert end_sessions(user) == 1
    assert not is_signed_in(here)


def test_a_session_is_noted_once_a_minute(
    here: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    here.get("/account/profile/")
    before = UserSession.objects.get().last_seen_at
    here.get("/account/profile/")
    assert UserSession.objects.get().last_seen_at == before


def test_requests_without_a_client_address_work(user: User) -> None:
    """On a unix socket there is no address, and a health check brings no header."""
    client = Client(REMOTE_ADDR="")
    assert sign_in(client)["Location"] == "/workspaces/"
    assert is_signed_in(client)
    assert UserSession.objects.get().ip == "127.0.0.1"


def test_the_routers_header_says_where_somebody_is(user: User) -> None:
    client = Client(REMOTE_ADDR="", headers={"x-real-ip": "203.0.113.9"})
    sign_in(client)
    assert UserSession.objects.get().ip == "203.0.113.9"
