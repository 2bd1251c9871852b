"""The page of one's own API tokens, as a browser without JavaScript has it."""

import re
from datetime import timedelta

import pytest
from django.core.mail import EmailMessage
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import api_tokens
from accounts.models import ApiToken, User
from deploy.states import Status
from tests import factories
from tests.workspaces import html
from tests.workspaces.html import Page
from workspaces.models import Workspace

pytestmark = pytest.mark.django_db

TOKENS = "/account/tokens/"
PASSWORD = "a rather long password 42"
TEXT = re.compile(api_tokens.PATTERN)
WHAT = {"name": "ci", "scopes": ["read", "lifecycle"], "workspace": "", "days": "90"}


@pytest.fixture
def owner(db: None) -> User:
    return factories.make_user("ada@example.org", name="Ada", password=PASSWORD)


@pytest.fixture
def workspace(owner: User) -> Workspace:
    return factories.make_workspace(owner, "trees", name="Trees of Lisbon")


@pytest.fixture
def client(owner: User) -> Client:
    """A browser in which somebody is signed in, and has just shown once more who they are."""
    client = Client()
    client.force_login(owner)
    prove(client)
    return client


def prove(client: Client) -> str:
    """Answer the question for the password; return the page that follows."""
    answer = client.post(f"/account/reauthenticate/?next={TOKENS}", {"password": PASSWORD})
    assert answer.status_code in (200, 302), answer
    return str(answer.content.decode())


def make(client: Client, **changed: object) -> str:
    response = client.post(TOKENS, WHAT | changed)
    assert response.status_code == 200, response.content.decode()
    return str(response.content.decode())


def shown(page: str) -> str:
    """The one token that a page shows."""
    (text,) = set(TEXT.findall(page))
    return str(text)


# --- making --------------------------------------------------------------------------------------


def test_a_token_is_made_shown_once_and_told_by_mail(
    client: Client, owner: User, mailoutbox: list[EmailMessage]
) -> None:
    response = client.post(TOKENS, WHAT)
    page = response.content.decode()
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    assert html.problems(page) == []
    text = shown(page)
    token = api_tokens.find(text)
    assert token
    assert (token.user, token.name, token.only) == (owner, "ci", None)
    assert token.scopes == ["read", "lifecycle"]
    assert token.expires_at
    assert abs(token.expires_at - timezone.now() - timedelta(days=90)) < timedelta(minutes=1)

    again = client.get(TOKENS).content.decode()
    assert text not in again
    assert token.hint in again
    assert text not in str(dict(client.session))

    (mail,) = mailoutbox
    assert mail.to == ["ada@example.org"]
    assert "“ci”" in mail.body
    assert token.hint in mail.body
    assert api_tokens.WORDS[api_tokens.Scope.LIFECYCLE] in mail.body
    assert TOKENS in mail.body
    assert text not in f"{mail.subject}{mail.body}"


def test_making_one_asks_for_the_password_again_and_then_goes_on(owner: User) -> None:
    client = Client()
    client.force_login(owner)
    assert client.get(TOKENS).status_code == 200, "looking takes no password"
    asked = client.post(TOKENS, WHAT)
    assert asked.status_code == 302
    assert asked["Location"].startswith("/account/reauthenticate/?next=")
    assert not ApiToken.objects.exists()
    response = client.post(asked["Location"], {"password": PASSWORD})
    assert "no-store" in response["Cache-Control"]
    page = response.content.decode()
    assert api_tokens.find(shown(page))
    assert html.problems(page) == []
    assert f'href="{TOKENS}" aria-current="page"' in page


def test_what_is_wrong_is_said_before_the_password_is_asked_for(owner: User) -> None:
    client = Client()
    client.force_login(owner)
    assert client.post(TOKENS, WHAT | {"name": ""}).status_code == 422


def test_for_one_workspace_and_for_ever(client: Client, workspace: Workspace) -> None:
    page = make(client, workspace="trees", days="0")
    token = ApiToken.objects.get()
    assert (token.only, token.expires_at) == (workspace.pk, None)
    assert "Only Trees of Lisbon" in page
    assert "never expires" in page


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": ""}, "Give it a name."),
        ({"name": "x" * 81}, "at most 80 characters"),
        ({"scopes": []}, "Choose at least one thing that it may do."),
        ({"scopes": ["everything"]}, "everything is not one of the available choices"),
        ({"scopes": ["operator"]}, "operator is not one of the available choices"),
        ({"workspace": "others"}, "That is none of your workspaces."),
        ({"workspace": "no-such"}, "That is none of your workspaces."),
        ({"workspace": "gone"}, "That is none of your workspaces."),
        ({"days": "12"}, "12 is not one of the available choices"),
        ({"days": ""}, "Choose how long it is good for."),
    ],
)
def test_words_that_help(
    client: Client, owner: User, changed: dict[str, object], words: str
) -> None:
    factories.make_workspace(factories.make_user(), "others")
    factories.make_workspace(owner, "gone", status=Status.DELETING)
    response = client.post(TOKENS, WHAT | changed)
    assert response.status_code == 422
    page = response.content.decode()
    assert words in " ".join(entry.text for entry in Page(page).all("p"))
    assert html.problems(page) == []
    assert Page(page).by_id("id_name").get("value") == changed.get("name", "ci")
    assert not ApiToken.objects.exists()


def test_too_many_are_refused_in_words(
    client: Client, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_tokens, "MAX_TOKENS", 1)
    api_tokens.create(owner, "first", ["read"])
    response = client.post(TOKENS, WHAT)
    assert response.status_code == 422
    assert "Revoke one that nobody uses." in response.content.decode()


