"""The admin pages of workspaces and deploy: they open, find, and change nothing by accident."""

import re

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from deploy.models import Heartbeat, HostFacts, Instance, LogTail, Orphan
from deploy.states import Status
from tests import factories
from workspaces import services
from workspaces.models import Plan, Role

LISTS = [
    "workspaces/plan/",
    "workspaces/workspace/",
    "workspaces/member/",
    "workspaces/activity/",
    "workspaces/webhook/",
    "workspaces/delivery/",
    "deploy/instance/",
    "deploy/instanceevent/",
    "deploy/image/",
    "deploy/orphan/",
    "deploy/logtail/",
    "deploy/hostfacts/",
    "deploy/heartbeat/",
]
READ_ONLY = [
    path for path in LISTS if path.startswith("deploy/") or "activity" in path or "delivery" in path
]


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    return client


def populate(count: int) -> None:
    for _ in range(count):
        owner = factories.make_user(name="Ada")
        workspace = factories.make_workspace(owner, status=Status.STOPPED)
        factories.add_member(workspace, factories.make_user(), Role.VIEWER)
        hook = workspace.webhooks.create(url="https://93.184.216.34/", secret="sealed")
        hook.deliveries.create(type="ping", body="{}")
        services.start(workspace, owner)
        image = factories.make_image()
        factories.add_event(workspace.instance, "create", duration_ms=1)
        LogTail.objects.create(instance=workspace.instance, text="line")
        Orphan.objects.create(name=image.digest, kind="volume")
        HostFacts.objects.create(name=image.digest, cores=2, memory_mb=4096)
        Heartbeat.objects.create(queue=image.digest)


def newest(path: str) -> Model:
    app, name, _ = path.split("/")
    row: Model = apps.get_model(app, name)._default_manager.order_by("-pk")[0]
    return row


def test_every_model_has_a_page() -> None:
    registered = {f"{m._meta.app_label}/{m._meta.model_name}/" for m in admin.site._registry}
    assert set(LISTS) <= registered


@pytest.mark.parametrize("path", LISTS)
def test_lists_cost_the_same_however_long_they_are(operator: Client, path: str) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert operator.get(f"/admin/{path}").status_code == 200
        return len(captured)

    populate(3)
    queries()
    few = queries()
    populate(20)
    assert queries() == few
    assert few <= 14


@pytest.mark.parametrize("path", LISTS)
def test_each_thing_has_a_page(operator: Client, path: str) -> None:
    populate(1)
    assert operator.get(f"/admin/{path}{newest(path).pk}/change/").status_code == 200


@pytest.mark.parametrize("path", READ_ONLY)
def test_records_cannot_be_changed(operator: Client, path: str) -> None:
    populate(1)
    assert operator.get(f"/admin/{path}add/").status_code == 403
    row = newest(path)
    assert operator.post(f"/admin/{path}{row.pk}/change/", {}).status_code == 403
    assert operator.post(f"/admin/{path}{row.pk}/delete/", {"post": "yes"}).status_code == 403


def test_the_key_of_an_instance_is_shown_to_nobody(operator: Client) -> None:
    populate(1)
    instance = Instance.objects.get()
    for path in ("", f"{instance.pk}/change/"):
        page = operator.get(f"/admin/deploy/instance/{path}").content.decode()
        assert str(instance.pk) in page
        assert instance.key not in page


@pytest.mark.parametrize("words", ["trees", "Old tr", "ada@example.org"])
def test_workspaces_are_found_by_what_people_know(operator: Client, words: str) -> None:
    factories.make_workspace(factories.make_user("ada@example.org"), "trees", name="Old trees")
    factories.make_workspace(factories.make_user("grace@example.org"), "ships", name="Ships")
    page = operator.get("/admin/workspaces/workspace/", {"q": words}).content.decode()
    assert "trees" in page
    assert "ships" not in page


@pytest.mark.parametrize(
    ("query", "there", "missing"),
    [("state=live", "alive", "buried"), ("state=deleted", "buried", "alive"),
     ("state=purged", "dust", "buried")],
)  # fmt: skip
def test_workspaces_by_state(operator: Client, query: str, there: str, missing: str) -> None:
    owner = factories.make_user()
    factories.make_workspace(owner, "alive")
    factories.make_workspace(owner, "buried", status=Status.DELETING)
    factories.make_workspace(owner, "dust", status=Status.DELETED)
    page = operator.get(f"/admin/workspaces/workspace/?{query}").content.decode()
    assert there in page
    assert missing not in page


def test_instances_in_trouble(operator: Client) -> None:
    owner = factories.make_user()
    well = factories.make_workspace(owner).instance
    failed = factories.make_workspace(owner, status=Status.FAILED).instance
    page = operator.get("/admin/deploy/instance/?trouble=yes").content.decode()
    assert str(failed.pk) in page
    assert str(well.pk) not in page
    events = operator.get(f"/admin/deploy/instanceevent/?instance={failed.pk}").content.decode()
    assert str(failed.pk) in events
    assert str(well.pk) not in events


def test_lists_are_named_by_what_is_in_them(operator: Client) -> None:
    text = operator.get("/admin/accounts/auditentry/").content.decode()
    assert "<h1>Audit log</h1>" in text
    assert re.findall(r"<summary>\s*(.*?)\s*</summary>", text) == ["By operator", "Via", "At"]


def test_times_are_written_as_in_exports(operator: Client) -> None:
    text = operator.get("/admin/accounts/auditentry/").content.decode()
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", text)
    assert "a.m." not in text
    assert "p.m." not in text


def test_a_workspace_cannot_be_added_or_deleted_here(operator: Client) -> None:
    workspace = factories.make_workspace(factories.make_user())
    assert operator.get("/admin/workspaces/workspace/add/").status_code == 403
    path = f"/admin/workspaces/workspace/{workspace.pk}/delete/"
    assert operator.post(path, {"post": "yes"}).status_code == 403


def test_the_default_plan_stays(operator: Client) -> None:
    default = factories.make_plan()
    other = Plan.objects.create(name="Big")
    for plan, status in ((default, 403), (other, 302)):
        path = f"/admin/workspaces/plan/{plan.pk}/delete/"
        assert operator.post(path, {"post": "yes"}).status_code == status


def test_staff_who_are_not_operators_of_everything_see_nothing(db: None) -> None:
    client = Client()
    client.force_login(factories.make_user(is_staff=True))
    assert {client.get(f"/admin/{path}").status_code for path in LISTS} == {403}


def test_customers_do_not_get_in(db: None) -> None:
    client = Client()
    user: User = factories.make_user()
    client.force_login(user)
    for path in LISTS:
        assert client.get(f"/admin/{path}").status_code in (302, 403)
