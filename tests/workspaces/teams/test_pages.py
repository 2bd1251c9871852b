"""The pages of members, invitations and visibility, in a browser without JavaScript."""

import re
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib.sessions.models import Session
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts import came_for
from accounts.models import User
from tests import factories
from tests.workspaces.html import Page
from tests.workspaces.teams.support import token_for
from workspaces import invitations, members
from workspaces.models import Member, Role, Visibility, Workspace
from workspaces.services import Refused
from workspaces.views import INVITED

pytestmark = pytest.mark.django_db

PASSWORD = "a rather long password 42"
MEMBERS = "/workspaces/trees/members/"


@pytest.fixture
def grace(workspace: Workspace) -> User:
    """A member: an editor."""
    user = factories.make_user("grace@example.org", name="Grace")
    factories.add_member(workspace, user, Role.EDITOR)
    return user


def text_of(response: Any) -> str:
    return str(response.content.decode()).replace("<wbr>", "")


def roles(workspace: Workspace) -> dict[str, str]:
    found = workspace.members.select_related("user")
    return {member.user.display_name: member.role for member in found}


# --- members -------------------------------------------------------------------------------------


def test_an_owner_changes_a_role_and_takes_somebody_out(
    workspace: Workspace, client_of_owner: Client, grace: User
) -> None:
    assert "Grace" in text_of(client_of_owner.get(MEMBERS))
    client_of_owner.post(f"{MEMBERS}{grace.pk}/role/", {"role": "viewer"})
    assert roles(workspace) == {"Ada": "owner", "Grace": "viewer"}
    client_of_owner.post(f"{MEMBERS}{grace.pk}/role/", {"role": "emperor"})
    assert roles(workspace) == {"Ada": "owner", "Grace": "viewer"}
    done = client_of_owner.post(f"{MEMBERS}{grace.pk}/remove/", follow=True)
    assert roles(workspace) == {"Ada": "owner"}
    assert "Within seconds no door" in text_of(done)
    gone = client_of_owner.post(f"{MEMBERS}{grace.pk}/remove/", follow=True)
    assert "does not belong to the workspace" in text_of(gone)


def test_editors_and_viewers_see_the_list_and_may_leave(
    workspace: Workspace, grace: User, sign_in: Any, owner: User
) -> None:
    invitations.invite(workspace, owner, "new@example.org", Role.VIEWER)
    browser = sign_in(grace)
    page = text_of(browser.get(MEMBERS))
    assert "ada@example.org" in page
    assert "new@example.org" not in page
    assert Page(page).actions == {"/account/logout/", f"{MEMBERS}leave/"}
    left = browser.post(f"{MEMBERS}leave/", follow=True)
    assert "You have left “Trees”." in text_of(left)
    assert browser.get(MEMBERS).status_code == 404


def test_the_last_owner_hands_over_before_leaving(
    workspace: Workspace, owner: User, client_of_owner: Client, grace: User
) -> None:
    page = text_of(client_of_owner.get(MEMBERS))
    assert "You are its only owner" in page
    assert f"{MEMBERS}leave/" not in Page(page).actions
    refused = client_of_owner.post(f"{MEMBERS}leave/", follow=True)
    assert "A workspace needs an owner" in text_of(refused)
    for nonsense in ("", "x", "²", "9" * 40, str(owner.pk), "7"):
        client_of_owner.post(f"{MEMBERS}transfer/", {"to": nonsense})
        assert roles(workspace) == {"Ada": "owner", "Grace": "editor"}
    client_of_owner.post(f"{MEMBERS}transfer/", {"to": str(grace.pk)})
    assert roles(workspace) == {"Ada": "editor", "Grace": "owner"}
    client_of_owner.post(f"{MEMBERS}leave/")
    assert roles(workspace) == {"Grace": "owner"}


