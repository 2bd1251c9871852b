"""What owners are told by mail: each once, and only they."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from accounts.models import Profile, User
from deploy import lifecycle
from deploy.models import Instance
from deploy.probe import Usage
from deploy.states import Desired, Observed, Status
from tests import factories
from tests.deploy.boxes import wait_for
from tests.workspaces.teams.support import body_of, somebody_waits
from workspaces import operations, services
from workspaces.models import Activity, OutgoingMail, Role, Workspace
from workspaces.services import TooOften

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss() -> User:
    return factories.make_user("boss@example.org", is_staff=True, is_superuser=True)


def told() -> list[tuple[str, str]]:
    """Kind and address of each mail, in the order of addresses."""
    return sorted(OutgoingMail.objects.values_list("kind", "to"))


def test_every_owner_is_told_and_nobody_else(workspace: Workspace, owner: User, boss: User) -> None:
    second = factories.make_user("grace@example.org")
    second.emailaddress_set.create(email="old@example.org", verified=True)
    unverified = factories.make_user("unverified@example.org")
    unverified.emailaddress_set.update(verified=False)
    left = factories.make_user("switched-off@example.org", is_active=False)
    for user in (second, unverified, left):
        factories.add_member(workspace, user, Role.OWNER)
    factories.add_member(workspace, factories.make_user(), Role.EDITOR)
    factories.make_workspace(factories.make_user())
    operations.suspend(workspace, boss, "Unpaid since June.")
    assert told() == [("suspended", "ada@example.org"), ("suspended", "grace@example.org")]
    for mail in OutgoingMail.objects.all():
        assert "Unpaid since June." in body_of(mail)


def test_suspended_and_resumed_are_told_once_each_time(workspace: Workspace, boss: User) -> None:
    for _ in range(2):
        for _ in range(2):
            operations.suspend(workspace, boss, "Unpaid.")
        for _ in range(2):
            operations.resume(workspace, boss)
    assert [kind for kind, _ in told()] == ["resumed"] * 2 + ["suspended"] * 2


def test_a_deletion_is_told_with_the_date_until_which_it_can_be_undone(
    workspace: Workspace, owner: User
) -> None:
    services.delete(workspace, owner)
    services.delete(workspace, owner)
    mail = OutgoingMail.objects.get()
    purge_at = Instance.objects.get().purge_at
    assert purge_at
    text = body_of(mail)
    assert f"{purge_at.day} {purge_at:%B %Y, %H:%M} UTC" in text
    assert text.count("Ada asked for the deletion of “Trees”.") == 1


def test_names_are_taken_as_they_are(workspace: Workspace, owner: User, boss: User) -> None:
    Profile.objects.filter(user=owner).update(display_name="Ada <b> & co")
    services.rename(workspace, owner, "Ash & <elm>")
    services.delete(workspace, owner)
    mail = OutgoingMail.objects.get()
    assert mail.subject == "Your workspace “Ash & <elm>” is being deleted"
    assert "Ada <b> & co asked" in body_of(mail)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Ash \u202egpj_exe\x07", "Ash gpj_exe"),
        ("Read https://evil.example", None),
        ("WWW.evil.example", None),
        ("Claim at Pay-Now.com", None),
        ("evil.example/login", None),
        ("zahl.рф", None),
        ("evil\u3002example", None),
        ("Release 1.25, St. Mary & co.", "Release 1.25, St. Mary & co."),
        ("\u2066\u200e", None),
        ("Дуб і ясен 👩‍🌾", "Дуб і ясен 👩‍🌾"),  # noqa: RUF001
    ],
)
def test_a_name_sends_nobody_anywhere(
    workspace: Workspace, owner: User, given: str, shown: str | None
) -> None:
    Profile.objects.filter(user=owner).update(display_name=given)
    Workspace.objects.filter(pk=workspace.pk).update(name=given)
    services.delete(Workspace.objects.get(), owner)
    mail = OutgoingMail.objects.get()
    assert mail.subject == f"Your workspace “{shown or 'trees'}” is being deleted"
    assert f"{shown or 'Somebody'} asked for the deletion of" in body_of(mail)


def test_who_gave_no_name_is_called_by_the_address(workspace: Workspace, owner: User) -> None:
    Profile.objects.all().delete()
    services.delete(workspace, owner)
    assert "ada@example.org asked for the deletion of" in body_of(OutgoingMail.objects.get())


def test_deleting_it_again_and_again_fills_no_mailbox(
    workspace: Workspace, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "RESTARTS_PER_HOUR", 3)
    for _ in range(3):
        services.delete(workspace, owner)
        OutgoingMail.objects.update(state=OutgoingMail.State.SENT)
        services.undelete(workspace, owner)
    services.delete(workspace, owner)
    assert len(told()) == 1
    with pytest.raises(TooOften, match="brought back"):
        services.undelete(workspace, owner)
    OutgoingMail.objects.update(created_at="2026-01-01T00:00:00Z")
    Activity.objects.update(at="2026-01-01T00:00:00Z")
    services.undelete(workspace, owner)
    services.delete(workspace, owner)
    assert len(told()) == 2


# --- failures ------------------------------------------------------------------------------------


def fail(workspace: Workspace, times: int = 1) -> None:
    """Do what a worker does when an action fails."""
    for _ in range(times):
        with transaction.atomic():
            instance = Instance.objects.get(pk=workspace.instance_id)
            Instance.objects.filter(pk=instance.pk).update(
                attempts=instance.attempts + 1,
                ready=False,
                endpoint="",
                observed=Observed.EXITED,
                last_error="It ran out of memory while it started.",
            )
            lifecycle._note(instance, "await_ready", failed=True)


def come_up(workspace: Workspace) -> None:
    """Do what a worker does when it answers."""
    with transaction.atomic():
        factories.set_status(workspace.instance, Status.RUNNING)
        lifecycle._note(workspace.instance, "await_ready")


def test_a_failure_is_told_at_the_third_attempt_and_then_no_more(workspace: Workspace) -> None:
    fail(workspace, 2)
    assert not told()
    fail(workspace)
    assert told() == [("failed", "ada@example.org")]
    assert "It ran out of memory while it started." in body_of(OutgoingMail.objects.get())
    fail(workspace, 5)
    assert len(told()) == 1


def test_flapping_is_one_failure(workspace: Workspace) -> None:
    fail(workspace, 3)
    OutgoingMail.objects.update(state=OutgoingMail.State.SENT)
    for _ in range(3):
        attempts = Instance.objects.get(pk=workspace.instance_id).attempts
        come_up(workspace)
        Instance.objects.filter(pk=workspace.instance_id).update(attempts=attempts)
        fail(workspace)
    assert len(told()) == 1


def test_starting_it_again_and_again_sends_one_mail_an_hour(
    workspace: Workspace, owner: User
) -> None:
    for _ in range(3):
        services.start(workspace, owner)
        fail(workspace, 3)
    assert len(told()) == 1
    OutgoingMail.objects.update(created_at="2026-01-01T00:00:00Z")
    services.start(workspace, owner)
    fail(workspace, 3)
    assert len(told()) == 2


def test_a_failing_spare_is_nobodys_business(workspace: Workspace) -> None:
    spare = lifecycle.create(workspace.instance.image, spare=True)
    Instance.objects.filter(pk=spare.pk).update(attempts=3)
    lifecycle._note(spare, "await_ready", failed=True)
    assert not told()


# --- the disk ------------------------------------------------------------------------------------


def fill(instance: Instance, percent: int) -> None:
    """What a measurement writes down."""
    size = instance.disk_limit * percent // 100 + 1
    lifecycle.record_usage({instance: Usage("run", 1.0, 1.0, 1, 1, size)})


def test_a_disk_is_told_of_once_however_often_it_is_measured(workspace: Workspace) -> None:
    for percent in (10, 81, 90, 100, 10, 90, 100):
        fill(workspace.instance, percent)
    assert [kind for kind, _ in told()] == ["disk_full", "disk_nearly_full"]
    nearly = OutgoingMail.objects.get(kind="disk_nearly_full")
    assert nearly.subject == "The disk of “Trees” is 81 % full"


@pytest.mark.django_db(transaction=True)
def test_a_mail_about_a_disk_and_a_deed_do_not_wait_for_each_other(
    workspace: Workspace, owner: User
) -> None:
    """Who measures holds the instance and writes a mail about the workspace; who does something
    holds the workspace and waits for the instance.
    """

    def stop() -> None:
        services.stop(workspace, owner)
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            instance = Instance.objects.select_for_update(no_key=True).get()
            deed = pool.submit(stop)
            wait_for(somebody_waits, "the deed to hold the workspace and wait for the instance")
            fill(instance, 100)
        deed.result(timeout=60)
    assert told() == [("disk_full", "ada@example.org")]
    workspace.instance.refresh_from_db()
    assert workspace.instance.desired == Desired.STOPPED


def test_a_deletion_that_is_undone_before_its_mail_went_out_is_not_told(
    workspace: Workspace, owner: User
) -> None:
    services.delete(workspace, owner)
    services.undelete(workspace, owner)
    mail = OutgoingMail.objects.get()
    assert (mail.state, mail.body) == (OutgoingMail.State.FAILED, "")
    assert "undone" in mail.error
    services.delete(workspace, owner)
    waits = OutgoingMail.objects.filter(state=OutgoingMail.State.PENDING)
    assert waits.count() == 1, "the second deletion is told: of the first, nobody heard"


def waiting() -> list[str]:
    """The kinds of mails that go out once the mail server is back."""
    return list(OutgoingMail.objects.filter(state="pending").values_list("kind", flat=True))


def test_what_is_over_before_its_mail_went_out_is_not_told(
    workspace: Workspace, boss: User
) -> None:
    """The mail server is away meanwhile."""
    operations.suspend(workspace, boss, "Unpaid.")
    operations.resume(workspace, boss)
    assert waiting() == ["resumed"]
    operations.suspend(workspace, boss, "Unpaid again.")
    assert waiting() == ["suspended"]
    operations.resume(workspace, boss)
    assert waiting() == ["resumed"]


def test_a_failure_that_is_over_before_its_mail_went_out_is_not_told(
    workspace: Workspace, boss: User
) -> None:
    """The mail server is away meanwhile. However often that happens, one that fails is told of."""
    fail(workspace, 3)
    assert waiting() == ["failed"]
    for _ in range(3):
        attempts = Instance.objects.get(pk=workspace.instance_id).attempts
        come_up(workspace)
        assert waiting() == []
        Instance.objects.filter(pk=workspace.instance_id).update(attempts=attempts)
        fail(workspace, 2)
        assert waiting() == ["failed"]
    operations.suspend(workspace, boss, "Enough.")
    assert waiting() == ["suspended"]
