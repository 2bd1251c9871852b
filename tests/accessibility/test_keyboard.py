"""The main things that people do here, by keyboard alone: no click anywhere."""

import re

import pytest
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from django.core.mail import EmailMessage
from playwright.sync_api import Page, expect

from accounts.models import ApiToken, User
from deploy import lifecycle
from deploy.states import Desired, Status
from tests import factories
from tests.accessibility.conftest import Visit
from tests.accessibility.keyboard import Keyboard
from tests.accessibility.world import INVITED, NEWCOMER, PASSWORD, World
from workspaces.models import Change, Invitation, Member, Plan, Role, Workspace

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
    keys.open("Change Grace")
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


def test_switching_a_plugin_off(visit: Visit, world: World) -> None:
    page = visit(world.ada)
    keys = Keyboard(page)
    page.goto("/workspaces/trees/plugins/")
    expect(keys.to("checkbox", "Birds")).to_be_checked()
    page.keyboard.press("Space")
    keys.press("button", "Apply")
    change = Change.objects.filter(workspace__slug="trees").latest("pk")
    assert "datasette-birds" not in [one.plugin.name for one in change.wanted.all()]


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
    keys.open("Delete Trees")
    keys.press("button", "Delete workspace")
    # What is wrong has the focus.
    expect(page.get_by_label("Type “trees” to confirm")).to_be_focused()
    page.keyboard.type("trees")
    keys.press("button", "Delete workspace")
    keys.press("button", "Undo the deletion")
    workspace.refresh_from_db()
    assert workspace.deleted_at is None


def test_one_more_step_and_a_new_password(
    visit: Visit, world: World, mailoutbox: list[EmailMessage]
) -> None:
    page = visit()
    keys = Keyboard(page)
    page.goto("/account/login/")
    keys.press("link", "Forgot your password?")
    keys.type("Email", "grace@example.org")
    keys.press("button", "Send the link")
    found = re.search(r"http\S*/password/reset/key/\S+", str(mailoutbox[0].body))
    assert found
    page.goto(found[0])
    for name in ("password1", "password2"):
        field = page.locator(f"input[name={name}]")
        if field.count():
            keys.go_to(field)
            page.keyboard.type(f"{PASSWORD} too")
    keys.press("button", "Save")
    page.goto("/account/login/")
    keys.type("Email", "grace@example.org")
    keys.to("textbox", "Password")
    page.keyboard.type(f"{PASSWORD} too")
    keys.leave()
    expect(page.get_by_role("heading", name="One more step")).to_be_visible()
    keys.type("Code", RecoveryCodes.activate(world.grace).get_unused_codes()[0])
    keys.press("button", "Sign in")
    expect(page.get_by_role("link", name="New workspace")).to_be_visible()


def test_a_name_and_who_may_look(visit: Visit, ada: User) -> None:
    workspace = factories.make_workspace(ada, "trees", name="Trees")
    page = visit(ada)
    keys = Keyboard(page)
    page.goto("/workspaces/trees/")
    keys.type("Name", "Forests")
    keys.press("button", "Rename")
    keys.press("link", "Make it public…")
    keys.press("button", "Make it public")
    workspace.refresh_from_db()
    assert (workspace.name, workspace.is_public) == ("Forests", True)
    keys.press("button", "Make it private")
    keys.press("button", "Let them look for 1 day")
    workspace.refresh_from_db()
    assert (workspace.is_public, workspace.support_access) == (False, True)
    keys.press("button", "Close it now")
    workspace.refresh_from_db()
    assert not workspace.support_access


def test_stopping_starting_and_restarting(visit: Visit, ada: User) -> None:
    instance = factories.make_workspace(ada, "trees", name="Trees").instance
    page = visit(ada)
    keys = Keyboard(page)
    page.goto("/workspaces/trees/")
    keys.press("button", "Stop")
    instance.refresh_from_db()
    assert instance.desired == Desired.STOPPED
    factories.set_status(instance, Status.STOPPED)
    page.reload()
    keys.press("button", "Start", "Space")
    instance.refresh_from_db()
    assert instance.desired == Desired.RUNNING

    other = factories.make_workspace(ada, "birds", name="Birds").instance
    page.goto("/workspaces/birds/")
    keys.press("button", "Restart")
    assert type(other).objects.get(pk=other.pk).revision > other.revision


