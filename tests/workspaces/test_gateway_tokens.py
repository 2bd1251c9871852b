"""API tokens at a workspace's own host: whom they let in, as what, and when no longer."""

import time
from collections.abc import Callable
from datetime import timedelta

import jwt
import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from accounts import api_tokens
from accounts.models import ApiToken, User
from deploy.models import Instance
from deploy.states import Desired, Status
from tests.factories import add_member, make_user, make_workspace, set_status
from tests.workspaces.gateway_support import ask, cloud_client, sign_in, verdict, without_id
from tests.workspaces.test_gateway import UNREACHABLE, UP, _in_thread, _once_woken, patience
from workspaces import gateway
from workspaces.models import Member, Role, Workspace

__all__ = ["patience"]

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner() -> User:
    return make_user(name="Ada Lovelace")


@pytest.fixture
def workspace(owner: User) -> Workspace:
    return make_workspace(owner)


@pytest.fixture
def text(owner: User) -> str:
    """An API token of the owner that may read."""
    return api_tokens.create(owner, "ci", ["read"])[1]


def ask_with(
    text: str, workspace: Workspace | str, session: str = "", **options: str
) -> HttpResponse:
    return ask(workspace, session, authorization=f"Bearer {text}", **options)


def actor_of(response: HttpResponse) -> dict[str, str]:
    told: dict[str, str] = jwt.decode(
        response["X-Cloudapp-Token"], options={"verify_signature": False}
    )["actor"]
    return told


# --- who passes, and as what ---------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("scope", ["read", "data"])
def test_a_token_may_what_its_user_and_its_scopes_may(
    scope: str, role: Role, workspace: Workspace
) -> None:
    member = make_user(name="Grace Hopper")
    add_member(workspace, member, role)
    _, text = api_tokens.create(member, "ci", [scope])
    response = ask_with(text, workspace)
    assert response.status_code == 200
    assert response["X-Cloudapp-Upstream"] == "unix:/nowhere/http.sock"
    assert response["X-Accel-Expires"] == "5"
    assert actor_of(response) == {
        "id": str(member.pk),
        "name": "Grace Hopper (token ci)",
        "role": role.value if scope == "data" else "viewer",
    }
    assert text not in str(response.headers)


def test_the_wrong_container_would_refuse_this_one_too(text: str, workspace: Workspace) -> None:
    response, instance = ask_with(text, workspace), workspace.instance
    claims = jwt.decode(
        response["X-Cloudapp-Token"], instance.key, ["HS256"], audience=str(instance.pk)
    )
    assert claims["purpose"] == "actor"


def test_a_token_for_one_workspace_opens_no_other(owner: User, workspace: Workspace) -> None:
    other = make_workspace(owner)
    _, text = api_tokens.create(owner, "ci", ["read"], only=workspace.pk)
    assert verdict(ask_with(text, workspace)) == "pass"
    assert verdict(ask_with(text, other)) == "not-found"


@pytest.mark.parametrize("scopes", [["lifecycle"], ["plugins", "secrets", "members"]])
def test_other_scopes_open_no_data(scopes: list[str], owner: User, workspace: Workspace) -> None:
    _, text = api_tokens.create(owner, "ci", scopes)
    assert verdict(ask_with(text, workspace)) == "not-found"


def test_an_operators_token_opens_no_customers_data(workspace: Workspace) -> None:
    operator = make_user(is_staff=True, is_superuser=True)
    _, text = api_tokens.create(operator, "ops", ["operator", "read", "data"])
    assert verdict(ask_with(text, workspace)) == "not-found"
    add_member(workspace, operator, Role.VIEWER)
    assert actor_of(ask_with(text, workspace))["role"] == "viewer"


def test_with_a_token_the_session_does_not_count(owner: User, workspace: Workspace) -> None:
    session = sign_in(cloud_client(owner), workspace)
    stranger = make_user()
    _, text = api_tokens.create(stranger, "ci", ["read"])
    assert verdict(ask(workspace, session)) == "pass"
    assert verdict(ask_with(text, workspace, session)) == "not-found"
    assert verdict(ask_with(api_tokens.new_text(), workspace, session)) == "sign-in"
    assert verdict(ask_with("cloudapp_nonsense", workspace, session)) == "sign-in"
    assert verdict(ask_with("cloudapp_", workspace, session)) == "sign-in"


@pytest.mark.parametrize("other", ["Basic YWRhOng=", "Bearer ey.other.one", "Bearer", "cloudapp_x"])
def test_headers_of_another_kind_are_not_for_us(
    other: str, owner: User, workspace: Workspace
) -> None:
    session = sign_in(cloud_client(owner), workspace)
    assert verdict(ask(workspace, session, authorization=other)) == "pass"
    assert verdict(ask(workspace, authorization=other)) == "sign-in"


@pytest.mark.parametrize("scheme", ["bearer ", "BEARER ", "Bearer   "])
def test_the_scheme_is_read_as_http_says(scheme: str, text: str, workspace: Workspace) -> None:
    assert verdict(ask(workspace, authorization=scheme + text)) == "pass"


# --- who does not --------------------------------------------------------------------------------


def test_a_token_learns_nothing_of_other_peoples_workspaces(
    text: str, workspace: Workspace
) -> None:
    """The same words, headers and number of queries, whether there is something or not."""
    private = make_workspace(make_user())
    gone = make_workspace(make_user(), status=Status.DELETED)
    answers = []
    for asked in (private, gone, "no-such-workspace"):
        with CaptureQueriesContext(connection) as queries:
            response = ask_with(text, asked)
        assert verdict(response) == "not-found"
        answers.append((response.status_code, without_id(response), response.content, len(queries)))
    assert answers[0] == answers[1] == answers[2]


