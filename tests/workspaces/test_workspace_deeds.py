"""What operators do with workspaces: to one, to many, and out of whatever one is stuck in."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts.models import AuditEntry, User
from deploy import leases, lifecycle
from deploy.models import Image, Instance, InstanceEvent
from deploy.states import Desired, Observed, Status, StopReason
from tests import factories
from tests.deploy.boxes import wait_for
from tests.deploy.rows import held
from tests.workspaces import html
from tests.workspaces.teams.support import body_of, somebody_waits
from workspaces import changes, invitations, operations, services, sets
from workspaces.admin.workspace_deeds import DEEDS, MOST
from workspaces.models import Change, Member, OutgoingMail, Plan, Release, Role, Step, Workspace
from workspaces.services import Refused

LIST = "/admin/workspaces/workspace/"
GRACE = "grace@example.org"


@pytest.fixture
def staff(db: None) -> User:
    return factories.make_user("ops@example.org", is_staff=True, is_superuser=True)


@pytest.fixture
def operator(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client


@pytest.fixture
def workspace(db: None) -> Workspace:
    return factories.make_workspace(factories.make_user(), "trees")


def page_of(workspace: Workspace) -> str:
    return f"{LIST}{workspace.pk}/change/"


def buttons(client: Client, workspace: Workspace) -> set[str]:
    """The deeds that the page of a workspace offers."""
    page = html.Page(client.get(page_of(workspace)).content.decode())
    addresses = page.actions | page.links
    return {name for name in DEEDS if f"{LIST}{workspace.pk}/{name}/" in addresses}


def press(client: Client, workspace: Workspace, deed: str, **said: Any) -> str:
    """Press a button of the page; return what the next page says."""
    response = client.post(f"{LIST}{workspace.pk}/{deed}/", said, follow=True)
    assert response.status_code == 200, response
    return str(response.content.decode())


def put(instance: Instance, **changes: Any) -> None:
    """Write a row as a worker would have left it."""
    Instance.objects.filter(pk=instance.pk).update(**changes)


def lost(workspace: Workspace) -> None:
    """The engine said that its container is gone."""
    put(workspace.instance, observed=Observed.ABSENT, observed_generation=None, ready=False)
    told = {"instance": workspace.instance, "history": workspace.instance.history}
    InstanceEvent.objects.create(kind="lost", failed=True, generation=1, **told)


def fresh(workspace: Workspace) -> Workspace:
    return Workspace.objects.select_related("instance", "plan", "release").get(pk=workspace.pk)


def verbs(workspace: Workspace) -> list[str]:
    return list(workspace.activities.order_by("id").values_list("verb", flat=True))


# --- stuck: each has a button that works ---------------------------------------------------------


@dataclass(frozen=True)
class Stuck:
    """A state that a workspace can be stuck in, the button for it, and what is so afterwards."""

    name: str
    make: Callable[[Workspace], None]
    button: str
    freed: Callable[[Workspace], bool]
    status: Status = Status.RUNNING
    said: dict[str, Any] = field(default_factory=dict)


def long_ago() -> Any:
    return timezone.now() - timedelta(hours=1)


def age(workspace: Workspace) -> None:
    InstanceEvent.objects.filter(instance=workspace.instance_id).update(at=long_ago())
    put(workspace.instance, created_at=long_ago())


def back_off(workspace: Workspace) -> None:
    put(workspace.instance, attempts=9, next_attempt_at=timezone.now() + timedelta(minutes=5),
        last_error="Out of owls.")  # fmt: skip


def hold(workspace: Workspace, seconds: float) -> None:
    age(workspace)
    put(workspace.instance, lease_token=uuid4(), ready=False, observed=Observed.EXITED,
        lease_expires_at=timezone.now() + timedelta(seconds=seconds))  # fmt: skip


def predecessor(workspace: Workspace) -> None:
    old = lifecycle.create(workspace.instance.image)
    put(old, desired=Desired.ABSENT, observed=Observed.EXITED, volume="", attempts=5,
        purge_at=long_ago(), next_attempt_at=timezone.now() + timedelta(minutes=5))  # fmt: skip
    put(workspace.instance, predecessor=old, ready=False, observed=Observed.ABSENT)


def open_change(workspace: Workspace) -> None:
    changes.request(workspace, None, [])


def switching(workspace: Workspace) -> None:
    change = changes.request(workspace, None, [])
    Change.objects.filter(pk=change.pk).update(step=Step.SWITCH)
    put(workspace.instance, image=factories.make_image())


def no_image(workspace: Workspace) -> None:
    Image.objects.filter(pk=workspace.instance.image_id).update(state=Image.State.FAILED)
    back_off(workspace)


def ownerless(workspace: Workspace) -> None:
    """Its owner's account is switched off; an editor is left, and a viewer who is as well."""
    User.objects.filter(memberships__workspace=workspace).update(is_active=False)
    factories.add_member(workspace, factories.make_user(GRACE, name="Grace"), Role.EDITOR)
    gone = factories.make_user("gone@example.org", is_active=False)
    factories.add_member(workspace, gone, Role.VIEWER)


