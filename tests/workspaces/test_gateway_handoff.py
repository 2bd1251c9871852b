"""The hand-off sign-in: a code is for one browser, one workspace, one use, half a minute."""

import re
import threading
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from accounts.models import User
from tests.factories import add_member, make_user, make_workspace
from tests.workspaces.gateway_support import (
    ask,
    begin,
    cloud_client,
    get_code,
    host_of,
    path_of,
    query_of,
    sign_in,
    verdict,
)
from workspaces.handoff_tokens import SESSION_COOKIE, STATE_COOKIE, digest, safe_next
from workspaces.models import Member, Role, SignInCode, Workspace, WorkspaceSession
from workspaces.tasks import clear_expired

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner() -> User:
    return make_user()


@pytest.fixture
def workspace(owner: User) -> Workspace:
    return make_workspace(owner)


@pytest.fixture
def cloud(owner: User) -> Client:
    return cloud_client(owner)


# --- the way in --------------------------------------------------------------------------------


def test_the_whole_way(workspace: Workspace, cloud: Client) -> None:
    there = Client()
    begun = begin(there, workspace, "/data?_size=5")
    assert begun["Location"].startswith(
        f"{settings.CLOUD_URL}/workspaces/{workspace.slug}/enter/?state="
    )
    state = there.cookies[STATE_COOKIE]
    assert state["httponly"]
    assert state["samesite"] == "Lax"
    assert not state["domain"], "the cookie is for this host only"
    assert state.value not in begun["Location"], "the secret stays in the cookie"

    entered = cloud.get(path_of(begun))
    assert entered["Location"].startswith(f"{workspace.url}-/cloudapp/sign-in?code=")
    assert SESSION_COOKIE not in cloud.cookies

    redeemed = there.get(path_of(entered), headers=host_of(workspace))
    assert redeemed["Location"] == "/data?_size=5"
    session = there.cookies[SESSION_COOKIE]
    assert session["httponly"]
    assert session["samesite"] == "Lax"
    assert not session["domain"]
    for response in (begun, entered, redeemed):
        assert "no-store" in response["Cache-Control"]
        assert response["Referrer-Policy"] == "no-referrer"
    assert verdict(ask(workspace, session.value)) == "pass"


def test_secrets_are_not_stored(workspace: Workspace, cloud: Client) -> None:
    there = Client()
    address = get_code(cloud, workspace, there)
    there.get(address, headers=host_of(workspace))
    code = SignInCode.objects.get()
    assert code.digest == digest(address.split("code=")[1].split("&")[0])
    assert code.state_digest == digest(there.cookies[STATE_COOKIE].value)
    assert WorkspaceSession.objects.get().digest == digest(there.cookies[SESSION_COOKIE].value)


def test_who_is_signed_in_goes_straight_back(workspace: Workspace, cloud: Client) -> None:
    there = Client()
    there.get(get_code(cloud, workspace, there), headers=host_of(workspace))
    again = begin(there, workspace, "/data")
    assert again["Location"] == "/data"


def test_two_tabs_do_not_lock_each_other_out(workspace: Workspace, cloud: Client) -> None:
    there = Client()
    first = get_code(cloud, workspace, there, "/one")
    second = get_code(cloud, workspace, there, "/two")
    for address, came_for in ((first, "/one"), (second, "/two")):
        assert there.get(address, headers=host_of(workspace))["Location"] == came_for


def test_anonymous_signs_in_first(workspace: Workspace) -> None:
    begun = begin(Client(), workspace)
    response = Client().get(path_of(begun))
    assert urlsplit(response["Location"]).path == "/account/login/"
    assert query_of(response)["next"] == path_of(begun)


def test_enter_without_a_state_begins_at_the_workspace(workspace: Workspace, cloud: Client) -> None:
    response = cloud.get(f"/workspaces/{workspace.slug}/enter/", {"next": "/data"})
    assert response["Location"] == f"{workspace.url}data"
    assert not SignInCode.objects.exists()


