"""API tokens: what they look like, what they may, and how they end."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from accounts import api_tokens, rates
from accounts.api_tokens import NotAllowed, Scope
from accounts.models import ApiToken, User
from tests import factories
from workspaces.tasks import clear_expired

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    return factories.make_user("ada@example.org")


def test_the_text_can_be_told_from_chance_and_is_never_kept(user: User) -> None:
    token, text = api_tokens.create(user, "ci", ["read"])
    assert re.fullmatch(api_tokens.PATTERN, text)
    assert api_tokens.is_wellformed(text)
    other_end = "0" if text[-1] != "0" else "1"
    assert not api_tokens.is_wellformed(text[:-1] + other_end)
    assert not api_tokens.is_wellformed(text + "0")
    assert text not in str(ApiToken.objects.values().get(pk=token.pk))
    assert text.startswith(token.hint)
    assert len({api_tokens.new_text() for _ in range(100)}) == 100


def test_a_good_token_is_found_and_a_bad_one_is_not(user: User) -> None:
    token, text = api_tokens.create(user, "ci", ["read"])
    assert api_tokens.find(text) == token
    assert api_tokens.find(api_tokens.new_text()) is None
    assert api_tokens.find("cloudapp_nonsense") is None
    ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert api_tokens.find(text) is None
    ApiToken.objects.update(expires_at=None)
    User.objects.update(is_active=False)
    assert api_tokens.find(text) is None
    User.objects.update(is_active=True)
    api_tokens.revoke(token)
    assert api_tokens.find(text) is None


def test_revoking_ends_what_was_made_with_it(user: User) -> None:
    first, _ = api_tokens.create(user, "first", ["read", "lifecycle"])
    child, _ = api_tokens.create(user, "child", ["read"], parent=first)
    _, grandchild = api_tokens.create(user, "grandchild", ["read"], parent=child)
    _, other = api_tokens.create(user, "other", ["read"])
    assert api_tokens.revoke(first) == 3
    assert api_tokens.find(grandchild) is None
    assert api_tokens.find(other)
    assert api_tokens.revoke(first) == 0


@pytest.mark.django_db(transaction=True)
def test_revoking_waits_for_what_is_being_made_and_ends_it(user: User) -> None:
    parent, _ = api_tokens.create(user, "parent", ["read"])
    made, go_on = threading.Event(), threading.Event()

    def make() -> ApiToken:
        try:
            with transaction.atomic():
                child, _ = api_tokens.create(user, "child", ["read"], parent=parent)
                made.set()
                assert not go_on.wait(0.5)  # the revoking one must wait for us
            return child
        finally:
            connection.close()

    with ThreadPoolExecutor() as pool:
        making = pool.submit(make)
        assert made.wait(60)
        assert api_tokens.revoke(parent) == 2
        go_on.set()
        child = making.result(60)
    assert not api_tokens.find_again(child)


@pytest.mark.django_db(transaction=True)
def test_nothing_is_made_with_a_token_that_is_being_revoked(user: User) -> None:
    parent, _ = api_tokens.create(user, "parent", ["read"])

    def make() -> None:
        try:
            with pytest.raises(NotAllowed, match="not good any more"):
                api_tokens.create(user, "child", ["read"], parent=parent)
        finally:
            connection.close()

    with ThreadPoolExecutor() as pool:
        with transaction.atomic():
            assert api_tokens.revoke(parent) == 1
            making = pool.submit(make)
        making.result(60)
    assert not api_tokens.good(user).exists()


def test_what_ended_long_ago_is_removed(user: User) -> None:
    long_ago = timezone.now() - timedelta(days=91)
    names = ("good", "revoked", "expired", "just revoked", "just expired")
    for name in names:
        api_tokens.create(user, name, ["read"])
    tokens = ApiToken.objects
    tokens.filter(name="revoked").update(revoked_at=long_ago)
    tokens.filter(name="expired").update(expires_at=long_ago)
    tokens.filter(name="just revoked").update(revoked_at=timezone.now())
    tokens.filter(name="just expired").update(expires_at=timezone.now())
    clear_expired()
    left = set(tokens.values_list("name", flat=True))
    assert left == {"good", "just revoked", "just expired"}


def test_a_token_hands_on_no_more_than_it_has(user: User) -> None:
    soon, here = timezone.now() + timedelta(hours=1), uuid4()
    parent, _ = api_tokens.create(user, "p", ["read"], only=here, expires_at=soon)
    more = {"only": here, "expires_at": soon, "parent": parent}
    for scopes, changed in (
        (["read", "lifecycle"], {}),
        (["read"], {"only": None}),
        (["read"], {"only": uuid4()}),
        (["read"], {"expires_at": None}),
        (["read"], {"expires_at": soon + timedelta(seconds=1)}),
    ):
        with pytest.raises(NotAllowed):
            api_tokens.create(user, "child", scopes, **(more | changed))
    child, _ = api_tokens.create(user, "child", ["read"], **more)
    assert child.parent == parent


def test_only_an_operators_token_for_everything_implies_all_scopes() -> None:
    operator, here = factories.make_user(is_staff=True), uuid4()
    mighty, _ = api_tokens.create(operator, "ops", ["operator"])
    one, _ = api_tokens.create(operator, "one", ["operator"], only=here)
    assert api_tokens.create(operator, "child", ["read", "data"], parent=mighty)
    with pytest.raises(NotAllowed, match="has not got: read"):
        api_tokens.create(operator, "child", ["read"], only=here, parent=one)
    operator.is_staff = False
    operator.save()
    with pytest.raises(NotAllowed, match="has not got: read"):
        api_tokens.create(operator, "child", ["read"], parent=mighty)


def test_what_cannot_be_made(user: User) -> None:
    for name, scopes, more in (
        (" ", ["read"], {}),
        ("x" * 81, ["read"], {}),
        ("ci", [], {}),
        ("ci", ["everything"], {}),
        ("ci", ["operator"], {}),
        ("ci", ["read"], {"expires_at": timezone.now()}),
    ):
        with pytest.raises(NotAllowed):
            api_tokens.create(user, name, scopes, **more)
    assert not ApiToken.objects.exists()
    operator = factories.make_user(is_staff=True)
    token, _ = api_tokens.create(operator, "ops", ["operator", "read"])
    assert token.scopes == [Scope.READ, Scope.OPERATOR]


def test_the_command_prints_a_token_and_nothing_else(user: User) -> None:
    out = StringIO()
    call_command(
        "create_token",
        "ADA@example.org",
        "--name",
        "ci",
        "--scope",
        "read",
        "lifecycle",
        stdout=out,
    )
    token = api_tokens.find(out.getvalue().strip())
    assert token
    assert (token.user, token.name, token.scopes) == (user, "ci", ["read", "lifecycle"])
    with pytest.raises(CommandError, match="nobody has verified"):
        call_command("create_token", "bob@example.org", "--name", "ci", "--scope", "read")
    with pytest.raises(CommandError, match="for operators"):
        call_command("create_token", "ada@example.org", "--name", "ci", "--scope", "operator")


def test_a_rate_lets_a_burst_through_and_then_as_many_as_flow_back(user: User) -> None:
    token, _ = api_tokens.create(user, "ci", ["read"])
    other, _ = api_tokens.create(user, "other", ["read"])
    # So slow that nothing flows back while this test runs.
    budgets = [rates.spend(token, limit=3, window=86400) for _ in range(5)]
    assert [budget.allowed for budget in budgets] == [True, True, True, False, False]
    assert [budget.remaining for budget in budgets] == [2, 1, 0, 0, 0]
    assert 86400 / 3 - 60 < budgets[-1].retry_after <= 86400 / 3 + 1
    assert rates.spend(other, limit=3, window=86400).allowed
    assert rates.spend(token, limit=3, window=1).allowed is False


def test_all_tokens_of_a_person_share_a_rate(
    user: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    tokens = [api_tokens.create(user, f"ci {n}", ["read"])[0] for n in range(10)]
    spent = [rates.spend(tokens[n], limit=2, window=86400) for n in range(8)]
    assert all(budget.allowed for budget in spent)
    # The tighter one is told: at first the token's, at last the person's.
    assert [(budget.limit, budget.remaining) for budget in spent] == [
        *[(2, 1)] * 6,
        *[(2, 1), (8, 0)],
    ]
    refused = rates.spend(tokens[8], limit=2, window=86400)
    assert not refused.allowed
    assert (refused.limit, refused.remaining) == (8, 0)
    assert 86400 / 8 - 60 < refused.retry_after <= 86400 / 8 + 1
    theirs, _ = api_tokens.create(factories.make_user(), "theirs", ["read"])
    with django_assert_num_queries(1):
        assert rates.spend(theirs, limit=2, window=86400).allowed


def test_a_token_that_asks_too_often_takes_nothing_from_the_others(user: User) -> None:
    token, _ = api_tokens.create(user, "ci", ["read"])
    other, _ = api_tokens.create(user, "other", ["read"])
    assert sum(rates.spend(token, limit=2, window=86400).allowed for _ in range(20)) == 2
    assert sum(rates.spend(other, limit=2, window=86400).allowed for _ in range(20)) == 2
