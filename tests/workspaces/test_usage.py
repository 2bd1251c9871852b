"""What an owner sees of what a workspace uses: page, plots and API."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from deploy.models import Instance, UsageHour
from deploy.states import MEBIBYTE
from tests import factories
from tests.workspaces.api.conftest import api_of
from tests.workspaces.html import Page, problems
from workspaces import plots, usage
from workspaces.models import Role, Workspace
from workspaces.usage import SPANS

pytestmark = pytest.mark.django_db


@pytest.fixture
def trees(owner: User) -> Workspace:
    workspace = factories.make_workspace(owner, "trees")
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    for ago in (0, 1, 30, 200, 900):
        UsageHour.objects.create(
            history=workspace.instance.history,
            hour=now - timedelta(hours=ago),
            samples=2,
            memory_peak=120 * MEBIBYTE,
            memory_sum=200 * MEBIBYTE,
            cpu_seconds=10,
            requests=50,
            awake_seconds=1800,
            disk_bytes=(100 + ago) * MEBIBYTE,
        )
    return workspace


def disk(workspace: Workspace, used: int, level: str) -> None:
    Instance.objects.filter(pk=workspace.instance_id).update(
        disk_mb=1024,
        disk_bytes=used * MEBIBYTE,
        disk_level=level,
        disk_measured_at=timezone.now(),
    )


@pytest.mark.parametrize(("span", "hours"), [("day", 2), ("week", 3), ("month", 4)])
def test_hours_fall_into_bars(trees: Workspace, span: str, hours: int) -> None:
    found = usage.buckets(trees, SPANS[span])
    assert len(found) == SPANS[span].bars
    assert sum(bucket.requests for bucket in found) == 50 * hours
    assert found[-1].memory_mb == 120
    unknown = [bucket for bucket in found if bucket.disk_mb is None]
    assert unknown
    assert not any(bucket.awake_hours for bucket in unknown)


@pytest.mark.parametrize("span", ["day", "week", "month", "nonsense", ""])
def test_the_page_shows_five_plots_with_their_numbers(
    trees: Workspace, client_of_owner: Client, span: str
) -> None:
    disk(trees, 512, "fine")
    html = client_of_owner.get("/workspaces/trees/usage/", {"span": span}).content.decode()
    assert problems(html) == []
    page = Page(html)
    plots_there = [svg for svg in page.all("svg") if svg.get("class") == "plot"]
    assert len(plots_there) == 5
    for svg in plots_there:
        title, told = svg.get("aria-labelledby").split()
        assert page.by_id(title).text in ("Disk", "Memory", "CPU", "Requests", "Awake")
        assert "The most: " in page.by_id(told).text
    assert len(page.all("table")) == 5
    assert "512 MiB of 1.0 GiB" in html
    units = [p.text for p in page.all("figcaption")]
    assert units == ["Disk MiB", "Memory MiB", "CPU seconds", "Requests", "Awake hours"]
    assert "style=" not in html  # the CSP allows none


def test_a_new_workspace_has_a_page_too(owner: User, client_of_owner: Client) -> None:
    factories.make_workspace(owner, "new")
    html = client_of_owner.get("/workspaces/new/usage/").content.decode()
    assert problems(html) == []
    assert "Not measured yet" in html
    assert "It was not awake in this time" in html


def test_the_page_takes_the_same_queries_however_much_there_is(
    trees: Workspace, client_of_owner: Client
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            client_of_owner.get("/workspaces/trees/usage/?span=month")
        return len(captured)

    queries()
    few = queries()
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    UsageHour.objects.bulk_create(
        UsageHour(history=trees.instance.history, hour=now - timedelta(hours=ago))
        for ago in range(300, 600)
    )
    assert queries() == few


@pytest.mark.parametrize(
    ("used", "level", "words"),
    [
        (100, "fine", ""),
        (900, "nearly_full", "Its disk is nearly full"),
        (1100, "full", "Its disk is full"),
    ],
)
def test_the_workspaces_page_says_how_its_disk_is(
    trees: Workspace, client_of_owner: Client, used: int, level: str, words: str
) -> None:
    disk(trees, used, level)
    for path in ("", "usage/"):
        html = client_of_owner.get(f"/workspaces/trees/{path}").content.decode()
        assert problems(html) == []
        assert ("Its disk is" in html) == bool(words)
        assert words in html
        assert ("/-/space" in html) == bool(words)
    assert f"of {usage.Disk.of(Instance.objects.get()).limit // MEBIBYTE // 1024}.0 GiB" in html


def test_a_larger_plan_shows_while_the_workspace_sleeps(
    owner: User, trees: Workspace, client_of_owner: Client
) -> None:
    """It says nothing then: what is shown is what it said last, against the limit of now."""
    disk(trees, 1100, "full")
    assert "Its disk is full" in client_of_owner.get("/workspaces/trees/").content.decode()
    Instance.objects.update(disk_mb=10 * 1024)
    assert "Its disk is" not in client_of_owner.get("/workspaces/trees/").content.decode()
    assert api_of(owner).get("/workspaces/trees").json()["disk"]["level"] == "fine"


def test_a_viewer_reads_what_is_wrong_and_not_what_to_do(owner: User, trees: Workspace) -> None:
    disk(trees, 1100, "full")
    viewer = factories.make_user()
    factories.add_member(trees, viewer, Role.VIEWER)
    client = Client()
    client.force_login(viewer)
    html = client.get("/workspaces/trees/").content.decode()
    assert "Its disk is full" in html
    assert "/-/space" not in html
    assert "/workspaces/trees/usage/" not in html


def test_the_api_tells_it_by_the_hour(owner: User, trees: Workspace) -> None:
    disk(trees, 900, "nearly_full")
    api = api_of(owner)
    shown = api.get("/workspaces/trees").json()["disk"]
    assert (shown["used_bytes"], shown["limit_bytes"]) == (900 * MEBIBYTE, 1024 * MEBIBYTE)
    assert shown["level"] == "nearly_full"
    told: dict[str, Any] = api.get("/workspaces/trees/usage?hours=48").json()
    assert told["disk"] == shown
    assert [hour["disk_bytes"] // MEBIBYTE for hour in told["hours"]] == [130, 101, 100]
    assert told["hours"][0]["memory_mean_bytes"] == 100 * MEBIBYTE
    assert len(api.get("/workspaces/trees/usage?hours=2160").json()["hours"]) == 5
    assert api.get("/workspaces/trees/usage?hours=0").status_code == 422


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (0.0123, "0.012"), (3.14159, "3.1"), (1234567.8, "1,234,568")]
)
def test_numbers_in_words(value: float, words: str) -> None:
    assert plots.in_words(value) == words


def test_a_plot_escapes_and_has_no_bar_for_what_is_not_known() -> None:
    drawn = plots.bars([1, None, 3], ["<a>", "b", "c"], "<Title>", "MiB", limit=4)
    assert "<Title>" not in drawn
    assert "<a>" not in drawn
    assert drawn.count("<rect") == 2
    assert "plot__limit" in drawn
    assert plots.bars([], [], "Empty").count("<rect") == 0