# --- who does not get in -----------------------------------------------------------------------


def _without_form_tokens(page: HttpResponse) -> str:
    return re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", page.content.decode())


def test_strangers_and_unknown_addresses_get_the_same(workspace: Workspace) -> None:
    stranger = cloud_client(make_user())
    state = {"state": "0" * 64}
    pages = [
        stranger.get(f"/workspaces/{slug}/enter/", state) for slug in (workspace.slug, "nobodys")
    ]
    assert [page.status_code for page in pages] == [404, 404]
    assert _without_form_tokens(pages[0]) == _without_form_tokens(pages[1])
    assert not SignInCode.objects.exists()


@pytest.mark.parametrize("role", list(Role))
def test_every_role_may_enter(role: Role, workspace: Workspace) -> None:
    member = make_user()
    add_member(workspace, member, role)
    assert verdict(ask(workspace, sign_in(cloud_client(member), workspace))) == "pass"


def _refused(there: Client, address: str, workspace: Workspace) -> None:
    before = WorkspaceSession.objects.count()
    response = there.get(address, headers=host_of(workspace))
    assert response.status_code == 403
    assert b"That did not sign you in" in response.content
    assert not response.cookies.get(SESSION_COOKIE)
    assert WorkspaceSession.objects.count() == before


def test_a_code_works_once(workspace: Workspace, cloud: Client) -> None:
    there = Client()
    address = get_code(cloud, workspace, there)
    assert there.get(address, headers=host_of(workspace)).status_code == 302
    # The browser that has a session already is simply let go on; the code gives it nothing.
    assert there.get(address, headers=host_of(workspace)).status_code == 302
    assert WorkspaceSession.objects.count() == 1
    del there.cookies[SESSION_COOKIE]
    _refused(there, address, workspace)


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_gets_in(workspace: Workspace, cloud: Client) -> None:
    there = Client()
    address = get_code(cloud, workspace, there)
    cookie = there.cookies[STATE_COOKIE].value
    statuses: list[int] = []
    start = threading.Barrier(6)

    def redeem() -> None:
        browser = Client()
        browser.cookies[STATE_COOKIE] = cookie
        start.wait(60)
        try:
            statuses.append(browser.get(address, headers=host_of(workspace)).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=redeem) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [302, 403, 403, 403, 403, 403]
    assert WorkspaceSession.objects.count() == 1


def test_a_code_is_good_for_half_a_minute(workspace: Workspace, cloud: Client) -> None:
    there = Client()
    before = timezone.now()
    address = get_code(cloud, workspace, there)
    made_between = (before, timezone.now())
    made = SignInCode.objects.get().expires_at - timedelta(seconds=30)
    assert made_between[0] <= made <= made_between[1]
    SignInCode.objects.update(expires_at=timezone.now())
    _refused(there, address, workspace)


def test_a_code_is_for_its_workspace(workspace: Workspace, cloud: Client, owner: User) -> None:
    there, other = Client(), make_workspace(owner)
    address = get_code(cloud, workspace, there)
    _refused(there, address, other)


def test_a_code_is_for_the_browser_that_asked(workspace: Workspace, cloud: Client) -> None:
    there, victim = Client(), Client()
    address = get_code(cloud, workspace, there)
    _refused(victim, address, workspace)
    get_code(cloud, workspace, victim)  # it has a state of its own
    _refused(victim, address, workspace)


@pytest.mark.parametrize("address", ["", "?code=", "?code=abc", "?code=%00", "?next=/data"])
def test_nonsense_is_refused(address: str, workspace: Workspace) -> None:
    there = Client()
    there.cookies[STATE_COOKIE] = "A" * 43
    _refused(there, f"/-/cloudapp/sign-in{address}", workspace)