def test_a_handing_over_is_one_deed_of_an_owner(workspace: Workspace, grace: User) -> None:
    boss = factories.make_user(is_staff=True, is_superuser=True)
    for user in (grace, boss):
        with pytest.raises(Refused):
            members.transfer(workspace, user, grace.pk)
    owner = Member.objects.get(role=Role.OWNER).user
    members.transfer(workspace, owner, grace.pk)
    assert [deed.verb for deed in workspace.activities.all()] == ["transferred"]


def test_the_page_says_whose_invitations_end_with_the_role(
    workspace: Workspace, client_of_owner: Client, grace: User
) -> None:
    workspace.members.filter(user=grace).update(role=Role.OWNER)
    assert "the invitations that they sent" not in text_of(client_of_owner.get(MEMBERS))
    invitations.invite(workspace, grace, "new@example.org", Role.VIEWER)
    assert text_of(client_of_owner.get(MEMBERS)).count("the invitations that they sent") == 1
    client_of_owner.post(f"{MEMBERS}{grace.pk}/role/", {"role": "editor"})
    assert not invitations.pending(workspace)


def test_an_owner_who_cannot_sign_in_is_none(
    workspace: Workspace, owner: User, client_of_owner: Client, grace: User
) -> None:
    workspace.members.filter(user=grace).update(role=Role.OWNER)
    User.objects.filter(pk=grace.pk).update(is_active=False)
    assert "You are its only owner" in text_of(client_of_owner.get(MEMBERS))
    with pytest.raises(Refused, match="A workspace needs an owner"):
        members.remove(workspace, owner, owner.pk)
    with pytest.raises(Refused, match="A workspace needs an owner"):
        members.change_role(workspace, owner, owner.pk, Role.EDITOR)
    with pytest.raises(Refused, match="switched off"):
        members.transfer(workspace, owner, grace.pk)
    members.remove(workspace, owner, grace.pk)


def test_inviting_and_what_is_refused(workspace: Workspace, client_of_owner: Client) -> None:
    add = "/workspaces/trees/invitations/add/"
    done = client_of_owner.post(add, {"email": "new@example.org", "role": "editor"}, follow=True)
    assert "An invitation is on its way to new@example.org." in text_of(done)
    for email, words in (
        ("", "Whom do you want to invite?"),
        ("nobody", "Give an email address"),
        ("ada@example.org", "belongs to this workspace already"),
        ("new@example.org", "is invited already"),
    ):
        refused = client_of_owner.post(add, {"email": email, "role": "viewer"})
        assert refused.status_code == 422
        assert words in text_of(refused)
    (one,) = workspace.invitations.all()
    there = f"/workspaces/trees/invitations/{one.pk}/"
    assert there + "resend/" in Page(text_of(refused)).actions
    again = client_of_owner.post(f"{there}resend/", follow=True)
    assert "A new link is on its way" in text_of(again)
    client_of_owner.post(f"{there}withdraw/")
    assert not invitations.pending(workspace)
    other = factories.make_workspace(factories.make_user()).invitations.create(
        email="x@example.org", role="viewer", digest="x", expires_at="2100-01-01T00:00:00Z"
    )
    wrong = client_of_owner.post(f"/workspaces/trees/invitations/{other.pk}/withdraw/", follow=True)
    assert "no such invitation any more" in text_of(wrong)


def test_a_list_costs_the_same_however_long_it_is(
    workspace: Workspace, client_of_owner: Client, owner: User, django_assert_max_num_queries: Any
) -> None:
    client_of_owner.get(MEMBERS)
    for number in range(8):
        factories.add_member(workspace, factories.make_user(), Role.VIEWER)
        invitations.invite(workspace, owner, f"new{number}@example.org", Role.VIEWER)
    with django_assert_max_num_queries(12):
        client_of_owner.get(MEMBERS)


# --- those who are invited -----------------------------------------------------------------------


@pytest.fixture
def link(workspace: Workspace, owner: User) -> str:
    """The link of an invitation, as new@example.org gets it."""
    invitations.invite(workspace, owner, "new@example.org", Role.EDITOR)
    return f"/invitations/{token_for('new@example.org')}/"


