"""What operators do with the catalogue: add plugins, approve, withdraw, grant.

Reading the index and locking take a while, so that a worker does them; rows say how far it is.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import User
from deploy import index, locks, vault
from deploy.index import Facts, IndexRefusal, Target
from workspaces import changes, releases, sets
from workspaces.models import Approval, Change, Grant, Plugin, Release, Workspace
from workspaces.services import Refused

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """On which terms a plugin is approved."""

    reach: str = Approval.Reach.GRANTED
    required: bool = False
    needs_internet: bool = False
    needs: Sequence[dict[str, Any]] = field(default_factory=list)
    note: str = ""


_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.!+_-]{0,59}")
# The states from which an approval can be taken back.
ENDABLE = (Approval.State.LOCKING, Approval.State.ACTIVE, Approval.State.REPLACED)
UNEXPECTED = (
    "It went wrong for a reason on our side, which stands in the worker's log. Once that is "
    "mended, do it again."
)
HELD_ALREADY = (
    "{0} is part of {1} already, and so of every image: it can neither ask for values nor bring "
    "the internet with it. Approve it without."
)
_OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")


def default_release() -> Release:
    """Return the release that new workspaces get."""
    return Release.objects.get(is_default=True)


def need_problem(name: str, option: str = "") -> str:
    """Return what is wrong with a name (and option) that a plugin is to be given, else nothing."""
    if words := vault.problem(name, ""):  # or else nobody could ever give it a value
        return words
    if option and not _OPTION.fullmatch(option):
        return f"“{option[:80]}” cannot be an option: letters, digits, - and _ only."
    return ""


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
            raise Refused(f"{name} is in the catalogue already.", "name", code="exists")
        refresh(plugin)
    return plugin


def refresh(plugin: Plugin) -> None:
    """Have a worker read anew what the index says of a plugin."""
    if plugin.own:
        return
    Plugin.objects.filter(pk=plugin.pk).update(state=Plugin.State.READING, error="")
    plugin.state, plugin.error = Plugin.State.READING, ""
    _later("workspaces.tasks.read_plugin", plugin.pk)


def refresh_all() -> None:
    """Have every plugin that is known read anew, so that newer versions are pointed out."""
    for plugin in Plugin.objects.filter(state=Plugin.State.KNOWN, own=False):
        refresh(plugin)


def read_plugin(plugin: Plugin, target: Target) -> None:
    """Write down what the index says of a plugin, in the worker."""
    try:
        _write_down(plugin, index.read(plugin.name, target))
    except IndexRefusal as error:
        _not_read(plugin, str(error))
    except (OperationalError, InterfaceError):  # the database is away: once more, when it is back
        raise
    except Exception:  # or else it would be tried again for ever
        logger.exception("%s cannot be read", plugin)
        _not_read(plugin, UNEXPECTED)


def _not_read(plugin: Plugin, words: str) -> None:
    state = Plugin.State.REFUSED
    if plugin.newest:  # what was read before still holds
        state, words = Plugin.State.KNOWN, f"It could not be read again: {words}"
    _save(plugin, state=state, error=words, read_at=timezone.now())


def _write_down(plugin: Plugin, facts: Facts) -> None:
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
    if not _VERSION.fullmatch(version):
        raise Refused("Say which version, exactly as the index does: 1.2.3 or 1.0a5.", "version")
    _check_terms(terms)
    ours = _own_lock(plugin, release, version) if plugin.own else None
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
            expires_at=good_until(),
        )
        if ours is not None:
            activate(approval, ours)
        else:
            _later("workspaces.tasks.lock_approval", approval.pk)
    return approval


def good_until() -> datetime | None:
    """Return until when a yes of now is good; None: for ever."""
    days = settings.APPROVAL_DAYS
    return timezone.now() + timedelta(days=days) if days else None


def renew(approval: Approval) -> Approval:
    """Say that an approval is still good: its time begins anew. Raises Refused."""
    with transaction.atomic():
        Plugin.objects.select_for_update().get(pk=approval.plugin_id)
        row = Approval.objects.select_related("plugin", "release").get(pk=approval.pk)
        if row.state != sets.ACTIVE:
            raise Refused("This approval does not count.")
        if row.expires_at is None:
            raise Refused("This approval does not expire.")
        _save(row, expires_at=good_until())
    return row


def _check_terms(terms: Terms) -> None:
    names = [need["name"] for need in terms.needs]
    for need in terms.needs:
        if words := need_problem(need["name"], need.get("option", "")):
            raise Refused(words, "needs")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Refused(f"Named twice: {', '.join(twice)}.", "needs")
    if terms.required and terms.needs:
        words = "A plugin that is part of every image cannot ask for values: nobody is there to ask"
        raise Refused(f"{words} when a workspace is made.", "required")
    if terms.required and terms.needs_internet:
        words = "A plugin that is part of every image cannot bring the internet with it."
        raise Refused(f"{words} The plan says whether every workspace has it.", "required")


def _own_lock(plugin: Plugin, release: Release, version: str) -> dict[str, locks.Pin]:
    """Return the lock that one of our own came with: the index knows nothing of it, and if it did,
    it would be somebody else's. Raises Refused."""
    earlier = plugin.approvals.filter(release=release).exclude(lock="").order_by("pk")
    for approval in reversed(earlier):
        if approval.version == version:
            return approval.pins
    had = ", ".join(sorted({approval.version for approval in earlier})) or "none"
    words = f"{plugin.name} comes with this software. For {release} there is: {had}."
    raise Refused(words, "version")


