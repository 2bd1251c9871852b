"""Invitations, handing over and visibility, by the REST API."""

import json

import pytest
from pytest_django import Settings

from accounts.models import User
from tests import factories
from tests.workspaces.api.conftest import Api, api_of, code_of
from tests.workspaces.teams.support import token_for
from workspaces import invitations
from workspaces.models import Invitation, Role, Workspace

pytestmark = pytest.mark.django_db
HERE = "/workspaces/trees"
NEW = {"email": "New@example.org", "role": "editor"}


@pytest.fixture
def workspace(owner: User) -> Workspace:
    return factories.make_workspace(owner, "trees")


def test_an_invitation_is_made_listed_sent_again_and_withdrawn(
    workspace: Workspace, api: Api
) -> None:
    made = api.post(f"{HERE}/invitations", NEW)
    assert made.status_code == 201
    told = made.json()
    assert (told["email"], told["role"], told["state"]) == ("new@example.org", "editor", "open")
    assert told["invited_by"] == "Ada"
    assert api.get(f"{HERE}/invitations").json()["items"] == [told]
    first = token_for("new@example.org")
    again = api.post(f"{HERE}/invitations/{told['id']}/resend")
    assert again.status_code == 200
    second = token_for("new@example.org")
    assert first != second
    # Whoever reads the API must not be able to accept.
    for answer in (made, again, api.get(f"{HERE}/invitations"), api.get(f"{HERE}/events")):
        for secret in (first, second, Invitation.objects.get().digest):
            assert secret not in answer.content.decode()
    Invitation.objects.update(expires_at="2026-01-01T00:00:00Z")
    assert api.get(f"{HERE}/invitations").json()["items"][0]["state"] == "expired"
    assert api.ask("DELETE", f"{HERE}/invitations/{told['id']}").status_code == 204
    assert api.get(f"{HERE}/invitations").json() == {"items": [], "next": None}
    gone = api.ask("DELETE", f"{HERE}/invitations/{told['id']}")
    assert code_of(gone) == "not_found"


def test_refusals_have_codes(workspace: Workspace, api: Api, settings: Settings) -> None:
    def refused(body: dict[str, str]) -> str:
        return code_of(api.post(f"{HERE}/invitations", body))

    assert refused({"email": "nobody", "role": "viewer"}) == "invalid"
    assert refused({"email": "x@example.org", "role": "emperor"}) == "invalid"
    assert refused({"email": "ada@example.org", "role": "viewer"}) == "exists"
    assert api.post(f"{HERE}/invitations", NEW).status_code == 201
    assert refused(NEW) == "exists"
    settings.INVITATIONS_OPEN = 1
    assert refused({"email": "x@example.org", "role": "viewer"}) == "refused"
    settings.INVITATIONS_OPEN, settings.INVITATIONS_PER_DAY = 50, 1
    answer = api.post(f"{HERE}/invitations", {"email": "x@example.org", "role": "viewer"})
    assert code_of(answer) == "too_many_requests"
    assert int(answer["Retry-After"]) > 80_000


def test_the_same_key_invites_once(workspace: Workspace, api: Api) -> None:
    answers = [api.post(f"{HERE}/invitations", NEW, Idempotency_Key="k1") for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert invitations.pending(workspace).count() == 1


def test_a_workspace_is_handed_over(workspace: Workspace, api: Api, owner: User) -> None:
    grace = factories.make_user("grace@example.org", name="Grace")
    there = f"{HERE}/members/{grace.pk}/transfer"
    assert code_of(api.post(there)) == "not_found"
    factories.add_member(workspace, grace, Role.VIEWER)
    assert code_of(api.post(f"{HERE}/members/{owner.pk}/transfer")) == "refused"
    new = api.post(there).json()
    assert (new["name"], new["role"]) == ("Grace", "owner")
    assert api.get(HERE).json()["role"] == "editor"
    assert code_of(api.post(there)) == "role_too_low"


def test_an_owner_lets_everybody_read(workspace: Workspace, api: Api) -> None:
    before = api.get(HERE)
    assert before.json()["visibility"] == "private"
    public = api.ask("PATCH", HERE, {"visibility": "public"}, If_Match=before["ETag"])
    assert public.json()["visibility"] == "public"
    assert Workspace.objects.get().is_public
    stale = api.ask("PATCH", HERE, {"visibility": "private"}, If_Match=before["ETag"])
    assert code_of(stale) == "changed_meanwhile"
    api.ask("PATCH", HERE, {"name": "Oaks"})
    assert api.get(HERE).json()["visibility"] == "public", "what is left out stays"
    assert code_of(api.ask("PATCH", HERE, {"visibility": "secret"})) == "invalid"
    assert api.ask("PATCH", HERE, {"visibility": "private"}).json()["visibility"] == "private"


@pytest.mark.parametrize("to", ["public", "private"])
def test_a_token_that_opens_no_data_publishes_none(
    workspace: Workspace, owner: User, to: str
) -> None:
    for scopes in (["lifecycle"], ["lifecycle", "read", "members"]):
        refused = api_of(owner, *scopes).ask("PATCH", HERE, {"visibility": to, "name": "X"})
        assert code_of(refused) == "scope_missing"
    current = Workspace.objects.get()
    assert (current.visibility, current.name) == ("private", "Trees")
    assert api_of(owner, "lifecycle").ask("PATCH", HERE, {"name": "Y"}).status_code == 200
    may = api_of(owner, "lifecycle", "data").ask("PATCH", HERE, {"visibility": "public"})
    assert may.json()["visibility"] == "public"


def test_an_operators_token_shows_nobodys_data(workspace: Workspace) -> None:
    boss = factories.make_user(is_staff=True, is_superuser=True)
    refused = api_of(boss, "operator").ask("PATCH", HERE, {"name": "X", "visibility": "public"})
    assert code_of(refused) == "role_too_low"
    assert json.loads(refused.content)["detail"] == (
        "Only an owner decides who may read a workspace."
    )
    assert not Workspace.objects.get().is_public
    assert Workspace.objects.get().name == "Trees", "all or nothing"
