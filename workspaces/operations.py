"""What operators do with a customer's workspace. Each leaves a line that its members can read."""

from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from accounts.models import User
from deploy import lifecycle
from deploy.models import Instance
from deploy.states import Desired, StopReason
from workspaces import activity, change_runs, changes, invitations, members, notices, plans
from workspaces.models import Change, Member, Plan, Role, Workspace
from workspaces.services import Refused, changing, locked

MAX_REASON = 200
GIVEN_UP = "The operators gave this change up, so that the old set stays."


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

    Where too many of that plan are being replaced already, or its plugins are being changed, it
    takes its turn and follows later. One with more members or data than the new plan allows keeps
    them; it gets no further ones.
    """
    with changing(workspace) as current:
        if current.plan_id == plan.pk:
            return
        old, current.plan = current.plan, plan
        if current.instance.desired != Desired.ABSENT:
            if plans.may_follow_now(current):
                plans.follow(current)
                plans.tell_soon()
            else:
                plans.follow_soon()
        Workspace.objects.filter(pk=current.pk).update(plan=plan)
        activity.note(current, by, "changed_plan", f"{old} → {plan}")
    workspace.plan = plan


def give_owner(workspace: Workspace, by: User, email: str) -> str:
    """Make a member the owner of a workspace that has none who can act; say what was done.

    Else only owners do that. Where nobody belongs to it, invite the address. Raises Refused.
    """
    if not workspace.members.exists():
        made = invitations.invite_owner(workspace, by, email)
        return f"has {made.email} invited as its owner"
    with changing(workspace) as current:
        if members.owners(current).exists():
            raise Refused("It has an owner: only owners make others owners.")
        member = members.at_address(current, email)
        if member is None:
            words = "No member has verified this address. Give that of one who can sign in."
            raise Refused(words, "email")
        if member.user_id == by.pk:
            raise Refused("Nobody makes themselves an owner: have another operator do it.", "email")
        Member.objects.filter(pk=member.pk).update(role=Role.OWNER)
        activity.note(current, by, "made_owner", member.user.display_name)
    return f"is owned by {member.user.display_name} now"


# --- out of whatever it is stuck in --------------------------------------------------------------


def retry(workspace: Workspace, by: User) -> None:
    """Have a worker look at it now: no more waiting after failures, nor for a worker that hangs.

    With it the instance before it, for which it may wait, and the change that is under way.
    """
    with locked(workspace) as current:
        _refuse_gone(current)
        before = current.instance.predecessor
        for instance in (current.instance, before):
            if instance and instance.purged_at is None:
                lifecycle.retry(instance.pk, take_over=hangs(instance))
        if change := changes.open_change(current):
            transaction.on_commit(partial(changes.send, change.pk))
        activity.note(current, by, "retried")


def hangs(instance: Instance) -> bool:
    """Whether a worker holds it and did nothing for longer than anything takes."""
    if instance.lease_token is None:
        return False
    seconds = settings.START_TIMEOUT_SECONDS + settings.STOP_TIMEOUT_SECONDS + 60
    since = timezone.now() - timedelta(seconds=seconds)
    return not instance.events.filter(at__gt=since).exists()


def rebuild(workspace: Workspace, by: User) -> Change:
    """Have its image built anew, and switch over to that. What does not come up changes nothing."""
    with transaction.atomic():
        change = changes.rebuild(workspace, by)
        activity.note(change.workspace, by, "rebuilt")
    return change


def give_up_change(workspace: Workspace, by: User) -> None:
    """End the change that is under way; what ran before it runs on. Raises Refused."""
    change = changes.open_change(workspace)
    if change is None:
        raise Refused("No change is under way.")
    try:
        with transaction.atomic():
            change_runs.give_up(change.pk, GIVEN_UP)
            activity.note(change.workspace, by, "gave_up_change")
    except change_runs.GivenUp as error:
        raise Refused("This change is over.") from error
    except lifecycle.NotAllowed as error:
        raise Refused(str(error)) from error


def forget(workspace: Workspace, by: User) -> None:
    """Drop a workspace whose container is gone for good. Nothing at the engine is touched.

    Its owners are told. Its slug is free again. Its volume, if there is one still, is reported as
    an orphan and stays.
    """
    with locked(workspace) as current:
        _refuse_gone(current)
        lifecycle.forget(current.instance.pk)
        now = timezone.now()
        Workspace.objects.filter(pk=current.pk).update(
            deleted_at=current.deleted_at or now, purged_at=now
        )
        words = f"volume {current.instance.volume or 'none'}"
        deed = activity.note(current, by, "forgotten", words)
        notices.forgotten(deed, was_deleted=current.deleted_at is not None)


def _refuse_gone(workspace: Workspace) -> None:
    if workspace.instance.purged_at is not None:
        raise Refused("Nothing is left of this workspace.", code="not_found")
