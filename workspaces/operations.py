"""What operators do with a customer's workspace. Each leaves a line that its members can read."""

from accounts.models import User
from deploy import lifecycle
from deploy.states import Desired, StopReason
from workspaces import activity, notices, plans, sets
from workspaces.models import Plan, Workspace
from workspaces.services import Refused, changing

MAX_REASON = 200


def suspend(workspace: Workspace, by: User, reason: str) -> None:
    """Stop it, so that only operators can start it again. Its members see the reason."""
    reason = " ".join(reason.split())
    if not reason or len(reason) > MAX_REASON:
        raise Refused(f"Give a reason of at most {MAX_REASON} characters.", "reason")
    with changing(workspace) as current:
        if current.instance.stop_reason == StopReason.OPERATOR:
            return
        Workspace.objects.filter(pk=current.pk).update(suspended_reason=reason)
        lifecycle.want_stopped(current.instance.pk, StopReason.OPERATOR)
        notices.suspended(activity.note(current, by, "suspended", reason))


def resume(workspace: Workspace, by: User) -> None:
    """Lift a suspension, and start it."""
    with changing(workspace) as current:
        if current.instance.stop_reason != StopReason.OPERATOR:
            return
        Workspace.objects.filter(pk=current.pk).update(suspended_reason="")
        lifecycle.want_running(current.instance.pk, by_operator=True)
        notices.resumed(activity.note(current, by, "resumed"))


def change_plan(workspace: Workspace, by: User, plan: Plan) -> None:
    """Give it another plan. What runs is replaced by a container with the new limits, if need be.

    One with more members or data than the new plan allows keeps them; it gets no further ones.
    """
    with changing(workspace) as current:
        if current.plan_id == plan.pk:
            return
        old, current.plan = current.plan, plan
        if current.instance.desired != Desired.ABSENT:
            plans.follow(current)
            plans.tell_soon()
        Workspace.objects.filter(pk=current.pk).update(plan=plan)
        activity.note(current, by, "changed_plan", f"{old} → {plan}")
    workspace.plan = plan
