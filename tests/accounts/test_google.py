"""Signing in with Google, in a real browser and against a provider that signs real ID tokens."""

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.core import mail
from django.core.mail import EmailMessage
from playwright.sync_api import Page, expect
from pytest_django import Settings

from accounts.google.provider import GoogleProvider
from accounts.models import User
from tests.accessibility.axe import demand_nothing_wrong
from tests.accounts.conftest import PASSWORD, MakeUser
from tests.accounts.oidc_provider import Person, Provider
from tests.accounts.people import is_signed_in, link_in, press, prove, sign_in
from tests.browser import NewPage

pytestmark = pytest.mark.django_db(transaction=True)

ADA = Person("1815", "ada@example.com", name="Ada Lovelace")
AUGUSTA = Person("1852", "augusta@example.com", name="Augusta King")


def come_by_google(page: Page, site: str, person: Person, provider: Provider) -> None:
    """Sign in, or up, as a person at the provider."""
    provider.person = person
    page.goto(f"{site}/account/login/")
    press(page, "Continue with Google")
    with page.expect_navigation():
        page.get_by_role("link", name="Continue as").click()


def connect(page: Page, site: str, person: Person, provider: Provider) -> None:
    """Connect a Google account to the one that is signed in."""
    provider.person = person
    page.goto(f"{site}/account/3rdparty/")
    page.get_by_role("button", name="Google account").click()
    with page.expect_navigation():
        page.get_by_role("link", name="Continue as").click()


def heading(page: Page) -> str:
    """What the page is about."""
    return page.get_by_role("heading", level=1).inner_text()


def test_sign_up_and_sign_in_again(
    page: Page, new_page: NewPage, site: str, provider: Provider
) -> None:
    come_by_google(page, site, ADA, provider)
    page.wait_for_url(f"{site}/workspaces/**")
    user = User.objects.get()
    assert (user.email, user.display_name) == ("ada@example.com", "Ada Lovelace")
    assert EmailAddress.objects.get().verified
    assert not user.has_usable_password()
    come_by_google(new_page(), site, ADA, provider)
    assert User.objects.count() == 1
    sent = provider.requests
    assert sent[0]["nonce"] != sent[1]["nonce"]
    assert sent[0]["code_challenge"] != sent[1]["code_challenge"]
    assert SocialAccount.objects.get().extra_data.keys() == {
        "sub",
        "email",
        "email_verified",
        "name",
    }


def test_go_where_one_wanted_to_go(page: Page, site: str, provider: Provider) -> None:
    provider.person = ADA
    page.goto(f"{site}/account/profile/")
    page.get_by_role("button", name="Continue with Google").click()
    page.get_by_role("link", name="Continue as").click()
    expect(page).to_have_url(f"{site}/account/profile/")


def test_connect_and_disconnect(
    page: Page,
    new_page: NewPage,
    site: str,
    provider: Provider,
    make_user: MakeUser,
) -> None:
    user = make_user("countess@example.com")
    sign_in(page, site, "countess@example.com")
    connect(page, site, ADA, provider)
    prove(page)
    expect(page.get_by_text("The Google account is connected.")).to_be_visible()
    connect(page, site, AUGUSTA, provider)
    expect(page.get_by_role("button", name="Disconnect augusta@example.com")).to_be_visible()
    assert provider.requests[-1]["prompt"] == "select_account"
    assert SocialAccount.objects.filter(user=user).count() == 2
    other = new_page()
    come_by_google(other, site, AUGUSTA, provider)
    other.wait_for_url(f"{site}/workspaces/**")
    assert is_signed_in(other, site)
    page.get_by_role("button", name="Disconnect ada@example.com").click()
    expect(page.get_by_text("The Google account is disconnected.")).to_be_visible()
    page.get_by_role("button", name="Disconnect augusta@example.com").click()
    expect(page.get_by_text("None is connected.")).to_be_visible()
    assert User.objects.get() == user
    assert [sent.subject for sent in mail.outbox] == [
        "A Google account was connected to your cloudapp account",
        "A Google account was connected to your cloudapp account",
        "A Google account was disconnected from your cloudapp account",
        "A Google account was disconnected from your cloudapp account",
    ]
    assert "ada@example.com" in mail.outbox[0].body


def test_the_last_way_in_stays(page: Page, site: str, provider: Provider) -> None:
    come_by_google(page, site, ADA, provider)
    page.goto(f"{site}/account/3rdparty/")
    page.get_by_role("button", name="Disconnect").click()
    expect(page.get_by_role("alert")).to_contain_text("your only way to sign in")
    connect(page, site, AUGUSTA, provider)
    page.get_by_role("button", name="Disconnect ada@example.com").click()
    expect(page.get_by_text("The Google account is disconnected.")).to_be_visible()
    page.goto(f"{site}/account/password/change/")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password (again)").fill(PASSWORD)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Your password is saved.")).to_be_visible()
    page.goto(f"{site}/account/3rdparty/")
    page.get_by_role("button", name="Disconnect").click()
    prove(page)
    expect(page.get_by_text("None is connected.")).to_be_visible()


