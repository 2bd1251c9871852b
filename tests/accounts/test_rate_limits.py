"""Rate limits, really tripped."""

import pytest
from django.core.cache import cache
from django.core.mail import EmailMessage
from django.test import Client

from tests.accounts.conftest import PASSWORD, MakeUser
from tests.accounts.test_signup import sign_in, sign_up

pytestmark = pytest.mark.django_db


def test_guessing_one_persons_password_from_many_addresses(make_user: MakeUser) -> None:
    make_user()
    for number in range(5):
        guesser = Client(headers={"x-real-ip": f"203.0.113.{number}"})
        assert "do not go together" in sign_in(guesser, password="a guess").text
    elsewhere = Client(headers={"x-real-ip": "198.51.100.1"})
    assert "Too many attempts" in sign_in(elsewhere, password=PASSWORD).text
    assert sign_in(elsewhere, "eve@example.com").status_code == 200, "others are not concerned"


def test_guessing_many_peoples_passwords_from_one_address() -> None:
    for number in range(10):
        assert "do not go together" in sign_in(Client(), f"{number}@example.com").text
    assert "Too many attempts" in sign_in(Client(), "eleven@example.com").text
    elsewhere = Client(headers={"x-real-ip": "198.51.100.1"})
    assert "do not go together" in sign_in(elsewhere, "twelve@example.com").text


def test_signing_in_and_out_all_day_is_no_guessing(make_user: MakeUser) -> None:
    make_user()
    for _ in range(12):
        assert sign_in(Client()).status_code == 302


def test_signing_up_by_the_dozen(mailoutbox: list[EmailMessage]) -> None:
    for number in range(20):
        assert sign_up(Client(), f"{number}@example.com").status_code == 302
    response = sign_up(Client(), "more@example.com")
    assert response.status_code == 429
    assert "too often" in response.text.lower()
    assert len(mailoutbox) == 20
    elsewhere = Client(headers={"x-real-ip": "198.51.100.1"})
    assert sign_up(elsewhere, "more@example.com").status_code == 302


def test_one_mailbox_is_not_flooded(mailoutbox: list[EmailMessage]) -> None:
    for number in range(10):
        sign_up(Client(headers={"x-real-ip": f"203.0.113.{number}"}), "ada@example.com")
    assert len(mailoutbox) == 3
    mailoutbox.clear()
    answers = [
        Client().post("/account/password/reset/", {"email": "bob@example.com"}).status_code
        for _ in range(6)
    ]
    assert answers == [302] * 5 + [429]
    assert len(mailoutbox) == 5


def test_counts_cannot_be_pushed_out(make_user: MakeUser) -> None:
    """Django's database cache drops rows beyond a number; an attacker must not reach it."""
    make_user()
    for _ in range(5):
        sign_in(Client(), password="a guess")
    for number in range(400):
        cache.set(f"another-count-{number}", 1)
    assert "Too many attempts" in sign_in(Client()).text
