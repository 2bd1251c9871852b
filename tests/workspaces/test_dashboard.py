"""The operators' front page and one workspace, whole: right, linked, and as cheap for many."""

import re
from datetime import timedelta
from html import unescape
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings as configured
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from cloudapp.celery import app
from deploy import hosts, lifecycle
from deploy.engines.base import Engine
from deploy.models import Heartbeat, HostFacts, Image, Instance, InstanceEvent
from deploy.states import Observed, Status
from tests import factories
from tests.broker import waiting
from tests.workspaces import html
from workspaces import attention, dashboard, queues
from workspaces.admin import plots
from workspaces.models import Workspace


@pytest.fixture
def staff(db: None) -> User:
    return factories.make_user("ops@example.org", is_staff=True, is_superuser=True)


@pytest.fixture
def operator(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client


def bulk(count: int) -> None:
    """Make many workspaces in every state, with events, quickly."""
    image = Image.objects.filter(state=Image.State.READY).first() or factories.make_image()
    plan, release = factories.make_plan(), factories.make_release()
    now = timezone.now()
    states = [state for status, state in factories.STATES.items() if status is not Status.DELETED]
    instances = [
        Instance(image=image, key="k", volume=f"v{uuid4()}", created_at=now - timedelta(days=1),
                 **factories.FRESH | states[n % len(states)])
        for n in range(count)
    ]  # fmt: skip
    Instance.objects.bulk_create(instances, batch_size=2000)
    Workspace.objects.bulk_create(
        [
            Workspace(name=f"W {n}", slug=f"w-{uuid4().hex[:20]}", plan=plan, release=release,
                      instance=instance, created_at=now - timedelta(hours=n % 300))
            for n, instance in enumerate(instances)
        ],
        batch_size=2000,
    )  # fmt: skip
    kinds = [("wake", "provisioning"), ("await_ready", "running")]
    InstanceEvent.objects.bulk_create(
        [
            InstanceEvent(instance=instance, history=instance.history, generation=1, kind=kind,
                          status=status, at=now - timedelta(hours=n % 300, seconds=-at))
            for n, instance in enumerate(instances)
            for at, (kind, status) in enumerate(kinds)
        ],
        batch_size=5000,
    )  # fmt: skip


def queries(client: Client, address: str) -> int:
    client.get(address)  # what is remembered between requests
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


# --- the front page ------------------------------------------------------------------------------


def test_it_costs_the_same_for_10_and_for_10_000(operator: Client) -> None:
    pages = ("/admin/", "/admin/attention/", "/admin/workspaces/workspace/")
    bulk(10)
    few = [queries(operator, address) for address in pages]
    bulk(9_990)
    with connection.cursor() as cursor:
        # As Postgres does by itself, but not within a transaction: what it knows of these tables
        # may be that they are empty, and a plan for no rows takes minutes for so many.
        cursor.execute("ANALYZE")
    assert [queries(operator, address) for address in pages] == few
    assert max(few) < 70


def test_workspaces_are_found(operator: Client) -> None:
    address = "/admin/workspaces/workspace/"
    bulk(9)
    for query in ("status=failed", "used=not-week", "q=ops@example.org", "image=1", "plugin=x"):
        assert operator.get(f"{address}?{query}").status_code == 200


def test_every_number_leads_to_the_list_behind_it(operator: Client) -> None:
    owner = factories.make_user()
    for status in Status:
        factories.make_workspace(owner, status=status)
    factories.make_image(state=Image.State.FAILED, error="pip said no")
    page = html.Page(operator.get("/admin/").content.decode())
    links = {link for link in page.links if link.startswith("/admin/")}
    assert len(links) > 30
    for link in sorted(links):
        assert operator.get(link).status_code == 200, link


# A number with the link that leads to its list, in each of the ways in which the page shows one.
NUMBERS = [
    r'<h2[^>]*><a href="([^"]+)">[^<]*</a>(?: <span class="quiet">[^<]*</span>)? '
    r'<span class="count[^"]*">([\d,]+)</span>',
    r'<a href="([^"]+)"><span class="(?:numbers__value|codes__count|count)[^"]*">([\d,]+)',
    r'<td><a href="([^"]+)">([\d,?]+)</a></td>',
    r'<th scope="row"><a href="([^"]+)">[^<]*</a> <span class="quiet">([\d,]+)(?: times?)?</span>',
    r'<p><a href="([^"]+)">([\d,]+) signed up',
]


def whole_fleet() -> None:
    """Make something for each number of the front page to count, and something beside it."""
    owner = factories.make_user()
    workspaces = {status: factories.make_workspace(owner, status=status) for status in Status}
    for state in Image.State:
        factories.make_image(state=state)
    ready, coming, claimed = [
        lifecycle.create(workspaces[Status.RUNNING].instance.image, spare=True) for _ in range(3)
    ]
    for spare in (ready, claimed):
        factories.set_status(spare, Status.RUNNING)
        factories.add_event(spare, "await_ready", status="running")
    lifecycle.record_pristine(claimed.pk)
    Instance.objects.filter(pk=claimed.pk).update(created_at=timezone.now() - timedelta(days=1))
    taken = lifecycle.claim_spare(claimed.image)
    assert taken == claimed
    lifecycle.record_claimed(taken)
    asleep = workspaces[Status.SLEEPING].instance
    for at in (timedelta(minutes=1), timedelta(hours=30), timedelta(days=20)):
        factories.add_event(asleep, "wake", at=timezone.now() - at, status="provisioning")
        factories.add_event(asleep, "lost", at=timezone.now() - at, failed=True)
    assert not coming.ready
    for instance in Instance.objects.exclude(observed=Observed.ABSENT):
        Instance.objects.filter(pk=instance.pk).update(node=f"node-{instance.status.value[0]}")


def test_every_number_is_as_many_as_the_list_behind_it(operator: Client) -> None:
    whole_fleet()
    waits = len(waiting("later"))
    app.send_task("deploy.tasks.beat_of", ["later"], queue="later")
    page = operator.get("/admin/").content.decode()
    found = [(unescape(link), said) for kind in NUMBERS for link, said in re.findall(kind, page)]
    told = dict(found)
    assert len(found) > 100
    for part in ("state=kept", "spare__exact=1", "asked=new", "asked=awake", "trouble=yes",
                 "state__exact=failed", "created__gte", "/attention/", "node=node-s"):  # fmt: skip
        some = [said for link, said in found if part in link]
        assert some, part
        assert any(said != "0" for said in some), part
    assert int(told["/admin/queues/later/"]) == waits + 1
    for link, said in found:
        context = operator.get(link).context
        there = context["cl"].result_count if "cl" in context else context["count"]
        assert said.replace(",", "") == str(there), link


def test_what_waits_in_a_queue_is_listed(operator: Client) -> None:
    app.send_task("deploy.tasks.beat_of", ["an owl"], queue="outside")
    page = operator.get("/admin/queues/outside/").content.decode()
    assert "deploy.tasks.beat_of" in page
    assert "an owl" in page
    assert operator.get("/admin/queues/nowhere/").status_code == 404


@pytest.mark.usefixtures("without_redis")
def test_without_redis_nobody_knows_what_waits(operator: Client) -> None:
    page = operator.get("/admin/queues/outside/").content.decode()
    assert "Redis does not answer" in page
    assert "Nothing waits" not in page


def test_a_status_leads_to_those_that_have_it(operator: Client) -> None:
    owner = factories.make_user()
    made = {status: factories.make_workspace(owner, status=status) for status in Status}
    shown = dashboard.front_page(User.objects.get(emailaddress__email="ops@example.org"))
    for number in shown["statuses"]:
        assert number.value == 1
        listed = operator.get(number.url).content.decode()
        for status, workspace in made.items():
            there = f">{workspace.slug} <span" in listed
            assert there == (status.value == number.label), (status, number)


def test_what_happened_over_time(staff: User, operator: Client) -> None:
    workspace = factories.make_workspace(factories.make_user())
    older = factories.make_workspace(factories.make_user())
    Workspace.objects.filter(pk=older.pk).update(created_at=timezone.now() - timedelta(days=40))
    now = timezone.now()
    history = workspace.instance.history
    at = now - timedelta(minutes=1)
    factories.add_event(workspace.instance, "wake", at=at, status="provisioning")
    factories.add_event(
        workspace.instance, "await_ready", at=at + timedelta(milliseconds=300), status="running"
    )
    factories.add_event(workspace.instance, "start", at=at, failed=True)
    assert history
    shown = dashboard.front_page(staff)
    totals = {(series.title, series.span): series.total for series in shown["series"]}
    for span in ("14 days", "24 hours"):
        assert totals["Workspaces made", span] == 1
        assert totals["Wakes", span] == 1
        assert totals["Failures", span] == 1
    for series in shown["series"]:
        (point,) = [point for point in series.points if point.value]
        listed = operator.get(point.url).content.decode()
        named = str(workspace.instance_id) if "Workspaces" not in series.title else workspace.slug
        assert named in listed
        assert older.slug not in listed
    wakes = shown["times"][1]
    assert (wakes.count, wakes.p50, wakes.p95) == (1, 300, 300)


def test_ranks() -> None:
    assert [dashboard._rank(range(1, 101), part) for part in (0.5, 0.95)] == [50, 95]
    assert dashboard._rank([7], 0.95) == 7


def test_times_leave_spares_out(staff: User) -> None:
    image = factories.make_image()
    nobodys = Instance.objects.bulk_create([Instance(image=image, key="k", spare=True)])[0]
    factories.add_event(nobodys, "create_requested")
    factories.add_event(nobodys, "await_ready", status="running")
    assert dashboard.front_page(staff)["times"][0].count == 0


@pytest.mark.usefixtures("without_redis")
def test_without_redis_the_page_says_so(operator: Client, staff: User) -> None:
    assert queues.depths() is None
    response = operator.get("/admin/")
    assert response.status_code == 200
    assert "Redis does not answer" in response.content.decode()


def test_capacity_is_what_may_be_used_of_what_there_is(staff: User) -> None:
    factories.make_workspace(factories.make_user())
    factories.make_workspace(factories.make_user(), status=Status.SLEEPING)
    HostFacts.objects.create(
        name="host", cores=2, memory_mb=2048, disk_mb=10_240, disk_free_mb=4096
    )
    memory, promised, cpu, disk = dashboard.front_page(staff)["shares"]
    assert (memory.taken, memory.total) == (0, 2), "nobody said yet what it uses"
    assert (promised.taken, promised.total, promised.percent) == (0.5, 2, 25)
    assert (cpu.taken, cpu.total) == (1, 2)
    assert disk.percent == 60


def test_what_runs_is_as_many_as_the_list_behind_it(operator: Client, staff: User) -> None:
    for status in (Status.RUNNING, Status.SLEEPING, Status.FAILED, Status.DELETED):
        factories.make_workspace(factories.make_user(), status=status)
    paused = factories.make_workspace(factories.make_user()).instance
    Instance.objects.filter(pk=paused.pk).update(observed="paused", ready=False)
    silent = factories.make_workspace(factories.make_user()).instance
    Instance.objects.filter(pk=silent.pk).update(observed="unknown")
    _, promised, *_ = dashboard.front_page(staff)["shares"]
    listed = operator.get(promised.url).context["cl"].result_count
    assert promised.words.startswith(f"what {listed} containers")


def test_what_is_promised_may_be_more_than_there_is_and_what_is_used_may_not(staff: User) -> None:
    HostFacts.objects.create(name="host", cores=2, memory_mb=1024)
    for number in range(5):
        used = factories.make_workspace(factories.make_user()).instance
        told = {"run": "a", "memory_bytes": number * 48 * 2**20}
        Instance.objects.filter(pk=used.pk).update(counters=told)
    asleep = factories.make_workspace(factories.make_user(), status=Status.SLEEPING).instance
    Instance.objects.filter(pk=asleep.pk).update(counters={"memory_bytes": 2**40})
    memory, promised, *_ = dashboard.front_page(staff)["shares"]
    assert (memory.taken, memory.percent, memory.is_short) == (480 / 1024, 47, False)
    assert (promised.percent, promised.is_short) == (250, False)
    Instance.objects.filter(pk=used.pk).update(counters={"memory_bytes": 800 * 2**20})
    memory, *_ = dashboard.front_page(staff)["shares"]
    assert memory.is_short


@pytest.mark.parametrize("found", ["q=node-1", "node=node-1"])
def test_workspaces_are_found_by_their_node(operator: Client, found: str) -> None:
    for slug, name in (("here", "node-1"), ("there", "node-10")):
        workspace = factories.make_workspace(factories.make_user(), slug)
        Instance.objects.filter(pk=workspace.instance_id).update(node=name)
    response = operator.get(f"/admin/workspaces/workspace/?{found}")
    assert [row.slug for row in response.context["cl"].result_list] == ["here"]
    assert "on node-1</span>" in response.content.decode()
    instances = operator.get(f"/admin/deploy/instance/?{found}")
    assert instances.context["cl"].result_count == 1
    page = operator.get(f"/admin/workspaces/workspace/{workspace.pk}/change/").content.decode()
    assert "<td>node-10</td>" in page


def test_a_machine_that_has_another_name_now_does_not_count(staff: User) -> None:
    for name, minutes in (("new", 1), ("old", 11)):
        at = timezone.now() - timedelta(minutes=minutes)
        HostFacts.objects.create(
            name=name, cores=2, memory_mb=2048, disk_mb=1000, disk_free_mb=10 * minutes, at=at
        )
    HostFacts.objects.filter(name="new").update(disk_free_mb=900)
    memory, *_, disk = dashboard.front_page(staff)["shares"]
    assert (memory.total, disk.percent) == (2, 10)
    assert "host-disk-low" not in attention.counts()


@pytest.mark.django_db
def test_a_worker_writes_down_what_the_host_has(engine: Engine) -> None:
    days_ago = timezone.now() - timedelta(days=2)
    HostFacts.objects.create(name="its old name", cores=2, memory_mb=2048, at=days_ago)
    hosts.look()
    hosts.look()
    facts = HostFacts.objects.get()
    assert facts.cores >= 1
    assert facts.memory_mb > 100
    assert facts.engine.startswith("Docker")
    hosts.note_beat("now")
    hosts.note_beat("now")
    assert Heartbeat.objects.get().queue == "now"


def test_every_queue_gets_a_beat() -> None:
    asked = {
        entry["args"][0]: entry["options"]["queue"]
        for entry in configured.CELERY_BEAT_SCHEDULE.values()
        if entry["task"] == "deploy.tasks.beat_of"
    }
    assert asked == {queue.name: queue.name for queue in configured.CELERY_TASK_QUEUES}


def test_others_get_the_lists_only(db: None) -> None:
    user = factories.make_user(is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_workspace"))
    client = Client()
    client.force_login(user)
    page = client.get("/admin/").content.decode()
    assert "All lists" in page
    assert "Needs attention" not in page
    assert client.get("/admin/attention/").status_code == 403
    assert client.get("/admin/queues/now/").status_code == 403
    assert client.get("/admin/attention/beat-silent/").status_code == 403


def test_plots_are_pictures_with_words() -> None:
    drawn = plots.bars([0, 3, 6], "Wakes <3")
    assert 'role="img"' in drawn
    assert "<title>Wakes &lt;3</title>" in drawn
    heights = [float(found) for found in re.findall(r'height="([\d.]+)"', drawn)]
    assert heights == [0.8, plots.HEIGHT / 2, plots.HEIGHT]
    assert 'class="over"' in plots.share(120, "Disk", short=True)
    assert 'width="100"' in plots.share(120, "Disk")


# --- one workspace -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", list(Status))
def test_one_workspace_whole(operator: Client, status: Status) -> None:
    workspace = factories.make_workspace(factories.make_user("eve@example.org"), status=status)
    for n in range(60):
        factories.add_event(workspace.instance, "create", duration_ms=n, message=f"words {n}")
    address = f"/admin/workspaces/workspace/{workspace.pk}/change/"
    text = operator.get(address).content.decode()
    for words in ("eve@example.org", "Desired and observed", "words 59", workspace.instance.volume):
        assert words in text
    assert "words 1<" not in text
    assert "words 1<" in operator.get(f"{address}?page=2").content.decode()
    assert workspace.instance.key not in text


def test_a_page_of_one_costs_the_same_however_much_happened(operator: Client) -> None:
    owner = factories.make_user()
    workspace = factories.make_workspace(owner)
    address = f"/admin/workspaces/workspace/{workspace.pk}/change/"

    def more(count: int) -> None:
        for _ in range(count):
            factories.add_member(workspace, factories.make_user(), factories.Role.VIEWER)
            factories.add_event(workspace.instance, "create", duration_ms=1)
            workspace.activities.create(user=owner, verb="renamed")
            workspace.webhooks.create(url="https://93.184.216.34/", secret="sealed")

    more(3)
    few = queries(operator, address)
    more(30)
    assert queries(operator, address) == few


def test_secrets_are_named_and_not_shown(operator: Client) -> None:
    workspace = factories.make_workspace(factories.make_user())
    Instance.objects.filter(pk=workspace.instance_id).update(secrets={"OWL_KEY": "sealed-owl"})
    text = operator.get(f"/admin/workspaces/workspace/{workspace.pk}/change/").content.decode()
    assert "OWL_KEY" in text
    assert "sealed-owl" not in text


def test_the_observed_side_differs_in_words(operator: Client) -> None:
    workspace = factories.make_workspace(factories.make_user(), status=Status.STOPPED)
    address = f"/admin/workspaces/workspace/{workspace.pk}/change/"
    assert "not as desired" not in operator.get(address).content.decode()
    Instance.objects.filter(pk=workspace.instance_id).update(observed=Observed.RUNNING)
    assert "not as desired" in operator.get(address).content.decode()


def test_pages_are_sound(operator: Client) -> None:
    workspace = factories.make_workspace(factories.make_user(), status=Status.FAILED)
    pages: dict[str, Any] = {
        "front": "/admin/",
        "attention": "/admin/attention/",
        "code": "/admin/attention/instance-failing/",
        "queue": "/admin/queues/now/",
        "whole": f"/admin/workspaces/workspace/{workspace.pk}/change/",
    }
    for name, address in pages.items():
        page = html.Page(operator.get(address).content.decode())
        levels = [int(e.tag[1]) for e in page.elements if re.fullmatch(r"h[1-6]", e.tag)]
        assert levels.count(1) <= 2, name  # Django's own frame has one too
        jumps = [(a, b) for a, b in pairwise(levels) if b > a + 1]
        assert not jumps, (name, levels)
        ids = [e.get("id") for e in page.elements if e.get("id")]
        assert len(ids) == len(set(ids)), name
        for link in page.all("a"):
            assert link.text.strip() or link.get("aria-label"), (name, link)
