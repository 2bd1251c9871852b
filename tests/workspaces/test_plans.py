"""A changed plan reaches the workspaces that have it: at once, or a few containers at a time."""

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import AuditEntry, User
from deploy import lifecycle
from deploy.models import Instance
from deploy.states import Desired, Observed, Status
from tests import factories
from tests.workspaces.test_plugins_page import approve
from tests.workspaces.test_services import at_once
from workspaces import changes, deeds, invitations, operations, plans, services
from workspaces.models import Change, Plan, Role, Step, Workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ready")]


@pytest.fixture
def plan() -> Plan:
    return factories.make_plan()


@pytest.fixture
def operator() -> User:
    return factories.make_user(is_staff=True, is_superuser=True)


def many(owner: User, count: int, status: Status = Status.RUNNING) -> list[Workspace]:
    return [
        factories.make_workspace(owner, f"{status}-{number:03}", status=status)
        for number in range(count)
    ]


def moved(plan: Plan) -> set[str]:
    """The slugs of those whose instance is to have the plan's memory."""
    rows = Workspace.objects.filter(plan=plan, instance__memory_mb=plan.memory_mb)
    return set(rows.values_list("slug", flat=True))


def come_up(*slugs: str, status: Status = Status.RUNNING) -> None:
    for instance in Instance.objects.filter(workspace__slug__in=slugs):
        factories.set_status(instance, status)


def changed(plan: Plan, **values: object) -> Plan:
    return plans.change(plan, values)[0]


def test_containers_are_replaced_a_few_at_a_time(owner: User, plan: Plan) -> None:
    many(owner, 12)
    plan = changed(plan, memory_mb=1024)
    assert plans.progress()[plan.pk] == plans.Progress(12, 0, 0)
    seen: set[str] = set()
    for so_far in (5, 10, 12):
        plans.follow_all()
        batch = moved(plan) - seen
        assert len(moved(plan)) == so_far
        # Those are made anew: nobody else is, before they are back.
        going = Instance.objects.filter(workspace__slug__in=batch)
        assert {instance.generation for instance in going} == {2}
        plans.follow_all()
        assert len(moved(plan)) == so_far, "no worker has begun yet"
        going.update(ready=False, observed=Observed.ABSENT)
        plans.follow_all()
        assert len(moved(plan)) == so_far, "they do not answer yet"
        come_up(*batch)
        seen |= batch
    plans.follow_all()
    assert plans.progress()[plan.pk] == plans.Progress(12, 12, 0)
    assert {instance.generation for instance in Instance.objects.all()} == {2}


def test_what_does_not_run_is_not_started_for_it(owner: User, plan: Plan) -> None:
    still = (Status.SLEEPING, Status.STOPPED, Status.SUSPENDED)
    for status in still:
        many(owner, 7, status)
    plan = changed(plan, memory_mb=1024)
    assert not plans.follow_all()
    assert len(moved(plan)) == 21
    assert set(Instance.objects.values_list("desired", flat=True)) == {Desired.STOPPED}


def test_those_that_fail_are_named_and_hold_nobody_up_for_ever(owner: User, plan: Plan) -> None:
    many(owner, 30)
    plan = changed(plan, memory_mb=64)
    for _ in range(60):
        before = moved(plan)
        plans.follow_all()
        come_up(*(moved(plan) - before), status=Status.FAILED)
    progress = plans.progress()[plan.pk]
    assert (progress.total, progress.following, progress.failing) == (30, 30, 30)
    assert progress.examples[0] == "running-000"
    # And slowly: while the first batch fails, one at a time.
    plan = changed(plan, memory_mb=65)
    come_up(*Workspace.objects.values_list("slug", flat=True))
    Instance.objects.update(memory_mb=64)
    plans.follow_all()
    come_up(*moved(plan), status=Status.FAILED)
    plans.follow_all()
    assert len(moved(plan)) == 6


def test_what_needs_no_container_counts_at_once(owner: User, plan: Plan) -> None:
    many(owner, 12)
    many(owner, 3, Status.SLEEPING)
    changed(plan, disk_mb=77, idle_seconds=5, max_members=2)
    plans.follow_all()
    assert set(Instance.objects.values_list("disk_mb", "idle_seconds", "generation")) == {
        (77, 5, 1)
    }
    assert plans.progress()[plan.pk].lagging == 0


def test_plugins_that_need_the_internet_keep_it(owner: User, plan: Plan) -> None:
    online, other = many(owner, 2)
    approval = approve("datasette-online", needs_internet=True)
    online.plugins.add(approval)
    Instance.objects.filter(pk=online.instance_id).update(internet=True)
    plans.follow_all()
    assert plans.progress()[plan.pk].lagging == 0
    plan = changed(plan, internet=True)
    assert plans.progress()[plan.pk].lagging == 1
    plans.follow_all()
    changed(plan, internet=False)
    come_up(other.slug)
    plans.follow_all()
    there = Instance.objects.filter(internet=True).values_list("workspace__slug", flat=True)
    assert list(there) == [online.slug]


