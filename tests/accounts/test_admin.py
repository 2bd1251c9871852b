"""The admin pages about people."""

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.core.mail import EmailMessage
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from accounts import api_tokens
from accounts.models import ApiToken, Profile, User
from tests.accounts.conftest import PASSWORD, MakeUser
from tests.accounts.test_signup import is_signed_in, link_in, sign_in

pytestmark = pytest.mark.django_db

USERS = "/admin/accounts/user/"


@pytest.fixture
def operator(make_user: MakeUser) -> User:
    user = make_user("operator@example.com")
    user.is_staff = user.is_superuser = True
    user.save()
    return user


@pytest.fixture
def desk(operator: User) -> Client:
    """The operator's browser, signed in as everybody signs in."""
    client = Client()
    sign_in(client, "operator@example.com")
    return client


def act(desk: Client, action: str, *users: User) -> str:
    """Choose users in the list and an action; return the page that follows."""
    fields = {"action": action, "_selected_action": [user.pk for user in users]}
    return desk.post(USERS, fields, follow=True).text


def test_strangers_sign_in_first(make_user: MakeUser) -> None:
    make_user()
    client = Client()
    assert client.get(USERS, follow=True).request["PATH_INFO"] == "/account/login/"
    sign_in(client)
    assert client.get(USERS, follow=True).status_code == 403


def test_find_by_any_address(desk: Client, make_user: MakeUser) -> None:
    user = make_user()
    EmailAddress.objects.create(user=user, email="countess@example.org")
    Profile.objects.create(user=user, display_name="Ada Lovelace")
    for words in ("countess@", "ada@example", "Lovelace"):
        page = desk.get(USERS, {"q": words}).text
        assert "Ada Lovelace" in page
        assert "1 user" in page
    assert "0 users" in desk.get(USERS, {"q": "nobody"}).text


