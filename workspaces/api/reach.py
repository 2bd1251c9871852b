"""Which workspaces a caller sees, and what it may do to them.

What it may not see does not exist: the condition is part of the one query that looks for the slug,
so that answer and time are the same as for a slug that nobody has.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Exists, OuterRef, Prefetch, QuerySet, Subquery

from workspaces import access
from workspaces.api.callers import Caller
from workspaces.api.problems import Problem
from workspaces.models import Approval, Member, Role, Workspace

# What operators need, one of deeds.NEEDS, to do what their role does not let them: for most, that
# they may change workspaces. What only the admin's own permissions open, no other opens here.
_DEEDS: Mapping[str, str] = {"read_audit": "see_audit", "read_logs": "read_customers_log"}


def _deed_for(ability: str) -> str:
    return _DEEDS.get(ability, "change_workspaces")


@dataclass(frozen=True)
class Reached:
    """A workspace, and the caller's role in it: empty for an operator who is no member."""

    workspace: Workspace
    role: str
    caller: Caller

    def may(self, ability: str) -> bool:
        """Whether the caller may do this to it."""
        return self.may_by_role(ability) or self.caller.may(_deed_for(ability))

    def may_by_role(self, ability: str) -> bool:
        """Whether they need be no operator for it. Operators who may only look are as viewers."""
        return access.is_at_least(self.role or Role.VIEWER, access.NEEDS[ability])


def workspaces(caller: Caller, *, gone: bool = False) -> QuerySet[Workspace]:
    """Return the workspaces that a caller sees, the deleted ones in grace included.

    With `gone` also those whose data is removed. Each carries `role`, and all that a
    representation needs in two more queries.
    """
    mine = Member.objects.filter(workspace=OuterRef("pk"), user=caller.user)
    found = Workspace.objects.all()
    if not gone:
        found = found.filter(purged_at=None, instance__purged_at=None)
    if not caller.may("see_workspaces"):
        found = found.filter(Exists(mine))
    if caller.token.only is not None:
        found = found.filter(pk=caller.token.only)
    # The locks are the largest texts there are, and no list shows them.
    chosen = Approval.objects.select_related("plugin").defer("lock").order_by("plugin__name")
    return (
        found.annotate(role=Subquery(mine.values("role")[:1]))
        .select_related("instance", "plan", "release")
        .defer("release__lock")
        .prefetch_related(Prefetch("plugins", chosen))
    )


def reached(caller: Caller, workspace: Workspace) -> Reached:
    """Return one of `workspaces` with the caller's role."""
    return Reached(workspace, getattr(workspace, "role", None) or "", caller)


def get(caller: Caller, slug: str, ability: str) -> Reached:
    """Return the workspace called `slug`, if the caller may do this to it. Raises Problem."""
    workspace = workspaces(caller).filter(slug=slug).first()
    if workspace is None:
        raise Problem("not_found", "There is no such workspace, or this token may not see it.")
    found = reached(caller, workspace)
    if not found.may(ability):
        if not found.role:
            caller.demand(_deed_for(ability))
        needed: Role = access.NEEDS[ability]
        raise Problem("role_too_low", f"Only the role {needed} may do this; yours is {found.role}.")
    return found
