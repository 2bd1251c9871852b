"""Operators see a customer's data only while an owner lets them, and it is written down."""

import ast
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from accounts import api_tokens
from accounts.models import User
from deploy.states import Status
from tests import factories
from tests.workspaces.gateway_support import ask, begin, cloud_client, path_of, sign_in, verdict
from tests.workspaces.html import Page
from workspaces import members, support
from workspaces.models import Role, Workspace, WorkspaceSession
from workspaces.services import Refused


@pytest.fixture
def owner(db: None) -> User:
    return factories.make_user("ada@example.org", name="Ada")


@pytest.fixture
def staff(db: None) -> User:
    return factories.make_user("ops@example.org", name="Olga", is_staff=True, is_superuser=True)


@pytest.fixture
def workspace(owner: User) -> Workspace:
    return factories.make_workspace(owner, "trees")


def try_to_enter(user: User, workspace: Workspace) -> int:
    """Go as far as the cloud host lets somebody; 302 leads back to the workspace with a code."""
    return cloud_client(user).get(path_of(begin(Client(), workspace))).status_code


def actor_in(workspace: Workspace, answer: HttpResponse) -> dict[str, str]:
    """Who the container is told is asking."""
    instance = workspace.instance
    token = answer["X-Cloudapp-Token"]
    claims = jwt.decode(token, instance.key, ["HS256"], audience=str(instance.pk))
    return dict(claims["actor"])


def verbs(workspace: Workspace) -> list[str]:
    return list(workspace.activities.order_by("id").values_list("verb", flat=True))


# --- the switch ----------------------------------------------------------------------------------


def test_it_is_off_by_default(workspace: Workspace, owner: User, staff: User) -> None:
    assert not workspace.support_access
    assert support.find(staff, "trees") is None
    assert try_to_enter(staff, workspace) == 404
    page = cloud_client(owner).get("/workspaces/trees/").content.decode()
    assert "Operators may look at the data" not in page


@pytest.mark.parametrize("days", support.CHOICES)
def test_an_owner_switches_it_on_and_off(workspace: Workspace, owner: User, days: int) -> None:
    client = cloud_client(owner)
    page = client.post("/workspaces/trees/support/", {"days": days}, follow=True)
    assert "Operators may look at the data" in page.content.decode()
    workspace.refresh_from_db()
    assert workspace.support_until
    left = workspace.support_until - timezone.now()
    assert timedelta(days=days) - timedelta(hours=1) < left <= timedelta(days=days)
    page = client.post("/workspaces/trees/support/", {"days": "0"}, follow=True)
    assert "Operators may look at the data" not in page.content.decode()
    assert verbs(workspace) == ["allowed_support", "ended_support"]


@pytest.mark.parametrize("days", ["", "2", "365", "-1", "x", "1" * 30])
def test_there_are_two_choices(workspace: Workspace, owner: User, days: str) -> None:
    page = cloud_client(owner).post("/workspaces/trees/support/", {"days": days}, follow=True)
    assert "Choose for how long." in page.content.decode()
    workspace.refresh_from_db()
    assert not workspace.support_access


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("path", ["", "activity/", "plugins/"])
def test_every_member_sees_that_it_is_on(
    workspace: Workspace, owner: User, role: Role, path: str
) -> None:
    member = factories.make_user()
    factories.add_member(workspace, member, role)
    support.allow(workspace, owner, 1)
    page = cloud_client(member).get(f"/workspaces/trees/{path}").content.decode()
    assert "Operators may look at the data" in page
    if not path:
        assert ("/workspaces/trees/support/" in Page(page).actions) == (role is Role.OWNER)


def test_operators_cannot_let_themselves_in(workspace: Workspace, staff: User) -> None:
    response = cloud_client(staff).post("/workspaces/trees/support/", {"days": "1"})
    assert response.status_code == 404
    with pytest.raises(Refused):
        support.allow(workspace, staff, 1)
    with pytest.raises(Refused):
        support.end(workspace, staff)


# --- the door ------------------------------------------------------------------------------------


def test_with_it_an_operator_comes_in_as_a_viewer_and_that_is_written_down(
    workspace: Workspace, owner: User, staff: User
) -> None:
    support.allow(workspace, owner, 1)
    answer = ask(workspace, sign_in(cloud_client(staff), workspace))
    assert verdict(answer) == "pass"
    told = actor_in(workspace, answer)
    assert told["role"] == "viewer"
    assert told["name"] == "an operator"
    assert verbs(workspace) == ["allowed_support", "entered_support"]
    sign_in(cloud_client(staff), workspace)
    assert verbs(workspace)[-2:] == ["entered_support", "entered_support"]
    page = cloud_client(owner).get("/workspaces/trees/activity/").content.decode()
    assert "an operator</strong> came in to look at the data" in page
    assert "Olga" not in page


def test_the_door_closes_when_an_owner_ends_it(
    workspace: Workspace, owner: User, staff: User
) -> None:
    support.allow(workspace, owner, 7)
    session = sign_in(cloud_client(staff), workspace)
    own = sign_in(cloud_client(owner), workspace)
    support.end(workspace, owner)
    assert verdict(ask(workspace, session)) != "pass"
    assert verdict(ask(workspace, own)) == "pass"
    assert try_to_enter(staff, workspace) == 404
    # Switched on again, the old session opens nothing: they come in anew, and that is written.
    support.allow(workspace, owner, 7)
    assert verdict(ask(workspace, session)) != "pass"


