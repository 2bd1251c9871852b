"""The plugin catalogue over the API: add, approve, withdraw, grant; with a real package index."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from accounts.api_tokens import Scope
from accounts.models import User
from tests import factories
from tests.shelf import TARGET, Shelf
from tests.workspaces.api.conftest import Api, api_of, code_of
from tests.workspaces.api.test_operators import history, staff
from tests.workspaces.test_plugins_page import approve
from workspaces import catalogue, changes, sets
from workspaces.models import Approval, Change, Grant, Plugin, Release, Workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ready")]
ADDRESS = "/operator/plugins"


@pytest.fixture
def olga(db: None) -> User:
    return factories.make_user("olga@example.org", name="Olga", is_staff=True, is_superuser=True)


@pytest.fixture
def ops(olga: User) -> Api:
    return api_of(olga, Scope.OPERATOR)


def test_a_plugin_is_added_read_approved_and_used(
    ops: Api, owner: User, shelf: Shelf, olga: User
) -> None:
    """From a name to a customer's list; `catalogue.*` is what the worker does meanwhile."""
    sha256 = shelf.wheel("datasette-birds", metadata={"Summary": "Birds on a map"})
    added = ops.post(ADDRESS, {"name": "Datasette_Birds"})
    assert added.status_code == 202
    assert added["Location"].endswith("/api/v1/operator/plugins/datasette-birds")
    assert (added.json()["state"], added.json()["added_by"]) == ("reading", "Olga")
    plugin = Plugin.objects.get()
    assert history(plugin) == ["Added to the catalogue."]
    early = ops.post(f"{ADDRESS}/datasette-birds/approvals", {"version": "1.0"})
    assert code_of(early) == "refused"

    catalogue.read_plugin(plugin, TARGET)
    told = ops.get(f"{ADDRESS}/datasette-birds").json()
    assert (told["state"], told["newest"], told["summary"]) == ("known", "1.0", "Birds on a map")
    body = {"version": "1.0", "reach": "everyone", "note": "Read it.", "needs": []}
    response = ops.post(f"{ADDRESS}/datasette-birds/approvals", body)
    assert response.status_code == 202
    approval = Approval.objects.get()
    assert response["Location"].endswith(f"/api/v1/operator/approvals/{approval.pk}")
    assert response.json()["state"] == "locking"
    catalogue.lock_approval(approval, TARGET)
    whole = ops.get(f"/operator/approvals/{approval.pk}").json()
    assert (whole["state"], whole["by"], whole["note"]) == ("active", "Olga", "Read it.")
    assert whole["files"] == [{"name": "datasette-birds", "version": "1.0", "sha256": [sha256]}]
    assert ops.get(f"{ADDRESS}/datasette-birds").json()["approved"] == "1.0"
    assert history(plugin)[1:] == ["Approved 1.0 on Datasette 0.65.5."]

    factories.make_workspace(owner, "trees")
    items = api_of(owner).get("/workspaces/trees/plugins").json()["items"]
    assert [item["name"] for item in items] == ["datasette-birds"]


def test_what_fails_says_why(ops: Api, shelf: Shelf) -> None:
    ops.post(ADDRESS, {"name": "datasette-nowhere"})
    plugin = Plugin.objects.get()
    catalogue.read_plugin(plugin, TARGET)
    told = ops.get(f"{ADDRESS}/datasette-nowhere").json()
    assert told["state"] == "refused"
    assert "datasette-nowhere" in told["error"]
    shelf.wheel("datasette-nowhere")
    again = ops.post(f"{ADDRESS}/datasette-nowhere/refresh")
    assert (again.status_code, again.json()["state"], again.json()["error"]) == (
        202,
        "reading",
        None,
    )
    catalogue.read_plugin(Plugin.objects.get(), TARGET)
    ops.post(f"{ADDRESS}/datasette-nowhere/approvals", {"version": "7.0"})
    approval = Approval.objects.get()
    catalogue.lock_approval(approval, TARGET)
    whole = ops.get(f"/operator/approvals/{approval.pk}").json()
    assert (whole["state"], whole["files"]) == ("failed", [])
    assert "7.0" in whole["error"]