def test_somebody_elses_google_account_is_not_taken(
    page: Page, new_page: NewPage, site: str, provider: Provider, make_user: MakeUser
) -> None:
    come_by_google(page, site, ADA, provider)
    make_user("eve@example.com")
    eve = new_page()
    sign_in(eve, site, "eve@example.com")
    connect(eve, site, ADA, provider)
    prove(eve)
    expect(eve.get_by_text("belongs to another account here")).to_be_visible()
    assert SocialAccount.objects.get().user.email == "ada@example.com"


def test_an_account_with_the_same_address_is_not_joined(
    page: Page, site: str, provider: Provider, make_user: MakeUser
) -> None:
    user = make_user("ada@example.com")
    come_by_google(page, site, ADA, provider)
    assert heading(page) == "You have an account already"
    assert not SocialAccount.objects.exists()
    page.get_by_role("link", name="Sign in and connect it").click()
    page.get_by_label("Email").fill("ada@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page).to_have_url(f"{site}/account/3rdparty/")
    page.get_by_role("button", name="Connect a Google account").click()
    page.get_by_role("link", name="Continue as").click()
    prove(page)
    page.get_by_role("button", name="Disconnect ada@example.com").wait_for()
    assert SocialAccount.objects.get().user == user


@pytest.mark.parametrize("unverified", [False, "false", "true", None])
def test_an_unverified_address_that_belongs_to_somebody_else_is_not_taken_over(
    page: Page,
    site: str,
    provider: Provider,
    make_user: MakeUser,
    unverified: object,
) -> None:
    make_user("ada@example.com")
    eve = Person("666", "ada@example.com", email_verified=unverified)
    come_by_google(page, site, eve, provider)
    assert heading(page) == "Check your mail", "the same as for an address that is nobody's"
    assert not is_signed_in(page, site)
    assert not SocialAccount.objects.exists()
    assert User.objects.count() == 1
    assert mail.outbox[0].to == ["ada@example.com"]
    assert mail.outbox[0].subject == "You already have an account at cloudapp"
    assert "sign in first" in mail.outbox[0].body


def test_an_unverified_address_is_verified_by_mail(
    page: Page,
    new_page: NewPage,
    site: str,
    provider: Provider,
    mailoutbox: list[EmailMessage],
) -> None:
    come_by_google(page, site, Person("1", "ada@example.com", email_verified=False), provider)
    assert heading(page) == "Check your mail"
    assert not is_signed_in(page, site)
    owner = new_page()
    owner.goto(link_in(mailoutbox[0]))
    assert heading(owner) == "Sign in first", "whoever clicks on the link need not be who came"
    assert not EmailAddress.objects.get().verified
    page.goto(link_in(mailoutbox[0]))
    press(page, "Yes, confirm")
    page.wait_for_url(f"{site}/workspaces/**")
    assert EmailAddress.objects.get().verified


def test_who_signed_up_with_a_victims_address_gets_nothing(
    page: Page,
    new_page: NewPage,
    site: str,
    provider: Provider,
    mailoutbox: list[EmailMessage],
) -> None:
    """The victim comes by Google later: their account opens for nobody else."""
    attacker = new_page()
    attacker.goto(f"{site}/account/signup/")
    attacker.get_by_label("Email").fill("ada@example.com")
    attacker.get_by_label("Password").fill("what the attacker knows")
    press(attacker, "Sign up")
    attacker.get_by_role("heading", name="Check your mail").wait_for()
    come_by_google(page, site, ADA, provider)
    page.wait_for_url(f"{site}/workspaces/**")
    victim = User.objects.get()
    assert not victim.has_usable_password()
    assert EmailAddress.objects.get().user == victim
    sign_in(attacker, site, "ada@example.com", "what the attacker knows")
    expect(attacker.get_by_role("alert")).to_contain_text("do not go together")
    attacker.goto(link_in(mailoutbox[0]))
    assert heading(attacker) == "This link does not work"
    assert not is_signed_in(attacker, site)


def test_who_added_a_victims_address_to_their_account_gets_nothing(
    page: Page, site: str, provider: Provider, make_user: MakeUser
) -> None:
    attacker = make_user("eve@example.com")
    EmailAddress.objects.create(user=attacker, email="ada@example.com")
    come_by_google(page, site, ADA, provider)
    page.wait_for_url(f"{site}/workspaces/**")
    address = EmailAddress.objects.get(email="ada@example.com")
    assert address.user != attacker
    assert address.verified
    assert User.objects.filter(pk=attacker.pk).exists()


def test_two_unproven_claims_do_not_meet(
    page: Page, site: str, provider: Provider, mailoutbox: list[EmailMessage]
) -> None:
    """Neither Google nor we know whose the address is: ask, and let the mail decide."""
    pending = User.objects.create_user("what the attacker knows")
    EmailAddress.objects.create(user=pending, email="ada@example.com", primary=True)
    come_by_google(page, site, Person("1", "ada@example.com", email_verified=False), provider)
    assert heading(page) == "One more thing"
    assert page.get_by_label("Email").input_value() == "ada@example.com"
    press(page, "Sign up")
    assert heading(page) == "Check your mail"
    page.goto(link_in(mailoutbox[0]))
    press(page, "Yes, confirm")
    page.wait_for_url(f"{site}/workspaces/**")
    assert EmailAddress.objects.get().user == SocialAccount.objects.get().user
    assert not User.objects.filter(pk=pending.pk).exists()


def test_no_address_at_all(
    page: Page, site: str, provider: Provider, mailoutbox: list[EmailMessage]
) -> None:
    come_by_google(page, site, Person("1", ""), provider)
    assert heading(page) == "One more thing"
    demand_nothing_wrong(page)
    page.get_by_label("Email").fill("ada@example.com")
    press(page, "Sign up")
    page.goto(link_in(mailoutbox[0]))
    press(page, "Yes, confirm")
    page.wait_for_url(f"{site}/workspaces/**")
    assert User.objects.get().email == "ada@example.com"


def test_a_deactivated_user_stays_out(page: Page, site: str, provider: Provider) -> None:
    come_by_google(page, site, ADA, provider)
    page.wait_for_url(f"{site}/workspaces/**")
    user = User.objects.get()
    user.is_active = False
    user.save()
    come_by_google(page, site, ADA, provider)
    assert heading(page) == "This account is switched off"


@pytest.mark.parametrize(
    "fault",
    [
        "issuer",
        "audience",
        "party",
        "nonce",
        "no_nonce",
        "state",
        "expired",
        "signature",
        "unsigned",
        "hmac",
        "unknown_key",
        "no_token",
        "token_error",
    ],
)
def test_what_is_wrong_is_refused(page: Page, site: str, provider: Provider, fault: str) -> None:
    provider.fault = fault
    come_by_google(page, site, ADA, provider)
    assert heading(page) == "Signing in with Google did not work"
    assert not is_signed_in(page, site)
    assert not User.objects.exists()
    provider.fault = ""
    come_by_google(page, site, ADA, provider)
    page.wait_for_url(f"{site}/workspaces/**")


def test_a_code_from_another_browser_is_refused(
    page: Page, new_page: NewPage, site: str, provider: Provider
) -> None:
    """Nobody can be signed in as somebody else by a link."""
    eve = new_page()
    provider.person = Person("666", "eve@example.com")
    eve.goto(f"{site}/account/login/")
    eve.get_by_role("button", name="Continue with Google").click()
    link = eve.get_by_role("link", name="Continue as").get_attribute("href")
    page.goto(str(link))
    assert heading(page) == "Signing in with Google did not work"
    assert not is_signed_in(page, site)


def test_a_link_cannot_choose_what_is_sent(page: Page, site: str, provider: Provider) -> None:
    provider.person = ADA
    page.goto(f"{site}/account/google/login/?auth_params=nonce%3Dknown%26prompt%3Dnone&scope=drive")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("link", name="Continue as").click()
    page.wait_for_url(f"{site}/workspaces/**")
    assert provider.requests[0]["nonce"] != "known"
    assert "prompt" not in provider.requests[0]
    assert "drive" not in provider.requests[0]["scope"]


def test_cancelling(page: Page, site: str, provider: Provider) -> None:
    provider.fault = "denied"
    come_by_google(page, site, ADA, provider)
    assert heading(page) == "You cancelled it"


def test_a_provider_that_is_down(page: Page, site: str, provider: Provider) -> None:
    page.goto(f"{site}/account/login/")
    provider.close()
    press(page, "Continue with Google")
    assert heading(page) == "Signing in with Google did not work"


def test_without_google_no_page_speaks_of_it(
    page: Page, site: str, settings: Settings, make_user: MakeUser
) -> None:
    settings.GOOGLE_CLIENT_ID = ""
    make_user()
    for path in ("login", "signup"):
        page.goto(f"{site}/account/{path}/")
        assert "Google" not in page.inner_text("main")
    sign_in(page, site)
    page.goto(f"{site}/account/")
    assert "Google" not in page.inner_text("main")


@pytest.mark.parametrize(
    ("person", "proven"),
    [
        (Person("1", "ada@gmail.com"), True),
        (Person("1", "ada@corp.example", extra={"hd": "corp.example"}), True),
        (Person("1", "ada@corp.example"), False),
        (Person("1", "ada@gmail.com", email_verified=False), False),
    ],
)
def test_google_itself_is_believed_only_about_mail_that_it_runs(
    settings: Settings, person: Person, proven: bool
) -> None:
    settings.GOOGLE_ISSUER_URL = "https://accounts.google.com"
    claims = {"email": person.email, "email_verified": person.email_verified, **person.extra}
    addresses = GoogleProvider.extract_email_addresses(None, claims)
    assert [address.verified for address in addresses] == [proven]
