"""Members and tokens over the API."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.http import HttpResponse
from django.utils import timezone
from pytest_django import Settings

from accounts.api_tokens import Scope
from accounts.models import ApiToken, User
from deploy.states import Status
from tests import factories
from tests.workspaces.api.conftest import EVERYTHING, Api, api_of, code_of
from workspaces.models import Activity, IdempotencyKey, Member, Role, Workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ready")]
MEMBERS = "/workspaces/trees/members"


@pytest.fixture
def trees(owner: User) -> Workspace:
    return factories.make_workspace(owner, "trees")


def member(workspace: Workspace, role: Role, name: str = "") -> User:
    user = factories.make_user(name=name)
    factories.add_member(workspace, user, role)
    return user


def deeds() -> list[str]:
    return [str(deed) for deed in Activity.objects.order_by("id")]


# --- members -------------------------------------------------------------------------------------


def test_members_are_listed_with_roles(api: Api, trees: Workspace, owner: User) -> None:
    grace = member(trees, Role.EDITOR, "Grace")
    found = api.get(MEMBERS).json()["items"]
    assert [(m["id"], m["name"], m["role"], m["you"]) for m in found] == [
        (grace.pk, "Grace", "editor", False),
        (owner.pk, "Ada", "owner", True),
    ]
    assert found[1]["email"] == "ada@example.org"
    first = api.get(f"{MEMBERS}?limit=1").json()
    assert api.get(f"{MEMBERS}?limit=1&cursor={first['next']}").json()["items"] == found[1:]


def test_a_role_is_changed_and_counts_at_once(api: Api, trees: Workspace) -> None:
    grace = member(trees, Role.VIEWER, "Grace")
    theirs = api_of(grace)
    assert code_of(theirs.post("/workspaces/trees/stop")) == "role_too_low"
    changed = api.ask("PATCH", f"{MEMBERS}/{grace.pk}", {"role": "owner"})
    assert changed.status_code == 200
    assert changed.json()["role"] == "owner"
    assert deeds() == ["changed_role Grace: viewer → owner"]
    assert theirs.post("/workspaces/trees/stop").status_code == 202
    # The same role again is no deed.
    api.ask("PATCH", f"{MEMBERS}/{grace.pk}", {"role": "owner"})
    assert deeds() == ["changed_role Grace: viewer → owner", "stopped"]


def test_who_is_removed_sees_nothing_from_then_on(api: Api, trees: Workspace) -> None:
    grace = member(trees, Role.EDITOR, "Grace")
    theirs = api_of(grace)
    assert theirs.get("/workspaces/trees").status_code == 200
    removed = api.ask("DELETE", f"{MEMBERS}/{grace.pk}")
    assert (removed.status_code, removed.content) == (204, b"")
    assert deeds() == ["removed_member Grace"]
    assert code_of(theirs.get("/workspaces/trees")) == "not_found"
    assert theirs.get("/workspaces").json()["items"] == []
    assert code_of(api.ask("DELETE", f"{MEMBERS}/{grace.pk}")) == "not_found"


@pytest.mark.parametrize("role", [Role.VIEWER, Role.EDITOR])
def test_everybody_may_leave_and_only_that(trees: Workspace, owner: User, role: Role) -> None:
    user, other = member(trees, role), member(trees, Role.VIEWER)
    theirs = api_of(user)
    assert code_of(theirs.ask("DELETE", f"{MEMBERS}/{other.pk}")) == "role_too_low"
    assert code_of(theirs.ask("PATCH", f"{MEMBERS}/{user.pk}", {"role": "owner"})) == "role_too_low"
    assert theirs.ask("DELETE", f"{MEMBERS}/{user.pk}").status_code == 204
    assert deeds() == ["left"]
    assert code_of(theirs.get(MEMBERS)) == "not_found"


def test_the_last_owner_stays(api: Api, trees: Workspace, owner: User) -> None:
    member(trees, Role.EDITOR)
    for method, body in (("DELETE", None), ("PATCH", {"role": "viewer"})):
        refused = api.ask(method, f"{MEMBERS}/{owner.pk}", body)
        assert refused.status_code == 409
        assert code_of(refused) == "last_owner"
    assert deeds() == []
    second = member(trees, Role.OWNER)
    assert api.ask("DELETE", f"{MEMBERS}/{owner.pk}").status_code == 204
    assert list(trees.members.filter(role=Role.OWNER).values_list("user", flat=True)) == [second.pk]


def test_people_and_roles_that_there_are_not(api: Api, trees: Workspace) -> None:
    stranger = factories.make_user()
    for number in (stranger.pk, 4711_000, 2**63 - 1):
        assert code_of(api.ask("DELETE", f"{MEMBERS}/{number}")) == "not_found"
        assert code_of(api.ask("PATCH", f"{MEMBERS}/{number}", {"role": "editor"})) == "not_found"
    for number in (0, -1, 2**63, "x"):
        assert code_of(api.ask("DELETE", f"{MEMBERS}/{number}")) == "invalid"
    friend = member(trees, Role.VIEWER)
    for body in ({"role": "king"}, {"role": ""}, {"role": None}, {}, {"role": "owner", "x": 1}):
        assert code_of(api.ask("PATCH", f"{MEMBERS}/{friend.pk}", body)) == "invalid"
    assert deeds() == []


def test_members_of_a_deleted_workspace_stay(api: Api, owner: User) -> None:
    gone = factories.make_workspace(owner, "gone", status=Status.DELETING)
    friend = member(gone, Role.VIEWER)
    path = f"/workspaces/gone/members/{friend.pk}"
    assert code_of(api.ask("DELETE", path)) == "deleted"
    assert code_of(api.ask("PATCH", path, {"role": "owner"})) == "deleted"


def at_once(*works: Callable[[], HttpResponse]) -> list[HttpResponse]:
    """Send requests that begin together, each in a thread with a connection of its own."""
    gate = threading.Barrier(len(works))
    answers: list[Any] = [None] * len(works)

    def run(number: int) -> None:
        gate.wait(60)
        try:
            answers[number] = works[number]()
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("deed", ["leave", "step down", "throw each other out"])
def test_of_two_owners_who_go_at_once_one_stays(owner: User, trees: Workspace, deed: str) -> None:
    second = member(trees, Role.OWNER)
    people = [owner, second]
    clients = [api_of(user) for user in people]

    def go(number: int) -> HttpResponse:
        whom = people[1 - number] if deed == "throw each other out" else people[number]
        body = {"role": "viewer"} if deed == "step down" else None
        return clients[number].ask("PATCH" if body else "DELETE", f"{MEMBERS}/{whom.pk}", body)

    answers = at_once(lambda: go(0), lambda: go(1))
    owners = Member.objects.filter(workspace=trees, role=Role.OWNER).count()
    assert owners == 1, [answer.content for answer in answers]
    good = [answer for answer in answers if answer.status_code < 300]
    bad = [answer for answer in answers if answer.status_code >= 300]
    assert (len(good), len(bad)) == (1, 1)
    # Who was thrown out before the own request was looked at does not see the workspace any more.
    assert code_of(bad[0]) in ("last_owner", "not_found")


# --- tokens --------------------------------------------------------------------------------------


def make(api: Api, **more: Any) -> HttpResponse:
    return api.post("/tokens", {"name": "nightly", "scopes": ["read"], **more})


def test_a_token_is_made_shown_once_and_works(api: Api, owner: User) -> None:
    response = make(api)
    assert response.status_code == 201
    told = response.json()
    text = told["token"]
    row = ApiToken.objects.get(pk=told["id"])
    assert (row.name, row.scopes, row.user, row.parent.name if row.parent else "") == (
        "nightly",
        ["read"],
        owner,
        "test",
    )
    assert text.startswith(told["hint"])
    assert text not in str(ApiToken.objects.values())
    assert response["Cache-Control"] == "no-store"
    assert Api(text).get("/workspaces").status_code == 200
    listed = api.get("/tokens").json()["items"]
    assert [(item["name"], item["this"]) for item in listed] == [("nightly", False), ("test", True)]
    assert all("token" not in item for item in listed)


def test_a_request_that_is_sent_again_makes_no_second_one_and_its_text_is_kept_sealed(
    api: Api, settings: Settings
) -> None:
    body = {"name": "nightly", "scopes": ["read"]}
    first, again = (api.post("/tokens", body, Idempotency_Key="once") for _ in range(2))
    assert again["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()
    text = first.json()["token"]
    kept = IdempotencyKey.objects.get()
    assert text not in str(vars(kept))
    assert "nightly" not in kept.body
    settings.ENCRYPTION_KEYS = ["another key that knows nothing of the first one, and is long"]
    assert code_of(api.post("/tokens", body, Idempotency_Key="once")) == "refused"


def test_no_token_hands_on_what_it_has_not_got(owner: User) -> None:
    soon = timezone.now().replace(microsecond=0) + timedelta(hours=1)
    some = api_of(owner, "read", "plugins", expires_at=soon)
    for scopes in (["lifecycle"], ["read", "secrets"], ["operator"]):
        assert code_of(make(some, scopes=scopes)) == "refused"
    late = (soon + timedelta(minutes=1)).isoformat()
    assert code_of(make(some, expires_at=late)) == "refused"
    made = make(some, scopes=["plugins", "read"])
    assert made.json()["scopes"] == ["read", "plugins"]
    # Left out, it ends when the one that made it does.
    assert datetime.fromisoformat(made.json()["expires_at"]) == soon
    assert ApiToken.objects.count() == 2


def test_operators_hand_on_everything(owner: User) -> None:
    olga = factories.make_user(is_staff=True, is_superuser=True)
    mighty = api_of(olga, Scope.OPERATOR)
    assert make(mighty, scopes=[*EVERYTHING, "operator"]).status_code == 201
    assert code_of(make(api_of(olga), scopes=["operator"])) == "refused"
    User.objects.filter(pk=olga.pk).update(is_staff=False)
    assert code_of(make(mighty, scopes=["operator"])) == "refused"


def test_a_token_for_one_workspace(api: Api, owner: User, trees: Workspace) -> None:
    factories.make_workspace(owner, "oaks")
    factories.make_workspace(factories.make_user(), "theirs")
    told = make(api, workspace="trees").json()
    assert told["workspace"] == "trees"
    only = Api(told["token"])
    assert only.get("/workspaces/trees").status_code == 200
    assert code_of(only.get("/workspaces/oaks")) == "not_found"
    # What it makes is for that one too, whether it says so or not.
    child = make(only).json()
    assert child["workspace"] == "trees"
    assert code_of(Api(child["token"]).get("/workspaces/oaks")) == "not_found"
    assert code_of(make(only, workspace="oaks")) == "invalid"
    for slug in ("theirs", "nothing", "a b", ""):
        refused = make(api, workspace=slug)
        assert code_of(refused) == "invalid"
        assert refused.json()["errors"][0]["field"] == "body.workspace"
    # It sees none that can do more.
    assert {item["workspace"] for item in only.get("/tokens").json()["items"]} == {"trees"}


@pytest.mark.parametrize(
    "at",
    [
        "2026-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "2030-01-01T00:00:00",
        "9999-12-31T23:59:59-12:00",
        "soon",
        10**30,
        -1,
    ],
)
def test_when_a_token_cannot_end(api: Api, at: Any) -> None:
    assert code_of(make(api, expires_at=at)) in ("invalid", "refused")
    assert ApiToken.objects.count() == 1
    assert api.get("/tokens").status_code == 200


def test_a_token_ends(api: Api) -> None:
    at = timezone.now().replace(microsecond=0) + timedelta(hours=1)
    told = make(api, expires_at=at.astimezone(UTC).isoformat()).json()
    assert datetime.fromisoformat(told["expires_at"]) == at
    assert Api(told["token"]).get("/workspaces").status_code == 200
    ApiToken.objects.filter(pk=told["id"]).update(expires_at=timezone.now())
    assert code_of(Api(told["token"]).get("/workspaces")) == "not_signed_in"
    assert len(api.get("/tokens").json()["items"]) == 1


def test_revoking_ends_all_that_were_made_with_it(api: Api) -> None:
    child = make(api, scopes=["read", "lifecycle"]).json()
    grandchild = make(Api(child["token"])).json()
    other = make(api).json()
    assert api.ask("DELETE", f"/tokens/{child['id']}").status_code == 204
    for text in (child["token"], grandchild["token"]):
        assert code_of(Api(text).get("/workspaces")) == "not_signed_in"
    assert Api(other["token"]).get("/workspaces").status_code == 200
    assert {item["id"] for item in api.get("/tokens").json()["items"]} == {
        other["id"],
        *ApiToken.objects.filter(parent=None).values_list("pk", flat=True),
    }
    assert code_of(api.ask("DELETE", f"/tokens/{child['id']}")) == "not_found"


def test_nobody_revokes_what_is_not_theirs_or_mightier(api: Api, owner: User) -> None:
    stranger = make(api_of(factories.make_user())).json()
    weak = Api(make(api).json()["token"])
    mine = ApiToken.objects.get(user=owner, parent=None)
    assert code_of(api.ask("DELETE", f"/tokens/{stranger['id']}")) == "not_found"
    assert code_of(weak.ask("DELETE", f"/tokens/{mine.pk}")) == "not_found"
    for number in (4711_000, 2**63 - 1):
        assert code_of(api.ask("DELETE", f"/tokens/{number}")) == "not_found"
    for number in (0, -1, 2**63, "x"):
        assert code_of(api.ask("DELETE", f"/tokens/{number}")) == "invalid"
    assert not ApiToken.objects.exclude(revoked_at=None).exists()


def test_a_token_ends_itself(api: Api) -> None:
    mine = ApiToken.objects.get()
    assert api.ask("DELETE", f"/tokens/{mine.pk}").status_code == 204
    assert code_of(api.get("/tokens")) == "not_signed_in"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x"},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["everything"]},
        {"name": "", "scopes": ["read"]},
        {"name": "a\0b", "scopes": ["read"]},
        {"name": "x", "scopes": ["read"], "workspace": "a\0b"},
        {"name": "x", "scopes": ["read"], "user": 1},
    ],
)
def test_what_no_token_can_be(api: Api, body: Any) -> None:
    assert code_of(api.post("/tokens", body)) == "invalid"
    assert ApiToken.objects.count() == 1
