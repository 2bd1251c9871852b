"""Every address of a workspace, as each kind of person, from one table."""

import re
import uuid
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponseBase
from django.test import Client
from django.urls import resolve
from django.utils import timezone

from accounts.models import User
from deploy import vault
from deploy.states import Status
from tests import factories
from tests.workspaces.html import Page
from workspaces import access, urls
from workspaces.handoff_tokens import digest
from workspaces.models import Role, Workspace

# Far from what the sequence gives the next ones; also the number of a member and an invitation.
WEBHOOK = 7_000_000_007
DELIVERY = uuid.UUID("6b3f64c1-6f83-4d2c-9a64-0c0d3a3a5c1e")
NEWCOMER = "newcomer@example.org"
PUBLIC = "https://93.184.216.34/hook"


@dataclass(frozen=True)
class Address:
    """One address under /workspaces/<slug>/, and what it takes."""

    path: str
    ability: str
    status: Status = Status.RUNNING
    post: dict[str, str] | None = None
    allowed: int = 302
    query: dict[str, str] = field(default_factory=dict)

    def of(self, slug: str) -> str:
        return f"/workspaces/{slug}/{self.path.replace('<int:pk>', str(WEBHOOK))}"

    def ask(self, client: Client, slug: str) -> HttpResponseBase:
        url = self.of(slug)
        if self.post is None:
            return client.get(url, self.query)
        return client.post(url, self.post)


TABLE = [
    Address("", "see", allowed=200),
    Address("live/", "see", allowed=200, query={"seen": "something old"}),
    Address("activity/", "read_activity", allowed=200),
    Address("audit/", "read_audit", allowed=200),
    Address("audit/export/", "read_audit", allowed=200),
    Address("usage/", "see_usage", allowed=200),
    Address("logs/", "read_logs", allowed=200),
    Address("start/", "start", Status.STOPPED, {}),
    Address("stop/", "stop", post={}),
    Address("restart/", "restart", post={}),
    Address("rename/", "rename", post={"name": "Other"}),
    Address("plugins/", "see", allowed=200),
    Address("plugins/live/", "see", allowed=200, query={"seen": "something old"}),
    Address("plugins/apply/", "change_plugins", post={}),
    Address("plugins/roll-back/", "change_plugins", post={}),
    Address("plugins/forget/", "change_plugins", post={"name": "KEY"}),
    Address("members/", "see", allowed=200),
    Address("members/leave/", "see", post={}),
    Address("members/transfer/", "change_members", post={"to": str(WEBHOOK)}),
    Address("members/<int:pk>/role/", "change_members", post={"role": "editor"}),
    Address("members/<int:pk>/remove/", "change_members", post={}),
    Address("invitations/add/", "change_members", post={"email": NEWCOMER, "role": "viewer"}),
    Address("invitations/<int:pk>/resend/", "change_members", post={}),
    Address("invitations/<int:pk>/withdraw/", "change_members", post={}),
    Address("visibility/", "change_visibility", allowed=200),
    Address("visibility/set/", "change_visibility", post={"to": "public"}),
    Address("webhooks/", "manage_webhooks", allowed=200),
    Address("webhooks/add/", "manage_webhooks", post={"url": PUBLIC}),
    Address("webhooks/<int:pk>/", "manage_webhooks", allowed=200),
    Address("webhooks/<int:pk>/change/", "manage_webhooks", post={"url": PUBLIC}),
    Address("webhooks/<int:pk>/switch/", "manage_webhooks", post={"to": "off"}),
    Address("webhooks/<int:pk>/test/", "manage_webhooks", post={}),
    Address("webhooks/<int:pk>/rotate/", "manage_webhooks", post={}),
    Address("webhooks/<int:pk>/redeliver/", "manage_webhooks", post={"delivery": str(DELIVERY)}),
    Address("webhooks/<int:pk>/remove/", "manage_webhooks", post={}),
    Address("support/", "allow_support", post={"days": "1"}),
    Address("delete/", "delete", post={"confirm": "trees"}),
    Address("undelete/", "undelete", Status.DELETING, {}),
]
by_path = pytest.mark.parametrize("address", TABLE, ids=[entry.path or "page" for entry in TABLE])


@pytest.fixture
def owner(db: None) -> User:
    return factories.make_user()


def make_trees(owner: User, status: Status) -> Workspace:
    """The workspace that the addresses lead to, with a webhook, a viewer and an invitation."""
    workspace = factories.make_workspace(owner, "trees", status=status)
    webhook = workspace.webhooks.create(pk=WEBHOOK, url=PUBLIC, secret=vault.seal("whsec_c2Vj"))
    webhook.deliveries.create(pk=DELIVERY, type="ping", body="{}", state="delivered")
    factories.add_member(workspace, factories.make_user(pk=WEBHOOK), Role.VIEWER)
    workspace.invitations.create(
        pk=WEBHOOK,
        email="invited@example.org",
        role=Role.EDITOR,
        digest=digest("a token"),
        expires_at=timezone.now() + timedelta(days=1),
    )
    return workspace


