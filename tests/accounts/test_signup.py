"""Signing up, verifying, resetting: what works, and what an attacker does not get out of it."""

import re

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core.mail import EmailMessage
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from accounts.models import User
from tests.accounts.conftest import PASSWORD, MakeUser

pytestmark = pytest.mark.django_db

EMAIL = "ada@example.com"


def sign_up(
    client: Client, email: str = EMAIL, password: str = PASSWORD, next_page: str = ""
) -> HttpResponse:
    """Fill in the sign-up form."""
    fields = {"email": email, "password1": password, "next": next_page}
    return client.post("/account/signup/", fields)


def link_in(message: EmailMessage, part: str) -> str:
    """Return the path of the link with `part` in it."""
    found = re.search(rf"http://localhost:8000(/\S*{part}\S*)", str(message.body))
    assert found, message.body
    return found[1]


def is_signed_in(client: Client) -> bool:
    """Whether the overview page opens."""
    return client.get("/account/").status_code == 200


def sign_in(client: Client, email: str = EMAIL, password: str = PASSWORD) -> HttpResponse:
    """Fill in the sign-in form."""
    return client.post("/account/login/", {"login": email, "password": password})


def test_sign_up_verify_and_be_signed_in(client: Client, mailoutbox: list[EmailMessage]) -> None:
    response = sign_up(client, "Ada@Example.com", next_page="/workspaces/new/")
    assert response.status_code == 302
    assert response["Location"] == "/account/confirm-email/"
    assert not is_signed_in(client)
    assert mailoutbox[0].to == [EMAIL]
    link = link_in(mailoutbox[0], "confirm-email")
    assert client.get(link).status_code == 200
    assert not EmailAddress.objects.get().verified, "only asking must not verify"
    response = client.post(link)
    assert response["Location"] == "/workspaces/new/"
    assert is_signed_in(client)
    assert EmailAddress.objects.get(email=EMAIL, verified=True, primary=True)


def test_nobody_signs_in_before_the_address_is_verified(
    client: Client, mailoutbox: list[EmailMessage]
) -> None:
    sign_up(client)
    stranger = Client()
    assert sign_in(stranger)["Location"] == "/account/confirm-email/"
    assert not is_signed_in(stranger)


def test_the_link_alone_does_not_verify(client: Client, mailoutbox: list[EmailMessage]) -> None:
    """The owner of an address who clicks on somebody else's sign-up does not complete it."""
    sign_up(client, password="what the attacker knows")
    link = link_in(mailoutbox[0], "confirm-email")
    owner = Client()
    page = owner.get(link)
    assert "password" in page.text
    assert owner.post(link).status_code == 200
    assert owner.post(link, {"password": PASSWORD}).status_code == 200
    assert not EmailAddress.objects.filter(verified=True).exists()
    assert not is_signed_in(owner)


def test_the_link_works_on_another_device_with_the_password(
    client: Client, mailoutbox: list[EmailMessage]
) -> None:
    sign_up(client)
    phone = Client()
    response = phone.post(link_in(mailoutbox[0], "confirm-email"), {"password": PASSWORD})
    assert response.status_code == 302
    assert is_signed_in(phone)
    assert EmailAddress.objects.get().verified


def test_guessing_the_password_at_the_link_is_limited(
    client: Client, mailoutbox: list[EmailMessage]
) -> None:
    sign_up(client)
    link = link_in(mailoutbox[0], "confirm-email")
    phone = Client()
    for _ in range(5):
        phone.post(link, {"password": "a guess"})
    assert "Too many attempts" in phone.post(link, {"password": PASSWORD}).text
    assert not EmailAddress.objects.get().verified


def test_a_broken_link_says_so(client: Client) -> None:
    for method in (client.get, client.post):
        response = method("/account/confirm-email/AB:cd:ef/")
        assert response.status_code == 200
        assert "does not work" in response.text


def test_signing_up_tells_nobody_who_has_an_account(
    make_user: MakeUser, mailoutbox: list[EmailMessage]
) -> None:
    make_user(EMAIL)
    known, unknown = Client(), Client()
    answers = [sign_up(known, EMAIL), sign_up(unknown, "new@example.com")]
    assert [answer.status_code for answer in answers] == [302, 302]
    assert answers[0]["Location"] == answers[1]["Location"]
    pages = [client.get("/account/confirm-email/").text for client in (known, unknown)]
    tokens = re.compile(r'name="csrfmiddlewaretoken" value="\w+"')
    texts = [tokens.sub("", page).replace("new@", "ada@") for page in pages]
    assert texts[0] == texts[1]
    assert User.objects.count() == 2
    assert [mail.to for mail in mailoutbox] == [[EMAIL], ["new@example.com"]]
    assert "already have an account" in mailoutbox[0].subject.lower() + str(mailoutbox[0].body)


def test_resetting_tells_nobody_who_has_an_account(
    make_user: MakeUser, mailoutbox: list[EmailMessage]
) -> None:
    make_user(EMAIL)
    answers = [
        Client().post("/account/password/reset/", {"email": email})
        for email in (EMAIL, "new@example.com")
    ]
    assert [answer["Location"] for answer in answers] == ["/account/password/reset/done/"] * 2
    assert [mail.to for mail in mailoutbox] == [[EMAIL], ["new@example.com"]]