def can_be_claimed(workspace: Workspace) -> bool:
    """Whether a worker may begin with it now."""
    instance = workspace.instance
    waits = instance.next_attempt_at and instance.next_attempt_at > timezone.now()
    return not waits and leases.claim(instance.pk) is not None


def predecessor_is_tried(workspace: Workspace) -> bool:
    old = workspace.instance.predecessor
    return bool(old and old.attempts == 0 and leases.claim(old.pk)) and can_be_claimed(workspace)


def rebuilding(workspace: Workspace) -> bool:
    change = changes.open_change(workspace)
    return change is not None and change.anew


def wanted_up(workspace: Workspace) -> bool:
    instance = workspace.instance
    return instance.desired == Desired.RUNNING and instance.stop_reason == StopReason.NONE


STUCK = [
    Stuck("failing, with back-off", back_off, "retry", can_be_claimed, Status.FAILED),
    Stuck("failing, start it", back_off, "start", can_be_claimed, Status.FAILED),
    Stuck("no task was ever sent", age, "retry", can_be_claimed, Status.PROVISIONING),
    Stuck("its removal fails", back_off, "retry", can_be_claimed, Status.DELETING),
    Stuck(
        "the engine is silent",
        lambda w: put(w.instance, observed=Observed.UNKNOWN,
                      next_attempt_at=timezone.now() + timedelta(minutes=1)),
        "retry",
        can_be_claimed,
    ),
    Stuck("a worker died with its lease", lambda w: hold(w, -1), "retry", can_be_claimed),
    Stuck("a worker hangs with its lease", lambda w: hold(w, 30), "retry", can_be_claimed),
    Stuck("its predecessor is not removed", predecessor, "retry", predecessor_is_tried),
    Stuck("a change's worker died", open_change, "retry",
          lambda w: changes.open_change(w) is not None),
    Stuck("a change hangs", open_change, "give-up", lambda w: changes.open_change(w) is None),
    Stuck("a change hangs at its switch", switching, "give-up",
          lambda w: changes.open_change(w) is None),
    Stuck("its image failed", no_image, "rebuild", rebuilding, Status.FAILED),
    Stuck("it is suspended", lambda w: None, "resume", wanted_up, Status.SUSPENDED),
    Stuck("its owner stopped it", lambda w: None, "start", wanted_up, Status.STOPPED),
    Stuck("it sleeps", lambda w: None, "start", wanted_up, Status.SLEEPING),
    Stuck("it serves, but wrongly", lambda w: None, "restart",
          lambda w: w.instance.generation == 2),
    Stuck("it was deleted by mistake", lambda w: None, "restore",
          lambda w: w.deleted_at is None, Status.DELETING),
    Stuck("its last owner is switched off", ownerless, "owner",
          lambda w: w.members.get(role=Role.OWNER, user__is_active=True).user.email == GRACE,
          said={"email": GRACE}),
    Stuck("its container is gone for good", lost, "forget",
          lambda w: w.instance.purged_at is not None and w.purged_at is not None,
          Status.FAILED, {"sure": "on"}),
]  # fmt: skip


@pytest.mark.parametrize("stuck", STUCK, ids=lambda stuck: stuck.name)
def test_whatever_it_is_stuck_in_a_button_gets_it_out(operator: Client, stuck: Stuck) -> None:
    workspace = factories.make_workspace(factories.make_user(), status=stuck.status)
    stuck.make(workspace)
    before = len(verbs(workspace))
    assert stuck.button in buttons(operator, workspace)
    press(operator, workspace, stuck.button, **stuck.said)
    assert stuck.freed(fresh(workspace))
    assert len(verbs(workspace)) > before, "no line for its members"


@pytest.mark.parametrize("status", list(Status)[:-1])
def test_there_is_a_button_in_every_status(operator: Client, status: Status) -> None:
    workspace = factories.make_workspace(factories.make_user(), status=status)
    offered = buttons(operator, workspace)
    assert "retry" in offered
    assert len(offered) > 1


