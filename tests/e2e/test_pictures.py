"""The docs' pictures of customers' pages: what the product really shows, with names people read."""

import pytest
from playwright.sync_api import expect

from cloudapp.local.product import Product
from tests.browser import PICTURES, NewPage, picture
from tests.e2e.conftest import Person
from tests.e2e.test_plugins import apply

pytestmark = pytest.mark.skipif(not PICTURES, reason="only when the docs' pictures are made anew")


def make(person: Person, name: str, slug: str) -> None:
    """Make a workspace and wait until it runs."""
    person.go("/workspaces/new/")
    person.page.fill("input[name=name]", name)
    expect(person.page.locator("input[name=slug]")).to_have_value(slug)
    person.page.get_by_role("button", name="Create workspace").click()
    person.page.wait_for_url(f"**/workspaces/{slug}/")
    person.status(becomes="running")


def test_pictures_of_what_customers_see(product: Product, new_page: NewPage) -> None:
    window = {"width": 1280, "height": 760}
    ada = Person(product, new_page(viewport=window, device_scale_factor=1.5), "ada@example.org")
    ada.sign_up()
    ada.go("/account/profile/")
    ada.page.get_by_label("Display name").fill("Ada Lovelace")
    ada.page.get_by_role("button", name="Save").click()
    make(ada, "Weather stations", "weather-stations")
    ada.page.click("#do-restart")

    make(ada, "Trees of Lisbon", "trees-of-lisbon")
    apply(ada, "trees-of-lisbon", "datasette-enrichments-python", "datasette-vega")
    ada.go("/workspaces/trees-of-lisbon/plugins/")
    picture(ada.page, "plugins.png")

    # By now its disk was measured.
    ada.go("/workspaces/weather-stations/")
    ada.status(becomes="running")
    expect(ada.page.locator("#disk")).to_be_visible()
    picture(ada.page, "workspace.png")