def test_a_deleted_one_follows_when_it_is_back(owner: User, plan: Plan) -> None:
    (workspace,) = many(owner, 1)
    services.delete(workspace, owner)
    plan = changed(plan, memory_mb=1024)
    plans.follow_all()
    assert plans.progress().get(plan.pk, plans.Progress()).total == 0
    services.undelete(workspace, owner)
    plans.follow_all()
    assert moved(plan) == {workspace.slug}


def test_another_plan_replaces_a_container_only_if_it_must(owner: User, operator: User) -> None:
    (workspace,) = many(owner, 1)
    roomy = Plan.objects.create(name="Roomy", disk_mb=50_000)
    operations.change_plan(workspace, operator, roomy)
    workspace.instance.refresh_from_db()
    assert (workspace.instance.disk_mb, workspace.instance.generation) == (50_000, 1)
    operations.change_plan(workspace, operator, Plan.objects.create(name="Big", memory_mb=2048))
    workspace.instance.refresh_from_db()
    assert (workspace.instance.memory_mb, workspace.instance.generation) == (2048, 2)


def test_many_that_get_another_plan_take_turns(owner: User, operator: User) -> None:
    """A selection in the admin may hold 200: they would all be down at once."""
    spaces = many(owner, 12)
    (asleep,) = many(owner, 1, Status.SLEEPING)
    (failed,) = many(owner, 1, Status.FAILED)
    big = Plan.objects.create(name="Big", memory_mb=2048)
    for workspace in (*spaces, asleep, failed):
        operations.change_plan(workspace, operator, big)
    assert Workspace.objects.filter(plan=big).count() == 14
    at_once = {workspace.slug for workspace in spaces[: plans.AT_ONCE]}
    assert moved(big) == {*at_once, asleep.slug, failed.slug}
    come_up(*at_once, failed.slug)
    plans.follow_all()
    assert len(moved(big)) == 2 * plans.AT_ONCE + 2


def test_progress_costs_the_same_for_ten_and_for_many(owner: User, plan: Plan) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            plans.progress()
        return len(captured)

    many(owner, 2)
    few = queries()
    many(owner, 20, Status.FAILED)
    assert queries() == few == 2


def test_the_plans_page_shows_how_many_follow(owner: User, operator: User, plan: Plan) -> None:
    many(owner, 7)
    browser = Client()
    browser.force_login(operator)
    path = f"/admin/workspaces/plan/{plan.pk}/change/"
    assert "7: all follow it as it is now." in browser.get(path).content.decode()
    changed(plan, memory_mb=1024)
    page = browser.get(path).content.decode()
    assert "0 of 7 follow it as it is now" in page
    plans.follow_all()
    come_up("running-000", status=Status.FAILED)
    page = browser.get(path).content.decode()
    assert "5 of 7 follow it as it is now" in page
    assert "1 of those that follow does not come up" in page
    assert "running-000" in page


def test_the_admin_has_the_others_follow(owner: User, operator: User, plan: Plan) -> None:
    many(owner, 1)
    browser = Client()
    browser.force_login(operator)
    path = f"/admin/workspaces/plan/{plan.pk}/change/"
    form = {name: getattr(plan, name) for name in plans.LABELS if name != "internet"}
    response = browser.post(path, {**form, "is_default": "on", "memory_mb": 1024})
    assert response.status_code == 302, response.content.decode()
    plans.follow_all()
    assert moved(Plan.objects.get()) == {"running-000"}
    refused = browser.post(path, {**form, "is_default": "on", "memory_mb": 1})
    assert refused.status_code == 200
    assert deeds.may(operator, "change_plan")


def test_the_admin_refuses_what_the_api_does(operator: User, plan: Plan) -> None:
    browser = Client()
    browser.force_login(operator)
    path = f"/admin/workspaces/plan/{plan.pk}/change/"
    form = {name: getattr(plan, name) for name in plans.LABELS if name != "internet"}
    form["is_default"] = "on"
    undefault = browser.post(path, {name: said for name, said in form.items() if said != "on"})
    assert plans.NO_DEFAULT in undefault.content.decode()
    assert browser.post(path, {**form, "disk_mb": 0}).status_code == 200
    assert Plan.objects.get() == plan
    assert Plan.objects.get().is_default
    assert Plan.objects.get().disk_mb == plan.disk_mb
    assert not LogEntry.objects.exists()

    added = browser.post("/admin/workspaces/plan/add/", {**form, "name": "Big", "disk_mb": 5})
    assert added.status_code == 302
    big = Plan.objects.get(is_default=True)
    assert (big.name, big.disk_mb) == ("Big", 5)
    assert LogEntry.objects.count() == 1
    changed_too = browser.post(path, {**form, "memory_mb": 1024})
    assert changed_too.status_code == 302
    assert Plan.objects.get(is_default=True) == plan
    verbs = AuditEntry.objects.order_by("id").values_list("verb", flat=True)
    assert [verb for verb in verbs if "plan" in verb] == ["added_plan", "edited_plan"]
    assert LogEntry.objects.count() == 2