def test_the_door_closes_by_itself(workspace: Workspace, owner: User, staff: User) -> None:
    support.allow(workspace, owner, 1)
    session = sign_in(cloud_client(staff), workspace)
    row = WorkspaceSession.objects.get(user=staff)
    assert workspace.support_until
    assert row.expires_at <= workspace.support_until
    Workspace.objects.update(support_until=timezone.now() - timedelta(seconds=1))
    assert verdict(ask(workspace, session)) == "not-found"
    assert try_to_enter(staff, workspace) == 404


def test_the_door_closes_to_those_who_are_no_operators_any_more(
    workspace: Workspace, owner: User, staff: User
) -> None:
    support.allow(workspace, owner, 1)
    session = sign_in(cloud_client(staff), workspace)
    User.objects.filter(pk=staff.pk).update(is_staff=False)
    assert verdict(ask(workspace, session)) == "not-found"


@pytest.mark.parametrize("how", ["was a member", "consent of another time", "somebody else's"])
def test_no_old_session_of_an_operator_comes_back_to_life(
    workspace: Workspace, owner: User, staff: User, how: str
) -> None:
    """Each time that they come in is written down, so each session that opens was."""
    if how == "consent of another time":
        support.allow(workspace, owner, 1)
    else:
        factories.add_member(workspace, staff, Role.EDITOR)
    session = sign_in(cloud_client(staff), workspace)
    if how == "was a member":
        members.remove(workspace, owner, staff.pk)
        assert not WorkspaceSession.objects.filter(user=staff).exists()
    elif how == "somebody else's":  # as of one who was taken out by hand
        workspace.members.filter(user=staff).delete()
    came_in = verbs(workspace).count("entered_support")
    support.allow(workspace, owner, 7)
    assert verdict(ask(workspace, session)) != "pass"
    assert verbs(workspace).count("entered_support") == came_in
    assert verdict(ask(workspace, sign_in(cloud_client(staff), workspace))) == "pass"


def test_it_opens_to_those_who_look_after_workspaces(workspace: Workspace, owner: User) -> None:
    clerk = factories.make_user("clerk@example.org", is_staff=True)
    support.allow(workspace, owner, 1)
    assert try_to_enter(clerk, workspace) == 404
    may = Permission.objects.get(codename="view_workspace")
    clerk.user_permissions.add(may)
    session = sign_in(cloud_client(clerk), workspace)
    assert verdict(ask(workspace, session)) == "pass"
    clerk.user_permissions.remove(may)
    assert verdict(ask(workspace, session)) == "not-found"


def test_it_opens_to_operators_only(workspace: Workspace, owner: User) -> None:
    support.allow(workspace, owner, 1)
    assert try_to_enter(factories.make_user(), workspace) == 404


def test_it_opens_no_other_workspace(workspace: Workspace, owner: User, staff: User) -> None:
    other = factories.make_workspace(owner, "ships")
    support.allow(workspace, owner, 1)
    assert try_to_enter(staff, other) == 404
    session = sign_in(cloud_client(staff), workspace)
    assert verdict(ask(other, session)) != "pass"


def test_it_opens_nothing_to_an_operators_token(
    workspace: Workspace, owner: User, staff: User
) -> None:
    support.allow(workspace, owner, 1)
    _, text = api_tokens.create(staff, "robot", ["operator", "read"])
    answer = ask(workspace, authorization=f"Bearer {text}")
    assert verdict(answer) == "not-found"


def test_an_operator_who_is_a_member_comes_in_as_that(
    workspace: Workspace, owner: User, staff: User
) -> None:
    factories.add_member(workspace, staff, Role.EDITOR)
    support.allow(workspace, owner, 1)
    answer = ask(workspace, sign_in(cloud_client(staff), workspace))
    told = actor_in(workspace, answer)
    assert told["role"] == "editor"
    assert "entered_support" not in verbs(workspace)
    support.end(workspace, owner)
    assert verdict(ask(workspace, sign_in(cloud_client(staff), workspace))) == "pass"


def test_the_cloud_pages_stay_closed_to_operators(
    workspace: Workspace, owner: User, staff: User
) -> None:
    support.allow(workspace, owner, 1)
    for path in ("", "activity/", "logs/", "plugins/"):
        assert cloud_client(staff).get(f"/workspaces/trees/{path}").status_code == 404


def test_a_deleted_workspace_opens_to_no_operator(owner: User, staff: User) -> None:
    workspace = factories.make_workspace(owner, "trees", status=Status.DELETING)
    Workspace.objects.update(support_until=timezone.now() + timedelta(days=1))
    assert try_to_enter(staff, workspace) == 404


# --- nobody acts as somebody else ----------------------------------------------------------------


def _names(patterns: list[URLPattern | URLResolver]) -> list[str]:
    found: list[str] = []
    for one in patterns:
        if isinstance(one, URLResolver):
            found += [str(one.pattern), *_names(one.url_patterns)]
        else:
            found += [str(one.pattern), one.name or ""]
    return found


def test_no_address_lets_anybody_act_as_somebody_else() -> None:
    words = ("impersonat", "hijack", "masquerade", "loginas", "login-as", "login_as", "become")
    names = _names(get_resolver().url_patterns)
    assert len(names) > 100
    assert not [name for name in names if any(word in name.lower() for word in words)]
    assert not [app for app in settings.INSTALLED_APPS if any(word in app for word in words)]


def test_no_code_of_ours_signs_anybody_in() -> None:
    """Only allauth does, for who proved to be somebody; the hand-off carries a session over."""
    calls = []
    for room in ("accounts", "deploy", "workspaces", "cloudapp"):
        for path in sorted((Path(settings.BASE_DIR) / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func).rpartition(".")[2]
                    if name in ("login", "force_login", "perform_login"):
                        calls.append(path.relative_to(settings.BASE_DIR).as_posix())
    assert not calls