def test_the_list_does_not_ask_for_each_user(
    desk: Client, make_user: MakeUser, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(10):
        make_user(f"{number}@example.com")
    with django_assert_max_num_queries(15):
        assert desk.get(USERS).status_code == 200


def test_a_users_page_shows_all_and_saves(desk: Client, make_user: MakeUser) -> None:
    user = make_user()
    sign_in(Client())
    SocialAccount.objects.create(
        user=user, provider="google", uid="42", extra_data={"email": "ada@gmail.com"}
    )
    Authenticator.objects.create(user=user, type="totp", data={"secret": "TOPSECRET"})
    address = EmailAddress.objects.get(user=user)
    page = desk.get(f"{USERS}{user.pk}/change/").text
    for words in ("ada@gmail.com", "ada@example.com", "TOTP", "127.0.0.1"):
        assert words in page
    assert "TOPSECRET" not in page
    assert PASSWORD not in page
    fields = {
        "is_active": "on",
        "profile-TOTAL_FORMS": 1,
        "profile-INITIAL_FORMS": 0,
        "profile-0-display_name": "Ada",
        "profile-0-user": user.pk,
        # What a page of old, or a hand-made request, sends counts for nothing.
        "emailaddress_set-TOTAL_FORMS": 2,
        "emailaddress_set-INITIAL_FORMS": 1,
        "emailaddress_set-0-id": address.pk,
        "emailaddress_set-0-user": user.pk,
        "emailaddress_set-0-email": "mine@example.com",
        "emailaddress_set-0-verified": "on",
        "emailaddress_set-0-primary": "on",
        "emailaddress_set-1-user": user.pk,
        "emailaddress_set-1-email": "new@example.com",
        "emailaddress_set-1-verified": "on",
    }
    for inline in ("socialaccount_set", "authenticator_set", "usersession_set", "api_tokens"):
        fields |= {f"{inline}-TOTAL_FORMS": 0, f"{inline}-INITIAL_FORMS": 0}
    response = desk.post(f"{USERS}{user.pk}/change/", fields)
    assert response.status_code == 302, response.context["errors"]
    user = User.objects.get(pk=user.pk)
    assert user.display_name == "Ada"
    assert user.check_password(PASSWORD)
    assert list(user.emailaddress_set.values_list("email", flat=True)) == ["ada@example.com"]
    taken = {"emailaddress_set-0-DELETE": "on", "profile-TOTAL_FORMS": 0}
    assert desk.post(f"{USERS}{user.pk}/change/", fields | taken).status_code == 302
    assert not user.emailaddress_set.exists(), "an address can be taken from somebody"


def test_add_somebody_who_does_the_rest(desk: Client, mailoutbox: list[EmailMessage]) -> None:
    assert 'name="password' not in desk.get(f"{USERS}add/").text
    fields = {"email": "New@Example.com", "password": "another good one", "verified": "on"}
    page = desk.post(f"{USERS}add/", fields, follow=True)
    assert "Mailed a link to new@example.com" in page.text
    user = User.objects.get(emailaddress__email="new@example.com")
    assert not user.has_usable_password()
    assert not user.emailaddress_set.get().verified
    (mail,) = mailoutbox
    assert mail.to == ["new@example.com"]
    assert "The operators of cloudapp made an account for you" in mail.body
    assert "Mailed a link to new@example.com" in act(desk, "send_reset_link", user)
    # The newcomer, with the first of the two links.
    newcomer = Client()
    form = newcomer.get(link_in(mail, "/password/reset/"), follow=True)
    passwords = {"password1": "another good one", "password2": "another good one"}
    newcomer.post(form.request["PATH_INFO"], passwords)
    sign_in(newcomer, "new@example.com", "another good one")
    assert not is_signed_in(newcomer)
    newcomer.post(link_in(mailoutbox[-1], "/confirm-email/"))
    assert is_signed_in(newcomer)
    assert user.emailaddress_set.get().verified
    again = desk.post(f"{USERS}add/", {"email": "new@example.com"})
    assert "Somebody has this address already" in again.text


@pytest.mark.parametrize("how", ["password", "google", "second address"])
def test_no_link_goes_to_an_address_that_somebody_only_claims(
    desk: Client, make_user: MakeUser, mailoutbox: list[EmailMessage], how: str
) -> None:
    """Whoever sits there already would share the account with the owner of the mailbox."""
    user = make_user(password=PASSWORD if how == "password" else None)
    EmailAddress.objects.filter(user=user).update(verified=False)
    if how == "google":
        SocialAccount.objects.create(user=user, provider="google", uid="42")
    if how == "second address":
        User.objects.filter(pk=user.pk).update(last_login=user.created)
    assert "without verified address" in act(desk, "send_reset_link", user)
    assert not mailoutbox


def test_nobody_sets_another_ones_password(desk: Client, make_user: MakeUser) -> None:
    user = make_user()
    page = f"{USERS}{user.pk}/password/"
    assert desk.get(page).status_code == 403
    fields = {"password1": "another good one", "password2": "another good one"}
    assert desk.post(page, {**fields, "usable_password": "true"}).status_code == 403
    assert User.objects.get(pk=user.pk).check_password(PASSWORD)
    assert "/password/" not in desk.get(f"{USERS}{user.pk}/change/").text


def test_deactivate_and_activate(desk: Client, operator: User, make_user: MakeUser) -> None:
    user = make_user()
    client = Client()
    sign_in(client)
    assert "Deactivated: 1." in act(desk, "deactivate", user, operator)
    assert not is_signed_in(client)
    assert is_signed_in(desk), "operators do not lock themselves out"
    act(desk, "activate", user)
    assert sign_in(client)["Location"] == "/workspaces/"


def test_sign_out_and_remove_second_factors(desk: Client, make_user: MakeUser) -> None:
    user = make_user()
    client = Client()
    sign_in(client)
    assert "Sessions ended: 1." in act(desk, "sign_out", user)
    assert not is_signed_in(client)
    Authenticator.objects.create(user=user, type="totp", data={"secret": "x"})
    act(desk, "remove_second_factors", user)
    assert not Authenticator.objects.exists()


TOKENS = "/admin/accounts/apitoken/"


def revoke(desk: Client, *tokens: ApiToken) -> str:
    """Choose tokens in their list and revoke them; return the page that follows."""
    fields = {"action": "revoke", "_selected_action": [token.pk for token in tokens]}
    return desk.post(TOKENS, fields, follow=True).text


def test_tokens_are_looked_at_and_revoked(desk: Client, make_user: MakeUser) -> None:
    user = make_user()
    token, text = api_tokens.create(user, "ci", ["read"])
    child, _ = api_tokens.create(user, "child", ["read"], parent=token)
    for path in (f"{USERS}{user.pk}/change/", TOKENS, f"{TOKENS}{token.pk}/change/"):
        page = desk.get(path).text
        assert token.hint in page
        assert text not in page
        assert token.digest not in page
    assert "1 API token" in desk.get(TOKENS, {"q": token.hint}).text
    assert "2 API tokens" in desk.get(TOKENS, {"q": "ada@example"}).text
    assert desk.get(f"{TOKENS}add/").status_code == 403
    assert desk.post(f"{TOKENS}{token.pk}/change/", {"name": "x"}).status_code == 403
    assert "Tokens revoked: 2." in revoke(desk, token)
    assert api_tokens.find(text) is None
    assert "Tokens revoked: 0." in revoke(desk, token, child)
    desk.post(f"{USERS}{user.pk}/delete/", {"post": "yes"})
    assert not User.objects.filter(pk=user.pk).exists(), "tokens keep nobody from being deleted"


def test_all_tokens_of_somebody_are_revoked(desk: Client, make_user: MakeUser) -> None:
    user = make_user()
    parent, _ = api_tokens.create(user, "ci", ["read"])
    api_tokens.create(user, "child", ["read"], parent=parent)
    _, other = api_tokens.create(make_user("bob@example.com"), "ci", ["read"])
    assert "Tokens revoked: 2." in act(desk, "revoke_tokens", user)
    assert not api_tokens.good(user).exists()
    assert api_tokens.find(other)


def test_the_list_of_tokens_does_not_ask_for_each(
    desk: Client, make_user: MakeUser, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(10):
        api_tokens.create(make_user(f"{number}@example.com"), "ci", ["read"])
    with django_assert_max_num_queries(15):
        assert desk.get(TOKENS).status_code == 200


def test_lesser_operators_revoke_no_tokens_of_greater_ones(
    operator: User, make_user: MakeUser
) -> None:
    lesser = make_user("lesser@example.com")
    lesser.is_staff = True
    lesser.save()
    view = Permission.objects.get(codename="view_apitoken")
    lesser.user_permissions.add(view)
    desk = Client()
    sign_in(desk, "lesser@example.com")
    token, text = api_tokens.create(operator, "ops", ["operator"])
    _, own = api_tokens.create(lesser, "own", ["read"])
    revoke(desk, token, ApiToken.objects.get(name="own"))
    assert api_tokens.find(own), "looking is not revoking"
    lesser.user_permissions.add(Permission.objects.get(codename="change_apitoken"))
    assert "Tokens revoked: 1." in revoke(desk, token, ApiToken.objects.get(name="own"))
    assert api_tokens.find(own) is None
    assert api_tokens.find(text)


def test_lesser_operators_do_not_raise_themselves(operator: User, make_user: MakeUser) -> None:
    lesser = make_user("lesser@example.com")
    lesser.is_staff = True
    lesser.save()
    lesser.user_permissions.add(*Permission.objects.filter(content_type__app_label="accounts"))
    desk = Client()
    sign_in(desk, "lesser@example.com")
    page = desk.get(f"{USERS}{lesser.pk}/change/")
    assert page.status_code == 200
    assert 'name="is_superuser"' not in page.text
    assert "Some are not yours to change" in act(desk, "deactivate", operator)
    assert User.objects.get(pk=operator.pk).is_active
    password = {"password1": "another good one", "password2": "another good one"}
    assert desk.post(f"{USERS}{operator.pk}/password/", password).status_code == 403


def test_every_other_page_about_people_opens(desk: Client, make_user: MakeUser) -> None:
    assert desk.get("/admin/auth/group/", {"q": "a"}).status_code == 200
    assert desk.get("/admin/auth/group/add/").status_code == 200


def test_operators_write_nothing_that_people_sign_in_by() -> None:
    """Only the user's page shows any of it, and gives nobody an address or a Google account."""
    registered = {model._meta.label for model in admin.site._registry}
    identities = {
        model._meta.label
        for app in apps.get_app_configs()
        if app.name.startswith("allauth")
        for model in app.get_models()
    }
    assert identities >= {"account.EmailAddress", "socialaccount.SocialAccount"}
    assert not registered & identities


def test_only_superusers_touch_groups(make_user: MakeUser) -> None:
    lesser = make_user("lesser@example.com")
    lesser.is_staff = True
    lesser.save()
    lesser.user_permissions.add(*Permission.objects.filter(content_type__app_label="auth"))
    group = Group.objects.create(name="Support")
    desk = Client()
    sign_in(desk, "lesser@example.com")
    assert desk.get(f"/admin/auth/group/{group.pk}/change/").status_code == 200  # to look at
    for path in ("add/", f"{group.pk}/change/", f"{group.pk}/delete/"):
        assert desk.post(f"/admin/auth/group/{path}", {"name": "All"}).status_code == 403
    assert Group.objects.get().name == "Support"