def test_one_that_cannot_follow_keeps_no_other_waiting(
    owner: User, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(owner, 3)
    plan = changed(plan, memory_mb=1024)
    follow = plans.follow

    def fails_at_first(workspace: Workspace) -> None:
        if workspace.slug == "running-000":
            raise RuntimeError("whatever nobody thought of")
        follow(workspace)

    monkeypatch.setattr(plans, "follow", fails_at_first)
    plans.follow_all()
    assert moved(plan) == {"running-001", "running-002"}


def test_those_that_somebody_wakes_take_no_places(owner: User, plan: Plan) -> None:
    asleep = many(owner, 6, Status.SLEEPING)
    waiting = factories.make_workspace(owner, "waiting")
    plan = changed(plan, memory_mb=1024)
    plans.follow_all()
    come_up("waiting")
    for workspace in asleep:
        assert lifecycle.wake(workspace.instance_id)
    before = lifecycle.create(waiting.instance.image)
    held = {"ready": False, "predecessor": before}
    Instance.objects.filter(workspace=waiting).update(**held)
    lagging = [factories.make_workspace(owner, f"lagging-{n}").slug for n in range(plans.AT_ONCE)]
    plans.follow_all()
    assert moved(plan) >= set(lagging)


def test_a_change_of_plugins_that_is_under_way_goes_first(
    owner: User, operator: User, plan: Plan
) -> None:
    """At its switch, the instance has the new set already, which may need the internet, and the
    workspace the old one still.
    """
    workspace = factories.make_workspace(owner)
    change = changes.request(workspace, None, [])
    Change.objects.filter(pk=change.pk).update(step=Step.SWITCH)
    lifecycle.change_spec(workspace.instance_id, "change_plugins", internet=True)
    big = Plan.objects.create(name="Big", memory_mb=2048, disk_mb=77)
    operations.change_plan(workspace, operator, big)
    plans.follow_all()
    instance = Instance.objects.get(pk=workspace.instance_id)
    assert (instance.internet, instance.memory_mb, instance.generation) == (True, 512, 2)
    assert instance.disk_mb == 77, "what needs no other container counts at once"
    assert Workspace.objects.get().plan == big
    Change.objects.filter(pk=change.pk).update(state=Change.State.DONE)
    plans.follow_all()
    instance.refresh_from_db()
    assert (instance.internet, instance.memory_mb, instance.generation) == (False, 2048, 3)


# --- members -------------------------------------------------------------------------------------


def test_members_are_counted(owner: User, plan: Plan) -> None:
    (workspace,) = many(owner, 1)
    Plan.objects.update(max_members=2)
    friend = factories.make_user(name="Grace")
    invitations.let_in(workspace, friend, Role.EDITOR)
    assert str(workspace.activities.get()) == "joined as an editor"
    with pytest.raises(services.Refused, match="belongs to the workspace already"):
        invitations.let_in(workspace, friend, Role.VIEWER)
    with pytest.raises(services.Refused, match="room for 2 members") as caught:
        invitations.let_in(workspace, factories.make_user(), Role.VIEWER)
    assert caught.value.code == "member_limit"
    assert workspace.members.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_many_who_come_at_once_as_many_as_may_get_in(owner: User) -> None:
    workspace = factories.make_workspace(owner)
    Plan.objects.update(max_members=3)
    people = [factories.make_user() for _ in range(8)]
    raised = at_once(8, lambda n: invitations.let_in(workspace, people[n], Role.VIEWER) and None)
    codes = [getattr(error, "code", error) for error in raised]
    assert codes == ["member_limit"] * 6
    assert workspace.members.count() == 3


@pytest.fixture
def browser(operator: User) -> Client:
    client = Client()
    client.force_login(operator)
    return client


# --- spares --------------------------------------------------------------------------------------


def test_a_spare_of_the_old_limits_is_given_to_nobody(plan: Plan) -> None:
    image = services.default_image()
    assert image is not None
    spare = lifecycle.create(image, spare=True, **plan.limits)
    factories.set_status(spare, Status.RUNNING)
    lifecycle.record_pristine(spare.pk)
    assert lifecycle.claim_spare(image, **changed(plan, disk_mb=5).limits) is None
