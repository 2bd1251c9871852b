"""Teams in the running product: people are invited, get roles, and everybody may look in."""

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Response, expect

from cloudapp.local.product import Product
from tests.browser import NewPage
from tests.e2e.conftest import PASSWORD, Person, mailed_link

SOON_SECONDS = 60.0


@pytest.fixture
def newcomer(product: Product, new_page: NewPage) -> Person:
    """Somebody who has no account yet."""
    return Person(product, new_page(), f"grace-{time.monotonic_ns()}@example.org")


@pytest.fixture
def slug(person: Person) -> str:
    """The workspace of a new customer; it runs."""
    person.sign_up()
    person.go("/workspaces/new/")
    slug = f"team-{time.monotonic_ns()}"
    person.page.fill("input[name=name]", slug)
    expect(person.page.locator("input[name=slug]")).to_have_value(slug)
    person.page.get_by_role("button", name="Create workspace").click()
    person.page.wait_for_url(f"**/workspaces/{slug}/")
    person.status(becomes="running")
    return slug


def soon(look: Callable[[], bool], what: str) -> None:
    """Wait for what the router hears of within seconds."""
    deadline = time.monotonic() + SOON_SECONDS
    while not look():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def opened(page: Page, address: str) -> Response:
    answer = page.goto(address)
    assert answer is not None
    return answer


def invite(owner: Person, slug: str, somebody: Person, role: str) -> str:
    """Invite somebody on the page of members; return the link that they got."""
    owner.go(f"/workspaces/{slug}/members/")
    owner.page.fill("#id_email", somebody.email)
    owner.page.select_option("#id_role", role)
    owner.page.click("#do-invite")
    expect(owner.page.locator("main")).to_contain_text("An invitation is on its way")
    return mailed_link(owner.product.mail, somebody.email, "/invitations/")


def give_role(owner: Person, slug: str, somebody: Person, role: str) -> None:
    owner.go(f"/workspaces/{slug}/members/")
    row = owner.page.locator(".list__item", has_text=somebody.email)
    row.locator("summary").click()
    row.locator("select").select_option(role)
    row.get_by_role("button", name="Change role").click()
    expect(owner.page.locator("main")).to_contain_text("The role is changed")


def test_people_come_in_and_roles_are_felt_in_datasette(
    person: Person, slug: str, stranger: Person, newcomer: Person
) -> None:
    # Somebody with an account is led through signing in, and comes in as a viewer.
    stranger.sign_up()
    stranger.sign_out()
    stranger.page.goto(invite(person, slug, stranger, "viewer"))
    stranger.page.click("#to-login")
    stranger.page.fill("input[name=login]", stranger.email)
    stranger.page.fill("input[name=password]", PASSWORD)
    stranger.page.click("main button[type=submit]")
    stranger.page.click("#do-accept")
    stranger.page.wait_for_url(f"**/workspaces/{slug}/")

    # Somebody without one signs up, confirms the address, and is back at the invitation.
    newcomer.page.goto(link := invite(person, slug, newcomer, "editor"))
    newcomer.page.click("#to-signup")
    newcomer.page.fill("input[name=email]", newcomer.email)
    newcomer.page.fill("input[name=password1]", PASSWORD)
    newcomer.page.click("main button[type=submit]")
    newcomer.page.goto(mailed_link(newcomer.product.mail, newcomer.email, "confirm-email"))
    newcomer.page.click("main button[type=submit]")
    newcomer.page.wait_for_url(re.compile("/invitations/"))
    newcomer.page.click("#do-accept")
    newcomer.page.wait_for_url(f"**/workspaces/{slug}/")
    # The link has done its work.
    assert opened(newcomer.page, link).status == 404

    # The editor may upload, the viewer may not, until an owner decides otherwise.
    upload = person.address(slug, "/-/upload-csvs")
    assert opened(newcomer.page, upload).status == 200
    assert opened(stranger.page, person.address(slug)).status == 200
    assert opened(stranger.page, upload).status == 403
    give_role(person, slug, stranger, "editor")
    soon(lambda: opened(stranger.page, upload).status == 200, "an editor uploads")
    give_role(person, slug, newcomer, "viewer")
    soon(lambda: opened(newcomer.page, upload).status == 403, "a viewer does not")

    # Who is taken out is out, also of the running Datasette.
    person.go(f"/workspaces/{slug}/members/")
    row = person.page.locator(".list__item", has_text=newcomer.email)
    row.locator("summary").click()
    row.get_by_role("button", name="Remove").click()
    soon(
        lambda: opened(newcomer.page, person.address(slug)).status == 404, "who was removed is out"
    )


def test_everybody_looks_in_until_it_is_closed_again(
    person: Person, slug: str, new_page: NewPage
) -> None:
    visitor, here = new_page(), person.address(slug)
    visitor.goto(here)
    assert "/account/login/" in visitor.url

    person.page.click("#to-visibility")
    person.page.click("#do-public")
    expect(person.page.locator("#public")).to_contain_text("This workspace is public")
    soon(lambda: opened(visitor, here).url == here, "a visitor is let in")
    expect(visitor.locator("body")).to_contain_text("Datasette")
    assert opened(visitor, person.address(slug, "/data.json")).status == 200
    for path in ("/-/upload-csvs", "/-/plugins", "/-/settings"):
        assert opened(visitor, person.address(slug, path)).status == 403
    posted = visitor.evaluate("fetch('/-/upload-dbs', {method: 'POST'}).then(r => r.status)")
    assert posted == 403

    # Its owner goes in as an owner, and is told there too.
    person.page.click("#do-open")
    person.page.wait_for_url(here)
    expect(person.page.locator("body")).to_contain_text("This workspace is public")
    assert opened(person.page, person.address(slug, "/-/upload-csvs")).status == 200

    person.go(f"/workspaces/{slug}/")
    person.page.click("#back-to-private")
    expect(person.page.locator("main")).to_contain_text("It is private again")

    def shut_out() -> bool:
        visitor.goto(here)
        return "/account/login/" in visitor.url

    soon(shut_out, "a visitor is shut out")