def test_only_operators_are_offered_the_operators_scope(client: Client, owner: User) -> None:
    assert 'value="operator"' not in client.get(TOKENS).content.decode()
    User.objects.filter(pk=owner.pk).update(is_staff=True)
    assert 'value="operator"' in client.get(TOKENS).content.decode()
    make(client, scopes=["operator"])
    assert ApiToken.objects.get().scopes == ["operator"]


# --- the list ------------------------------------------------------------------------------------


def test_the_list_says_what_there_is_to_know(
    client: Client, owner: User, workspace: Workspace
) -> None:
    parent, _ = api_tokens.create(owner, "robot", ["read", "members"])
    api_tokens.create(owner, "hand", ["read"], parent=parent, only=workspace.pk)
    left = factories.make_workspace(factories.make_user(), "left", name="Secret Plans")
    api_tokens.create(owner, "elsewhere", ["data"], only=left.pk)
    ApiToken.objects.filter(name="robot").update(last_used_at=timezone.now())
    page = client.get(TOKENS).content.decode()
    assert html.problems(page) == []
    items = {
        name: item.text
        for item in Page(page).all("li")
        for name in ("robot", "hand", "elsewhere")
        if item.get("class") == "list__item" and item.text.split()[0] == name
    }
    assert "Change who belongs to a workspace, and make others its owners" in items["robot"]
    assert "All your workspaces" in items["robot"]
    assert "last used now" in items["robot"]
    assert "revoking it ends 1 made with it, too" in items["robot"]
    assert parent.hint in items["robot"]
    assert "Only Trees of Lisbon" in items["hand"]
    assert "made with “robot”" in items["hand"]
    assert "never used" in items["hand"]
    assert "A workspace that you are not in any more" in items["elsewhere"]
    assert "Secret Plans" not in page


def test_nobody_sees_anothers_tokens(client: Client) -> None:
    api_tokens.create(factories.make_user(), "theirs", ["read"])
    assert "theirs" not in client.get(TOKENS).content.decode()


def test_ended_ones_are_folded_away(client: Client, owner: User) -> None:
    token, _ = api_tokens.create(owner, "old", ["read"])
    api_tokens.revoke(token)
    api_tokens.create(owner, "late", ["read"])
    ApiToken.objects.filter(name="late").update(expires_at=timezone.now())
    page = Page(client.get(TOKENS).content.decode())
    (folded,) = page.all("details")
    assert "old" in folded.text
    assert "revoked" in folded.text
    assert "late" in folded.text
    assert "expired" in folded.text
    assert not folded.get("open")
    assert not [action for action in page.actions if "revoke" in action]


def test_many_tokens_cost_no_more_queries_than_few(client: Client, owner: User) -> None:
    counts = []
    for number in (1, 9):
        for _ in range(number):
            parent, _ = api_tokens.create(owner, "robot", ["read"])
            api_tokens.create(owner, "hand", ["read"], parent=parent)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(TOKENS).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- revoking ------------------------------------------------------------------------------------


def test_revoking_is_at_once_and_says_what_went_along(client: Client, owner: User) -> None:
    first, text = api_tokens.create(owner, "first", ["read"])
    child, child_text = api_tokens.create(owner, "child", ["read"], parent=first)
    api_tokens.create(owner, "grandchild", ["read"], parent=child)
    response = client.post(f"{TOKENS}{first.pk}/revoke/", follow=True)
    assert "“first” is revoked, and so are the 2 made with it." in response.content.decode()
    assert api_tokens.find(text) is None
    assert api_tokens.find(child_text) is None
    again = client.post(f"{TOKENS}{first.pk}/revoke/", follow=True)
    assert "“first” is revoked." in again.content.decode()


def test_nobody_revokes_anothers(client: Client) -> None:
    token, text = api_tokens.create(factories.make_user(), "theirs", ["read"])
    assert client.post(f"{TOKENS}{token.pk}/revoke/").status_code == 404
    assert client.post(f"{TOKENS}{token.pk + 999}/revoke/").status_code == 404
    assert api_tokens.find(text)


# --- who may come here ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", [TOKENS, f"{TOKENS}1/revoke/"])
def test_strangers_sign_in_first(path: str) -> None:
    response = Client().post(path, WHAT)
    assert response.status_code == 302
    assert response["Location"].startswith("/account/login/?next=")


def test_forms_of_other_sites_are_refused(owner: User) -> None:
    token, text = api_tokens.create(owner, "ci", ["read"])
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)
    assert client.post(TOKENS, WHAT).status_code == 403
    assert client.post(f"{TOKENS}{token.pk}/revoke/").status_code == 403
    assert api_tokens.find(text)
    assert ApiToken.objects.count() == 1


def test_revoking_must_be_posted(client: Client, owner: User) -> None:
    token, _ = api_tokens.create(owner, "ci", ["read"])
    assert client.get(f"{TOKENS}{token.pk}/revoke/").status_code == 405


def test_the_pages_of_the_account_lead_here(client: Client) -> None:
    page = Page(client.get("/account/").content.decode())
    assert [link.get("href") for link in page.all("a")].count(TOKENS) == 2


def test_a_token_opens_no_page(owner: User) -> None:
    _, text = api_tokens.create(owner, "ci", ["read", "lifecycle"])
    response = Client().get(TOKENS, headers={"authorization": f"Bearer {text}"})
    assert response.status_code == 302