def test_what_ended_meanwhile_does_not_begin_again(workspace: Workspace, owner: User) -> None:
    def sign_out() -> None:
        Session.objects.all().delete()

    def change_password() -> None:
        owner.set_password("another long enough password")
        owner.save()

    def deactivate() -> None:
        User.objects.update(is_active=False)

    def remove() -> None:
        Member.objects.all().delete()

    for change in (sign_out, change_password, deactivate, remove):
        there = Client()
        address = get_code(cloud_client(owner), workspace, there)
        change()
        _refused(there, address, workspace)
        User.objects.update(is_active=True)


# --- where it leads ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "evil",
    [
        "//evil.example/",
        "https://evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "javascript:alert(1)",
        "evil.example",
        "",
        "/-/cloudapp/sign-out",
        "/" + "a" * 2000,
    ],
)
def test_it_leads_nowhere_else(evil: str, workspace: Workspace, cloud: Client) -> None:
    assert safe_next(evil) == "/"
    there = Client()
    begun = begin(there, workspace, evil)
    assert query_of(begun)["next"] == "/"
    address = get_code(cloud, workspace, there)
    changed = address.split("&next=")[0]
    response = there.get(changed, {"next": evil}, headers=host_of(workspace))
    assert response.status_code in (302, 403)
    assert response.get("Location", "/") == "/"


@pytest.mark.parametrize("good", ["/", "/data/cats?_size=10&sql=select%201", "/straße", "/a//b"])
def test_it_leads_back(good: str) -> None:
    assert safe_next(good) == good


@pytest.mark.parametrize("path", ["start", "sign-in", "sign-out"])
def test_the_cloud_host_has_none_of_it(path: str, cloud: Client) -> None:
    assert cloud.get(f"/-/cloudapp/{path}").status_code == 404


# --- the way out -------------------------------------------------------------------------------


def _signed_in(cloud: Client, workspace: Workspace) -> tuple[Client, str]:
    there = Client()
    there.get(get_code(cloud, workspace, there), headers=host_of(workspace))
    return there, there.cookies[SESSION_COOKIE].value


def test_signing_out_asks_first_and_ends_the_session(workspace: Workspace, cloud: Client) -> None:
    there, token = _signed_in(cloud, workspace)
    page = there.get("/-/cloudapp/sign-out", headers=host_of(workspace))
    assert b"<form" in page.content
    assert verdict(ask(workspace, token)) == "pass"
    origin = workspace.url.rstrip("/")
    done = there.post("/-/cloudapp/sign-out", headers=host_of(workspace) | {"origin": origin})
    assert done.status_code == 200
    assert not there.cookies[SESSION_COOKIE].value
    assert verdict(ask(workspace, token)) == "sign-in"


def test_another_site_signs_nobody_out(workspace: Workspace, cloud: Client, owner: User) -> None:
    there, token = _signed_in(cloud, workspace)
    neighbour = make_workspace(owner).url.rstrip("/")
    for origin in (neighbour, "null", "https://evil.example"):
        headers = host_of(workspace) | {"origin": origin}
        assert there.post("/-/cloudapp/sign-out", headers=headers).status_code == 404
    assert verdict(ask(workspace, token)) == "pass"


def test_the_pages_bring_all_they_need(workspace: Workspace) -> None:
    page = Client().get("/-/cloudapp/sign-out", headers=host_of(workspace))
    assert "style-src 'unsafe-inline'" in page["Content-Security-Policy"]
    assert b"/static/" not in page.content


# --- tidying up --------------------------------------------------------------------------------


def test_what_expired_is_cleared(workspace: Workspace, cloud: Client) -> None:
    sign_in(cloud, workspace)
    keep = sign_in(cloud, workspace)
    old = WorkspaceSession.objects.exclude(digest=digest(keep))
    past = timezone.now() - timedelta(seconds=1)
    old.update(expires_at=past)
    SignInCode.objects.update(expires_at=past)
    Session.objects.create(session_key="old", session_data="", expire_date=past)
    clear_expired()
    assert WorkspaceSession.objects.get().digest == digest(keep)
    assert not SignInCode.objects.exists()
    assert not Session.objects.filter(session_key="old").exists()
    assert verdict(ask(workspace, keep)) == "pass"