def test_an_existing_person_signs_in_and_accepts(workspace: Workspace, link: str) -> None:
    factories.make_user("new@example.org", name="Newton", password=PASSWORD)
    browser = Client()
    shown = text_of(browser.get(link))
    assert "You are invited to “Trees”" in shown
    assert "n…@example.org" in shown
    assert "new@example.org" not in shown
    assert browser.post(link).status_code == 200, "nobody is signed in: it shows how"
    assert {"/account/login/", "/account/signup/"} <= Page(shown).links, "no key in an address"
    told = {"login": "new@example.org", "password": PASSWORD}
    signed_in = browser.post("/account/login/", told)
    assert signed_in["Location"] == link
    asked = text_of(browser.get(link))
    assert 'id="do-accept"' in asked
    accepted = browser.post(link)
    assert accepted["Location"] == "/workspaces/trees/"
    assert roles(workspace)["Newton"] == "editor"
    assert browser.get(link).status_code == 404


def test_a_new_person_signs_up_verifies_and_is_back(workspace: Workspace, link: str) -> None:
    browser = Client()
    browser.get(link)
    browser.post("/account/signup/", {"email": "new@example.org", "password1": PASSWORD})
    token = link.split("/")[2]
    assert not any(token in str(one.get_decoded()) for one in Session.objects.all())
    (message,) = mail.outbox
    found = re.search(r"/account/confirm-email/\S+", str(message.body))
    assert found
    confirmed = browser.post(found[0])
    assert confirmed["Location"] == link
    assert browser.post(link)["Location"] == "/workspaces/trees/"
    assert roles(workspace)["new@example.org"] == "editor"


def test_who_verified_in_another_browser_finds_it_in_the_list(
    workspace: Workspace, link: str, sign_in: Any
) -> None:
    somebody = factories.make_user("new@example.org")
    browser = sign_in(somebody)
    listed = text_of(browser.get("/workspaces/"))
    assert "You are invited to “Trees”" in listed
    (one,) = workspace.invitations.all()
    assert browser.post(f"/invitations/{one.pk}/accept/")["Location"] == "/workspaces/trees/"
    assert roles(workspace)["new@example.org"] == "editor"
    assert "You are invited" not in text_of(browser.get("/workspaces/"))
    stranger = sign_in(factories.make_user())
    assert stranger.post(f"/invitations/{one.pk}/accept/").status_code == 404
    assert Client().post(f"/invitations/{one.pk}/accept/").status_code == 302


def test_signing_in_leads_to_an_invitation_once(link: str) -> None:
    factories.make_user("eve@example.org", password=PASSWORD)
    browser = Client()
    told = {"login": "eve@example.org", "password": PASSWORD}
    browser.get(link)
    cookie = browser.cookies[came_for.COOKIE]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    elsewhere = browser.post("/account/login/", {**told, "next": "/account/tokens/"})
    assert elsewhere["Location"] == "/account/tokens/", "who says where to goes there"
    browser.get(link)
    browser.post("/account/logout/")
    assert browser.post("/account/login/", told)["Location"] == "/workspaces/"


@pytest.mark.parametrize("path", ["//evil.example/", "https://evil.example/", "javascript:x"])
def test_a_forged_cookie_leads_nowhere(path: str, db: None) -> None:
    factories.make_user("eve@example.org", password=PASSWORD)
    browser = Client()
    browser.cookies[came_for.COOKIE] = path
    told = {"login": "eve@example.org", "password": PASSWORD}
    assert browser.post("/account/login/", told)["Location"] == "/workspaces/"


