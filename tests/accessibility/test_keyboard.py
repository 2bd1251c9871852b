"""The main things that people do here, by keyboard alone: no click anywhere."""

import re

import pytest
from django.core.mail import EmailMessage
from playwright.sync_api import Page, expect

from accounts.models import ApiToken, User
from deploy import lifecycle
from deploy.states import Status
from tests import factories
from tests.accessibility.conftest import Visit
from tests.accessibility.keyboard import Keyboard
from tests.accessibility.world import PASSWORD, World
from workspaces.models import Change, Invitation, Member, Workspace

LISTED = "/admin/workspaces/workspace/"


@pytest.fixture
def ada(transactional_db: None) -> User:
    factories.make_plan()
    factories.make_image()
    return factories.make_user("ada@example.org", name="Ada")


def names_of_stops(page: Page, count: int) -> list[str]:
    """Press Tab so often; return what was reached."""
    names = []
    for _ in range(count):
        page.keyboard.press("Tab")
        names.append(page.evaluate("() => document.activeElement.textContent.trim()"))
    return names


def test_signing_up_and_in(visit: Visit, ada: User, mailoutbox: list[EmailMessage]) -> None:
    page = visit()
    keys = Keyboard(page)
    page.goto("/")
    assert names_of_stops(page, 4) == ["Skip to content", "cloudapp", "Sign in", "Sign up"]
    keys.leave()
    keys.type("Email", "grace@example.org")
    keys.to("textbox", "Password")
    page.keyboard.type(PASSWORD)
    keys.press("button", "Sign up")
    found = re.search(r"http\S*/confirm-email/\S+", str(mailoutbox[0].body))
    assert found
    page.goto(found[0])
    keys.press("button", "Yes, confirm")
    keys.press("button", "Sign out")
    keys.press("link", "Sign in")
    keys.type("Email", "grace@example.org")
    keys.to("textbox", "Password")
    page.keyboard.type(PASSWORD)
    keys.leave()
    expect(page.get_by_role("link", name="New workspace")).to_be_visible()


def test_the_way_past_the_navigation(visit: Visit, ada: User) -> None:
    factories.make_workspace(ada, "trees", name="Trees")
    page = visit(ada)
    page.goto("/workspaces/trees/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.closest('main') !== null")
    # Back out again, and on through all of the page to its end: nothing holds the focus.
    page.keyboard.press("Shift+Tab")
    keys = Keyboard(page)
    keys.go_to(page.get_by_role("link", name="Datasette", exact=True))
    keys.go_to(page.get_by_role("link", name="Skip to content"), "Shift+Tab")


def test_making_a_workspace(visit: Visit, ada: User) -> None:
    page = visit(ada)
    keys = Keyboard(page)
    page.goto("/workspaces/")
    keys.press("link", "New workspace")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("Trees")
    expect(page.get_by_label("Address")).to_have_value("trees")
    expect(page.get_by_label("Name")).to_be_focused()
    keys.press("button", "Create workspace")
    # What is under the focus is new when the workspace is up, and the focus is where it was.
    keys.to("button", "Stop")
    instance = Workspace.objects.get().instance
    factories.set_status(instance, Status.RUNNING)
    lifecycle.poke(instance.pk)
    expect(page.get_by_role("button", name="Restart")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_be_focused()


def test_inviting_and_changing_a_role(visit: Visit, ada: User) -> None:
    workspace = factories.make_workspace(ada, "trees", name="Trees")
    page = visit(ada)
    keys = Keyboard(page)
    page.goto("/workspaces/trees/members/")
    keys.type("Email address", "grace@example.org")
    page.keyboard.press("Tab")
    page.keyboard.press("e")  # the choice that begins with it: editor
    keys.press("button", "Send invitation")
    invitation = Invitation.objects.get()
    assert (invitation.email, invitation.role) == ("grace@example.org", "editor")

    grace = factories.make_user("grace@example.org", name="Grace")
    other = visit(grace)
    other.goto("/workspaces/")
    Keyboard(other).press("button", "Accept the invitation to Trees")
    assert Member.objects.get(user=grace).role == "editor"

    page.reload()
    keys.go_to(page.locator("summary", has_text="Change Grace"))
    page.keyboard.press("Enter")
    keys.to("combobox", "Role of Grace")
    page.keyboard.press("v")
    keys.press("button", "Change role")
    assert workspace.members.get(user=grace).role == "viewer"


def test_switching_a_plugin_on(visit: Visit, world: World) -> None:
    page = visit(world.ada)
    keys = Keyboard(page)
    page.goto("/workspaces/public/plugins/")
    keys.to("checkbox", "Birds")
    page.keyboard.press("Space")
    keys.press("button", "Apply")
    change = Change.objects.get(workspace__slug="public")
    assert [approval.plugin.name for approval in change.wanted.all()] == ["datasette-birds"]


def test_making_a_token(visit: Visit, ada: User) -> None:
    page = visit(ada)
    keys = Keyboard(page)
    page.goto("/account/")
    keys.press("link", "API tokens")
    keys.type("Name", "nightly import")
    keys.press("button", "Make token")
    expect(page.get_by_role("heading", name="Here is your token")).to_be_visible()
    assert ApiToken.objects.get().name == "nightly import"
    keys.to("button", "Copy")
    keys.press("button", "Revoke nightly import", "Space")
    assert not ApiToken.objects.get().is_good


def test_deleting_and_undoing_it(visit: Visit, ada: User) -> None:
    workspace = factories.make_workspace(ada, "trees", name="Trees")
    page = visit(ada)
    keys = Keyboard(page)
    page.goto("/workspaces/trees/")
    keys.go_to(page.locator("summary", has_text="Delete Trees"))
    page.keyboard.press("Enter")
    keys.press("button", "Delete workspace")
    # What is wrong has the focus.
    expect(page.get_by_label("Type “trees” to confirm")).to_be_focused()
    page.keyboard.type("trees")
    keys.press("button", "Delete workspace")
    keys.press("button", "Undo the deletion")
    workspace.refresh_from_db()
    assert workspace.deleted_at is None


def test_an_operator_suspends_and_resumes(visit: Visit, world: World) -> None:
    page = visit(world.olga)
    keys = Keyboard(page)
    page.goto(LISTED)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to main content")).to_be_focused()
    keys.type("Find", "trees")
    keys.leave()
    keys.go_to(page.locator("#result_list tbody a").first)
    keys.leave()
    keys.press("link", "Suspend…")
    keys.to("textbox", "Reason:")
    page.keyboard.type("Unpaid since June.")
    keys.leave()
    expect(page.get_by_text("trees suspended.")).to_be_visible()
    assert Workspace.objects.get(slug="trees").suspended_reason == "Unpaid since June."
    keys.press("button", "Resume")
    assert Workspace.objects.get(slug="trees").suspended_reason == ""
