"""Who may do what in a workspace: one table, and the one way to get at a workspace.

Strangers get the same 404 as somebody who mistyped an address: a private workspace's existence
is nobody's business. Members whose role does not suffice get a 403, because they know it exists.
"""

from collections.abc import Mapping

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404

from accounts.models import User
from workspaces.models import Member, Role, Workspace

_RANK: Mapping[Role, int] = {Role.VIEWER: 0, Role.EDITOR: 1, Role.OWNER: 2}

# What can be done on the cloud pages, and the least role that may. Views enforce it and templates
# show by it, so that the two cannot differ.
NEEDS: Mapping[str, Role] = {
    "see": Role.VIEWER,
    "wake": Role.VIEWER,
    "read_activity": Role.VIEWER,
    "see_usage": Role.OWNER,
    "read_logs": Role.EDITOR,
    "read_audit": Role.OWNER,
    "start": Role.OWNER,
    "stop": Role.OWNER,
    "restart": Role.OWNER,
    "rename": Role.OWNER,
    "change_plugins": Role.OWNER,
    "manage_webhooks": Role.OWNER,
    "change_secrets": Role.OWNER,
    "change_members": Role.OWNER,
    "change_visibility": Role.OWNER,
    "allow_support": Role.OWNER,
    "delete": Role.OWNER,
    "undelete": Role.OWNER,
}


def is_at_least(role: str, needed: Role) -> bool:
    """Whether `role` may do what `needed` may."""
    return _RANK[Role(role)] >= _RANK[needed]


def abilities(role: str) -> dict[str, bool]:
    """Return, for each thing in NEEDS, whether `role` may do it."""
    return {ability: is_at_least(role, needed) for ability, needed in NEEDS.items()}


def memberships(user: User | AnonymousUser) -> QuerySet[Member]:
    """Return the user's places in workspaces that still exist, deleted ones in grace included."""
    if not user.is_authenticated:
        return Member.objects.none()
    return Member.objects.filter(
        user=user,
        workspace__purged_at=None,
        workspace__instance__purged_at=None,
    ).select_related("workspace__instance", "workspace__plan")


def get_member(user: User | AnonymousUser, slug: str, at_least: Role = Role.VIEWER) -> Member:
    """Return the user's place in the workspace called `slug`.

    Raises Http404 for strangers and unknown slugs alike, PermissionDenied for a lesser role.
    """
    member = memberships(user).filter(workspace__slug=slug).first()
    if member is None:
        raise Http404("no such workspace")
    if not is_at_least(member.role, at_least):
        raise PermissionDenied
    return member


def get_workspace(user: User | AnonymousUser, slug: str, at_least: Role = Role.VIEWER) -> Workspace:
    """Return the workspace called `slug`, if the user may. Raises as `get_member` does."""
    return get_member(user, slug, at_least).workspace