def test_a_worker_that_works_keeps_its_lease(workspace: Workspace, staff: User) -> None:
    lease = leases.claim(workspace.instance_id)
    assert lease
    operations.retry(workspace, staff)
    assert lease.load()


def test_what_was_given_up_is_not_written_by_the_worker_that_hung(
    workspace: Workspace, staff: User
) -> None:
    image = workspace.instance.image_id
    switching(workspace)
    operations.give_up_change(workspace, staff)
    change = workspace.changes.get()
    assert change.state == Change.State.ROLLED_BACK
    assert change.error == operations.GIVEN_UP
    assert fresh(workspace).instance.image_id == image
    with pytest.raises(Refused):
        operations.give_up_change(workspace, staff)


@pytest.mark.django_db(transaction=True)
def test_trying_again_and_a_purge_do_not_wait_for_each_other(staff: User) -> None:
    """Who tries again holds the instance and then wants the one before it, whose purge holds that
    and then wants the successor.
    """
    workspace = factories.make_workspace(factories.make_user(), "trees")
    predecessor(workspace)
    old = fresh(workspace).instance.predecessor
    assert old
    put(old, next_attempt_at=None)
    lease, known = held(old)

    def purge() -> None:
        try:
            lifecycle.record_purged(lease, known, 1)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with services.locked(workspace):
            purging = pool.submit(purge)
            wait_for(lambda: purging.done() or somebody_waits(), "the purge to want the successor")
            operations.retry(workspace, staff)
            revision = fresh(workspace).instance.revision
        purging.result(timeout=60)
    instance = fresh(workspace).instance
    assert instance.predecessor
    assert instance.predecessor.purged_at
    assert instance.revision > revision, "it was not told that it need not wait any more"


# --- whose it is ---------------------------------------------------------------------------------


def give(workspace: Workspace, by: User, email: str) -> str:
    """Why it was refused; empty when it was not."""
    try:
        operations.give_owner(fresh(workspace), by, email)
    except Refused as refusal:
        return str(refusal)
    return ""


def test_only_owners_make_owners_as_long_as_there_is_one(
    workspace: Workspace, staff: User, operator: Client
) -> None:
    factories.add_member(workspace, factories.make_user(GRACE), Role.EDITOR)
    assert "owner" not in buttons(operator, workspace)
    assert "only owners make others owners" in give(workspace, staff, GRACE)
    refused = operator.post(f"{LIST}{workspace.pk}/owner/", {"email": GRACE})
    assert refused.status_code == 422
    assert workspace.members.filter(role=Role.OWNER).count() == 1


def test_an_owner_is_made_of_a_member_who_can_sign_in(workspace: Workspace, staff: User) -> None:
    ownerless(workspace)
    stranger = factories.make_user("stranger@example.org")
    for email in (stranger.email, "gone@example.org", "nobody@example.org"):
        assert "No member has verified this address" in give(workspace, staff, email)
    factories.add_member(workspace, staff, Role.VIEWER)
    assert "Nobody makes themselves an owner" in give(workspace, staff, staff.email)
    assert not OutgoingMail.objects.exists()
    assert give(workspace, staff, "Grace@Example.org") == ""
    assert workspace.members.get(user__emailaddress__email=GRACE).role == Role.OWNER
    entry = AuditEntry.objects.latest("id")
    assert (entry.verb, entry.actor, entry.workspace) == ("made_owner", staff.pk, workspace.pk)
    assert verbs(workspace) == ["made_owner"]


def test_where_nobody_is_left_an_owner_is_invited(
    workspace: Workspace, staff: User, operator: Client
) -> None:
    owner = workspace.members.get().user
    invitations.invite(workspace, owner, "planted@example.org", Role.OWNER)
    workspace.members.all().delete()
    assert "your own address" in give(workspace, staff, staff.email)
    said = press(operator, workspace, "owner", email=GRACE)
    assert f"has {GRACE} invited as its owner" in said
    (invitation,) = invitations.pending(workspace)
    assert (invitation.email, invitation.role) == (GRACE, Role.OWNER)
    text = body_of(OutgoingMail.objects.get(to=GRACE))
    assert "The team of cloudapp invites you" in text
    assert staff.email not in text
    grace = factories.make_user(GRACE)
    invitations.accept(invitation, grace)
    assert workspace.members.get().user == grace


