"""Invitations: who can accept which, once; what ends them; and that nobody sends spam by us."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from accounts.models import AuditEntry, User
from tests import factories
from tests.workspaces.teams.smtp import MailServer
from tests.workspaces.teams.support import body_of, send_all, token_for
from workspaces import history, invitations, members, services, tasks
from workspaces.models import Activity, Invitation, Member, OutgoingMail, Role, Workspace
from workspaces.services import Refused, TooOften

pytestmark = pytest.mark.django_db

GRACE = "grace@example.org"


@pytest.fixture
def grace(db: None) -> User:
    return factories.make_user(GRACE, name="Grace")


def invited(workspace: Workspace, by: User, email: str = GRACE, role: Role = Role.EDITOR) -> str:
    """Invite somebody; return the token that they get."""
    invitations.invite(workspace, by, email, role)
    return token_for(email.strip().lower())


def found(token: str) -> Invitation:
    invitation = invitations.find(token)
    assert invitation
    return invitation


def role_of(workspace: Workspace, user: User) -> str | None:
    return workspace.members.filter(user=user).values_list("role", flat=True).first()


# --- the way in ----------------------------------------------------------------------------------


def test_an_invitation_makes_a_member_once(workspace: Workspace, owner: User, grace: User) -> None:
    token = invited(workspace, owner, " Grace@Example.org ")
    invitation = found(token)
    assert (invitation.email, invitation.role) == (GRACE, "editor")
    assert invitations.accept(invitation, grace) == workspace
    assert role_of(workspace, grace) == "editor"
    assert invitations.find(token) is None
    with pytest.raises(Refused, match="was accepted"):
        invitations.accept(invitation, grace)
    texts = [entry.text for entry in history.recent(workspace, 10)]
    assert texts[:2] == ["joined", "invited"]


def test_the_mail_says_who_asks_and_what_for(
    workspace: Workspace, owner: User, mail_server: MailServer
) -> None:
    token = invited(workspace, owner)
    send_all()
    (message,) = mail_server.received
    text = message.get_content()
    assert message["Subject"] == "Ada invites you to “Trees”"
    assert "Ada (ada@example.org) invites you" in text
    assert "as an editor" in text
    assert f"/invitations/{token}/" in text


def test_the_token_lies_nowhere_once_it_is_sent(
    workspace: Workspace, owner: User, mail_server: MailServer
) -> None:
    token = invited(workspace, owner)
    send_all()
    assert len(mail_server.received) == 1
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(
                f'SELECT count(*) FROM "{table}" t WHERE t::text LIKE %s',  # noqa: S608 - ours
                [f"%{token}%"],
            )
            assert cursor.fetchone() == (0,), table


@pytest.mark.parametrize("how", ["other", "unverified", "none"])
def test_only_who_has_verified_the_address_gets_in(
    how: str, workspace: Workspace, owner: User
) -> None:
    invitation = found(invited(workspace, owner))
    somebody = factories.make_user("eve@example.org")
    if how == "unverified":
        EmailAddress.objects.create(user=somebody, email=GRACE, verified=False)
    if how == "none":
        EmailAddress.objects.all().delete()
    with pytest.raises(Refused, match=r"First verify that g…@example\.org is yours"):
        invitations.accept(invitation, somebody)
    assert role_of(workspace, somebody) is None
    assert not invitations.of_user(somebody)


def test_any_verified_address_will_do(workspace: Workspace, owner: User) -> None:
    invitation = found(invited(workspace, owner))
    somebody = factories.make_user("eve@example.org")
    EmailAddress.objects.create(user=somebody, email=GRACE, verified=True)
    assert list(invitations.of_user(somebody)) == [invitation]
    invitations.accept(invitation, somebody)
    assert role_of(workspace, somebody) == "editor"
    assert not invitations.of_user(somebody)


def test_a_member_who_accepts_stays_what_they_are(workspace: Workspace, owner: User) -> None:
    token = invited(workspace, owner, role=Role.VIEWER)
    EmailAddress.objects.create(user=owner, email=GRACE, verified=True)
    assert not invitations.of_user(owner)
    invitations.accept(found(token), owner)
    assert role_of(workspace, owner) == "owner"
    assert invitations.find(token) is None


def test_it_is_the_workspace_that_invites(workspace: Workspace, owner: User, grace: User) -> None:
    """Whoever sent it may have given the role away, or be gone."""
    second = factories.make_user("second@example.org")
    factories.add_member(workspace, second, Role.OWNER)
    lowered = invited(workspace, second)
    members.change_role(workspace, second, second.pk, Role.VIEWER)
    assert invitations.find(lowered)
    members.remove(workspace, second, second.pk)
    second.delete()
    invitations.accept(found(lowered), grace)
    assert role_of(workspace, grace) == "editor"


@pytest.mark.parametrize("how", ["removed", "lowered", "gave it away, then removed"])
def test_who_is_no_owner_any_more_does_not_come_back_by_an_invitation(
    how: str, workspace: Workspace, owner: User, grace: User, mail_server: MailServer
) -> None:
    second = factories.make_user("second@example.org")
    factories.add_member(workspace, second, Role.OWNER)
    planted = found(invited(workspace, second, role=Role.OWNER))
    kept = invited(workspace, owner, "new@example.org")
    if how.startswith("gave"):
        members.change_role(workspace, second, second.pk, Role.VIEWER)
        assert invitations.of_user(grace)
    if how == "lowered":
        members.change_role(workspace, owner, second.pk, Role.EDITOR)
    else:
        members.remove(workspace, owner, second.pk)
    with pytest.raises(Refused, match="was accepted, withdrawn"):
        invitations.accept(planted, grace)
    assert not invitations.of_user(grace)
    assert found(kept).email == "new@example.org"
    send_all()
    assert [message["To"] for message in mail_server.received] == ["new@example.org"]
    entry = AuditEntry.objects.filter(verb="withdrew_invitation").get()
    assert (entry.actor, entry.detail["email"]) == (owner.pk, GRACE)


def test_an_operator_lets_nobody_in(workspace: Workspace, owner: User, grace: User) -> None:
    """Not themselves, by an address of their own, nor a friend; also one who is a lesser member."""
    staff = factories.make_user("ops@example.org", is_staff=True, is_superuser=True)
    pending = found(invited(workspace, owner))
    factories.add_member(workspace, grace, Role.VIEWER)
    for role in (None, Role.EDITOR):
        if role:
            factories.add_member(workspace, staff, role)
        with pytest.raises(Refused, match="Only an owner invites people"):
            invitations.invite(workspace, staff, "mine@example.org", Role.OWNER)
        with pytest.raises(Refused, match="Only an owner invites people"):
            invitations.resend(workspace, staff, pending.pk)
        with pytest.raises(Refused, match="Only an owner makes others owners"):
            members.change_role(workspace, staff, grace.pk, Role.OWNER)
    assert role_of(workspace, grace) == "viewer"
    # What is no way in, they may do: a request of a customer who lost the mailbox.
    members.change_role(workspace, staff, grace.pk, Role.EDITOR)
    invitations.withdraw(workspace, staff, pending.pk)


def test_members_read_who_was_invited_and_only_owners_the_address(
    workspace: Workspace, owner: User, grace: User
) -> None:
    token = invited(workspace, owner)
    number = found(token).pk
    invitations.resend(workspace, owner, number)
    token = token_for(GRACE)
    other = factories.make_workspace(owner)
    invitations.invite(other, owner, GRACE, Role.VIEWER)
    invitations.withdraw(other, owner, invitations.pending(other).get().pk)
    invitations.accept(found(token), grace)
    told = list(Activity.objects.exclude(verb="joined").values_list("detail", flat=True))
    assert told == ["g…@example.org as editor"] * 2 + ["g…@example.org as viewer"] * 2
    entries = AuditEntry.objects.exclude(verb="joined")
    assert {entry.detail["email"] for entry in entries} == {GRACE}
    assert AuditEntry.objects.get(verb="joined").detail["invitation"] == number


def test_a_member_who_uses_one_up_leaves_an_entry(workspace: Workspace, owner: User) -> None:
    invitation = found(invited(workspace, owner, role=Role.VIEWER))
    EmailAddress.objects.create(user=owner, email=GRACE, verified=True)
    invitations.accept(invitation, owner)
    entry = AuditEntry.objects.latest("id")
    assert (entry.verb, entry.workspace) == ("used_invitation", workspace.pk)
    assert (entry.actor, entry.object_id) == (owner.pk, str(invitation.pk))


@pytest.mark.parametrize("email", ["ada@exämple.org", "ada@example。org", "аda@example.org"])  # noqa: RUF001
def test_addresses_that_only_look_like_others_are_refused(
    workspace: Workspace, owner: User, email: str
) -> None:
    with pytest.raises(Refused) as refusal:
        invitations.invite(workspace, owner, email, Role.VIEWER)
    assert refusal.value.field == "email"


# --- what ends one -------------------------------------------------------------------------------


def test_it_expires_and_can_be_sent_again(workspace: Workspace, owner: User, grace: User) -> None:
    first = invited(workspace, owner)
    invitation = found(first)
    assert timedelta(days=6.9) < invitation.expires_at - timezone.now() < timedelta(days=7.1)
    Invitation.objects.update(expires_at=timezone.now())
    assert invitations.find(first) is None
    with pytest.raises(Refused, match="too old"):
        invitations.accept(invitation, grace)
    invitations.resend(workspace, owner, invitation.pk)
    second = token_for(GRACE)
    assert second != first
    invitations.accept(found(second), grace)


def test_sent_again_the_old_link_dies(
    workspace: Workspace, owner: User, grace: User, mail_server: MailServer
) -> None:
    invitation = found(first := invited(workspace, owner))
    send_all()
    invitations.resend(workspace, owner, invitation.pk)
    second = token_for(GRACE)
    assert invitations.find(first) is None
    with pytest.raises(Refused, match="sent anew"):
        invitations.accept(invitation, grace)
    assert found(second).pk == invitation.pk
    # One that was not sent yet is not sent any more.
    invitations.resend(workspace, owner, invitation.pk)
    send_all()
    texts = [message.get_content() for message in mail_server.received]
    assert len(texts) == 2
    assert second not in "".join(texts)
    assert OutgoingMail.objects.filter(state="failed", body="").count() == 1


def test_withdrawn_it_opens_nothing(
    workspace: Workspace, owner: User, grace: User, mail_server: MailServer
) -> None:
    invitation = found(token := invited(workspace, owner))
    invitations.withdraw(workspace, owner, invitation.pk)
    assert invitations.find(token) is None
    assert not invitations.of_user(grace)
    with pytest.raises(Refused):
        invitations.accept(invitation, grace)
    for again in (invitations.resend, invitations.withdraw):
        with pytest.raises(Refused, match="no such invitation any more"):
            again(workspace, owner, invitation.pk)
    send_all()
    assert not mail_server.received
    assert invited(workspace, owner) != token, "and a new one can be made"


def test_one_of_a_deleted_workspace_waits_until_it_is_back(
    workspace: Workspace, owner: User, grace: User
) -> None:
    invitation = found(token := invited(workspace, owner))
    services.delete(workspace, owner)
    assert invitations.find(token) is None
    with pytest.raises(Refused, match="is deleted"):
        invitations.accept(invitation, grace)
    services.undelete(workspace, owner)
    invitations.accept(found(token), grace)
    assert role_of(workspace, grace) == "editor"


def test_old_ones_are_forgotten(workspace: Workspace, owner: User) -> None:
    invited(workspace, owner)
    invited(workspace, owner, "new@example.org")
    long_ago = timezone.now() - invitations.KEPT * 2
    Invitation.objects.filter(email=GRACE).update(expires_at=long_ago)
    tasks.clear_expired()
    assert [one.email for one in invitations.pending(workspace)] == ["new@example.org"]


# --- who may send how many -----------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.EDITOR, Role.VIEWER, None])
def test_only_owners_invite(role: Role | None, workspace: Workspace, owner: User) -> None:
    invitation = found(invited(workspace, owner))
    somebody = factories.make_user()
    if role:
        factories.add_member(workspace, somebody, role)
    with pytest.raises(Refused):
        invitations.invite(workspace, somebody, "x@example.org", Role.VIEWER)
    with pytest.raises(Refused):
        invitations.resend(workspace, somebody, invitation.pk)
    with pytest.raises(Refused):
        invitations.withdraw(workspace, somebody, invitation.pk)
    assert Invitation.objects.get().withdrawn_at is None


@pytest.mark.parametrize(
    "email", ["", "ada", "ada@", "a b@example.org", f"{'a' * 250}@example.org", "a@b.c\nBcc: x@y.z"]
)
def test_what_is_no_address_is_refused(email: str, workspace: Workspace, owner: User) -> None:
    with pytest.raises(Refused, match="Give an email address") as refused:
        invitations.invite(workspace, owner, email, Role.VIEWER)
    assert (refused.value.field, refused.value.code) == ("email", "invalid")


def test_members_and_those_who_are_invited_are_not_invited_again(
    workspace: Workspace, owner: User
) -> None:
    with pytest.raises(Refused, match=r"ada@example\.org belongs to this workspace already"):
        invitations.invite(workspace, owner, "ADA@example.org", Role.VIEWER)
    invited(workspace, owner)
    with pytest.raises(Refused, match="is invited already"):
        invitations.invite(workspace, owner, GRACE, Role.VIEWER)
    # Which other addresses a member has is nobody's business.
    EmailAddress.objects.create(user=owner, email="private@example.org", verified=True)
    invited(workspace, owner, "private@example.org")
    # One that is too old makes room.
    Invitation.objects.update(expires_at=timezone.now())
    invited(workspace, owner)
    assert invitations.pending(workspace).filter(email=GRACE).count() == 1


def test_so_many_may_be_open(workspace: Workspace, owner: User, settings: Settings) -> None:
    settings.INVITATIONS_OPEN = 2
    for name in ("a", "b"):
        invited(workspace, owner, f"{name}@example.org")
    with pytest.raises(Refused, match="2 invitations are open"):
        invitations.invite(workspace, owner, GRACE, Role.VIEWER)
    Invitation.objects.filter(email="a@example.org").update(expires_at=timezone.now())
    invited(workspace, owner)
    old = Invitation.objects.get(email="a@example.org")
    with pytest.raises(Refused, match="2 invitations are open"):
        invitations.resend(workspace, owner, old.pk)


def test_so_many_mails_may_one_person_send_in_a_day(
    workspace: Workspace, owner: User, settings: Settings
) -> None:
    settings.INVITATIONS_PER_DAY = 3
    other = factories.make_workspace(owner)
    invited(workspace, owner)
    invited(other, owner)
    invitations.resend(workspace, owner, workspace.invitations.get().pk)
    for again in (
        lambda: invitations.invite(workspace, owner, "x@example.org", Role.VIEWER),
        lambda: invitations.resend(other, owner, other.invitations.get().pk),
    ):
        with pytest.raises(TooOften, match="You have sent 3 invitations") as refused:
            again()
        assert 86_000 < refused.value.retry_after <= 86_400
    second = factories.make_user()
    factories.add_member(workspace, second, Role.OWNER)
    invited(workspace, second, "x@example.org")


def test_nobody_is_bothered_more_than_a_few_times_a_day(owner: User) -> None:
    for _ in range(invitations.TO_ONE_ADDRESS_PER_DAY):
        invited(factories.make_workspace(owner), owner)
    with pytest.raises(TooOften, match="This address was sent 5"):
        invitations.invite(factories.make_workspace(owner), owner, GRACE, Role.VIEWER)


# --- at once -------------------------------------------------------------------------------------


def at_once(*works: object) -> list[str]:
    """Do all of this in threads that begin together; return how each ended, sorted."""
    together = threading.Barrier(len(works))
    ends: list[str] = []

    def do(work: object) -> None:
        together.wait()
        try:
            work()  # type: ignore[operator]
        except Refused as refusal:
            ends.append(refusal.code)
        else:
            ends.append("done")
        finally:
            connection.close()

    threads = [threading.Thread(target=do, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(ends)


@pytest.mark.django_db(transaction=True)
def test_accepted_ten_times_at_once_it_makes_one_member(
    workspace: Workspace, owner: User, grace: User
) -> None:
    invitation = found(invited(workspace, owner))
    ends = at_once(*[lambda: invitations.accept(invitation, grace)] * 10)
    assert ends == ["done"] + ["not_found"] * 9
    assert Member.objects.filter(workspace=workspace, user=grace).count() == 1
    assert workspace.activities.filter(verb="joined").count() == 1


@pytest.mark.django_db(transaction=True)
def test_many_who_write_to_one_address_at_once_are_counted_one_by_one(owner: User) -> None:
    people = [factories.make_user() for _ in range(8)]
    spaces = [factories.make_workspace(person) for person in people]

    def to_grace(number: int) -> Callable[[], object]:
        return lambda: invitations.invite(spaces[number], people[number], GRACE, Role.VIEWER)

    ends = at_once(*[to_grace(number) for number in range(8)])
    most = invitations.TO_ONE_ADDRESS_PER_DAY
    assert ends == ["done"] * most + ["too_many_requests"] * (8 - most)


@pytest.mark.django_db(transaction=True)
def test_two_people_with_one_link_are_one_member(
    workspace: Workspace, owner: User, grace: User
) -> None:
    """Only one of them has the address, whoever is faster."""
    invitation, eve = found(invited(workspace, owner)), factories.make_user("eve@example.org")
    ends = at_once(
        lambda: invitations.accept(invitation, grace), lambda: invitations.accept(invitation, eve)
    )
    assert "done" in ends
    assert role_of(workspace, grace) == "editor"
    assert role_of(workspace, eve) is None


@pytest.mark.django_db(transaction=True)
def test_accepted_while_it_is_withdrawn_one_of_both_happens(
    workspace: Workspace, owner: User, grace: User
) -> None:
    invitation = found(invited(workspace, owner))
    ends = at_once(
        lambda: invitations.accept(invitation, grace),
        lambda: invitations.withdraw(workspace, owner, invitation.pk),
    )
    assert ends == ["done", "not_found"]
    invitation.refresh_from_db()
    assert bool(invitation.accepted_at) != bool(invitation.withdrawn_at)
    assert bool(invitation.accepted_at) == (role_of(workspace, grace) is not None)


@pytest.mark.django_db(transaction=True)
def test_invited_many_times_at_once_an_address_gets_one_mail(
    workspace: Workspace, owner: User
) -> None:
    second = factories.make_user()
    factories.add_member(workspace, second, Role.OWNER)
    ends = at_once(
        *[lambda: invitations.invite(workspace, owner, GRACE, Role.VIEWER)] * 3,
        *[lambda: invitations.invite(workspace, second, GRACE, Role.VIEWER)] * 3,
    )
    assert ends == ["done"] + ["exists"] * 5
    assert OutgoingMail.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_limit_of_a_day_holds_at_once(owner: User, settings: Settings) -> None:
    settings.INVITATIONS_PER_DAY = 3
    places = [factories.make_workspace(owner) for _ in range(8)]
    ends = at_once(
        *[
            lambda place=place, n=n: invitations.invite(  # type: ignore[misc]
                place, owner, f"p{n}@example.org", Role.VIEWER
            )
            for n, place in enumerate(places)
        ]
    )
    assert ends.count("done") == 3
    assert OutgoingMail.objects.count() == 3


def test_a_mail_that_waits_says_nothing_in_the_clear(workspace: Workspace, owner: User) -> None:
    token = invited(workspace, owner)
    mail = OutgoingMail.objects.get()
    assert token not in mail.body
    assert token in body_of(mail)
    assert token not in f"{mail.key}{mail.subject}"