def somebody(role: str, workspace: Workspace) -> Client:
    client = Client()
    if role != "anonymous":
        user = factories.make_user(is_staff=role == "operator", is_superuser=role == "operator")
        client.force_login(user)
        if role in Role.values:
            factories.add_member(workspace, user, Role(role))
        elif role == "other tenant":
            factories.make_workspace(user)
    return client


def plain(response: HttpResponseBase) -> bytes:
    """A page's content without its CSRF tokens, which differ each time."""
    return re.sub(rb'value="\w{64}"', b"", response.getvalue())


def test_the_table_knows_every_address() -> None:
    slugged = {str(url.pattern) for url in urls.web if "<slug:slug>" in str(url.pattern)}
    assert slugged == {f"workspaces/<slug:slug>/{entry.path}" for entry in TABLE}
    # Those that are missing here have no page; tests/workspaces/api/test_access.py has all.
    assert {entry.ability for entry in TABLE} <= set(access.NEEDS)


@pytest.mark.parametrize(
    "role", ["owner", "editor", "viewer", "other tenant", "operator", "anonymous"]
)
@by_path
def test_who_may(address: Address, role: str, owner: User) -> None:
    workspace = make_trees(owner, address.status)
    before = Workspace.objects.filter(pk=workspace.pk).values().get()
    client = somebody(role, workspace)
    response = address.ask(client, "trees")
    if role == "anonymous" and address.path.endswith("live/"):
        expected = 401
    elif role == "anonymous":
        expected = 302
        assert response["Location"].startswith("/account/login/?next=/workspaces/trees/")
    elif role in ("other tenant", "operator"):
        expected = 404
        assert plain(response).replace(b"trees", b"") == plain(
            address.ask(client, "unknown-slug")
        ).replace(b"unknown-slug", b"")
    else:
        may = access.is_at_least(role, access.NEEDS[address.ability])
        expected = address.allowed if may else 403
    assert response.status_code == expected
    if expected in (401, 403, 404) or role == "anonymous":
        assert Workspace.objects.filter(pk=workspace.pk).values().get() == before
        assert not workspace.activities.exists()


@pytest.mark.parametrize("role", Role.values)
@pytest.mark.parametrize("status", list(Status)[:-1])
def test_only_what_the_role_may_do_is_shown(role: str, status: Status, owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees", status=status)
    response = somebody(role, workspace).get("/workspaces/trees/")
    page = Page(response.content.decode())
    shown = {target for target in page.actions | page.links if target.startswith("/workspaces/t")}
    for target in shown:
        slugged = str(resolve(target).route).removeprefix("workspaces/<slug:slug>/")
        (address,) = [entry for entry in TABLE if entry.path == slugged]
        assert access.is_at_least(role, access.NEEDS[address.ability]), f"{role} sees {target}"
    if role == "viewer":
        assert page.actions == {"/account/logout/"}


@by_path
def test_what_changes_something_must_be_posted(address: Address, owner: User) -> None:
    make_trees(owner, address.status)
    client = Client()
    client.force_login(owner)
    wrong = client.post if address.post is None else client.get
    assert wrong(address.of("trees")).status_code == 405


@pytest.mark.parametrize(
    "address", [entry for entry in TABLE if entry.post is not None], ids=lambda entry: entry.path
)
def test_forms_of_other_sites_are_refused(address: Address, owner: User) -> None:
    workspace = make_trees(owner, address.status)
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)
    response = address.ask(client, "trees")
    assert response.status_code == 403
    assert b"This form is too old to send" in response.getvalue()
    assert not workspace.activities.exists()


@by_path
def test_what_is_gone_is_nowhere(address: Address, owner: User) -> None:
    make_trees(owner, Status.DELETED)
    client = Client()
    client.force_login(owner)
    assert address.ask(client, "trees").status_code == 404


def test_get_workspace(owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    editor = factories.make_user()
    factories.add_member(workspace, editor, Role.EDITOR)
    assert access.get_workspace(owner, "trees", Role.OWNER) == workspace
    assert access.get_workspace(editor, "trees", Role.EDITOR) == workspace
    with pytest.raises(PermissionDenied):
        access.get_workspace(editor, "trees", Role.OWNER)
    for user in (factories.make_user(), AnonymousUser()):
        with pytest.raises(Http404):
            access.get_workspace(user, "trees")
    with pytest.raises(Http404):
        access.get_workspace(owner, "trees-2")


def test_a_member_who_was_removed_is_a_stranger_at_once(owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    friend = factories.make_user()
    member = factories.add_member(workspace, friend, Role.EDITOR)
    client = Client()
    client.force_login(friend)
    assert client.get("/workspaces/trees/").status_code == 200
    member.delete()
    assert client.get("/workspaces/trees/").status_code == 404
    assert client.get("/workspaces/trees/live/?seen=x").status_code == 404