def test_it_needs_a_permission_of_its_own(workspace: Workspace) -> None:
    ownerless(workspace)
    user = factories.make_user(is_staff=True)
    client = Client()
    client.force_login(user)
    for codename, offered in (
        ("view_workspace", False),
        ("change_workspace", False),
        ("change_member", True),
    ):
        user.user_permissions.add(Permission.objects.get(codename=codename))
        assert ("owner" in buttons(client, workspace)) is offered


def deletable(client: Client, address: str) -> bool:
    """Whether a page of the admin asks to delete, and then does."""
    asked = client.get(address).content.decode()
    done = client.post(address, {"post": "yes"})
    assert (done.status_code == 302) is ('name="post"' in asked)
    return done.status_code == 302


def test_nobody_deletes_the_last_owner_of_a_workspace(
    workspace: Workspace, operator: Client
) -> None:
    member = workspace.members.get()
    grace = factories.make_user(GRACE)
    factories.add_member(workspace, grace, Role.OWNER)
    User.objects.filter(pk=grace.pk).update(is_active=False)  # who counts for none
    page = f"/admin/accounts/user/{member.user_id}/delete/"
    assert "trees, of which no other owner is left" in operator.get(page).content.decode()
    chosen = {"action": "delete_selected", "_selected_action": [member.user_id], "post": "yes"}
    operator.post("/admin/accounts/user/", chosen)
    assert not deletable(operator, page)
    assert not deletable(operator, f"/admin/workspaces/member/{member.pk}/delete/")
    assert Member.objects.filter(pk=member.pk).exists()
    User.objects.filter(pk=grace.pk).update(is_active=True)
    both = {**chosen, "_selected_action": [member.user_id, grace.pk]}
    operator.post("/admin/accounts/user/", both)
    assert workspace.members.count() == 2, "not all owners at once either"
    assert deletable(operator, page)
    assert workspace.members.get().user == grace
    factories.set_status(workspace.instance, Status.DELETING)
    Workspace.objects.filter(pk=workspace.pk).update(deleted_at=timezone.now())
    assert deletable(operator, f"/admin/accounts/user/{grace.pk}/delete/")


# --- forgetting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("observed", [one for one in Observed if one is not Observed.ABSENT])
def test_what_may_be_there_is_not_forgotten(
    workspace: Workspace, staff: User, operator: Client, observed: Observed
) -> None:
    put(workspace.instance, observed=observed, ready=False)
    assert "forget" not in buttons(operator, workspace)
    with pytest.raises(Refused):
        operations.forget(workspace, staff)
    refused = operator.post(f"{LIST}{workspace.pk}/forget/", {"sure": "on"})
    assert refused.status_code == 422
    assert fresh(workspace).purged_at is None


def never_asked(workspace: Workspace) -> None:
    """Its row is new: it says absent, and the engine said nothing."""
    put(workspace.instance, observed=Observed.ABSENT, observed_generation=None, ready=False)


def at_work(workspace: Workspace) -> None:
    """It is gone, and a worker is about to make it anew."""
    lost(workspace)
    assert leases.claim(workspace.instance_id)


def after_another(workspace: Workspace) -> None:
    """It is not made while the one before it is there, whose data it takes over."""
    lost(workspace)
    put(workspace.instance, predecessor=lifecycle.create(workspace.instance.image))


@pytest.mark.parametrize("make", [never_asked, at_work, after_another])
def test_what_may_yet_come_is_not_forgotten(
    workspace: Workspace, staff: User, operator: Client, make: Callable[[Workspace], None]
) -> None:
    make(workspace)
    assert "forget" not in buttons(operator, workspace)
    with pytest.raises(Refused):
        operations.forget(workspace, staff)
    assert fresh(workspace).purged_at is None


def removed(workspace: Workspace) -> None:
    """A worker removed its container, as after a deletion."""
    put(workspace.instance, observed=Observed.ABSENT, observed_generation=None)
    factories.add_event(workspace.instance, "remove")


def test_what_is_deleted_and_can_be_brought_back_is_not_forgotten(
    staff: User, operator: Client
) -> None:
    workspace = factories.make_workspace(factories.make_user(), status=Status.DELETING)
    removed(workspace)
    assert "restore" in buttons(operator, workspace)
    assert "forget" not in buttons(operator, workspace)
    with pytest.raises(Refused, match="can be undone still"):
        operations.forget(workspace, staff)
    choose(operator, "forget", workspace, go="yes", sure="on")
    assert fresh(workspace).purged_at is None
    assert not OutgoingMail.objects.exists()


