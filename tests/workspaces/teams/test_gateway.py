"""A changed role, and a workspace that everybody may read, as the router hears of them."""

import jwt
import pytest
from django.http import HttpResponse
from django.test import Client, override_settings

from accounts import api_tokens
from accounts.api_tokens import Scope
from accounts.models import User
from deploy.models import Instance
from deploy.states import Desired, Status
from tests import factories
from tests.workspaces.gateway_support import (
    ask,
    begin,
    cloud_client,
    host_of,
    path_of,
    sign_in,
    verdict,
    without_id,
)
from workspaces import members, services
from workspaces.models import Member, Role, Visibility, Workspace
from workspaces.services import Refused

pytestmark = pytest.mark.django_db


def claims_of(response: HttpResponse) -> dict[str, object]:
    """What the instance is told of who asks."""
    assert response.status_code == 200, verdict(response)
    told: dict[str, object] = jwt.decode(
        response["X-Cloudapp-Token"], options={"verify_signature": False}
    )
    return {name: told[name] for name in ("actor", "public", "visitor")}


# --- roles ---------------------------------------------------------------------------------------


def test_another_role_counts_as_soon_as_the_router_asks_again(
    workspace: Workspace, owner: User
) -> None:
    grace = factories.make_user(name="Grace")
    factories.add_member(workspace, grace, Role.EDITOR)
    session = sign_in(cloud_client(grace), workspace)
    _, token = api_tokens.create(grace, "test", [Scope.DATA])
    for role in (Role.VIEWER, Role.OWNER, Role.EDITOR):
        members.change_role(workspace, owner, grace.pk, role)
        for answer in (
            ask(workspace, session),
            ask(workspace, authorization=f"Bearer {token}"),
        ):
            actor = claims_of(answer)["actor"]
            assert isinstance(actor, dict)
            assert actor["role"] == role
            assert int(answer["X-Accel-Expires"]) <= 5, "the router remembers it no longer"
    members.transfer(workspace, owner, grace.pk)
    actor = claims_of(ask(workspace, sign_in(cloud_client(owner), workspace)))["actor"]
    assert isinstance(actor, dict)
    assert actor["role"] == Role.EDITOR


def test_who_leaves_is_turned_away_at_once(workspace: Workspace) -> None:
    grace = factories.make_user()
    factories.add_member(workspace, grace, Role.EDITOR)
    session = sign_in(cloud_client(grace), workspace)
    assert ask(workspace, session).status_code == 200
    members.remove(workspace, grace, grace.pk)
    assert verdict(ask(workspace, session)) == "sign-in"
    again = cloud_client(grace).get(path_of(begin(Client(), workspace)))
    assert again.status_code == 404


# --- what everybody may read ---------------------------------------------------------------------

VISITOR = {"id": "visitor", "name": "Visitor", "role": "viewer"}


@pytest.fixture
def public(workspace: Workspace, owner: User) -> Workspace:
    services.set_visibility(workspace, owner, Visibility.PUBLIC)
    return workspace


def test_everybody_may_read_what_is_public(public: Workspace) -> None:
    stranger = factories.make_user()
    elsewhere = factories.make_workspace(stranger)
    sessions = ["", "A" * 43, sign_in(cloud_client(stranger), elsewhere)]
    for session in sessions:
        answer = ask(public, session)
        assert claims_of(answer) == {"actor": VISITOR, "public": True, "visitor": True}
        assert answer["X-Accel-Expires"] == "5"


def test_members_are_themselves_there(public: Workspace, owner: User) -> None:
    told = claims_of(ask(public, sign_in(cloud_client(owner), public)))
    actor = {"id": str(owner.pk), "name": "Ada", "role": "owner"}
    assert told == {"actor": actor, "public": True, "visitor": False}
    services.set_visibility(public, owner, Visibility.PRIVATE)
    told = claims_of(ask(public, sign_in(cloud_client(owner), public)))
    assert told == {"actor": actor, "public": False, "visitor": False}


def test_who_was_a_member_reads_on_as_everybody_does(public: Workspace, owner: User) -> None:
    grace = factories.make_user()
    factories.add_member(public, grace, Role.OWNER)
    session = sign_in(cloud_client(grace), public)
    members.remove(public, owner, grace.pk)
    assert claims_of(ask(public, session))["visitor"]
    services.set_visibility(public, owner, Visibility.PRIVATE)
    assert verdict(ask(public, session)) == "sign-in"


