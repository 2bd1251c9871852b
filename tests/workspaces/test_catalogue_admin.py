"""The operators' pages of the catalogue, releases and changes: what they show, do and refuse."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from accounts.models import AuditEntry, User
from deploy.models import Image, Instance
from tests import factories
from tests.workspaces.html import Page
from workspaces import catalogue, changes, rollouts
from workspaces.models import Approval, Change, Grant, Plugin, Release, Role, Rollout, Workspace

pytestmark = pytest.mark.usefixtures("ready")

PLUGINS = "/admin/workspaces/plugin/"
RELEASES = "/admin/workspaces/release/"
LISTS = [PLUGINS, RELEASES] + [
    f"/admin/workspaces/{name}/" for name in ("approval", "grant", "change", "rollout")
]
HASH = "a" * 64
NO_NEEDS = {"needs-TOTAL_FORMS": "0", "needs-INITIAL_FORMS": "0"}


@pytest.fixture
def operator(db: None) -> User:
    return factories.make_user("op@example.org", name="Olga", is_staff=True, is_superuser=True)


@pytest.fixture
def client(operator: User) -> Client:
    client = Client()
    client.force_login(operator)
    return client


def make_plugin(name: str = "datasette-birds", **fields: Any) -> Plugin:
    known = {"state": Plugin.State.KNOWN, "newest": "1.0", "summary": "Birds on a map"}
    return Plugin.objects.create(name=name, **known | fields)


def make_approval(plugin: Plugin, version: str = "1.0", **fields: Any) -> Approval:
    lock = f"{plugin.name}=={version} \\\n    --hash=sha256:{HASH}\n"
    release = fields.pop("release", None) or catalogue.default_release()
    given = {"state": "active", "lock": lock, "reach": "everyone"} | fields
    return Approval.objects.create(plugin=plugin, release=release, version=version, **given)


def make_next() -> Release:
    release = factories.make_release("1.0a41")
    image, _ = Image.objects.get_or_create(digest="n", reference="n", state=Image.State.READY)
    Release.objects.filter(pk=release.pk).update(image=image, prerelease=True)
    return Release.objects.get(pk=release.pk)


def make_user_of(*approvals: Approval, slug: str = "") -> Workspace:
    workspace = factories.make_workspace(factories.make_user(), slug)
    workspace.plugins.set(approvals)
    return workspace


def text(response: HttpResponse) -> str:
    """What a page says, with single spaces."""
    return " ".join(Page(response.content.decode()).all("body")[0].text.split())


def said(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return text(response)


def history(row: Any) -> list[str]:
    entries = LogEntry.objects.filter(object_id=str(row.pk)).order_by("pk")
    return [entry.get_change_message() for entry in entries]


# --- lists ---------------------------------------------------------------------------------------


def populate(count: int) -> None:
    coming = make_next()
    for number in range(count):
        by = factories.make_user(name="Ada")
        plugin = make_plugin(f"datasette-p{Plugin.objects.count()}", newest="2.0", added_by=by)
        approval = make_approval(plugin, by=by)
        make_approval(plugin, "0.9", state="withdrawn", by=by, ended_by=by)
        workspace = make_user_of(approval)
        catalogue.grant(plugin, workspace, by)
        factories.add_member(workspace, by, Role.OWNER)
        changes.request(workspace, by, [plugin.name])
        Rollout.objects.create(
            from_release=coming, to_release=coming, state="done", by=by, batch_size=number
        )


@pytest.mark.parametrize("path", LISTS)
def test_lists_cost_the_same_however_long_they_are(client: Client, path: str) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(path).status_code == 200
        return len(captured)

    populate(2)
    queries()
    few = queries()
    populate(8)
    assert queries() == few
    assert few <= 14


def test_a_plugins_page_costs_the_same_however_many_use_it(client: Client) -> None:
    plugin = make_plugin()

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(f"{PLUGINS}{plugin.pk}/change/").status_code == 200
        return len(captured)

    def more() -> None:
        by = factories.make_user(name="Ada")
        approval = make_approval(plugin, state="replaced", by=by, ended_by=by)
        catalogue.grant(plugin, make_user_of(approval), by)

    more()
    queries()
    few = queries()
    for _ in range(6):
        more()
    assert queries() == few


def test_the_list_tells_what_counts_and_what_is_newer(client: Client) -> None:
    old = make_plugin("datasette-old", newest="1.10")
    make_user_of(make_approval(old, "1.9"))
    make_approval(old, "1.2a1", release=make_next())
    make_approval(make_plugin("datasette-own"), reach="granted")
    make_approval(make_plugin("datasette-all"), required=True)
    rows = {row[0]: row[1:] for row in cells(client, PLUGINS)}
    assert rows == {
        "datasette-all": ["Known", "1.0", "1.0", "every image", "0"],
        "datasette-old": ["Known", "1.10 ▲ newer", "1.9", "everyone", "1"],
        "datasette-own": ["Known", "1.0", "1.0", "granted", "0"],
    }


def cells(client: Client, path: str) -> list[list[str]]:
    """What the rows of a list say, cell by cell."""
    rows: list[list[str]] = []
    for element in Page(client.get(path).content.decode()).elements:
        if element.tag == "tr":
            rows.append([])
        elif element.tag in ("td", "th") and element.get("class").startswith("field-"):
            rows[-1].append(element.text.strip())
    return [row for row in rows if row]


@pytest.mark.parametrize(
    ("query", "found"),
    [("state=refused", "datasette-bad"), ("reach=granted", "datasette-few"),
     ("required=yes", "datasette-all"), ("q=feather", "datasette-bad")],
)  # fmt: skip
def test_filters_and_search(client: Client, query: str, found: str) -> None:
    make_plugin("datasette-bad", state="refused", summary="Feathers")
    make_approval(make_plugin("datasette-few"), reach="granted")
    make_approval(make_plugin("datasette-all"), required=True)
    rows = [row[0] for row in cells(client, f"{PLUGINS}?{query}")]
    assert rows == [found]


# --- adding --------------------------------------------------------------------------------------


def test_adding_asks_for_a_name_and_nothing_else(client: Client, operator: User) -> None:
    page = Page(client.get(f"{PLUGINS}add/").content.decode())
    form = [e for e in page.elements if e.tag in ("input", "select", "textarea")]
    names = {e.get("name") for e in form} - {"csrfmiddlewaretoken", ""}
    assert names == {"name"}
    response = client.post(f"{PLUGINS}add/", {"name": "Datasette_Birds"})
    plugin = Plugin.objects.get(name="datasette-birds")
    assert response.headers["Location"] == f"{PLUGINS}{plugin.pk}/change/"
    assert (plugin.added_by, plugin.state) == (operator, "reading")
    assert history(plugin) == ["Added to the catalogue."]


@pytest.mark.parametrize(
    ("name", "words"),
    [("birds and cats", "is no package name"), ("datasette-birds", "is in the catalogue already"),
     ("", "This field is required")],
)  # fmt: skip
def test_a_refusal_stands_at_the_field(client: Client, name: str, words: str) -> None:
    make_plugin()
    response = client.post(f"{PLUGINS}add/", {"name": name})
    assert response.status_code == 422
    [errors] = [
        e for e in Page(response.content.decode()).all("ul") if "errorlist" in e.get("class")
    ]
    assert words in errors.text
    assert errors.get("id") == "id_name_error"
    assert Plugin.objects.count() == 1


# --- a plugin's page -----------------------------------------------------------------------------


def refreshes(client: Client, path: str) -> bool:
    page = Page(client.get(path).content.decode())
    return any(meta.get("http-equiv") == "refresh" for meta in page.all("meta"))


def test_while_it_is_read_the_page_says_so_and_looks_again(client: Client) -> None:
    plugin = make_plugin(state="reading", newest="")
    path = f"{PLUGINS}{plugin.pk}/change/"
    words = said(client, path)
    assert "Being read from the package index" in words
    assert refreshes(client, path)
    assert "Read again" not in words
    assert "Approve…" not in words


def test_a_refused_one_says_why_and_can_be_read_again(client: Client) -> None:
    plugin = make_plugin(state="refused", newest="", error="It is no Datasette plugin.")
    path = f"{PLUGINS}{plugin.pk}/"
    words = said(client, f"{path}change/")
    assert "It is no Datasette plugin." in words
    assert "Read again" in words
    assert "Approve…" not in words
    assert not refreshes(client, f"{path}change/")
    assert client.get(f"{path}read/").status_code == 405
    assert client.post(f"{path}read/").status_code == 302
    plugin.refresh_from_db()
    assert (plugin.state, plugin.error) == ("reading", "")
    assert history(plugin) == ["Being read from the package index again."]


def test_a_known_one_shows_facts_and_decisions(client: Client, operator: User) -> None:
    plugin = make_plugin(
        newest="1.1",
        licence="MIT",
        home_page="https://birds.example.org/",
        requires_python=">=3.9",
        requires_datasette=">=0.60",
        requires=["datasette>=0.60", "feathers <script>"],
    )
    needs = [{"name": "BIRD_KEY", "help": "", "option": ""}]
    approval = make_approval(plugin, by=operator, note="Read its code.", needs=needs)
    make_approval(plugin, "9.9", state="failed", error="There is no 9.9.", lock="")
    workspace = make_user_of(approval, slug="trees")
    catalogue.grant(plugin, make_user_of(slug="oaks"), operator)
    words = said(client, f"{PLUGINS}{plugin.pk}/change/")
    for expected in (
        "Birds on a map", "MIT", "https://birds.example.org/", ">=3.9", ">=0.60",
        "feathers <script>", "1.0 on Datasette 0.65.5: active", "By Olga", "Read its code.",
        "BIRD_KEY", HASH, "There is no 9.9.", workspace.slug, "oaks, by Olga",
        "Newer than approved on Datasette 0.65.5: 1.1 is on the index, 1.0 is approved.",
    ):  # fmt: skip
        assert expected in words, expected


def test_decisions_stand_below_the_facts_without_bars_of_colour(client: Client) -> None:
    plugin = make_plugin()
    make_approval(plugin)
    page = Page(client.get(f"{PLUGINS}{plugin.pk}/change/").content.decode())
    blocks = {e.get("id"): e.get("class").split() for e in page.all("div")}
    for name in ("approvals", "grants", "used"):
        assert blocks[name] == ["section"]  # Django draws the heading of a `module` as a bar
    links = [e.get("href") or "" for e in page.all("link")]
    assert any(link.endswith("workspaces/admin.css") for link in links)


def test_only_the_description_can_be_edited(client: Client) -> None:
    plugin = make_plugin()
    path = f"{PLUGINS}{plugin.pk}/change/"
    posted = {"description": "For birders", "name": "evil", "newest": "9", "state": "refused"}
    assert client.post(path, posted).status_code == 302
    plugin.refresh_from_db()
    assert (plugin.description, plugin.name, plugin.newest) == (
        "For birders",
        "datasette-birds",
        "1.0",
    )
    assert plugin.state == Plugin.State.KNOWN


def test_what_was_approved_can_be_neither_edited_nor_deleted(client: Client) -> None:
    approval = make_approval(make_plugin())
    path = f"/admin/workspaces/approval/{approval.pk}"
    assert HASH in said(client, f"{path}/change/")
    assert client.post(f"{path}/change/", {"version": "2"}).status_code == 403
    assert client.post(f"{path}/delete/", {"post": "yes"}).status_code == 403
    assert client.get("/admin/workspaces/approval/add/").status_code == 403
    deleted = client.post(f"{PLUGINS}{approval.plugin_id}/delete/", {"post": "yes"})
    assert "doesn't have permission to delete" in text(deleted)
    assert Approval.objects.filter(pk=approval.pk).exists()


# --- approving -----------------------------------------------------------------------------------


def test_the_form_begins_with_the_newest_version_and_the_terms_of_before(client: Client) -> None:
    plugin = make_plugin(newest="1.1")
    needs = [{"name": "BIRD_KEY", "help": "From them", "option": "key"}]
    make_approval(plugin, reach="everyone", needs=needs)
    page = Page(client.get(f"{PLUGINS}{plugin.pk}/approve/").content.decode())
    values = {e.get("name"): e.get("value") for e in page.all("input")}
    assert values["version"] == "1.1"
    assert values["needs-0-name"] == "BIRD_KEY"
    assert values["needs-0-option"] == "key"
    alpha = make_next()
    page = Page(client.get(f"{PLUGINS}{plugin.pk}/approve/?release={alpha.pk}").content.decode())
    assert {e.get("name"): e.get("value") for e in page.all("input")}["version"] == ""


def posted_approval(**fields: str) -> dict[str, Any]:
    release = catalogue.default_release().pk
    return {"release": release, "version": "1.0", "reach": "granted"} | NO_NEEDS | fields


def test_approving_keeps_who_when_why_and_the_terms(client: Client, operator: User) -> None:
    plugin = make_plugin()
    posted = posted_approval(
        reach="everyone", needs_internet="on", note="Looks well.",
        **{"needs-TOTAL_FORMS": "2", "needs-0-name": "BIRD_KEY", "needs-0-help": "Ask them",
           "needs-0-option": "key", "needs-1-name": ""},
    )  # fmt: skip
    response = client.post(f"{PLUGINS}{plugin.pk}/approve/", posted)
    assert response.status_code == 302, text(response)
    approval = Approval.objects.get()
    assert (approval.state, approval.by, approval.note) == ("locking", operator, "Looks well.")
    assert (approval.reach, approval.needs_internet, approval.required) == ("everyone", True, False)
    assert approval.needs == [{"name": "BIRD_KEY", "help": "Ask them", "option": "key"}]
    assert history(plugin) == ["Approved 1.0 on Datasette 0.65.5."]
    assert refreshes(client, f"{PLUGINS}{plugin.pk}/change/")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": ""}, "This field is required"),
        ({"version": "1.0,<2"}, "Say which version"),
        (
            {"needs-TOTAL_FORMS": "1", "needs-0-name": "PYTHONPATH"},
            "that the container itself goes",
        ),
        ({"needs-TOTAL_FORMS": "1", "needs-0-help": "?", "needs-0-name": ""}, "cannot be named"),
        ({"needs-TOTAL_FORMS": "1", "needs-0-name": "K1", "required": "on"}, "cannot ask for"),
        ({"release": "0"}, "Select a valid choice"),
    ],
)
def test_what_cannot_be_approved_is_said_in_the_form(
    client: Client, fields: dict[str, str], words: str
) -> None:
    response = client.post(f"{PLUGINS}{make_plugin().pk}/approve/", posted_approval(**fields))
    assert words in text(response)
    assert not Approval.objects.exists()
    assert not LogEntry.objects.exists()


# --- withdrawing and granting --------------------------------------------------------------------


def withdraw_path(approval: Approval) -> str:
    return f"/admin/workspaces/approval/{approval.pk}/withdraw/"


def test_withdrawing_lists_who_uses_it_and_keeps_them(client: Client, operator: User) -> None:
    approval = make_approval(make_plugin())
    make_user_of(approval, slug="trees")
    words = said(client, withdraw_path(approval))
    assert "trees" in words
    assert "keep running" in words
    assert client.post(withdraw_path(approval), {}).status_code == 422
    assert client.post(withdraw_path(approval), {"then": "keep"}).status_code == 302
    approval.refresh_from_db()
    assert (approval.state, approval.ended_by) == ("withdrawn", operator)
    assert not Change.objects.exists()
    assert history(approval.plugin) == ["Withdrew the approval of 1.0 on Datasette 0.65.5."]
    assert "Rebuild without it…" in said(client, f"{PLUGINS}{approval.plugin_id}/change/")


def test_an_approval_that_expires_is_renewed_by_a_button(
    client: Client, operator: User, settings: Settings
) -> None:
    plugin = make_plugin()
    approval = make_approval(plugin, expires_at=timezone.now() + timedelta(days=31))
    address = f"{PLUGINS}{plugin.pk}/change/"
    assert "Good until" in said(client, address)
    assert "Still good" not in said(client, address), "there is time"
    for days in (29, -1):
        Approval.objects.update(expires_at=timezone.now() + timedelta(days=days))
        words = said(client, address)
        assert "Still good" in words
        assert ("Expired" in words) == (days < 0)
    settings.APPROVAL_DAYS = 100
    path = f"/admin/workspaces/approval/{approval.pk}/renew/"
    response = client.post(path, follow=True)
    assert response.redirect_chain == [(address, 302)]
    assert "The approval of 1.0 on Datasette 0.65.5 is good until" in text(response)
    approval.refresh_from_db()
    assert approval.expires_at
    assert timedelta(days=99) < approval.expires_at - timezone.now() <= timedelta(days=100)
    assert AuditEntry.objects.filter(verb="renewed_approval", actor=operator.pk).count() == 1
    settings.APPROVAL_DAYS = 0
    assert "is good for ever." in text(client.post(path, follow=True))
    assert "does not expire" in text(client.post(path, follow=True))


def test_where_nobody_uses_it_there_is_nothing_to_choose(client: Client) -> None:
    path = withdraw_path(make_approval(make_plugin()))
    page = Page(client.get(path).content.decode())
    [choice] = [e for e in page.all("input") if e.get("name") == "then"]
    assert (choice.get("type"), choice.get("value")) == ("hidden", "keep")
    assert "No workspace runs it." in said(client, path)


def test_withdrawing_tells_where_it_still_is(client: Client) -> None:
    approval = make_approval(make_plugin(), required=True)
    nests = make_plugin("datasette-nests")
    lock = "".join(f"{name}==1.0 --hash=sha256:{HASH}\n" for name in ("datasette-birds", "nests"))
    make_approval(nests, lock=lock)
    image = factories.make_image(inputs={"packages": {"datasette-birds": "1.0"}})
    trees = make_user_of(slug="trees")
    Instance.objects.filter(pk=trees.instance_id).update(image=image)
    response = client.get(withdraw_path(approval))
    lists = {
        e.get("id"): " ".join(e.text.split()) for e in Page(response.content.decode()).all("ul")
    }
    assert lists["brought-by"] == "datasette-nests 1.0 on Datasette 0.65.5"
    assert lists["holders"] == "trees"
    assert "nobody can make a workspace on Datasette 0.65.5 until" in text(response)


def test_withdrawing_rebuilds_those_that_use_it(client: Client, operator: User) -> None:
    approval = make_approval(make_plugin())
    trees, busy = make_user_of(approval, slug="trees"), make_user_of(approval, slug="busy")
    changes.request(busy, None, ["datasette-birds"])
    response = client.post(withdraw_path(approval), {"then": "rebuild"}, follow=True)
    assert "Not rebuilt yet: busy. Another change is under way." in text(response)
    change = trees.changes.get()
    assert (change.by, list(change.wanted.all())) == (operator, [])
    assert "rebuilt without it: 1." in history(approval.plugin)[0]


def test_grants_are_given_listed_and_taken_back(client: Client, operator: User) -> None:
    plugin = make_plugin()
    make_user_of(slug="trees")
    path = f"{PLUGINS}{plugin.pk}/grants/"
    response = client.post(path, {"workspace": "nobody"})
    assert response.status_code == 422
    assert "There is no workspace nobody." in text(response)
    assert client.post(path, {"workspace": "trees"}).status_code == 302
    grant = Grant.objects.get()
    assert (grant.workspace.slug, grant.by) == ("trees", operator)
    assert "trees" in said(client, path)
    assert client.post(path, {"revoke": "trees"}).status_code == 302
    assert not Grant.objects.exists()
    assert history(plugin) == ["Granted to trees.", "Taken back from trees."]


# --- releases ------------------------------------------------------------------------------------


def test_a_release_is_built_offered_and_made_the_default(client: Client) -> None:
    release = factories.make_release("1.0a41")
    path = f"{RELEASES}{release.pk}"
    assert "not built yet" in said(client, f"{path}/change/")
    response = client.post(f"{path}/default/", follow=True)
    assert "The image of Datasette 1.0a41 is not ready." in text(response)
    Release.objects.filter(pk=release.pk).update(error="No wheel of this and that.")
    assert "No wheel of this and that." in said(client, RELEASES)
    assert client.post(f"{path}/build/").status_code == 302
    make_next()
    for deed, posted in (
        ("offer", {"offered": "no"}),
        ("offer", {"offered": "yes"}),
        ("default", {}),
    ):
        assert client.post(f"{path}/{deed}/", posted).status_code == 302
    release.refresh_from_db()
    assert (release.is_default, release.offered) == (True, True)
    assert history(release) == [
        "A worker builds the image of Datasette 1.0a41. Look here again in a minute.",
        "Datasette 1.0a41 is not offered any more.",
        "Datasette 1.0a41 is offered.",
        "New workspaces get Datasette 1.0a41.",
    ]


def test_a_release_is_tried_on_chosen_workspaces(client: Client, operator: User) -> None:
    coming = make_next()
    oaks = make_user_of(slug="oaks")
    make_user_of(make_approval(make_plugin()), slug="trees")
    path = f"{RELEASES}{coming.pk}/try/"
    response = client.post(path, {"workspaces": "oaks, nobody"})
    assert "There is no workspace nobody." in text(response)
    assert not Change.objects.exists()
    response = client.post(path, {"workspaces": "oaks\ntrees"}, follow=True)
    words = "Stays where it is: trees. On Datasette 1.0a41 it may not use datasette-birds."
    assert words in text(response)
    change = Change.objects.get()
    assert (change.workspace, change.release, change.by) == (oaks, coming, operator)
    assert history(coming) == ["Changes over to Datasette 1.0a41: oaks."]


def test_a_release_is_rolled_out(client: Client, operator: User) -> None:
    coming = make_next()
    for slug in ("elms", "oaks", "trees"):
        make_user_of(slug=slug)
    path = f"{RELEASES}{coming.pk}/roll-out/"
    source = catalogue.default_release().pk
    posted = {"source": source, "batch_size": "1", "leave_out": "elms"}
    assert client.post(path, posted | {"source": coming.pk}).status_code == 422
    response = client.post(path, posted)
    rollout = Rollout.objects.get()
    page = f"/admin/workspaces/rollout/{rollout.pk}/change/"
    assert response.headers["Location"] == page
    assert (rollout.by, rollout.batch_size) == (operator, 1)
    rollouts.run_all()
    words = said(client, page)
    assert "elms: Left out by the operator." in words
    assert refreshes(client, page)
    Change.objects.update(state="rolled back", error="It did not come up.")
    rollouts.run_all()
    assert "oaks: It did not come up." in said(client, page)
    assert not refreshes(client, page)


def test_a_roll_out_is_stopped_by_hand(client: Client, operator: User) -> None:
    rollout = rollouts.start(catalogue.default_release(), make_next(), 5, operator)
    path = f"/admin/workspaces/rollout/{rollout.pk}/stop/"
    assert client.post(path).status_code == 302
    rollout.refresh_from_db()
    assert (rollout.state, rollout.error) == ("stopped", "Stopped by Olga.")
    assert "This roll-out is over." in text(client.post(path, follow=True))


def test_a_changes_page_tells_all_of_it(client: Client) -> None:
    approval = make_approval(make_plugin())
    workspace = make_user_of(slug="trees")
    ada = factories.make_user(name="Ada")
    factories.add_member(workspace, ada, Role.OWNER)
    change = changes.request(workspace, ada, ["datasette-birds"])
    durations = {"resolve": 3, "build": 4200}
    Change.objects.update(durations=durations, state="failed", error="No room.", step="build")
    assert "4.2 s" in said(client, "/admin/workspaces/change/")
    words = said(client, f"/admin/workspaces/change/{change.pk}/change/")
    for expected in ("trees", "Ada", "No room.", "Build the image 4200 ms", str(approval.version)):
        assert expected in words
    assert client.post(f"/admin/workspaces/change/{change.pk}/change/", {}).status_code == 403


# --- who may -------------------------------------------------------------------------------------

Deed = tuple[str, dict[str, Any], str]


def deeds() -> dict[str, Deed]:
    """Each deed: address, what is posted, the permission that it needs."""
    plugin = make_plugin(newest="1.0")
    approval = make_approval(plugin, expires_at=timezone.now())
    make_user_of(slug="trees")
    catalogue.grant(plugin, make_user_of(approval, slug="oaks"), None)
    coming, old = make_next(), catalogue.default_release()
    other = factories.make_release("0.65.5")
    rollout = Rollout.objects.create(from_release=coming, to_release=other)
    base, release = f"{PLUGINS}{plugin.pk}", f"{RELEASES}{coming.pk}"
    return {
        "add": (f"{PLUGINS}add/", {"name": "datasette-new"}, "add_plugin"),
        "edit": (f"{base}/change/", {"description": "x"}, "change_plugin"),
        "read": (f"{base}/read/", {}, "change_plugin"),
        "approve": (f"{base}/approve/", posted_approval(), "add_approval"),
        "grant": (f"{base}/grants/", {"workspace": "trees"}, "add_grant"),
        "revoke": (f"{base}/grants/", {"revoke": "oaks"}, "delete_grant"),
        "withdraw": (withdraw_path(approval), {"then": "keep"}, "change_approval"),
        "renew": (f"/admin/workspaces/approval/{approval.pk}/renew/", {}, "add_approval"),
        "build": (f"{release}/build/", {}, "change_release"),
        "default": (f"{release}/default/", {}, "change_release"),
        "offer": (f"{release}/offer/", {"offered": "no"}, "change_release"),
        "try": (f"{release}/try/", {"workspaces": "trees"}, "add_change"),
        "roll out": (
            f"{release}/roll-out/",
            {"source": old.pk, "batch_size": "1"},
            "add_rollout",
        ),
        "stop": (f"/admin/workspaces/rollout/{rollout.pk}/stop/", {}, "change_rollout"),
    }


def signed_in(*permissions: str, staff: bool = True) -> Client:
    user = factories.make_user(is_staff=staff)
    wanted = Permission.objects.filter(
        content_type__app_label="workspaces", codename__in=permissions
    )
    user.user_permissions.set(wanted)
    client = Client()
    client.force_login(user)
    return client


VIEW = tuple(
    f"view_{name}" for name in ("plugin", "approval", "grant", "release", "change", "rollout")
)
NAMES = ["add", "edit", "read", "approve", "grant", "revoke", "withdraw", "renew",
         "build", "default", "offer", "try", "roll out", "stop"]  # fmt: skip


def everything() -> list[Any]:
    models = (Plugin, Approval, Grant, Release, Change, Rollout, LogEntry)
    return [list(model.objects.order_by("pk").values()) for model in models]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "make",
    [Client, lambda: signed_in(*VIEW, staff=False), signed_in, lambda: signed_in(*VIEW)],
    ids=["nobody", "customer", "staff without", "staff who may only look"],
)
def test_without_the_permission_nothing_happens(make: Callable[[], Client], name: str) -> None:
    path, posted, _ = deeds()[name]
    before = everything()
    client = make()
    for response in (client.post(path, posted), client.get(path)):
        looks = response.status_code == 200 and name in ("edit", "grant", "revoke")
        assert looks or response.status_code in (302, 403, 405)
        if response.status_code == 302:
            assert response.headers["Location"].startswith("/admin/login/?next=")
    assert everything() == before


@pytest.mark.parametrize("name", NAMES)
def test_the_permission_suffices(name: str) -> None:
    path, posted, permission = deeds()[name]
    before = everything()
    response = signed_in(*VIEW, permission).post(path, posted)
    assert response.status_code == 302, text(response)
    assert everything() != before


@pytest.mark.parametrize("name", ["read", "approve", "withdraw", "renew", "build", "stop"])
def test_deeds_need_the_token_of_their_page(operator: User, name: str) -> None:
    path, posted, _ = deeds()[name]
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator)
    assert client.post(path, posted).status_code == 403


def test_whoever_may_only_look_sees_no_buttons() -> None:
    plugin = make_plugin()
    make_approval(plugin, expires_at=timezone.now())
    words = said(signed_in(*VIEW), f"{PLUGINS}{plugin.pk}/change/")
    assert "Approve…" not in words
    assert "Still good" not in words
    assert "Withdraw…" not in words
    assert "Read again" not in words
    words = said(signed_in(*VIEW), f"{RELEASES}{make_next().pk}/change/")
    assert "Roll out…" not in words
    assert "Make default" not in words
