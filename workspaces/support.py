"""Whether operators may look at a workspace's data: only while an owner allows it, and as viewers.

The way in is the ordinary hand-off (handoff.py), and the gateway asks at each request. Each time
that one comes in is in the workspace's activity.
"""

from collections.abc import Mapping
from datetime import timedelta

from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import User
from workspaces import activity, deeds
from workspaces.models import Workspace, WorkspaceSession
from workspaces.services import Refused, changing, demand_owner, locked

# For how many days an owner may allow it.
CHOICES: Mapping[int, str] = {1: "1 day", 7: "7 days"}


def allow(workspace: Workspace, by: User, days: int) -> None:
    """Let operators look at the data for so long. Raises Refused; an operator may not, by that."""
    if days not in CHOICES:
        raise Refused("Choose for how long.", "days")
    with changing(workspace) as current:
        demand_owner(current, by)
        until = timezone.now() + timedelta(days=days)
        # Whoever was in before comes in anew, and that is written down.
        _sessions_of_operators(current).delete()
        Workspace.objects.filter(pk=current.pk).update(support_until=until)
        activity.note(current, by, "allowed_support", f"until {until:%-d %B %Y, %H:%M} UTC")
    workspace.support_until = until


def end(workspace: Workspace, by: User) -> None:
    """Close the data to operators again; those who are in are out within seconds."""
    with locked(workspace) as current:
        demand_owner(current, by)
        if not current.support_access:
            return
        Workspace.objects.filter(pk=current.pk).update(support_until=None)
        _sessions_of_operators(current).delete()
        activity.note(current, by, "ended_support")
    workspace.support_until = None


def may_look(user: User) -> bool:
    """Whether this is an operator who looks after workspaces: what an owner allows, these may."""
    return deeds.may(user, "see_workspaces")


def find(user: User, slug: str) -> Workspace | None:
    """Return the workspace called `slug` if this operator may look at its data now."""
    if not may_look(user):
        return None
    open_now = Workspace.objects.filter(
        slug=slug,
        purged_at=None,
        deleted_at=None,
        instance__purged_at=None,
        support_until__gt=timezone.now(),
    )
    return open_now.select_related("instance").first()


def note_entry(workspace: Workspace, by: User) -> None:
    """Write down that an operator came in."""
    with locked(workspace) as current:
        activity.note(current, by, "entered_support")


def _sessions_of_operators(workspace: Workspace) -> QuerySet[WorkspaceSession]:
    return WorkspaceSession.objects.filter(workspace=workspace, for_support=True)
