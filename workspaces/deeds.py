"""What operators do, by page and by API: who may, and the line that stays in the admin's history.

The work itself is in catalogue, releases, rollouts, plans and changes. Both doors, the admin and
the API, ask `may` before and call these, so that neither demands less nor leaves no trace.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.contrib.admin.models import ADDITION, CHANGE
from django.db import transaction
from django.db.models import Model

from accounts import audit
from accounts.models import User
from workspaces import catalogue, changes, plans, releases, rollouts
from workspaces.catalogue import Rebuilds, Terms
from workspaces.models import Approval, Change, Plan, Plugin, Release, Rollout, Workspace

# Which of Django's permissions each deed needs, in the app workspaces if it names none.
# Superusers have all.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "see_workspaces": ("view_workspace",),
    "change_workspaces": ("view_workspace", "change_workspace"),
    "give_owner": ("view_workspace", "change_workspace", "change_member"),
    "forget_workspaces": ("view_workspace", "delete_workspace"),
    "see_plans": ("view_plan",),
    "add_plan": ("view_plan", "add_plan"),
    "change_plan": ("view_plan", "change_plan"),
    "see_plugins": ("view_plugin",),
    "add_plugin": ("add_plugin",),
    "read_plugin": ("change_plugin",),
    "describe": ("change_plugin",),
    "see_approvals": ("view_approval",),
    "approve": ("view_plugin", "add_approval"),
    "renew": ("view_approval", "add_approval"),
    "withdraw": ("view_approval", "change_approval"),
    "see_grants": ("view_plugin", "view_grant"),
    "grant": ("view_plugin", "view_grant", "add_grant"),
    "take_back": ("view_plugin", "view_grant", "delete_grant"),
    "see_releases": ("view_release",),
    "change_release": ("change_release",),
    "try_release": ("view_release", "add_change"),
    "see_rollouts": ("view_rollout",),
    "roll_out": ("view_release", "add_rollout"),
    "stop_rollout": ("change_rollout",),
    "see_webhooks": ("view_webhook",),
    "add_webhook": ("add_webhook",),
    "change_webhook": ("change_webhook",),
    "remove_webhook": ("delete_webhook",),
    "send_again": ("change_delivery",),
    "see_audit": ("accounts.view_auditentry",),
    "read_customers_log": ("view_workspace", "deploy.view_logtail"),
}


def may(user: User, deed: str) -> bool:
    """Whether an operator has all the permissions that a deed needs."""
    return user.is_staff and not lacking(user, deed)


def lacking(user: User, deed: str) -> list[str]:
    """Return the permissions that an operator would need for a deed and has not got."""
    return [name for name in NEEDS[deed] if not user.has_perm(_full(name))]


def _full(permission: str) -> str:
    return permission if "." in permission else f"workspaces.{permission}"


# --- plugins -------------------------------------------------------------------------------------


def add_plugin(name: str, by: User) -> Plugin:
    """Put a package into the catalogue. Raises Refused."""
    with transaction.atomic():
        plugin = catalogue.add_plugin(name, by)
        note(by, plugin, "added_plugin", "Added to the catalogue.", ADDITION)
    return plugin


def read_again(plugin: Plugin, by: User) -> str:
    """Have the index asked again."""
    with transaction.atomic():
        catalogue.refresh(plugin)
        return note(by, plugin, "read_plugin", "Being read from the package index again.")


def describe(plugin: Plugin, description: str, by: User) -> None:
    """Say what customers read of a plugin; nothing for the package's own summary."""
    with transaction.atomic():
        if (
            Plugin.objects.filter(pk=plugin.pk)
            .exclude(description=description)
            .update(description=description)
        ):
            note(by, plugin, "described_plugin", [{"changed": {"fields": ["Description"]}}])


def approve(plugin: Plugin, release: Release, version: str, terms: Terms, by: User) -> Approval:
    """Say yes to one exact version. Raises Refused."""
    with transaction.atomic():
        approval = catalogue.approve(plugin, release, version, terms, by)
        note(by, plugin, "approved", f"Approved {version} on {release}.")
    return approval


def renew(approval: Approval, by: User) -> str:
    """Say that an approval is still good. Raises Refused."""
    with transaction.atomic():
        row = catalogue.renew(approval)
        until = f"until {row.expires_at:%-d %B %Y}" if row.expires_at else "for ever"
        words = f"The approval of {row.version} on {row.release} is good {until}."
        return note(by, row.plugin, "renewed_approval", words)