@pytest.mark.parametrize("name", ["", " ", "no name", "x" * 200, "a\0b", "../x", "-e", 7])
def test_what_is_no_package_name_is_refused(ops: Api, name: Any) -> None:
    response = ops.post(ADDRESS, {"name": name})
    assert code_of(response) == "invalid"
    assert response.json()["errors"][0]["field"] == "body.name"
    assert not Plugin.objects.exists()
    assert not LogEntry.objects.exists()


def test_twice_is_said(ops: Api) -> None:
    approve("datasette-one")
    assert code_of(ops.post(ADDRESS, {"name": "datasette-one"})) == "exists"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body.version"),
        ({"version": "1.0,<2"}, "body.version"),
        ({"version": "1.0\0"}, "body.version"),
        ({"version": "1.0", "release": "9"}, "body.release"),
        ({"version": "1.0", "reach": "nobody"}, "body.reach"),
        ({"version": "1.0", "needs": [{"name": "PATH"}]}, "body.needs"),
        ({"version": "1.0", "needs": [{"name": "A"}, {"name": "A"}]}, "body.needs"),
        ({"version": "1.0", "needs": [{"name": "A", "option": "a b"}]}, "body.needs.0.option"),
        ({"version": "1.0", "needs": [{"name": "A", "help": "\0"}]}, "body.needs.0.help"),
        ({"version": "1.0", "required": True, "needs": [{"name": "A"}]}, "body.required"),
        ({"version": "1.0", "required": True, "needs_internet": True}, "body.required"),
        ({"version": "1.0", "note": "x" * 601}, "body.note"),
        ({"version": "1.0", "note": "\0"}, "body.note"),
        ({"version": "1.0", "lock": "datasette==1"}, "body.lock"),
    ],
)
def test_what_cannot_be_approved_is_named(ops: Api, body: Any, field: str) -> None:
    Plugin.objects.create(name="datasette-one", state=Plugin.State.KNOWN, newest="1.0")
    response = ops.post(f"{ADDRESS}/datasette-one/approvals", body)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert not Approval.objects.exists()
    assert not LogEntry.objects.exists()


def test_terms_are_kept(ops: Api) -> None:
    Plugin.objects.create(name="datasette-one", state=Plugin.State.KNOWN, newest="1.0")
    release = factories.make_release("1.0a41")
    need = {"name": "OPENCAGE_KEY", "help": "Your key", "option": "key"}
    body = {"version": "1.0", "release": "1.0a41", "needs_internet": True, "needs": [need]}
    told = ops.post(f"{ADDRESS}/datasette-one/approvals", body).json()
    assert (told["release"], told["reach"], told["needs"]) == ("1.0a41", "granted", [need])
    approval = Approval.objects.get()
    assert (approval.release, approval.needs, approval.needs_internet) == (release, [need], True)


def test_customers_read_what_operators_say_of_it(ops: Api, owner: User) -> None:
    plugin = approve("datasette-one").plugin
    factories.make_workspace(owner, "trees")

    def read() -> str:
        (item,) = api_of(owner).get("/workspaces/trees/plugins").json()["items"]
        return str(item["summary"])

    assert read() == "What datasette-one does"
    for _ in range(2):
        body = {"description": "Birds"}
        told = ops.ask("PATCH", f"{ADDRESS}/datasette-one", body).json()
        assert told["description"] == read() == "Birds"
    assert history(plugin) == ["Changed Description."]
    for wrong in ({"description": "x" * 601}, {"description": "\0"}, {}, {"name": "other"}):
        assert code_of(ops.ask("PATCH", f"{ADDRESS}/datasette-one", wrong)) == "invalid"


