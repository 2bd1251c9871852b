"""The pages in a real browser: progress without a reload, a slug that follows the name."""

import re

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from accounts.models import User
from deploy import lifecycle
from deploy.states import Status
from tests import factories
from workspaces import services
from workspaces.models import Role, Workspace

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("ready"),
]


@pytest.fixture
def at(page: Page, live_server: LiveServer, owner: User) -> str:
    """Sign the owner in, in the browser; return our address."""
    client = Client()
    client.force_login(owner)
    key = client.cookies[settings.SESSION_COOKIE_NAME].value
    page.context.add_cookies(
        [{"name": settings.SESSION_COOKIE_NAME, "value": key, "url": live_server.url}]
    )
    return str(live_server.url)


def test_the_slug_follows_the_name_until_somebody_edits_it(page: Page, at: str) -> None:
    factories.make_workspace(factories.make_user(), "trees-of-lisbon")
    page.goto(f"{at}/workspaces/")
    page.get_by_role("link", name="New workspace").click()
    name, slug = page.get_by_label("Name"), page.get_by_label("Address")
    expect(name).to_be_focused()
    name.press_sequentially("Trees of Lisbon")
    expect(slug).to_have_value("trees-of-lisbon-2")
    expect(page.get_by_text("This address is free.")).to_be_visible()
    slug.fill("admin")
    expect(page.get_by_text("“admin” is reserved")).to_be_visible()
    slug.fill("my-trees")
    expect(page.get_by_text("This address is free.")).to_be_visible()
    with page.expect_response(re.compile("/new/slug/")):
        name.press_sequentially("!")
    expect(slug).to_have_value("my-trees")
    page.get_by_role("button", name="Create workspace").click()
    expect(page).to_have_url(f"{at}/workspaces/my-trees/")
    assert Workspace.objects.filter(slug="my-trees", name__contains="Trees of Lisbon").exists()


def test_progress_is_live_without_a_reload(page: Page, at: str, owner: User) -> None:
    workspace = services.create_workspace(owner, "Trees", "trees")
    instance = workspace.instance
    page.goto(f"{at}/workspaces/trees/")
    page.evaluate("window.sameDocument = true")
    bar = page.get_by_role("progressbar", name="Creating")
    expect(bar).to_have_attribute("value", "0")
    for done, kind in enumerate(("create", "start"), start=2):
        factories.add_event(instance, kind, duration_ms=12)
        lifecycle.poke(instance.pk)
        expect(bar).to_have_attribute("value", str(done))
    factories.set_status(instance, Status.RUNNING)
    lifecycle.poke(instance.pk)
    expect(page.get_by_role("link", name="Open")).to_be_visible()
    expect(bar).to_have_count(0)
    expect(page.locator("#announce")).to_contain_text("up and answers")
    # Focus stays where it is while the page changes under it.
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Let it finish")).to_be_visible()
    page.evaluate("window.sameDocument = true")
    factories.set_status(instance, Status.STOPPED)
    lifecycle.poke(instance.pk)
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    assert page.evaluate("window.sameDocument") is True


def test_deleting_wants_the_slug_and_is_undone(page: Page, at: str, owner: User) -> None:
    factories.make_workspace(owner, "trees", name="Trees")
    page.goto(f"{at}/workspaces/trees/")
    page.get_by_text("Delete Trees…").click()
    page.get_by_role("button", name="Delete workspace").click()
    expect(page.get_by_text("Type the address “trees” to confirm.")).to_be_visible()
    page.get_by_label("Type “trees” to confirm").fill("trees")
    page.get_by_role("button", name="Delete workspace").click()
    page.get_by_role("link", name="Workspaces").click()
    page.get_by_role("button", name="Undo the deletion of Trees").click()
    expect(page).to_have_url(f"{at}/workspaces/trees/")
    expect(page.get_by_text("coming up")).to_be_visible()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_sticks_out_sideways_and_targets_are_big_enough(
    page: Page, at: str, owner: User, width: int
) -> None:
    long = factories.make_workspace(owner, "x" * 40, name="A very long name " * 4)
    factories.add_member(long, factories.make_user("a" * 50 + "@example.org"), Role.VIEWER)
    factories.make_workspace(owner, "gone", status=Status.DELETING)
    page.set_viewport_size({"width": width, "height": 800})
    inside = [f"/workspaces/{long.slug}/{part}" for part in ("", "activity/", "logs/")]
    for path in ("/workspaces/", "/workspaces/new/", *inside):
        page.goto(at + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        small = page.evaluate(
            """() => [...document.querySelectorAll("button, summary, input, .button, .nav__link")]
            .filter(e => e.offsetParent && (e.offsetWidth < 24 || e.offsetHeight < 24))
            .map(e => e.outerHTML)"""
        )
        assert small == [], path
