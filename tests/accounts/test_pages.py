"""What pages are made of, and that they obey the Content-Security-Policy."""

import pytest
from playwright.sync_api import Page, expect

from accounts.templatetags.accounts import browser_name
from tests.accounts.conftest import MakeUser
from tests.accounts.people import sign_in


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/140.0.0.0 Safari/537.36",
            "Chrome on Linux",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 "
            "(KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
            "Safari on iPhone",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Firefox on Mac",
        ),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", "A browser that does not say its name"),
    ],
)
def test_browser_names(user_agent: str, name: str) -> None:
    assert browser_name(user_agent) == name


@pytest.mark.django_db(transaction=True)
def test_operators_pages_obey_the_policy(page: Page, site: str, make_user: MakeUser) -> None:
    """The fixture `page` fails on what the policy forbids."""
    user = make_user()
    user.is_staff = user.is_superuser = True
    user.save()
    page.goto(f"{site}/admin/")
    sign_in(page, site)
    for path in (
        "",
        "accounts/user/",
        "accounts/user/add/",
        f"accounts/user/{user.pk}/change/",
        "accounts/apitoken/",
    ):
        page.goto(f"{site}/admin/{path}")
        expect(page.get_by_role("heading", level=1).first).to_be_visible()
