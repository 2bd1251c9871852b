"""manage.py create_operator: the first operator, from the environment or made up."""

import io
import re

import pytest
from allauth.account.models import EmailAddress
from django.core.management import CommandError, call_command
from django.test import override_settings

from accounts.models import User

pytestmark = pytest.mark.django_db
GOOD = "a rather long password 42"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDAPP_OPERATOR_EMAIL", raising=False)
    monkeypatch.delenv("CLOUDAPP_OPERATOR_PASSWORD", raising=False)


def create(*arguments: str) -> tuple[str, str]:
    """Run the command; return what it said and what it warned of."""
    out, err = io.StringIO(), io.StringIO()
    call_command("create_operator", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def operator(email: str) -> User:
    address = EmailAddress.objects.get(email=email, verified=True, primary=True)
    user = User.objects.get(pk=address.user_id)
    assert user.is_staff
    assert user.is_superuser
    assert user.is_active
    return user


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDAPP_OPERATOR_EMAIL", " Ann@Example.org ")
    monkeypatch.setenv("CLOUDAPP_OPERATOR_PASSWORD", GOOD)
    said, warned = create()
    assert operator("ann@example.org").check_password(GOOD)
    assert GOOD not in said + warned
    create()
    assert User.objects.count() == 1


def test_without_a_password_one_is_made_and_shown_once() -> None:
    said, _ = create()
    found = re.search(r"password: (\S+) \(shown once\)", said)
    assert found
    assert operator("operator@localhost").check_password(found[1])
    again, _ = create()
    assert found[1] not in again
    assert User.objects.count() == 1


def test_another_password_later_changes_nothing_unless_asked_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLOUDAPP_OPERATOR_EMAIL", "ann@example.org")
    monkeypatch.setenv("CLOUDAPP_OPERATOR_PASSWORD", GOOD)
    create()
    monkeypatch.setenv("CLOUDAPP_OPERATOR_PASSWORD", "quite another password")
    _, warned = create()
    assert "--reset-password" in warned
    assert operator("ann@example.org").check_password(GOOD)
    create("--reset-password")
    assert operator("ann@example.org").check_password("quite another password")


def test_somebody_s_unverified_claim_to_the_address_gets_nothing() -> None:
    stranger = User.objects.create_user(GOOD)
    EmailAddress.objects.create(user=stranger, email="ann@example.org", verified=False)
    create("--email", "ann@example.org")
    stranger.refresh_from_db()
    assert not stranger.is_staff
    assert operator("ann@example.org") != stranger


def test_the_owner_of_a_verified_address_is_raised_and_keeps_their_password() -> None:
    owner = User.objects.create_user(GOOD)
    EmailAddress.objects.create(user=owner, email="ann@example.org", verified=True, primary=True)
    create("--email", "ann@example.org")
    assert operator("ann@example.org") == owner
    assert operator("ann@example.org").check_password(GOOD)


def test_bad_input_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="not an email address"):
        create("--email", "nobody")
    assert not User.objects.exists()
    monkeypatch.setenv("CLOUDAPP_OPERATOR_PASSWORD", "1234")
    _, warned = create("--email", "ann@example.org")
    assert "weak" in warned
    assert operator("ann@example.org").check_password("1234")


@override_settings(LOCAL=False)
def test_a_weak_password_is_refused_anywhere_but_at_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLOUDAPP_OPERATOR_PASSWORD", "1234")
    with pytest.raises(CommandError, match="weak"):
        create("--email", "ann@example.org")
    assert not User.objects.exists()
