"""Authenticator app, recovery codes and passkeys, in a real browser with a virtual key."""

import base64
import hashlib
import hmac
import struct
import time

import pytest
from allauth.mfa.models import Authenticator
from django.core.mail import EmailMessage
from playwright.sync_api import Page, expect
from pytest_django import Settings

from accounts.models import User
from tests.accessibility.axe import demand_nothing_wrong
from tests.accounts.conftest import PASSWORD, MakeUser
from tests.accounts.people import is_signed_in, link_in, press, prove, sign_in
from tests.browser import NewPage

PERIOD = 30  # seconds for which an app shows a code

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada(make_user: MakeUser) -> User:
    return make_user()


@pytest.fixture(autouse=True)
def codes_are_good_for_long(settings: Settings) -> None:
    """A busy machine may need longer to type one in than an app shows it."""
    settings.MFA_TOTP_TOLERANCE = 4  # codes before and after the one that is shown now


def code_of(secret: str) -> str:
    """What an authenticator app shows now (RFC 6238)."""
    counter = struct.pack(">Q", int(time.time() // PERIOD))
    digest = hmac.new(base64.b32decode(secret), counter, hashlib.sha1).digest()
    start = digest[-1] & 0x0F
    number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFFFFFF
    return f"{number % 1_000_000:06}"


def set_up_app(page: Page, site: str) -> str:
    """Switch the authenticator app on; return its secret."""
    page.goto(f"{site}/account/2fa/totp/activate/")
    prove(page)
    page.get_by_role("img", name="QR code").wait_for()
    page.get_by_text("Type it in instead").click()
    secret = page.locator("#authenticator_secret").inner_text()
    page.get_by_label("code").fill(code_of(secret))
    press(page, "Switch on")
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    return secret


def plug_in_key(page: Page) -> None:
    """Give the browser a virtual authenticator, like a phone or laptop has one built in."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    session.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserVerified": True,
                "automaticPresenceSimulation": True,
            }
        },
    )


def add_key(page: Page, site: str, *, passwordless: bool) -> None:
    """Add a key to the account."""
    page.goto(f"{site}/account/2fa/webauthn/add/")
    prove(page)
    page.get_by_label("Name").fill("My laptop")
    page.get_by_label("Sign in with it alone").set_checked(passwordless)
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()


def test_app_and_recovery_codes(  # noqa: PLR0917 - fixtures
    page: Page,
    new_page: NewPage,
    site: str,
    ada: User,
    mailoutbox: list[EmailMessage],
    settings: Settings,
) -> None:
    sign_in(page, site)
    secret = set_up_app(page, site)
    codes = page.locator("#recovery_codes code").all_inner_texts()
    assert len(codes) == 10
    assert "Authenticator app switched on at cloudapp" in [mail.subject for mail in mailoutbox]

    phone = new_page()
    sign_in(phone, site)
    phone.get_by_role("heading", name="One more step").wait_for()
    assert not is_signed_in(phone, site)
    phone.goto(f"{site}/account/2fa/authenticate/")
    phone.get_by_label("Code").fill("000000")
    press(phone, "Sign in")
    expect(phone.get_by_text("That code is not right.")).to_be_visible()
    code = code_of(secret)
    phone.get_by_label("Code").fill(code)
    press(phone, "Sign in")
    assert is_signed_in(phone, site)

    settings.MFA_TOTP_TOLERANCE = 0  # as it is: a code is remembered for as long as it is shown
    watcher = new_page()
    sign_in(watcher, site)
    watcher.get_by_label("Code").fill(code)
    press(watcher, "Sign in")
    assert not is_signed_in(watcher, site), "a code works once"

    lost = new_page()
    sign_in(lost, site)
    lost.get_by_label("Code").fill(codes[0])
    press(lost, "Sign in")
    lost.wait_for_url(f"{site}/workspaces/**")
    again = new_page()
    sign_in(again, site)
    again.get_by_label("Code").fill(codes[0])
    press(again, "Sign in")
    expect(again.get_by_text("That code is not right.")).to_be_visible()

    page.goto(f"{site}/account/2fa/totp/deactivate/")
    press(page, "Switch off")
    expect(page.get_by_text("The authenticator app is off.")).to_be_visible()
    assert not Authenticator.objects.filter(type="totp").exists()


def test_sign_in_with_a_passkey_alone(page: Page, site: str, ada: User) -> None:
    plug_in_key(page)
    sign_in(page, site)
    add_key(page, site, passwordless=True)
    page.context.clear_cookies()
    page.goto(f"{site}/account/login/?next=/account/profile/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page).to_have_url(f"{site}/account/profile/")
    page.goto(f"{site}/account/2fa/webauthn/")
    page.get_by_role("link", name="Rename").click()
    prove(page)
    page.get_by_label("Name").fill("Old laptop")
    press(page, "Save")
    page.get_by_role("link", name="Remove Old laptop").click()
    press(page, "Remove")
    expect(page.get_by_text("None yet.")).to_be_visible()
    assert not Authenticator.objects.filter(type="webauthn").exists()


def test_a_security_key_after_the_password(page: Page, site: str, ada: User) -> None:
    plug_in_key(page)
    sign_in(page, site)
    add_key(page, site, passwordless=False)
    page.context.clear_cookies()
    sign_in(page, site)
    page.get_by_role("heading", name="One more step").wait_for()
    page.get_by_role("button", name="Use a passkey or security key").click()
    page.wait_for_url(f"{site}/workspaces/**")
    page.goto(f"{site}/account/2fa/recovery-codes/generate/")
    page.get_by_role("link", name="security key").click()
    page.get_by_role("button", name="Use a passkey or security key").wait_for()
    demand_nothing_wrong(page)
    page.get_by_role("button", name="Use a passkey or security key").click()
    expect(page.get_by_role("heading", name="Make new recovery codes?")).to_be_visible()


def test_without_a_key_the_page_says_what_to_do(page: Page, site: str, ada: User) -> None:
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    page.goto(f"{site}/account/login/")
    page.evaluate("navigator.credentials.get = () => Promise.reject(new Error('none')), 0")
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page.get_by_text("That did not work.")).to_be_visible()


def test_a_reset_does_not_get_round_the_second_factor(
    page: Page, new_page: NewPage, site: str, ada: User, mailoutbox: list[EmailMessage]
) -> None:
    sign_in(page, site)
    set_up_app(page, site)
    mailoutbox.clear()
    thief = new_page()
    thief.goto(f"{site}/account/login/")
    thief.get_by_role("link", name="Forgot your password?").click()
    thief.get_by_label("Email").fill("ada@example.com")
    press(thief, "Send the link")
    thief.get_by_role("heading", name="Check your mail").wait_for()
    thief.goto(link_in(mailoutbox[0]))
    thief.get_by_label("New password", exact=True).fill("another good one")
    thief.get_by_label("New password, once more").fill("another good one")
    press(thief, "Save")
    thief.get_by_role("heading", name="Now sign in with it").wait_for()
    assert not is_signed_in(page, site), "a reset signs everybody out"
    sign_in(thief, site, word="another good one")
    thief.get_by_role("heading", name="One more step").wait_for()
    assert not is_signed_in(thief, site)


def test_signing_out_the_others(page: Page, new_page: NewPage, site: str, ada: User) -> None:
    sign_in(page, site)
    other = new_page(user_agent="Somebody else's browser")
    sign_in(other, site)
    other.wait_for_url(f"{site}/workspaces/**")
    page.goto(f"{site}/account/sessions/")
    expect(page.get_by_text("Somebody else's browser")).to_be_visible()
    press(page, "Sign out the others")
    expect(page.get_by_text("The others are signed out.")).to_be_visible()
    expect(page.get_by_text("Somebody else's browser")).to_be_hidden()
    assert not is_signed_in(other, site)
    assert is_signed_in(page, site)


def test_several_addresses(
    page: Page, site: str, ada: User, mailoutbox: list[EmailMessage]
) -> None:
    sign_in(page, site)
    page.goto(f"{site}/account/email/")
    page.get_by_label("Email").fill("countess@example.com")
    page.get_by_role("button", name="Add").click()
    prove(page)
    expect(page.get_by_text("Not confirmed")).to_be_visible()
    page.goto(link_in(mailoutbox[0]))
    press(page, "Yes, confirm")
    page.goto(f"{site}/account/email/")
    page.get_by_role("button", name="Make primary countess@example.com").click()
    expect(page.get_by_text("That is your primary address now.")).to_be_visible()
    page.get_by_role("button", name="Remove ada@example.com").click()
    expect(page.get_by_text("ada@example.com is removed.")).to_be_visible()
    page.context.clear_cookies()
    sign_in(page, site, "countess@example.com", PASSWORD)
    page.wait_for_url(f"{site}/workspaces/**")


def test_a_display_name(page: Page, site: str, ada: User) -> None:
    sign_in(page, site)
    page.goto(f"{site}/account/")
    page.get_by_role("link", name="Profile", exact=True).first.click()
    page.get_by_label("Display name").fill("Ada")
    press(page, "Save")
    expect(page.get_by_text("Your profile is saved.")).to_be_visible()
    assert User.objects.get().display_name == "Ada"