def test_unknown_tokens_learn_nothing_either(text: str, owner: User, workspace: Workspace) -> None:
    api_tokens.revoke(ApiToken.objects.get())
    answers = []
    for tried in (text, api_tokens.new_text()):
        for asked in (workspace, "no-such-workspace"):
            with CaptureQueriesContext(connection) as queries:
                response = ask_with(tried, asked)
            assert (response.status_code, verdict(response)) == (401, "sign-in")
            answers.append((without_id(response), len(queries)))
    assert all(answer == answers[0] for answer in answers)


def _revoke(token: ApiToken) -> None:
    api_tokens.revoke(token)


def _expire(token: ApiToken) -> None:
    ApiToken.objects.update(expires_at=timezone.now())


def _remove_member(token: ApiToken) -> None:
    Member.objects.filter(user=token.user).delete()


def _deactivate(token: ApiToken) -> None:
    User.objects.filter(pk=token.user_id).update(is_active=False)


def _delete_user(token: ApiToken) -> None:
    token.user.delete()


def _purge(token: ApiToken) -> None:
    Workspace.objects.update(purged_at=timezone.now())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_revoke, "sign-in"),
        (_expire, "sign-in"),
        (_remove_member, "not-found"),
        (_deactivate, "sign-in"),
        (_delete_user, "sign-in"),
        (_purge, "not-found"),
    ],
)
def test_the_door_closes(
    change: Callable[[ApiToken], None], expected: str, text: str, workspace: Workspace
) -> None:
    assert verdict(ask_with(text, workspace)) == "pass"
    change(ApiToken.objects.select_related("user").get())
    response = ask_with(text, workspace)
    assert verdict(response) == expected
    # Or else the router would fall back on the yes when the gateway is down.
    assert response["X-Accel-Expires"] == "1"


# --- the states of the instance ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.SLEEPING, "waking"),
        (Status.STOPPED, "stopped"),
        (Status.SUSPENDED, "suspended"),
        (Status.FAILED, "failed"),
        (Status.DELETING, "deleting"),
        (Status.DELETED, "not-found"),
    ],
)
def test_states_are_said_as_to_people(
    status: Status, expected: str, text: str, workspace: Workspace
) -> None:
    set_status(workspace.instance, status)
    with override_settings(WAKE_HOLD_SECONDS=0):
        assert verdict(ask_with(text, workspace)) == expected


def test_a_strangers_token_wakes_nobody(workspace: Workspace) -> None:
    set_status(workspace.instance, Status.SLEEPING)
    _, text = api_tokens.create(make_user(), "ci", ["read"])
    assert verdict(ask_with(text, workspace)) == "not-found"
    assert Instance.objects.get().desired == Desired.STOPPED


@pytest.mark.django_db(transaction=True)
def test_a_token_waits_for_a_sleeping_workspace(text: str, workspace: Workspace) -> None:
    set_status(workspace.instance, Status.SLEEPING)
    worker = _in_thread(lambda: _once_woken(workspace.instance_id, UP))
    response = ask_with(text, workspace)
    worker.join()
    assert verdict(response) == "pass"
    assert response["X-Cloudapp-Upstream"] == "unix:/run/up.sock"


def test_writing_is_not_tried_twice(text: str, workspace: Workspace) -> None:
    revision = workspace.instance.revision
    began = time.monotonic()
    response = ask_with(text, workspace, path=UNREACHABLE, method="POST")
    assert (response.status_code, verdict(response)) == (403, "unreachable")
    assert Instance.objects.get().revision > revision, "nobody was asked to look at it"
    assert time.monotonic() - began < 60


# --- what it costs, and what is written down -----------------------------------------------------


def test_a_yes_costs_one_query(
    text: str, workspace: Workspace, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    ask_with(text, workspace)
    with django_assert_num_queries(1):
        assert verdict(ask_with(text, workspace)) == "pass"


def test_use_is_noted_once_a_minute(text: str, workspace: Workspace) -> None:
    def used() -> object:
        return ApiToken.objects.get().last_used_at

    ask_with(text, "no-such-workspace")
    assert used() is None, "it opened nothing"
    ask_with(text, workspace)
    first = used()
    assert first
    ask_with(text, workspace)
    assert used() == first
    ApiToken.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    ask_with(text, workspace)
    assert used() != first


def test_a_question_keeps_its_secrets_to_itself() -> None:
    asked = gateway.Question(slug="cats", session="S" * 43, api_token="cloudapp_x", method="GET")
    assert "SSS" not in repr(asked)
    assert "cloudapp_x" not in repr(asked)


def test_somebody_with_many_tokens_gets_what_the_one_that_is_sent_may(
    workspace: Workspace, owner: User
) -> None:
    other = make_workspace(owner)
    texts = {
        name: api_tokens.create(owner, name, [scope], only=only)
        for name, scope, only in (
            ("reads", "read", None),
            ("writes", "data", None),
            ("here", "data", workspace.pk),
            ("there", "data", other.pk),
            ("manages", "lifecycle", None),
        )
    }
    roles = {"reads": "viewer", "writes": "owner", "here": "owner"}
    for name, (token, text) in texts.items():
        response = ask_with(text, workspace)
        if name in roles:
            assert actor_of(response)["role"] == roles[name]
            assert actor_of(response)["name"] == f"Ada Lovelace (token {name})"
        else:
            assert verdict(response) == "not-found"
        token.refresh_from_db()
        assert (token.last_used_at is not None) == (name in roles)