# --- renewing ------------------------------------------------------------------------------------


def test_an_approval_is_renewed(ops: Api, settings: Settings) -> None:
    approval = approve("datasette-one", expires_at=timezone.now())
    path = f"/operator/approvals/{approval.pk}"
    before = ops.get(path).json()["expires_at"]
    renewed = ops.post(f"{path}/renew", {}).json()["expires_at"]
    assert renewed > before
    assert ops.get(path).json()["expires_at"] == renewed
    (words,) = history(approval.plugin)
    assert words.startswith("The approval of 1.0 on Datasette 0.65.5 is good until ")
    settings.APPROVAL_DAYS = 0
    assert ops.post(f"{path}/renew", {}).json()["expires_at"] is None
    assert code_of(ops.post(f"{path}/renew", {})) == "refused"


# --- withdrawing ---------------------------------------------------------------------------------


def users_of(*approvals: Approval, slug: str) -> Workspace:
    workspace = factories.make_workspace(factories.make_user(), slug)
    workspace.plugins.set(approvals)
    return Workspace.objects.select_related("instance", "plan", "release").get(pk=workspace.pk)


def test_withdrawing_keeps_what_runs(ops: Api, olga: User) -> None:
    approval = approve("datasette-one")
    users_of(approval, slug="trees")
    told = ops.post(f"/operator/approvals/{approval.pk}/withdraw", {}).json()
    assert (told["begun"], told["refused"]) == ([], {})
    ended = told["approval"]
    assert (ended["state"], ended["ended_by"], ended["workspaces"]) == ("withdrawn", "Olga", 1)
    assert not Change.objects.exists()
    words = ["Withdrew the approval of 1.0 on Datasette 0.65.5."]
    assert history(approval.plugin) == words
    again = ops.post(f"/operator/approvals/{approval.pk}/withdraw", {"rebuild": False})
    assert code_of(again) == "refused"
    assert history(approval.plugin) == words


def test_withdrawing_with_rebuild_tells_what_was_begun_and_refused(ops: Api) -> None:
    approval, other = approve("datasette-one"), approve("datasette-two")
    users_of(approval, other, slug="trees")
    busy = users_of(approval, slug="oaks")
    changes.request(busy, None, ["datasette-two"])
    told = ops.post(f"/operator/approvals/{approval.pk}/withdraw", {"rebuild": True}).json()
    change = Change.objects.get(workspace__slug="trees")
    assert told["begun"] == [{"workspace": "trees", "change": change.pk}]
    assert list(told["refused"]) == ["oaks"]
    assert "under way" in told["refused"]["oaks"]
    assert sets.names_of(change.wanted.all()) == {"datasette-two"}
    assert "rebuilt without it: 1." in history(approval.plugin)[0]
    # Once the other one is over, it can be asked for again.
    Change.objects.filter(workspace=busy).update(state=Change.State.FAILED)
    Change.objects.filter(pk=change.pk).update(state=Change.State.DONE)
    change.workspace.plugins.set([other])
    again = ops.post(f"/operator/approvals/{approval.pk}/withdraw", {"rebuild": True}).json()
    assert [begun["workspace"] for begun in again["begun"]] == ["oaks"]


# --- granting ------------------------------------------------------------------------------------


def test_grants_are_given_listed_and_taken_back(ops: Api, owner: User, olga: User) -> None:
    approval = approve("datasette-one", reach=Approval.Reach.GRANTED)
    factories.make_workspace(owner, "trees")
    path = f"{ADDRESS}/datasette-one/grants"

    def offered() -> list[str]:
        items = api_of(owner).get("/workspaces/trees/plugins").json()["items"]
        return [item["name"] for item in items]

    assert offered() == []
    given = ops.ask("PUT", f"{path}/trees")
    assert given.status_code == 200
    assert (given.json()["workspace"], given.json()["by"]) == ("trees", "Olga")
    assert ops.ask("PUT", f"{path}/trees").json() == given.json()
    assert Grant.objects.count() == 1
    assert ops.get(path).json()["items"] == [given.json()]
    assert offered() == ["datasette-one"]
    assert ops.ask("DELETE", f"{path}/trees").status_code == 204
    assert offered() == []
    assert code_of(ops.ask("DELETE", f"{path}/trees")) == "not_found"
    assert history(approval.plugin) == ["Granted to trees.", "Taken back from trees."]
    assert code_of(ops.ask("PUT", f"{path}/nothing")) == "not_found"