def lock_approval(approval: Approval, target: Target) -> None:
    """Lock every file that an approved version needs, in the worker. It is active from then on."""
    try:
        facts = index.read(
            approval.plugin.name,
            target,
            version=approval.version,
            prereleases=approval.release.prerelease,
        )
        if facts.version != approval.version:
            raise IndexRefusal(f"The index has {facts.version}, and not {approval.version}.")
        activate(approval, _locked(approval, target))
    except IndexRefusal as error:
        _fail(approval, str(error))
    except (OperationalError, InterfaceError):  # the database is away: once more, when it is back
        raise
    except Exception:  # or else it would be tried again for ever
        logger.exception("%s cannot be locked", approval)
        _fail(approval, UNEXPECTED)


def _locked(approval: Approval, target: Target) -> dict[str, locks.Pin]:
    """Return what a version adds to a release; like what others add already, where that works."""
    release, wanted = approval.release, f"{approval.plugin.name}=={approval.version}"
    base = release.pins
    others = Approval.objects.filter(release=release, state=sets.ACTIVE)
    others = others.exclude(plugin=approval.plugin)  # its own earlier one is to be replaced
    shared = {name: pin for approval in others for name, pin in approval.pins.items()}
    try:
        pins = index.lock(
            [wanted], target, constraints={**shared, **base}, prereleases=release.prerelease
        )
    except IndexRefusal:
        pins = index.lock([wanted], target, constraints=base, prereleases=release.prerelease)
    return {name: pin for name, pin in pins.items() if name not in base}


def activate(approval: Approval, pins: dict[str, locks.Pin]) -> None:
    """Make a locked approval the one that counts for its plugin and release.

    Does nothing where it was withdrawn meanwhile; a newer one that counts already stays.
    """
    with transaction.atomic():
        if not _is_locking(approval):
            return
        if not pins and (approval.needs or approval.needs_internet):
            _fail(approval, HELD_ALREADY.format(approval.plugin, approval.release))
            return
        others = Approval.objects.filter(plugin=approval.plugin, release=approval.release)
        counting = others.filter(state=sets.ACTIVE)
        lock = locks.text_of(pins.values())
        if counting.filter(pk__gt=approval.pk).exists():
            _save(approval, state=Approval.State.REPLACED, lock=lock, ended_at=timezone.now())
            return
        everywhere = counting.filter(required=True).exists()
        counting.update(
            state=Approval.State.REPLACED, ended_at=timezone.now(), ended_by=approval.by
        )
        # What the release holds already is in every image, whatever was asked for.
        required = approval.required or not pins
        _save(approval, state=sets.ACTIVE, lock=lock, error="", required=required)
        if pins and (everywhere or required):
            releases.build_later()


def _is_locking(approval: Approval) -> bool:
    """Whether it still waits to be locked. Until the transaction's end nobody changes that:
    whoever ends an approval or has one count takes its plugin's row first."""
    Plugin.objects.select_for_update().get(pk=approval.plugin_id)
    approval.refresh_from_db(fields=["state"])
    return approval.state == Approval.State.LOCKING