def test_signing_in_tells_nobody_who_has_an_account(make_user: MakeUser) -> None:
    make_user(EMAIL)
    pages = [sign_in(Client(), email, "wrong").text for email in (EMAIL, "new@example.com")]
    for page in pages:
        assert "do not go together" in page


def test_an_attackers_unfinished_sign_up_does_not_stand_in_the_way(
    client: Client, mailoutbox: list[EmailMessage]
) -> None:
    attacker = Client()
    sign_up(attacker, password="what the attacker knows")
    sign_up(client)
    assert User.objects.count() == 2
    client.post(link_in(mailoutbox[1], "confirm-email"))
    assert is_signed_in(client)
    assert User.objects.count() == 1, "the attacker's goes as soon as the address is somebody's"
    sign_in(attacker, password="what the attacker knows")
    assert not is_signed_in(attacker)
    attacker.post(link_in(mailoutbox[0], "confirm-email"))
    assert not is_signed_in(attacker)
    assert sign_in(Client())["Location"] == "/workspaces/"


def test_an_address_in_somebody_elses_settings_does_not_stand_in_the_way(
    client: Client, make_user: MakeUser, mailoutbox: list[EmailMessage]
) -> None:
    attacker = make_user("eve@example.com")
    EmailAddress.objects.create(user=attacker, email=EMAIL)
    client.post("/account/password/reset/", {"email": EMAIL})
    assert "password/reset/key" not in mailoutbox[0].body, "that would be the attacker's account"
    sign_up(client)
    client.post(link_in(mailoutbox[1], "confirm-email"))
    assert is_signed_in(client)
    assert User.objects.get(emailaddress__email=EMAIL) != attacker
    assert User.objects.filter(pk=attacker.pk).exists()


def test_a_reset_gives_a_new_password(
    client: Client, make_user: MakeUser, mailoutbox: list[EmailMessage]
) -> None:
    make_user(EMAIL)
    client.post("/account/password/reset/", {"email": EMAIL})
    form = client.get(link_in(mailoutbox[0], "password/reset/key"), follow=True)
    fields = {"password1": "another good one", "password2": "another good one"}
    response = client.post(form.request["PATH_INFO"], fields)
    assert response["Location"] == "/account/password/reset/key/done/"
    assert sign_in(client, password="another good one")["Location"] == "/workspaces/"
    reused = client.get(link_in(mailoutbox[0], "password/reset/key"))
    assert reused.status_code == 200
    assert "does not work" in reused.text


def test_nobody_is_sent_off_the_cloud_host(make_user: MakeUser) -> None:
    make_user(EMAIL)
    places = {
        "/workspaces/new/": "/workspaces/new/",
        "http://localhost:8000/account/": "http://localhost:8000/account/",
        "https://evil.example.com/": "/workspaces/",
        "//evil.example.com/": "/workspaces/",
        "http://customer.localhost:8000/": "/workspaces/",
        "http://customer.localhost/": "/workspaces/",
        "javascript:alert(1)": "/workspaces/",
    }
    for asked, given in places.items():
        fields = {"login": EMAIL, "password": PASSWORD, "next": asked}
        assert Client().post("/account/login/", fields)["Location"] == given


def test_weak_passwords_are_refused(client: Client) -> None:
    for password in ("short", "1234567890123", "password1234"):
        assert sign_up(client, password=password).status_code == 200
    assert not User.objects.exists()


def test_links_in_mails_follow_the_setting_and_not_the_request(
    client: Client, settings: Settings, mailoutbox: list[EmailMessage]
) -> None:
    client.post(
        "/account/signup/",
        {"email": EMAIL, "password1": PASSWORD},
        headers={"host": "evil.localhost"},
    )
    assert "evil" not in mailoutbox[0].body
    assert link_in(mailoutbox[0], "confirm-email")


def test_mails_are_plain_and_friendly(
    client: Client, make_user: MakeUser, mailoutbox: list[EmailMessage]
) -> None:
    sign_up(client)
    make_user("bob@example.com")
    client.post("/account/password/reset/", {"email": "bob@example.com"})
    client.post("/account/password/reset/", {"email": "stranger@example.com"})
    sign_up(Client(), "bob@example.com")
    assert [mail.subject for mail in mailoutbox] == [
        "Confirm your email address for cloudapp",
        "Choose a new password for cloudapp",
        "Somebody asked for a new cloudapp password",
        "You already have an account at cloudapp",
    ]
    for mail in mailoutbox:
        body = str(mail.body)
        assert "cloudapp" in body
        assert "localhost:8000" in body
        assert "If " in body, "it says what to do for somebody who did not ask"
        assert "&" not in body, "text is not escaped as HTML"
        assert max(map(len, body.splitlines())) <= 160


def test_signing_up_takes_as_long_for_a_known_address(
    client: Client, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is what takes time: it is hashed in both cases."""
    make_user(EMAIL)
    hashed: list[str] = []

    def count(self: MD5PasswordHasher, password: str, salt: str) -> str:
        hashed.append(password)
        return encode(self, password, salt)

    encode = MD5PasswordHasher.encode
    monkeypatch.setattr(MD5PasswordHasher, "encode", count)
    sign_up(client, EMAIL, "known to nobody")
    sign_up(Client(), "new@example.com", "new to everybody")
    assert hashed == ["known to nobody", "new to everybody"]
