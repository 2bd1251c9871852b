"""Ask somebody into a workspace by email. Pages and the REST API call these and nothing else.

Only owners invite, operators do not: they would let themselves in. Who has the link may look, but
only who has verified the address may accept: a forwarded mail opens nothing. What was sent stays
good when the one who sent it leaves, for it is the workspace that invites; its owners see it in
their list and can withdraw it. When somebody else takes them out, or their role, it is withdrawn.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import connection, transaction
from django.db.models import Prefetch, Q, QuerySet
from django.utils import timezone

from accounts import audit
from accounts.models import User
from workspaces import activity, mailing
from workspaces.handoff_tokens import digest, new_token
from workspaces.models import Invitation, Member, OutgoingMail, Role, Workspace
from workspaces.services import (
    Refused,
    TooOften,
    changing,
    demand_owner,
    room_to_own,
    seconds_until_room,
)

KIND = "invitation"
MAX_EMAIL = 254
# Whoever sends them, and from wherever: nobody is bothered more often in a day.
TO_ONE_ADDRESS_PER_DAY = 5
KEPT = timedelta(days=30)
OPERATORS = "The team of cloudapp"
ONLY_OWNERS = "Only an owner invites people."

A_ROLE = {Role.VIEWER: "a viewer", Role.EDITOR: "an editor", Role.OWNER: "an owner"}
_inviter = Prefetch("invited_by", User.objects.with_names())

ROLE_WORDS = {
    Role.VIEWER: "you can read everything",
    Role.EDITOR: "you can read everything, upload and change data",
    Role.OWNER: "you can do everything, also invite and remove people",
}


def pending(workspace: Workspace) -> QuerySet[Invitation]:
    """Return what was neither accepted nor withdrawn, newest first; expired ones are among it."""
    return workspace.invitations.filter(accepted_at=None, withdrawn_at=None)


def _good() -> QuerySet[Invitation]:
    """Return the invitations that can be accepted now."""
    return (
        Invitation.objects.filter(
            accepted_at=None,
            withdrawn_at=None,
            expires_at__gt=timezone.now(),
            workspace__deleted_at=None,
            workspace__purged_at=None,
        )
        .select_related("workspace__instance")
        .prefetch_related(_inviter)
    )


# --- what owners do ------------------------------------------------------------------------------


def invite(workspace: Workspace, by: User, email: str, role: Role) -> Invitation:
    """Invite an address, and have the link mailed to it. Raises Refused."""
    email = _checked(email)
    with transaction.atomic():
        _hold(by, email)
        with changing(workspace, by, "change_members") as current:
            demand_owner(current, by, ONLY_OWNERS)
            _refuse_members(current, email)
            _refuse_second(current, email)
            _hold_to_limits(current, by, email)
            return _make(current, by, email, role, inviter=by)


def invite_owner(workspace: Workspace, by: User, email: str) -> Invitation:
    """Have an operator invite an owner where nobody is left who could. Raises Refused."""
    email = _checked(email)
    if EmailAddress.objects.lookup([email]).filter(user=by).exists():
        raise Refused("Nobody lets themselves in: this is your own address.", "email")
    with transaction.atomic():
        _hold(by, email)
        with changing(workspace) as current:
            if current.members.exists():
                raise Refused(ONLY_OWNERS)
            _withdraw(pending(current), by)  # whoever sent these is gone
            _hold_to_mails(by, email)
            return _make(current, by, email, Role.OWNER, inviter=None)


def _make(
    workspace: Workspace, by: User, email: str, role: Role, *, inviter: User | None
) -> Invitation:
    token, now = new_token(), timezone.now()
    invitation = Invitation.objects.create(
        workspace=workspace,
        email=email,
        role=role,
        digest=digest(token),
        invited_by=inviter,
        created_at=now,
        sent_at=now,
        expires_at=_end(now),
    )
    _mail(invitation, token, by)
    _note(invitation, by, "invited")
    return invitation


def resend(workspace: Workspace, by: User, pk: int) -> Invitation:
    """Send it once more, with another link; the old one is no good any more. Raises Refused."""
    with transaction.atomic():
        to = Invitation.objects.filter(workspace=workspace, pk=pk).values_list("email", flat=True)
        _hold(by, to.first() or "")
        with changing(workspace, by, "change_members") as current:
            demand_owner(current, by, ONLY_OWNERS)
            invitation = _pending_one(current, pk)
            if invitation.is_expired:  # it counts again
                _hold_to_open(current)
            _hold_to_mails(by, invitation.email)
            _call_back(invitation)
            token, now = new_token(), timezone.now()
            invitation.digest = digest(token)
            invitation.sent_at, invitation.expires_at = now, _end(now)
            invitation.save(update_fields=["digest", "sent_at", "expires_at"])
            _mail(invitation, token, by)
            _note(invitation, by, "resent_invitation")
    return invitation


def withdraw(workspace: Workspace, by: User, pk: int) -> None:
    """Take it back: its link is no good any more. Raises Refused."""
    with changing(workspace, by, "change_members") as current:
        invitation = _pending_one(current, pk)
        _close(invitation)
        _note(invitation, by, "withdrew_invitation")


def withdraw_those_of(workspace: Workspace, by: User, sender: User) -> None:
    """Take back all that somebody sent. The caller holds the row."""
    _withdraw(pending(workspace).filter(invited_by=sender), by)


def _withdraw(chosen: QuerySet[Invitation], by: User) -> None:
    for invitation in chosen:
        _close(invitation)
        _note(invitation, by, "withdrew_invitation")


# --- what those do who are invited ---------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """Whether somebody may accept an invitation: with an address that is `verified`, or `claimed`
    and not verified yet. A `member` needs none.
    """

    verified: bool
    claimed: bool
    member: Member | None


def find(token: str) -> Invitation | None:
    """Return the invitation that a link opens, if it is good."""
    return _good().filter(digest=digest(token)).first()


def of_user(user: User) -> QuerySet[Invitation]:
    """Return those that this person may accept: to addresses that they have verified."""
    mine = EmailAddress.objects.filter(user=user, verified=True).values("email")
    members = Member.objects.filter(user=user).values("workspace")
    return _good().filter(email__in=mine).exclude(workspace__in=members).order_by("-id")


def standing(invitation: Invitation, user: User) -> Standing:
    """Return how somebody who is signed in stands to an invitation."""
    addresses = EmailAddress.objects.lookup([invitation.email]).filter(user=user)
    found = list(addresses.values_list("verified", flat=True))
    member = Member.objects.filter(workspace=invitation.workspace_id, user=user).first()
    return Standing(any(found), bool(found), member)


def accept(invitation: Invitation, user: User) -> Workspace:
    """Become a member, once; return the workspace. Raises Refused.

    Who is one already stays what they are, and the invitation is used up.
    """
    with changing(invitation.workspace, person=user.pk) as current:
        # The workspace is held, so of two that come at once the second sees what the first did.
        good = _good().filter(pk=invitation.pk, digest=invitation.digest).first()
        if good is None:
            words = "This invitation was accepted, withdrawn or sent anew, or it is too old."
            raise Refused(words, code="not_found")
        how = standing(good, user)
        if not how.verified:
            words = f"First verify that {masked(good.email)} is yours."
            raise Refused(words, code="role_too_low")
        if how.member is None:
            let_in(current, user, Role(good.role), invitation=good.pk)
        else:
            audit.note(user, "used_invitation", good, workspace=current.pk)
        good.accepted_at, good.accepted_by = timezone.now(), user
        good.save(update_fields=["accepted_at", "accepted_by"])
    return current


def let_in(
    workspace: Workspace, user: User, role: Role, *, invitation: int | None = None
) -> Member:
    """Make somebody a member who was invited, by the invitation of this number.

    Raises Refused, code member_limit when it is full.
    """
    with changing(workspace, person=user.pk) as current:
        if current.members.filter(user=user).exists():
            raise Refused("This person belongs to the workspace already.")
        room_for_another(current)
        if role == Role.OWNER:
            room_to_own(current, user)
        more = {"invitation": invitation}
        activity.note(current, user, "joined", f"as {A_ROLE[role]}", more=more)
        return Member.objects.create(workspace=current, user=user, role=role)


def room_for_another(workspace: Workspace) -> None:
    """Refuse more members than the plan allows. The caller holds the row, as by `changing`.

    So of two who come at once, the second one is counted behind the first.
    """
    limit = workspace.plan.max_members
    if workspace.members.count() >= limit:
        words = (
            f"A workspace of the plan {workspace.plan} has room for {limit} "
            f"{'member' if limit == 1 else 'members'}. Take somebody out first, or ask the "
            "operators for another plan."
        )
        raise Refused(words, code="member_limit")


def masked(email: str) -> str:
    """Return an address so that its owner knows it again, and nobody else learns it."""
    name, _, host = email.rpartition("@")
    return f"{name[:1]}…@{host}"


def prune() -> None:
    """Remove what nobody asks for any more."""
    old = timezone.now() - KEPT
    over = Q(accepted_at__lt=old) | Q(withdrawn_at__lt=old) | Q(expires_at__lt=old)
    Invitation.objects.filter(over).delete()


# --- helpers -------------------------------------------------------------------------------------


def _note(invitation: Invitation, by: User, verb: str) -> None:
    """Write down what was done with it: for all members to read, the whole address for owners."""
    words = f"{masked(invitation.email)} as {invitation.role}"
    more = {"invitation": invitation.pk, "email": invitation.email}
    activity.note(invitation.workspace, by, verb, words, more=more)


def _checked(email: str) -> str:
    email = email.strip().lower()
    try:
        if len(email) > MAX_EMAIL:
            raise ValidationError("too long")
        validate_email(email)
    except ValidationError:
        raise Refused("Give an email address, such as ada@example.org.", "email") from None
    if not email.isascii():  # two that look the same, or are, would count as two
        words = "Write the address in plain letters; a domain in others has a form with xn--."
        raise Refused(words, "email")
    return email


def _hold(by: User, email: str) -> None:
    """Lock the sender's row, and the address, before any workspace.

    So the mails that somebody sends, and those that an address gets, are counted one by one.
    """
    User.objects.select_for_update(no_key=True).get(pk=by.pk)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{KIND}:{email}"])


def _end(now: datetime) -> datetime:
    return now + timedelta(days=settings.INVITATION_DAYS)


def _pending_one(workspace: Workspace, pk: int) -> Invitation:
    found = pending(workspace).select_for_update(of=("self",)).filter(pk=pk).first()
    if found is None:
        words = "There is no such invitation any more: it was accepted or withdrawn."
        raise Refused(words, code="not_found")
    return found


def _refuse_members(workspace: Workspace, email: str) -> None:
    """By the addresses that the list of members shows; others are nobody's business here."""
    shown = EmailAddress.objects.lookup([email]).filter(
        verified=True, primary=True, user__memberships__workspace=workspace
    )
    if shown.exists():
        raise Refused(f"{email} belongs to this workspace already.", code="exists")