def test_closed_again_it_is_like_none(public: Workspace, owner: User) -> None:
    services.set_visibility(public, owner, Visibility.PRIVATE)
    there, nowhere = ask(public), ask("no-such-workspace")
    assert there.status_code == nowhere.status_code == 401
    assert without_id(there) == without_id(nowhere)
    # Or else the router would go on showing it from its memory while the gateway is down.
    assert there["X-Accel-Expires"] == "1"


def test_an_api_token_decides_alone_also_there(public: Workspace) -> None:
    _, token = api_tokens.create(factories.make_user(), "test", [Scope.DATA])
    assert verdict(ask(public, authorization=f"Bearer {token}")) == "not-found"
    assert verdict(ask(public, authorization=f"Bearer {api_tokens.PREFIX}{'x' * 46}")) == "sign-in"
    assert claims_of(ask(public, authorization="Basic eDp5"))["visitor"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.RUNNING, "pass"),
        (Status.SLEEPING, "waking"),
        (Status.PROVISIONING, "waking"),
        (Status.STOPPED, "stopped"),
        (Status.SUSPENDED, "suspended"),
        (Status.FAILED, "failed"),
    ],
)
def test_visitors_hear_how_it_is(status: Status, expected: str, public: Workspace) -> None:
    factories.set_status(public.instance, status)
    with override_settings(WAKE_HOLD_SECONDS=0):
        assert verdict(ask(public)) == expected


def test_a_visit_wakes_it(public: Workspace) -> None:
    factories.set_status(public.instance, Status.SLEEPING)
    with override_settings(WAKE_HOLD_SECONDS=0):
        ask(public)
    assert Instance.objects.get().desired == Desired.RUNNING


def test_what_is_deleted_is_public_no_more(public: Workspace, owner: User) -> None:
    services.delete(public, owner)
    there, nowhere = ask(public), ask("no-such-workspace")
    assert there.status_code == nowhere.status_code
    assert without_id(there) == without_id(nowhere)


def test_a_visitor_costs_two_queries_at_most(
    public: Workspace, django_assert_max_num_queries: object
) -> None:
    with django_assert_max_num_queries(2):  # type: ignore[operator]
        ask(public, "A" * 43)
    with django_assert_max_num_queries(1):  # type: ignore[operator]
        ask(public)


# --- signing in at a public one ------------------------------------------------------------------


def test_a_member_signs_in_there(public: Workspace, owner: User) -> None:
    begun = cloud_client(owner).get(f"/workspaces/{public.slug}/enter/?next=/data")
    assert begun["Location"] == f"{public.url}-/cloudapp/start?/data"
    led = Client().get("/-/cloudapp/start", headers=host_of(public), QUERY_STRING="/data")
    assert f"/workspaces/{public.slug}/enter/" in led["Location"]
    assert public.door == f"{public.url}-/cloudapp/start?/"


def test_a_stranger_who_signs_in_is_led_back(public: Workspace, owner: User) -> None:
    stranger = cloud_client(factories.make_user())
    address = f"/workspaces/{public.slug}/enter/?state={'a' * 64}&next=/data"
    assert stranger.get(address)["Location"] == f"{public.url}data"
    services.set_visibility(public, owner, Visibility.PRIVATE)
    assert stranger.get(address).status_code == 404


# --- who decides ---------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["editor", "viewer", "operator", "operator who edits", "stranger"])
def test_only_owners_decide(who: str, workspace: Workspace) -> None:
    operator = who.startswith("operator")
    user = factories.make_user(is_staff=operator, is_superuser=operator)
    if who in Role.values:
        factories.add_member(workspace, user, Role(who))
    if who == "operator who edits":
        factories.add_member(workspace, user, Role.EDITOR)
    for change in (
        lambda: services.set_visibility(workspace, user, Visibility.PUBLIC),
        lambda: services.update(workspace, user, visibility=Visibility.PUBLIC),
    ):
        with pytest.raises(Refused) as refused:
            change()
        assert refused.value.code in ("role_too_low", "not_found")
    assert not Workspace.objects.get().is_public
    assert verdict(ask(workspace)) == "sign-in"


def test_saying_it_twice_is_noted_once(workspace: Workspace, owner: User) -> None:
    before = services.version_of(workspace)
    for _ in range(2):
        services.set_visibility(workspace, owner, Visibility.PUBLIC)
    assert [deed.verb for deed in workspace.activities.all()] == ["made_public"]
    assert services.version_of(workspace) != before
    assert Member.objects.get().role == Role.OWNER