def withdraw(approval: Approval, by: User, *, rebuild: bool) -> tuple[Rebuilds, str]:
    """Take an approval back; with `rebuild` also from those that use it. Raises Refused."""
    words = f"Withdrew the approval of {approval.version} on {approval.release}."
    with transaction.atomic():
        if rebuild:
            rebuilds = catalogue.withdraw_and_rebuild(approval, by)
            words += f" Workspaces that are rebuilt without it: {len(rebuilds.begun)}."
        else:
            catalogue.withdraw(approval, by)
            rebuilds = Rebuilds([], {})
        note(by, approval.plugin, "withdrew_approval", words)
    return rebuilds, words


def grant(plugin: Plugin, workspace: Workspace, by: User) -> str:
    """Let one workspace use a plugin. Again says the same, but leaves no second line."""
    words = f"Granted to {workspace.slug}."
    with transaction.atomic():
        if catalogue.grant(plugin, workspace, by):
            note(by, plugin, "granted", words, of=workspace)
    return words


def take_back(plugin: Plugin, workspace: Workspace, by: User) -> str:
    """Take a grant back."""
    with transaction.atomic():
        catalogue.revoke(plugin, workspace)
        words = f"Taken back from {workspace.slug}."
        return note(by, plugin, "took_grant_back", words, of=workspace)


# --- releases ------------------------------------------------------------------------------------


def build(release: Release, by: User) -> str:
    """Have a worker build a release's image now."""
    words = f"A worker builds the image of {release}. Look here again in a minute."
    with transaction.atomic():
        releases.build_later(release)
        return note(by, release, "built_release", words)


def make_default(release: Release, by: User) -> str:
    """Have new workspaces get a release. Raises Refused."""
    with transaction.atomic():
        releases.make_default(release)
        return note(by, release, "made_release_default", f"New workspaces get {release}.")


def offer(release: Release, by: User, *, offered: bool) -> str:
    """Offer a release, or stop that. Raises Refused."""
    with transaction.atomic():
        releases.offer(release, offered)
        verb = "offered_release" if offered else "stopped_offering_release"
        words = f"{release} is {'offered' if offered else 'not offered any more'}."
        return note(by, release, verb, words)


def try_out(release: Release, workspace: Workspace, by: User) -> tuple[Change, str]:
    """Move one workspace to a release, before all others. Raises Refused."""
    with transaction.atomic():
        change = changes.to_release(workspace, by, release)
        words = f"Changes over to {release}: {workspace.slug}."
        return change, note(by, release, "tried_release", words, of=workspace)


def roll_out(
    source: Release, target: Release, size: int, by: User, leave_out: Iterable[Workspace] = ()
) -> Rollout:
    """Begin to move all workspaces of one release to another. Raises Refused."""
    with transaction.atomic():
        rollout = rollouts.start(source, target, size, by, leave_out)
        note(by, target, "began_rollout", f"Began to roll it out: {rollout}.")
    return rollout


def stop_rollout(rollout: Rollout, by: User) -> str:
    """Begin no more batches. Raises Refused."""
    words = f"Stopped by {by}."
    with transaction.atomic():
        rollouts.stop(rollout, words)
        return note(by, rollout, "stopped_rollout", words)


# --- plans ---------------------------------------------------------------------------------------


def add_plan(by: User, values: Mapping[str, Any]) -> Plan:
    """Make a plan. Raises Refused."""
    with transaction.atomic():
        plan = plans.add(values)
        note(by, plan, "added_plan", [{"added": {}}], ADDITION)
    return plan


def change_plan(plan: Plan, by: User, values: Mapping[str, Any], seen: str | None = None) -> Plan:
    """Change a plan; its workspaces follow, a few at a time. Raises Refused."""
    with transaction.atomic():
        current, changed = plans.change(plan, values, seen)
        if changed:
            labels = [plans.LABELS[name] for name in changed]
            note(by, current, "edited_plan", [{"changed": {"fields": labels}}])
    return current


# --- the trace -----------------------------------------------------------------------------------


def note(
    by: User,
    row: Model,
    verb: str,
    words: Any,
    kind: int = CHANGE,
    *,
    of: Workspace | None = None,
) -> str:
    """Write a line into a row's history and into the audit log, as `verb`; return the words.

    `of` is the workspace that it concerns, so that its owners see it.
    """
    audit.log_deed(by, row, verb, words, kind, workspace=of.pk if of else None)
    return str(words)