def test_a_webhook(visit: Visit, ada: User) -> None:
    workspace = factories.make_workspace(ada, "trees", name="Trees")
    page = visit(ada)
    keys = Keyboard(page)
    page.goto("/workspaces/trees/webhooks/")
    keys.go_to(page.get_by_label("Address"))
    page.keyboard.type("https://93.184.216.34/in")
    keys.open("Only some events")
    keys.go_to(page.get_by_role("checkbox").first)
    page.keyboard.press("Space")
    keys.press("button", "Add webhook")
    [webhook] = workspace.webhooks.all()
    assert len(webhook.events) == 1
    keys.press("button", "New secret")
    keys.press("button", "Send a test")
    keys.press("button", "Switch off")
    webhook.refresh_from_db()
    assert not webhook.active
    keys.open("Remove ")
    keys.press("button", "Remove webhook")
    assert not workspace.webhooks.exists()


def test_a_newcomer_accepts(visit: Visit, world: World, mailoutbox: list[EmailMessage]) -> None:
    page = visit()
    keys = Keyboard(page)
    page.goto(f"/invitations/{INVITED}/")
    keys.press("link", "Make an account")
    keys.type("Email", NEWCOMER)
    keys.to("textbox", "Password")
    page.keyboard.type(PASSWORD)
    keys.press("button", "Sign up")
    found = re.search(r"http\S*/confirm-email/\S+", str(mailoutbox[0].body))
    assert found
    page.goto(found[0])
    keys.press("button", "Yes, confirm")
    if page.get_by_role("button", name="Accept").count() == 0:
        page.goto(f"/invitations/{INVITED}/")
    keys.press("button", "Accept")
    assert world.trees.members.count() == 3


def test_handing_over_removing_and_leaving(visit: Visit, ada: User) -> None:
    workspace = factories.make_workspace(ada, "trees", name="Trees")
    grace = factories.make_user("grace@example.org", name="Grace")
    factories.add_member(workspace, grace, Role.EDITOR)
    factories.add_member(workspace, factories.make_user("tim@example.org", name="Tim"), Role.VIEWER)
    page = visit(ada)
    keys = Keyboard(page)
    page.goto("/workspaces/trees/members/")
    keys.open("Change Tim")
    keys.press("button", "Remove Tim")
    keys.open("Hand it over")
    keys.choose("New owner", "Grace")
    keys.press("button", "Hand it over")
    assert workspace.members.get(user=grace).role == Role.OWNER
    keys.press("button", "Leave Trees")
    assert [member.user for member in workspace.members.all()] == [grace]


# Pages that between them have everything that can have the focus.
OF_ALL_KINDS = (
    *("/workspaces/", "/workspaces/trees/", "/workspaces/trees/members/"),
    *("/workspaces/trees/plugins/", "/workspaces/trees/usage/", "/account/", "/account/tokens/"),
)
OF_OPERATORS = (
    *("/admin/", "/admin/workspaces/workspace/", "/admin/workspaces/plan/add/"),
    *("/admin/accounts/auditentry/", "/admin/attention/"),
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_focus_can_be_seen_all_the_way(scheme: str, visit: Visit, world: World) -> None:
    for user, paths in ((world.ada, OF_ALL_KINDS), (world.olga, OF_OPERATORS)):
        page = visit(user, color_scheme=scheme)
        for path in paths:
            page.goto(path)
            assert Keyboard(page).go_through() > 5


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


def test_an_operator_finds_many_and_changes_them(visit: Visit, world: World) -> None:
    plan = Plan.objects.create(name="Large")
    page = visit(world.olga)
    keys = Keyboard(page)
    page.goto("/admin/")
    keys.go_to(page.locator(".numbers a").first)
    keys.leave()
    page.goto(LISTED)
    keys.go_to(page.get_by_role("navigation", name="Filter").get_by_role("link").first)
    page.goto(LISTED)
    for slug in ("trees", "public"):
        keys.go_to(page.get_by_role("row", name=slug).get_by_role("checkbox"))
        page.keyboard.press("Space")
    # The choice of what to do stands above the list.
    keys.go_to(page.locator("select[name=action]"), "Shift+Tab")
    page.keyboard.type("Change plan")
    keys.go_to(page.locator("button[name=index]"))
    keys.leave()
    keys.go_to(page.locator("select[name=plan]"))
    page.keyboard.type("Large")
    keys.go_to(page.locator(".submit-row input[type=submit]"))
    keys.leave()
    changed = Workspace.objects.filter(plan=plan)
    assert {workspace.slug for workspace in changed} == {"trees", "public"}


def test_an_operator_takes_the_audit_log_along(visit: Visit, world: World) -> None:
    page = visit(world.olga)
    keys = Keyboard(page)
    page.goto("/admin/accounts/auditentry/")
    keys.to("link", "As CSV")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".csv")
