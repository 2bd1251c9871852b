"""Who belongs to a workspace: people come, roles change, people go. There is always an owner.

How people are invited: workspaces.invitations.
"""

from allauth.account.models import EmailAddress
from django.db.models import QuerySet

from accounts.models import User
from workspaces import activity, invitations
from workspaces.models import Member, Role, Workspace, WorkspaceSession
from workspaces.services import Refused, changing, demand_owner, room_to_own


def owners(workspace: Workspace) -> QuerySet[Member]:
    """Return the members who can act as owners: one whose account is switched off cannot."""
    return workspace.members.filter(role=Role.OWNER, user__is_active=True)


def at_address(workspace: Workspace, email: str) -> Member | None:
    """Return the member who can sign in and has verified an address."""
    addresses = EmailAddress.objects.lookup([email.strip()]).filter(verified=True)
    here = workspace.members.filter(user__in=addresses.values("user"), user__is_active=True)
    return here.select_related("user").first()


def change_role(workspace: Workspace, by: User, user_id: int, role: Role) -> None:
    """Give a member another role; operators, too, but none makes an owner. Raises Refused.

    What somebody sent whose role another one lowers is withdrawn.
    """
    with changing(workspace, by, "change_members", person=user_id) as current:
        member = _member(current, user_id)
        if member.role == role:
            return
        if user_id == by.pk and member.role != Role.OWNER:  # an operator, who is no owner
            words = f"Only another owner may change your role, which is {member.role}."
            raise Refused(words, code="role_too_low")
        if role == Role.OWNER:
            demand_owner(current, by, "Only an owner makes others owners.")
            room_to_own(current, member.user)
        _keep_an_owner(current, member)
        activity.note(
            current, by, "changed_role", f"{member.user.display_name}: {member.role} → {role}"
        )
        Member.objects.filter(pk=member.pk).update(role=role)
        if role != Role.OWNER:
            _withdraw_invitations(current, by, member.user)


def remove(workspace: Workspace, by: User, user_id: int) -> None:
    """Take a member out; within seconds no door of the workspace opens to them. Raises Refused.

    People may take themselves out. What somebody sent whom another one takes out is withdrawn.
    """
    with changing(workspace, by, "see" if user_id == by.pk else "change_members") as current:
        member = _member(current, user_id)
        _keep_an_owner(current, member)
        if member.user_id == by.pk:
            activity.note(current, by, "left")
        else:
            activity.note(current, by, "removed_member", member.user.display_name)
        # Whatever lets them in again later, it is not an old session.
        WorkspaceSession.objects.filter(workspace=current, user=member.user_id).delete()
        _withdraw_invitations(current, by, member.user)
        member.delete()


def transfer(workspace: Workspace, by: User, user_id: int) -> None:
    """Make another member an owner, and the one who does it an editor: one deed. Raises Refused."""
    with changing(workspace, by, "change_members", person=user_id) as current:
        giving = current.members.filter(user=by, role=Role.OWNER).first()
        if giving is None:  # an operator, who is no owner
            words = "Only an owner can hand a workspace over."
            raise Refused(words, code="role_too_low")
        taking = _member(current, user_id)
        if taking.pk == giving.pk:
            raise Refused("Choose somebody else: you are an owner already.")
        if not taking.user.is_active:
            raise Refused("Choose somebody else: this account is switched off.")
        if taking.role != Role.OWNER:
            room_to_own(current, taking.user)
        Member.objects.filter(pk=taking.pk).update(role=Role.OWNER)
        Member.objects.filter(pk=giving.pk).update(role=Role.EDITOR)
        activity.note(current, by, "transferred", f"to {taking.user.display_name}")


def _member(workspace: Workspace, user_id: int) -> Member:
    member = workspace.members.select_related("user").filter(user_id=user_id).first()
    if member is None:
        raise Refused("This person does not belong to the workspace.", code="not_found")
    return member


def _keep_an_owner(workspace: Workspace, leaving: Member) -> None:
    """Refuse to take the last owner away. The workspace's row is locked, so nobody else does."""
    if leaving.role != Role.OWNER:
        return
    if not owners(workspace).exclude(pk=leaving.pk).exists():
        words = "A workspace needs an owner: make somebody else one first."
        raise Refused(words, code="last_owner")


def _withdraw_invitations(workspace: Workspace, by: User, sender: User) -> None:
    """Lest somebody who is or was an owner comes back by an address that they invited."""
    if sender.pk != by.pk:
        invitations.withdraw_those_of(workspace, by, sender)