def test_one_that_should_be_gone_by_now_is_forgotten_in_other_words(
    staff: User, operator: Client
) -> None:
    workspace = factories.make_workspace(factories.make_user(), status=Status.DELETING)
    removed(workspace)
    put(workspace.instance, purge_at=long_ago())
    assert "forget" in buttons(operator, workspace)
    operations.forget(workspace, staff)
    mail = OutgoingMail.objects.get()
    assert "closed for good" in mail.subject
    assert "was deleted, and the time to undo that is over" in body_of(mail)


def test_owners_are_told_of_what_is_forgotten(workspace: Workspace, staff: User) -> None:
    lost(workspace)
    operations.forget(workspace, staff)
    mail = OutgoingMail.objects.get()
    assert mail.kind == "forgotten"
    assert "is lost" in mail.subject


def test_forgetting_asks_twice_and_says_what_becomes_of_the_data(
    workspace: Workspace, operator: Client
) -> None:
    lost(workspace)
    address = f"{LIST}{workspace.pk}/forget/"
    asked = operator.get(address).content.decode()
    assert "data volume" in asked
    assert "never removed by us" in asked
    assert operator.post(address, {}).status_code == 422
    assert fresh(workspace).purged_at is None
    press(operator, workspace, "forget", sure="on")
    gone = fresh(workspace)
    assert gone.instance.volume == workspace.instance.volume
    assert services.is_slug_free("trees")
    assert workspace.instance.volume in workspace.activities.latest("id").detail
    assert gone.status is Status.DELETED


# --- many ----------------------------------------------------------------------------------------


def choose(client: Client, deed: str, *workspaces: Workspace, **said: Any) -> Any:
    chosen = [str(workspace.pk) for workspace in workspaces]
    data = {"action": deed, "_selected_action": chosen, **said}
    return client.post(LIST, data, follow=True)


def test_each_row_is_told_what_came_of_it(operator: Client) -> None:
    owner = factories.make_user()
    up = factories.make_workspace(owner, "up")
    down = factories.make_workspace(owner, "down", status=Status.STOPPED)
    text = choose(operator, "stop", up, down).content.decode()
    assert "Stop: up: stops." in text
    assert "Stop: down: it is stopped: nothing to do here." in text
    assert fresh(up).instance.desired == Desired.STOPPED
    assert verbs(up) == ["stopped"]
    assert verbs(down) == []


def test_suspending_many_asks_why_first(operator: Client) -> None:
    owner = factories.make_user()
    spaces = [factories.make_workspace(owner) for _ in range(3)]
    asked = choose(operator, "suspend", *spaces)
    assert all(space.slug in asked.content.decode() for space in spaces)
    assert all(fresh(space).status is Status.RUNNING for space in spaces)
    assert choose(operator, "suspend", *spaces, go="yes").status_code == 422
    choose(operator, "suspend", *spaces, go="yes", reason="Unpaid.")
    for space in spaces:
        assert fresh(space).suspended_reason == "Unpaid."
        assert verbs(space) == ["suspended"]
    choose(operator, "resume", *spaces)
    assert all(fresh(space).suspended_reason == "" for space in spaces)


def test_plan_and_release_of_many(operator: Client) -> None:
    owner = factories.make_user()
    spaces = [factories.make_workspace(owner) for _ in range(2)]
    big = Plan.objects.create(name="Big", memory_mb=2048)
    choose(operator, "plan", *spaces, go="yes", plan=big.pk)
    assert [fresh(space).instance.memory_mb for space in spaces] == [2048, 2048]
    other = Release.objects.create(version="1.0a99", lock="")
    choose(operator, "release", *spaces, go="yes", release=other.pk)
    moving = Change.objects.filter(state=Change.State.OPEN, release=other)
    assert moving.count() == 2


def test_rebuilding_keeps_the_set(operator: Client, workspace: Workspace) -> None:
    press(operator, workspace, "rebuild")
    change = workspace.changes.get()
    assert change.anew
    assert set(change.wanted.all()) == set(workspace.plugins.all())
    assert verbs(workspace) == ["asked_for_change", "rebuilt"]
    assert "Another change is under way" in press(operator, workspace, "rebuild")
    assert sets.names_of(change.wanted.all()) == set()


