"""What people do in a browser."""

import re

from django.core.mail import EmailMessage
from playwright.sync_api import Page

from tests.accounts.conftest import PASSWORD


def press(page: Page, name: str) -> None:
    """Press the button and wait for the page that it leads to."""
    with page.expect_navigation():
        page.get_by_role("button", name=name, exact=True).click()


def sign_in(page: Page, site: str, email: str = "ada@example.com", word: str = PASSWORD) -> None:
    """Fill in the sign-in form."""
    page.goto(f"{site}/account/login/")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(word)
    press(page, "Sign in")


def prove(page: Page, word: str = PASSWORD) -> None:
    """Answer the question for the password in front of what matters."""
    page.get_by_role("heading", name="Is it you?").wait_for()
    page.get_by_label("Password").fill(word)
    press(page, "Go on")


def is_signed_in(page: Page, site: str) -> bool:
    """Whether the account page opens."""
    page.goto(f"{site}/account/")
    return page.url == f"{site}/account/"


def link_in(message: EmailMessage) -> str:
    """Return the first link of a mail that leads to one thing to do."""
    found = re.search(r"http\S*/(?:confirm-email|password/reset/key)/\S+", str(message.body))
    assert found, message.body
    return found[0]