# --- permissions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "permissions"),
    [
        ("GET", ADDRESS, None, ["view_plugin"]),
        ("POST", ADDRESS, {"name": "datasette-new"}, ["add_plugin"]),
        ("POST", f"{ADDRESS}/datasette-one/refresh", None, ["change_plugin"]),
        ("PATCH", f"{ADDRESS}/datasette-one", {"description": "Birds"}, ["change_plugin"]),
        ("GET", f"{ADDRESS}/datasette-one/approvals", None, ["view_approval"]),
        (
            "POST",
            f"{ADDRESS}/datasette-one/approvals",
            {"version": "1.1"},
            ["view_plugin", "add_approval"],
        ),
        (
            "POST",
            "/operator/approvals/{approval}/withdraw",
            {},
            ["view_approval", "change_approval"],
        ),
        (
            "POST",
            "/operator/approvals/{approval}/renew",
            None,
            ["view_approval", "add_approval"],
        ),
        ("GET", f"{ADDRESS}/datasette-one/grants", None, ["view_plugin", "view_grant"]),
        (
            "PUT",
            f"{ADDRESS}/datasette-one/grants/trees",
            None,
            ["view_plugin", "view_grant", "add_grant"],
        ),
        (
            "DELETE",
            f"{ADDRESS}/datasette-one/grants/oaks",
            None,
            ["view_plugin", "view_grant", "delete_grant"],
        ),
    ],
)
def test_the_permissions_of_the_admin_are_needed(
    owner: User, method: str, path: str, body: Any, permissions: list[str]
) -> None:
    approval = approve("datasette-one", expires_at=timezone.now())
    factories.make_workspace(owner, "trees")
    Grant.objects.create(plugin=approval.plugin, workspace=factories.make_workspace(owner, "oaks"))
    path = path.format(approval=approval.pk)
    for missing in permissions:
        others = [name for name in permissions if name != missing]
        refused = staff("view_workspace", "change_workspace", *others).ask(method, path, body)
        assert code_of(refused) == "permission_missing"
        assert missing in refused.json()["detail"]
    assert not LogEntry.objects.exists()
    assert staff(*permissions).ask(method, path, body).status_code < 300


# --- constant cost -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        ADDRESS,
        f"{ADDRESS}/datasette-one/approvals",
        f"{ADDRESS}/datasette-one/grants",
        "/operator/plans",
        "/operator/releases",
        "/operator/rollouts",
    ],
)
def test_lists_cost_the_same_however_long_they_are(ops: Api, olga: User, path: str) -> None:
    plugin = approve("datasette-one").plugin

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert ops.get(f"{path}?limit=200").status_code == 200
        return len(captured)

    def populate(count: int) -> None:
        for number in range(count):
            workspace = factories.make_workspace(olga)
            Grant.objects.create(plugin=plugin, workspace=workspace, by=olga)
            found = Plugin.objects.create(name=f"datasette-p{number}-{count}", added_by=olga)
            release = Release.objects.create(version=f"{count}.{number}", lock="")
            for of in (found, plugin):
                Approval.objects.create(
                    plugin=of, release=release, version="1", state="withdrawn", by=olga,
                    ended_by=olga,
                )  # fmt: skip

    populate(1)
    queries()
    few = queries()
    populate(6)
    assert queries() == few <= 10