def test_too_many_at_once_are_refused(operator: Client) -> None:
    image = factories.make_image()
    plan, release = factories.make_plan(), factories.make_release()
    instances = [Instance(image=image, key="k") for _ in range(MOST + 1)]
    Instance.objects.bulk_create(instances)
    Workspace.objects.bulk_create(
        [
            Workspace(name="w", slug=f"w-{n}", plan=plan, release=release, instance=instance)
            for n, instance in enumerate(instances)
        ]
    )
    spaces = list(Workspace.objects.all())
    text = choose(operator, "stop", *spaces).content.decode()
    assert f"Choose at most {MOST}" in text
    assert not Instance.objects.exclude(desired=Desired.RUNNING).exists()


def test_webhooks_are_shown_to_those_who_may_see_them(workspace: Workspace) -> None:
    workspace.webhooks.create(url="https://hook-of-a-customer.example.net/", secret="x")
    user = factories.make_user(is_staff=True)
    client = Client()
    client.force_login(user)
    for codename, shown in (("view_workspace", False), ("view_webhook", True)):
        user.user_permissions.add(Permission.objects.get(codename=codename))
        page = client.get(page_of(workspace)).content.decode()
        assert ("hook-of-a-customer" in page) is shown


# --- who may -------------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", DEEDS)
def test_looking_is_not_doing(workspace: Workspace, deed: str) -> None:
    user = factories.make_user(is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_workspace"))
    client = Client()
    client.force_login(user)
    before = Instance.objects.filter(pk=workspace.instance_id).values().get()
    assert client.get(page_of(workspace)).status_code == 200
    assert buttons(client, workspace) == set()
    assert client.post(f"{LIST}{workspace.pk}/{deed}/", {}).status_code == 403
    choose(client, deed, workspace, go="yes", reason="x", sure="on")
    assert Instance.objects.filter(pk=workspace.instance_id).values().get() == before
    assert not verbs(workspace)


@pytest.mark.parametrize("deed", DEEDS)
def test_customers_may_not(workspace: Workspace, deed: str) -> None:
    client = Client()
    client.force_login(User.objects.get(memberships__workspace=workspace))
    assert client.post(f"{LIST}{workspace.pk}/{deed}/", {}).status_code in (302, 403)
    assert not verbs(workspace)


@pytest.mark.parametrize("deed", [deed.name for deed in DEEDS.values() if deed.form is None])
def test_nothing_is_done_by_looking_at_an_address(operator: Client, deed: str) -> None:
    workspace = factories.make_workspace(factories.make_user())
    assert operator.get(f"{LIST}{workspace.pk}/{deed}/").status_code == 405


def test_operators_cannot_make_themselves_members(
    operator: Client, workspace: Workspace, staff: User
) -> None:
    said = {"workspace": str(workspace.pk), "user": staff.pk, "role": "owner"}
    assert operator.post("/admin/workspaces/member/add/", said).status_code == 403
    member = workspace.members.get()
    address = f"/admin/workspaces/member/{member.pk}/change/"
    assert operator.post(address, said).status_code == 403
    assert not workspace.members.filter(user=staff).exists()


def test_settings_say_when_a_worker_hangs(workspace: Workspace) -> None:
    hold(workspace, 30)
    assert operations.hangs(fresh(workspace).instance)
    seconds = settings.START_TIMEOUT_SECONDS
    assert seconds > 0
    factories.add_event(workspace.instance, "start")
    assert not operations.hangs(fresh(workspace).instance)


# --- disks ---------------------------------------------------------------------------------------


def test_full_disks_are_found_and_a_page_tells_how_full_its_own_is(
    operator: Client, workspace: Workspace
) -> None:
    other = factories.make_workspace(factories.make_user(), "roomy")
    assert "not measured yet" in operator.get(page_of(workspace)).content.decode()
    told = {"disk_mb": 100, "disk_bytes": 100 * 2**20, "disk_measured_at": timezone.now()}
    put(workspace.instance, **told)
    page = operator.get(page_of(workspace)).content.decode()
    assert "100.0 of 100 MiB (100 %)" in page
    assert f"/admin/accounts/auditentry/?workspace__exact={workspace.pk}" in page
    listed = operator.get(f"{LIST}?disk=full").content.decode()
    assert str(workspace.pk) in listed
    assert str(other.pk) not in listed
    # It sleeps, gets a larger plan, and has not said anything since.
    put(workspace.instance, disk_level="full", disk_mb=120)
    assert str(workspace.pk) not in operator.get(f"{LIST}?disk=full").content.decode()
    assert str(workspace.pk) in operator.get(f"{LIST}?disk=nearly").content.decode()