def test_many_invitations_cost_as_much_as_one(
    sign_in: Any, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invitations, "TO_ONE_ADDRESS_PER_DAY", 100)
    somebody = factories.make_user("new@example.org")
    browser = sign_in(somebody)

    def invite(count: int) -> None:
        for _ in range(count):
            by = factories.make_user()
            invitations.invite(factories.make_workspace(by), by, "new@example.org", Role.VIEWER)

    invite(1)
    browser.get("/workspaces/")
    with CaptureQueriesContext(connection) as one:
        browser.get("/workspaces/")
    invite(INVITED)
    with django_assert_num_queries(len(one)):
        page = text_of(browser.get("/workspaces/"))
    assert page.count("You are invited to") == INVITED


@pytest.mark.parametrize("claimed", [True, False])
def test_somebody_else_learns_whom_it_is_for_and_what_to_do(
    claimed: bool, workspace: Workspace, link: str, sign_in: Any
) -> None:
    eve = factories.make_user("eve@example.org")
    if claimed:
        EmailAddress.objects.create(user=eve, email="new@example.org", verified=False)
    browser = sign_in(eve)
    shown = text_of(browser.get(link))
    assert "This invitation is for n…@example.org" in shown
    assert "/account/email/" in Page(shown).links
    assert ("not confirmed yet" in shown) == claimed
    assert "new@example.org" not in shown
    assert browser.post(link)["Location"] == link
    assert set(roles(workspace)) == {"Ada"}


def test_a_member_who_opens_a_link_is_led_to_the_workspace(
    link: str, client_of_owner: Client
) -> None:
    shown = text_of(client_of_owner.get(link))
    assert "You belong to it already, as an owner" in shown


def test_a_link_that_is_over_says_so(workspace: Workspace, link: str, owner: User) -> None:
    invitations.withdraw(workspace, owner, workspace.invitations.get().pk)
    for address in (link, f"/invitations/{'x' * 43}/"):
        over = Client().get(address)
        assert over.status_code == 404
        assert "This link does not work any more" in text_of(over)
        assert "Trees" not in text_of(over)


def test_it_is_not_kept_by_anybody_on_the_way(link: str) -> None:
    response = Client().get(link)
    assert "no-store" in response["Cache-Control"]
    assert response["Referrer-Policy"] == "same-origin"


# --- who may read it -----------------------------------------------------------------------------


def test_an_owner_makes_it_public_after_being_asked_and_private_again(
    workspace: Workspace, client_of_owner: Client
) -> None:
    detail = text_of(client_of_owner.get("/workspaces/trees/"))
    assert "/workspaces/trees/visibility/set/" not in Page(detail).actions, "it asks first"
    asked = text_of(client_of_owner.get("/workspaces/trees/visibility/"))
    assert "everybody on the internet" in asked
    public = client_of_owner.post(
        "/workspaces/trees/visibility/set/", {"to": "public"}, follow=True
    )
    workspace.refresh_from_db()
    assert workspace.is_public
    for page in ("", "members/", "activity/", "plugins/"):
        shown = text_of(client_of_owner.get(f"/workspaces/trees/{page}"))
        assert "This workspace is public" in shown
        assert 'id="back-to-private"' in shown
    assert "http://trees.localhost:8000/-/cloudapp/start?/" in text_of(public), (
        "to go in as oneself"
    )
    client_of_owner.post("/workspaces/trees/visibility/set/", {"to": "private"})
    client_of_owner.post("/workspaces/trees/visibility/set/", {"to": "nonsense"})
    workspace.refresh_from_db()
    assert workspace.visibility == Visibility.PRIVATE
    assert [deed.verb for deed in workspace.activities.all()] == ["made_public", "made_private"]


def test_members_see_that_it_is_public_and_strangers_of_the_cloud_pages_nothing(
    workspace: Workspace, grace: User, sign_in: Any
) -> None:
    Workspace.objects.update(visibility=Visibility.PUBLIC)
    shown = text_of(sign_in(grace).get("/workspaces/trees/"))
    assert "This workspace is public" in shown
    assert "back-to-private" not in shown
    assert sign_in(factories.make_user()).get("/workspaces/trees/").status_code == 404
