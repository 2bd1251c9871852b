"""What operators do with the catalogue: add plugins, approve, withdraw, grant.

Reading the index and locking take a while, so that a worker does them; rows say how far it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from celery import current_app
from django.db import transaction
from django.utils import timezone

from accounts.models import User
from deploy import index, locks
from deploy.index import IndexRefusal, Target
from workspaces import sets
from workspaces.models import Approval, Grant, Plugin, Release, Workspace
from workspaces.services import Refused


@dataclass(frozen=True)
class Terms:
    """On which terms a plugin is approved."""

    reach: str = Approval.Reach.GRANTED
    required: bool = False
    needs_internet: bool = False
    needs: Sequence[dict[str, Any]] = field(default_factory=list)
    note: str = ""


def default_release() -> Release:
    """Return the release that new workspaces get."""
    return Release.objects.get(is_default=True)


# --- adding --------------------------------------------------------------------------------------


def add_plugin(name: str, by: User | None) -> Plugin:
    """Put a package into the catalogue; a worker reads what it is. Raises Refused."""
    try:
        name = index.checked_name(name)
    except IndexRefusal as error:
        raise Refused(str(error), "name") from error
    with transaction.atomic():
        plugin, new = Plugin.objects.get_or_create(name=name, defaults={"added_by": by})
        if not new and plugin.state != Plugin.State.REFUSED:
            raise Refused(f"{name} is in the catalogue already.", "name")
        refresh(plugin)
    return plugin


def refresh(plugin: Plugin) -> None:
    """Have a worker read anew what the index says of a plugin."""
    if plugin.own:
        return
    Plugin.objects.filter(pk=plugin.pk).update(state=Plugin.State.READING, error="")
    plugin.state, plugin.error = Plugin.State.READING, ""
    _later("workspaces.tasks.read_plugin", plugin.pk)


def read_plugin(plugin: Plugin, target: Target) -> None:
    """Write down what the index says of a plugin, in the worker."""
    try:
        facts = index.read(plugin.name, target)
    except IndexRefusal as error:
        _save(plugin, state=Plugin.State.REFUSED, error=str(error), read_at=timezone.now())
        return
    _save(
        plugin,
        state=Plugin.State.KNOWN,
        error="",
        newest=facts.version,
        summary=facts.summary,
        licence=facts.licence,
        home_page=facts.home_page,
        requires_python=facts.requires_python,
        requires_datasette=facts.requires_datasette,
        requires=list(facts.requires),
        read_at=timezone.now(),
    )


# --- approving -----------------------------------------------------------------------------------


def approve(
    plugin: Plugin, release: Release, version: str, terms: Terms, by: User | None
) -> Approval:
    """Say yes to one exact version; a worker locks all that it needs. Raises Refused."""
    if plugin.state != Plugin.State.KNOWN:
        raise Refused(f"{plugin.name} cannot be approved: {plugin.error or 'it is still read'}")
    if not version:
        raise Refused("Say which version.", "version")
    with transaction.atomic():
        approval = Approval.objects.create(
            plugin=plugin,
            release=release,
            version=version,
            reach=terms.reach,
            required=terms.required,
            needs_internet=terms.needs_internet,
            needs=list(terms.needs),
            note=terms.note,
            by=by,
        )
        _later("workspaces.tasks.lock_approval", approval.pk)
    return approval


def lock_approval(approval: Approval, target: Target) -> None:
    """Lock every file that an approved version needs, in the worker. It is active from then on."""
    release, wanted = approval.release, f"{approval.plugin.name}=={approval.version}"
    try:
        facts = index.read(
            approval.plugin.name,
            target,
            version=approval.version,
            prereleases=release.prerelease,
        )
        pins = _locked(wanted, release, target)
    except IndexRefusal as error:
        _save(approval, state=Approval.State.FAILED, error=str(error))
        return
    if facts.version != approval.version:
        words = f"The index has {facts.version}, and not {approval.version}."
        _save(approval, state=Approval.State.FAILED, error=words)
        return
    activate(approval, pins)


def _locked(wanted: str, release: Release, target: Target) -> dict[str, locks.Pin]:
    """Return what a version adds to a release; like what others add already, where that works."""
    base = release.pins
    others = Approval.objects.filter(release=release, state=sets.ACTIVE)
    shared = {name: pin for approval in others for name, pin in approval.pins.items()}
    try:
        pins = index.lock(
            [wanted], target, constraints={**shared, **base}, prereleases=release.prerelease
        )
    except IndexRefusal:
        pins = index.lock([wanted], target, constraints=base, prereleases=release.prerelease)
    return {name: pin for name, pin in pins.items() if name not in base}


def activate(approval: Approval, pins: dict[str, locks.Pin]) -> None:
    """Make a locked approval the one that counts for its plugin and release."""
    with transaction.atomic():
        Plugin.objects.select_for_update().get(pk=approval.plugin_id)
        earlier = Approval.objects.filter(
            plugin=approval.plugin, release=approval.release, state=sets.ACTIVE
        )
        earlier.update(state=Approval.State.REPLACED, ended_at=timezone.now(), ended_by=approval.by)
        _save(approval, state=sets.ACTIVE, lock=locks.text_of(pins.values()), error="")


def withdraw(approval: Approval, by: User | None) -> None:
    """Take an approval back: nobody can switch it on any more. What has it keeps running."""
    with transaction.atomic():
        row = Approval.objects.select_for_update().get(pk=approval.pk)
        if row.state not in (Approval.State.ACTIVE, Approval.State.REPLACED):
            raise Refused("This approval does not count any more.")
        _save(row, state=Approval.State.WITHDRAWN, ended_at=timezone.now(), ended_by=by)


def users_of(approval: Approval) -> list[Workspace]:
    """Return the workspaces that have an approved version switched on."""
    live = approval.workspaces.filter(deleted_at=None).select_related("instance", "plan", "release")
    return list(live.order_by("slug"))


# --- granting ------------------------------------------------------------------------------------


def grant(plugin: Plugin, workspace: Workspace, by: User | None) -> Grant:
    """Let one workspace use a plugin."""
    found, _ = Grant.objects.get_or_create(plugin=plugin, workspace=workspace, defaults={"by": by})
    return found


def revoke(plugin: Plugin, workspace: Workspace) -> None:
    """Take a grant back. The workspace keeps what it runs until its set is changed."""
    Grant.objects.filter(plugin=plugin, workspace=workspace).delete()


# --- helpers -------------------------------------------------------------------------------------


def _save(row: Plugin | Approval, **changes: Any) -> None:
    for name, value in changes.items():
        setattr(row, name, value)
    row.save(update_fields=list(changes))


def _later(task: str, pk: int) -> None:
    transaction.on_commit(partial(current_app.send_task, task, [pk], queue="later"))