def _refuse_second(workspace: Workspace, email: str) -> None:
    """One at a time for an address. One that is too old makes room for a new one."""
    for invitation in pending(workspace).filter(email=email):
        if not invitation.is_expired:
            words = f"{email} is invited already. Send that invitation again, or withdraw it."
            raise Refused(words, code="exists")
        _close(invitation)


def _close(invitation: Invitation) -> None:
    _call_back(invitation)
    Invitation.objects.filter(pk=invitation.pk).update(withdrawn_at=timezone.now())


def _hold_to_limits(workspace: Workspace, by: User, email: str) -> None:
    _hold_to_open(workspace)
    _hold_to_mails(by, email)


def _hold_to_open(workspace: Workspace) -> None:
    waiting = pending(workspace).filter(expires_at__gt=timezone.now()).count()
    if waiting >= settings.INVITATIONS_OPEN:
        raise Refused(
            f"{waiting} invitations are open, as many as there may be. Withdraw one that is not "
            "needed, or wait until some are accepted."
        )


def _hold_to_mails(by: User, email: str) -> None:
    """Raise TooOften where somebody sends, or somebody would get, too many in a day."""
    day = timedelta(days=1)
    mails = OutgoingMail.objects.filter(kind=KIND, created_at__gt=timezone.now() - day)
    for sent, most, words in (
        (mails.filter(by=by), settings.INVITATIONS_PER_DAY, "You have sent"),
        (mails.filter(to=email), TO_ONE_ADDRESS_PER_DAY, "This address was sent"),
    ):
        if sent.count() >= most:
            raise TooOften(
                f"{words} {most} invitations within a day, as many as may be. Try again later.",
                "too_many_requests",
                seconds_until_room(sent, "created_at", day),
            )


def _key(invitation: Invitation) -> str:
    return f"{KIND}:{invitation.pk}:{invitation.digest[:16]}"


def _call_back(invitation: Invitation) -> None:
    mailing.call_back(_key(invitation), "It was withdrawn, or sent anew, before it was sent.")


def _mail(invitation: Invitation, token: str, by: User) -> None:
    """Who the operators are is not told: `by` is one where nobody of the workspace invites."""
    owner = invitation.workspace.members.filter(user=by, role=Role.OWNER).exists()
    inviter = mailing.plain(by.display_name, by.email) if owner else OPERATORS
    mailing.write(
        KIND,
        invitation.email,
        key=_key(invitation),
        workspace=invitation.workspace,
        by=by,
        inviter=inviter,
        inviter_email=by.email if owner else inviter,
        role=A_ROLE[Role(invitation.role)],
        role_words=ROLE_WORDS[Role(invitation.role)],
        expires_at=invitation.expires_at,
        link=f"{settings.CLOUD_URL}/invitations/{token}/",
    )