def _fail(approval: Approval, words: str) -> None:
    with transaction.atomic():
        if _is_locking(approval):
            _save(approval, state=Approval.State.FAILED, error=words)


def withdraw(approval: Approval, by: User | None) -> None:
    """Take an approval back: nobody can switch it on any more. What has it keeps running."""
    with transaction.atomic():
        Plugin.objects.select_for_update().get(pk=approval.plugin_id)
        row = Approval.objects.get(pk=approval.pk)
        if row.state not in ENDABLE:
            raise Refused("This approval does not count any more.")
        if not row.lock and row.state != Approval.State.LOCKING:
            raise Refused(f"{row.plugin} is part of {row.release} itself and stays in it.")
        was_everywhere = row.required and row.state == sets.ACTIVE
        _save(row, state=Approval.State.WITHDRAWN, ended_at=timezone.now(), ended_by=by)
        if was_everywhere:
            # Whoever is new waits for an image without it, rather than gets it still.
            Release.objects.filter(pk=row.release_id).update(image=None)
            releases.build_later(row.release)


def withdraw_and_rebuild(approval: Approval, by: User | None) -> "Rebuilds":
    """Take an approval back, if it still counts, and from every workspace that uses it."""
    with transaction.atomic():
        if Approval.objects.get(pk=approval.pk).state != Approval.State.WITHDRAWN:
            withdraw(approval, by)
        begun, refused = [], {}
        for workspace in users_of(approval):
            try:
                begun.append(changes.without_plugin(workspace, by, approval.plugin))
            except Refused as refusal:
                refused[workspace.slug] = str(refusal)
    return Rebuilds(begun, refused)


@dataclass(frozen=True)
class Rebuilds:
    """The changes that were asked for, and why the other workspaces keep what they have."""

    begun: Sequence[Change]
    refused: Mapping[str, str]


def users_of(approval: Approval) -> list[Workspace]:
    """Return the workspaces that run an approved version, or are about to."""
    running = Q(plugins=approval) | Q(changes__state=Change.State.OPEN, changes__wanted=approval)
    if approval.required:  # nobody switched it on: their images tell
        packages = {approval.plugin.name: approval.version}
        running |= Q(
            release=approval.release, instance__image__inputs__contains={"packages": packages}
        )
    live = Workspace.objects.filter(running, deleted_at=None).distinct()
    return list(live.select_related("instance", "plan", "release").order_by("slug"))


def brought_by(approval: Approval) -> list[Approval]:
    """Return the approvals of other plugins that bring this one along on the same release."""
    others = Approval.objects.filter(release=approval.release, state=sets.ACTIVE)
    others = others.exclude(plugin=approval.plugin).select_related("plugin", "release")
    found = others.order_by("plugin__name")
    return [other for other in found if approval.plugin.name in other.pins]


def holders_of(plugin: Plugin) -> QuerySet[Workspace]:
    """Return the workspaces whose image holds a plugin, in any version and wherever from."""
    held = {"instance__image__inputs__packages__has_key": plugin.name}
    return Workspace.objects.filter(**held, deleted_at=None).order_by("slug")


# --- granting ------------------------------------------------------------------------------------


def grant(plugin: Plugin, workspace: Workspace, by: User | None) -> bool:
    """Let one workspace use a plugin. Return whether that is news."""
    given = {"plugin": plugin, "workspace": workspace}
    _, new = Grant.objects.get_or_create(**given, defaults={"by": by})
    return new


def revoke(plugin: Plugin, workspace: Workspace) -> None:
    """Take a grant back. The workspace keeps what it runs until its set is changed."""
    Grant.objects.filter(plugin=plugin, workspace=workspace).delete()


# --- helpers -------------------------------------------------------------------------------------


def _save(row: Plugin | Approval, **changes: Any) -> None:
    for name, value in changes.items():
        setattr(row, name, value)
    row.save(update_fields=list(changes))


def _later(task: str, pk: int) -> None:
    # Without the broker nothing is lost: the beat finds the row.
    transaction.on_commit(partial(current_app.send_task, task, [pk]), robust=True)
