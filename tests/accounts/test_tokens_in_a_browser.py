"""Making and revoking API tokens, in a real browser."""

import pytest
from playwright.sync_api import Page, expect

from accounts import api_tokens
from accounts.models import User
from tests.accounts.conftest import MakeUser
from tests.accounts.people import press, prove, sign_in
from tests.browser import NewPage

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada(make_user: MakeUser) -> User:
    return make_user()


def make_token(page: Page, site: str, name: str) -> str:
    """Go through the page; return the token that it shows."""
    page.goto(f"{site}/account/")
    page.get_by_role("link", name="API tokens").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Change which plugins a workspace has").check()
    press(page, "Make token")
    prove(page)
    return page.locator("#new-token").inner_text()


def test_a_token_is_shown_copied_and_revoked(page: Page, site: str, ada: User) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sign_in(page, site)
    text = make_token(page, site, "ci")
    token = api_tokens.find(text)
    assert token
    assert (token.user, token.scopes) == (ada, ["read", "plugins"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == text
    assert text not in page.url

    page.goto(f"{site}/account/tokens/")
    expect(page.get_by_text(token.hint)).to_be_visible()
    expect(page.get_by_text(text)).to_be_hidden()
    page.get_by_role("button", name="Revoke ci").click()
    expect(page.get_by_text("“ci” is revoked.")).to_be_visible()
    assert api_tokens.find(text) is None


def test_it_works_without_javascript(new_page: NewPage, site: str, ada: User) -> None:
    page = new_page(java_script_enabled=False)
    sign_in(page, site)
    assert api_tokens.find(make_token(page, site, "ci"))
    expect(page.get_by_role("button", name="Copy")).to_be_hidden()
