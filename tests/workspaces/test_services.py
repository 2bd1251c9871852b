"""What can be done with a workspace: each deed with its record, and what is refused."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from deploy import lifecycle
from deploy.models import Image, Instance
from deploy.states import Desired, Status, StopReason
from tests import factories
from workspaces import changes, history, invitations, members, services
from workspaces.models import Activity, Member, Plan, Role, Workspace
from workspaces.services import Refused


def deeds(workspace: Workspace) -> list[str]:
    return list(workspace.activities.values_list("verb", flat=True))


# --- create ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("ready")
def test_create_makes_workspace_owner_instance_and_record(owner: User) -> None:
    Plan.objects.update(memory_mb=256, cpus=0.5, pids=64, idle_seconds=60, internet=True)
    newest = factories.make_image()
    workspace = services.create_workspace(owner, "  Trees  of Lisbon ", "trees")
    assert (workspace.name, workspace.slug) == ("Trees of Lisbon", "trees")
    assert workspace.status is Status.PROVISIONING
    instance = workspace.instance
    assert (instance.memory_mb, instance.cpus, instance.pids) == (256, 0.5, 64)
    assert (instance.idle_seconds, instance.internet, instance.image) == (60, True, newest)
    assert [(member.user, member.role) for member in workspace.members.all()] == [
        (owner, Role.OWNER)
    ]
    assert deeds(workspace) == ["created"]


@pytest.mark.usefixtures("ready")
def test_create_takes_release_and_image_of_one_piece(owner: User) -> None:
    with CaptureQueriesContext(connection) as captured:
        services.create_workspace(owner, "Trees", "trees")
    reads = [query for query in captured if 'FROM "workspaces_release"' in query["sql"]]
    assert len(reads) == 1  # a second one might find another default


@pytest.mark.usefixtures("ready")
def test_a_new_workspace_takes_a_spare_that_fits_the_plan(owner: User) -> None:
    Plan.objects.update(memory_mb=256, spares=2)
    services.keep_spares()
    assert [spare.memory_mb for spare in Instance.objects.filter(spare=True)] == [256, 256]
    for spare in Instance.objects.filter(spare=True):
        factories.set_status(spare, Status.RUNNING)
        lifecycle.record_pristine(spare.pk)
        factories.add_event(spare, "await_ready", at=timezone.now() - timedelta(minutes=5))
    workspace = services.create_workspace(owner, "Trees", "trees")
    assert workspace.status is Status.RUNNING
    assert not workspace.instance.spare
    # What it did before belongs to nobody's history.
    lines = history.entries(workspace, list(history.rows_of(workspace)))
    assert [line.text for line in lines] == ["created the workspace"]
    assert Instance.objects.filter(spare=True).count() == 1
    services.keep_spares()
    assert Instance.objects.filter(spare=True).count() == 2


@pytest.mark.usefixtures("ready")
def test_a_plan_may_do_without_spares(owner: User) -> None:
    Plan.objects.update(spares=0)
    services.keep_spares()
    assert not Instance.objects.exists()
    assert services.create_workspace(owner, "Trees", "trees").status is Status.PROVISIONING


def test_spares_wait_for_an_image(owner: User) -> None:
    factories.make_plan()
    services.keep_spares()
    assert not Instance.objects.exists()


@pytest.mark.usefixtures("ready")
def test_a_taken_slug_comes_with_a_free_one(owner: User) -> None:
    services.create_workspace(owner, "Trees", "trees")
    services.create_workspace(owner, "Trees", "trees-2")
    with pytest.raises(services.SlugTaken, match="“trees” is taken") as caught:
        services.create_workspace(owner, "Trees", "trees")
    assert (caught.value.alternative, caught.value.field) == ("trees-3", "slug")
    assert services.is_slug_free("trees-3")


@pytest.mark.usefixtures("ready")
def test_a_long_taken_slug_has_an_alternative_that_fits(owner: User) -> None:
    slug = "x" * 40
    services.create_workspace(owner, "X", slug)
    alternative = services.free_slug(slug)
    assert alternative == "x" * 38 + "-2"
    services.create_workspace(owner, "X", alternative)
    assert services.free_slug(slug) == "x" * 38 + "-3"


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(
    ("name", "slug", "field", "words"),
    [
        ("Trees", "www", "slug", "reserved"),
        ("Trees", "Trees", "slug", "small letters"),
        ("   ", "trees", "name", "name"),
        ("x" * 81, "trees", "name", "at most 80"),
    ],
)
def test_bad_names_and_slugs_are_refused(
    owner: User, name: str, slug: str, field: str, words: str
) -> None:
    with pytest.raises(services.Refused, match=words) as caught:
        services.create_workspace(owner, name, slug)
    assert caught.value.field == field
    assert not Workspace.objects.exists()


def test_without_an_image_nothing_is_made(owner: User) -> None:
    factories.make_plan()
    factories.make_image(state=Image.State.BUILDING)
    with pytest.raises(services.NoImage):
        services.create_workspace(owner, "Trees", "trees")
    assert not Workspace.objects.exists()
    assert not Instance.objects.exists()


@pytest.mark.usefixtures("ready")
def test_the_quota_counts_own_live_workspaces(owner: User) -> None:
    Plan.objects.update(max_workspaces=2)
    other = factories.make_user()
    theirs = factories.make_workspace(other)
    factories.add_member(theirs, owner, Role.EDITOR)
    first = services.create_workspace(owner, "One", "one")
    services.create_workspace(owner, "Two", "two")
    with pytest.raises(services.QuotaReached, match="2 workspaces"):
        services.create_workspace(owner, "Three", "three")
    services.delete(first, owner)
    services.create_workspace(owner, "Three", "three")
    with pytest.raises(services.QuotaReached):
        services.undelete(first, owner)


def change_role(workspace: Workspace, owner: User, grace: User) -> None:
    members.change_role(workspace, owner, grace.pk, Role.OWNER)


def transfer(workspace: Workspace, owner: User, grace: User) -> None:
    members.transfer(workspace, owner, grace.pk)


def accept(workspace: Workspace, owner: User, grace: User) -> None:
    members.remove(workspace, owner, grace.pk)
    invitation = invitations.invite(workspace, owner, "grace@example.org", Role.OWNER)
    invitations.accept(invitation, grace)


@pytest.mark.parametrize("make_owner", [change_role, transfer, accept])
def test_who_becomes_an_owner_needs_a_place_too(
    owner: User, make_owner: Callable[[Workspace, User, User], None]
) -> None:
    grace = factories.make_user("grace@example.org")
    workspace, own = factories.make_workspace(owner), factories.make_workspace(grace)
    Plan.objects.update(max_workspaces=1)
    factories.add_member(workspace, grace, Role.EDITOR)
    with pytest.raises(services.QuotaReached):
        make_owner(workspace, owner, grace)
    assert not workspace.members.filter(user=grace, role=Role.OWNER).exists()
    services.delete(own, grace)
    if make_owner is accept:
        invitations.accept(workspace.invitations.get(), grace)
    else:
        make_owner(workspace, owner, grace)
    assert workspace.members.get(user=grace).role == Role.OWNER
    members.change_role(workspace, grace, grace.pk, Role.OWNER)  # is one: nothing to count


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("ready")
def test_what_is_handed_over_and_what_comes_back_take_places_one_by_one(owner: User) -> None:
    """Without a deadlock: whoever counts holds the person first, and the workspace then."""
    grace = factories.make_user("grace@example.org")
    given = [factories.make_workspace(owner) for _ in range(4)]
    back = [factories.make_workspace(grace) for _ in range(4)]
    for workspace in given:
        factories.add_member(workspace, grace, Role.EDITOR)
    for workspace in back:
        services.delete(workspace, grace)
    Plan.objects.update(max_workspaces=3)
    now = Workspace.objects.in_bulk([workspace.pk for workspace in (*given, *back)])

    def work(number: int) -> None:
        if number < 4:
            transfer(now[given[number].pk], owner, grace)
        else:
            services.undelete(now[back[number - 4].pk], grace)

    assert [type(error) for error in at_once(8, work)] == [services.QuotaReached] * 5
    owned = Workspace.objects.filter(deleted_at=None, members__user=grace, members__role="owner")
    assert owned.count() == 3


def at_once(count: int, work: Callable[[int], None]) -> list[Exception]:
    """Run `work` in threads that begin together; return what they raised."""
    gate = threading.Barrier(count)
    raised: list[Exception] = []

    def run(number: int) -> None:
        gate.wait(60)
        try:
            work(number)
        except Exception as error:
            raised.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return raised


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("ready")
def test_twenty_requests_at_once_cannot_have_more_than_three_places(owner: User) -> None:
    Plan.objects.update(max_workspaces=3)
    raised = at_once(20, lambda n: _create(owner, f"space-{n}"))
    assert [type(error) for error in raised] == [services.QuotaReached] * 17
    assert Workspace.objects.count() == 3
    assert Instance.objects.count() == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("ready")
def test_two_people_at_once_cannot_both_have_a_slug() -> None:
    people = [factories.make_user() for _ in range(4)]
    raised = at_once(4, lambda n: _create(people[n], "trees"))
    assert [type(error) for error in raised] == [services.SlugTaken] * 3
    assert {str(error) for error in raised} == {"“trees” is taken. “trees-2” is free."}
    assert Workspace.objects.count() == Instance.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("ready")
def test_a_double_click_is_one_deed(owner: User) -> None:
    workspace = factories.make_workspace(owner, status=Status.STOPPED)
    assert at_once(4, lambda n: services.start(workspace, owner)) == []
    assert deeds(workspace) == ["started"]


def _create(user: User, slug: str) -> None:
    services.create_workspace(user, slug, slug)


# --- run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.STOPPED, Status.SLEEPING, Status.FAILED])
def test_start(owner: User, status: Status) -> None:
    workspace = factories.make_workspace(owner, status=status)
    services.start(workspace, owner)
    workspace.instance.refresh_from_db()
    assert workspace.instance.desired == Desired.RUNNING
    assert workspace.status is Status.PROVISIONING
    assert deeds(workspace) == ["started"]


def test_starting_what_runs_changes_nothing(owner: User) -> None:
    workspace = factories.make_workspace(owner)
    services.start(workspace, owner)
    assert deeds(workspace) == []


def test_an_owner_cannot_lift_a_suspension(owner: User) -> None:
    workspace = factories.make_workspace(owner, status=Status.SUSPENDED)
    for deed in (services.start, services.stop, services.restart):
        with pytest.raises(services.Refused):
            deed(workspace, owner)
    workspace.instance.refresh_from_db()
    assert workspace.status is Status.SUSPENDED
    assert deeds(workspace) == []


def test_stop_keeps_requests_from_waking_it(owner: User) -> None:
    for status in (Status.RUNNING, Status.SLEEPING, Status.PROVISIONING, Status.FAILED):
        workspace = factories.make_workspace(owner, status=status)
        services.stop(workspace, owner)
        services.stop(workspace, owner)
        workspace.instance.refresh_from_db()
        assert workspace.instance.stop_reason == StopReason.OWNER
        assert deeds(workspace) == ["stopped"]


def test_restart_asks_for_a_fresh_container(owner: User) -> None:
    workspace = factories.make_workspace(owner)
    generation = workspace.instance.generation
    services.restart(workspace, owner)
    workspace.instance.refresh_from_db()
    assert workspace.instance.generation == generation + 1
    assert deeds(workspace) == ["restarted"]
    stopped = factories.make_workspace(owner, status=Status.STOPPED)
    with pytest.raises(services.Refused, match="start it instead"):
        services.restart(stopped, owner)


def test_rename(owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees", name="Trees")
    services.rename(workspace, owner, "  Old   trees ")
    services.rename(workspace, owner, "Old trees")
    workspace.refresh_from_db()
    assert (workspace.name, workspace.slug) == ("Old trees", "trees")
    assert [activity.detail for activity in workspace.activities.all()] == [
        "from “Trees” to “Old trees”"
    ]


# --- delete ---------------------------------------------------------------------------------


def test_delete_and_undo(owner: User, settings: Settings) -> None:
    settings.DELETE_GRACE_SECONDS = 3600
    workspace = factories.make_workspace(owner, "trees")
    old = workspace.instance
    before = timezone.now()
    services.delete(workspace, owner)
    services.delete(workspace, owner)
    workspace.refresh_from_db()
    assert workspace.deleted_at is not None
    assert workspace.status is Status.DELETING
    assert workspace.instance.purge_at is not None
    assert workspace.instance.purge_at - before >= timedelta(seconds=3600)
    assert not services.is_slug_free("trees")

    services.undelete(workspace, owner)
    services.undelete(workspace, owner)
    workspace.refresh_from_db()
    assert workspace.deleted_at is None
    assert workspace.instance.pk != old.pk
    assert workspace.instance.volume == old.volume
    assert workspace.status is Status.PROVISIONING
    assert deeds(workspace) == ["deleted", "restored"]


def test_a_deleted_workspace_takes_no_changes(owner: User) -> None:
    workspace = factories.make_workspace(owner, status=Status.DELETING)
    for deed in (services.start, services.stop, services.restart):
        with pytest.raises(services.Refused, match="Bring it back first"):
            deed(workspace, owner)
    with pytest.raises(services.Refused, match="Bring it back first"):
        services.rename(workspace, owner, "Other")
    assert deeds(workspace) == []


@pytest.mark.usefixtures("ready")
def test_once_the_data_is_gone_the_slug_is_free(owner: User) -> None:
    gone = factories.make_workspace(owner, "trees", status=Status.DELETED)
    assert services.is_slug_free("trees")
    with pytest.raises(services.Refused, match="too late"):
        services.undelete(gone, owner)
    again = services.create_workspace(owner, "Trees", "trees")
    gone.refresh_from_db()
    assert gone.purged_at is not None
    assert again.pk != gone.pk
    assert Member.objects.filter(workspace=again, user=owner).exists()


def test_release_purged_leaves_the_others_alone(owner: User) -> None:
    kept = [
        factories.make_workspace(owner),
        factories.make_workspace(owner, status=Status.DELETING),
    ]
    gone = factories.make_workspace(owner, status=Status.DELETED)
    assert services.release_purged() == 1
    assert services.release_purged() == 0
    gone.refresh_from_db()
    assert gone.purged_at is not None
    assert all(Workspace.objects.get(pk=one.pk).purged_at is None for one in kept)


def test_deeds_outlive_the_people_who_did_them(owner: User) -> None:
    workspace = factories.make_workspace(owner, status=Status.STOPPED)
    helper = factories.make_user()
    factories.add_member(workspace, helper, Role.OWNER)
    services.start(workspace, helper)
    helper.delete()
    assert Activity.objects.get(workspace=workspace).user is None


def test_a_suspension_without_a_reason_outlasts_a_deletion_too(owner: User) -> None:
    workspace = factories.make_workspace(owner, status=Status.SUSPENDED)
    services.delete(workspace, owner)
    services.undelete(workspace, owner)
    workspace.refresh_from_db()
    assert workspace.instance.stop_reason == StopReason.OPERATOR


def test_a_container_is_replaced_so_often_in_an_hour(
    owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "RESTARTS_PER_HOUR", 2)
    workspace = factories.make_workspace(owner)
    services.restart(workspace, owner)
    changes.set_secret(workspace, owner, "A_KEY", "x")
    for deed in ("restart", "set_secret"):
        with pytest.raises(services.TooOften) as refused:
            services.restart(workspace, owner) if deed == "restart" else changes.set_secret(
                workspace, owner, "A_KEY", "y"
            )
        assert refused.value.retry_after > 0
    services.restart(workspace, factories.make_user(is_staff=True))
    workspace.activities.update(at=timezone.now() - timedelta(hours=1))
    services.restart(workspace, owner)


# --- a role that is gone meanwhile ---------------------------------------------------------------

DEEDS: dict[str, Callable[[Workspace, User], object]] = {
    "rename": lambda workspace, user: services.rename(workspace, user, "Oaks"),
    "start": services.start,
    "stop": services.stop,
    "restart": services.restart,
    "delete": services.delete,
    "change_plugins": lambda workspace, user: changes.request(workspace, user, []),
    "set_secret": lambda workspace, user: changes.set_secret(workspace, user, "A_KEY", "x"),
    "remove_secret": lambda workspace, user: changes.remove_secret(workspace, user, "A_KEY"),
    "remove_member": lambda workspace, user: members.remove(workspace, user, 1),
    "change_role": lambda workspace, user: members.change_role(workspace, user, 1, Role.OWNER),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_who_lost_the_role_while_waiting_for_the_row_does_nothing(owner: User, deed: str) -> None:
    workspace = factories.make_workspace(owner)
    for role, code in ((Role.EDITOR, "role_too_low"), (None, "not_found")):
        if role is None:
            workspace.members.filter(user=owner).delete()
        else:
            workspace.members.filter(user=owner).update(role=role)
        with pytest.raises(Refused) as refused:
            DEEDS[deed](workspace, owner)
        assert refused.value.code == code
    assert not Activity.objects.exists()
    assert not workspace.changes.exists()


def test_who_was_removed_does_not_bring_it_back(owner: User) -> None:
    gone = factories.make_workspace(owner, status=Status.DELETING)
    gone.members.all().delete()
    with pytest.raises(Refused, match="not belong"):
        services.undelete(gone, owner)
