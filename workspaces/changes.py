"""Ask for a change of a workspace's plugins or release: who may have what, and its secrets.

A change that was asked for is a row. A worker makes it: see change_runs.py.
"""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from accounts.models import User
from deploy import lifecycle, locks, notify, vault
from workspaces import activity, services, sets
from workspaces.models import Approval, Change, Plugin, Release, Rollout, Workspace
from workspaces.services import Refused, TooOften

logger = logging.getLogger(__name__)


MAX_SECRETS = 50
# After which it is worth to ask again when an hour's changes are used up.
CHANGES_RETRY_SECONDS = 600


def request(
    workspace: Workspace,
    by: User | None,
    names: Iterable[str],
    *,
    secrets: Mapping[str, str] | None = None,
    release: Release | None = None,
    rollout: Rollout | None = None,
    seen: str | None = None,
    anew: bool = False,
) -> Change:
    """Ask for just these plugins, by name; a worker does it. Raises Refused.

    `secrets` are values that the plugins need, new or in the place of those that are kept. With
    `seen`, a services.version_of it, only if the workspace still is as it was then. `anew` builds
    its image also where there is one.
    """
    release = release or workspace.release
    names = set(names)
    wanted = [a for a in sets.available(workspace, release) if a.plugin.name in names]
    if unknown := sorted(names - sets.names_of(wanted)):
        raise Refused(f"This workspace may not use {', '.join(unknown)}.")
    return _ask(workspace, by, release, wanted, secrets or {}, rollout, seen, anew=anew)


def _ask(  # noqa: PLR0917 - each is another thing
    workspace: Workspace,
    by: User | None,
    release: Release,
    wanted: list[Approval],
    secrets: Mapping[str, str],
    rollout: Rollout | None = None,
    seen: str | None = None,
    *,
    anew: bool = False,
) -> Change:
    _refuse_conflicts(release, wanted)
    given = sealed(secrets)
    needed = {need["name"] for approval in wanted for need in approval.needs}
    if others := sorted(given.keys() - needed):
        raise Refused(f"No plugin that you chose needs {', '.join(others)}.", "secrets")
    if missing := sets.missing_secrets(workspace, wanted, given):
        raise Refused(f"Still needed: {', '.join(missing)}.")
    try:
        with transaction.atomic():
            return _open(workspace, by, release, wanted, given, rollout, seen, anew=anew)
    except IntegrityError as error:
        if "one_open_change" not in str(error):
            raise
    words = "Another change is under way. Wait until it is done, then try again."
    raise Refused(words, code="change_under_way")


def _refuse_conflicts(release: Release, wanted: Iterable[Approval]) -> None:
    try:
        sets.lock_of(release, wanted)
    except locks.Conflict as conflict:
        raise Refused(str(conflict)) from conflict


def _open(  # noqa: PLR0917 - each is another thing
    workspace: Workspace,
    by: User | None,
    release: Release,
    wanted: list[Approval],
    given: dict[str, str],
    rollout: Rollout | None,
    seen: str | None,
    *,
    anew: bool,
) -> Change:
    current = locked(workspace.pk, wanted)
    if by is not None and rollout is None:
        services.demand(current, by, "change_plugins")
    if seen is not None and seen != services.version_of(current):
        raise services.ChangedMeanwhile
    if release.pk != current.release_id and release.pk == workspace.release_id:
        raise Refused("Another release was switched to just now. Look again, then try again.")
    if current.deleted_at is not None:
        raise Refused("This workspace is deleted. Bring it back first.", code="deleted")
    _refuse_too_many(current.instance.secrets | given)
    if rollout is None and not (by and by.is_staff) and _asked_often(current):
        words = (
            f"This workspace has asked for {settings.CHANGES_PER_HOUR} changes in an hour, as many "
            "as it may. Choose all that you want at once, and try again later."
        )
        raise TooOften(words, "too_many_changes", CHANGES_RETRY_SECONDS)
    change = Change.objects.create(
        workspace=current,
        by=by,
        release=release,
        rollout=rollout,
        secrets=given,
        anew=anew,
        old_release=current.release,
        old_image_id=current.instance.image_id,
    )
    change.wanted.set(wanted)
    change.old_plugins.set(current.plugins.all())
    _note_asked(change)
    tell(change)
    transaction.on_commit(partial(send, change.pk))
    return change


def _note_asked(change: Change) -> None:
    """Write down who asks for what, from where; the worker writes what it made of it."""
    wanted = change.wanted.order_by("plugin__name").values_list("plugin__name", "version")
    secrets = sorted(change.secrets)
    told = [*difference(change), *(f"secret {name}" for name in secrets)]
    more = {
        "plugins": [f"{name} {version}" for name, version in wanted],
        "release": change.release.version,
        "secrets": secrets,
    }
    activity.note(change.workspace, change.by, "asked_for_change", ", ".join(told), more=more)


def difference(change: Change) -> list[str]:
    """Return what a change adds to a workspace and what it takes away, in words."""
    before = sets.names_of(change.old_plugins.select_related("plugin"))
    after = sets.names_of(change.wanted.select_related("plugin"))
    told = [f"+{name}" for name in sorted(after - before)]
    told += [f"-{name}" for name in sorted(before - after)]
    if change.release_id != change.old_release_id:
        told.append(str(change.release))
    if change.anew:
        told.append("built anew")
    return told


def _asked_often(workspace: Workspace) -> bool:
    """Whether a workspace had its share of the builds, which all workspaces take turns at."""
    lately = timezone.now() - timedelta(hours=1)
    mine = workspace.changes.filter(at__gte=lately, rollout=None)
    return mine.count() >= settings.CHANGES_PER_HOUR


def locked(workspace_id: Any, wanted: Iterable[Approval]) -> Workspace:
    """Hold what is wanted and what is on, then a workspace and its instance, as they are now.

    In the order of a withdrawal, which holds an approval and then changes workspaces.
    """
    _hold_approvals(workspace_id, wanted)
    rows = Workspace.objects.select_for_update(of=("self", "instance"), no_key=True)
    return rows.select_related("instance", "plan", "release").get(pk=workspace_id)


def _hold_approvals(workspace_id: Any, wanted: Iterable[Approval]) -> None:
    either = Q(pk__in=[approval.pk for approval in wanted]) | Q(workspaces=workspace_id)
    keys = set(Approval.objects.filter(either).values_list("pk", flat=True))
    list(Approval.objects.select_for_update(no_key=True).filter(pk__in=keys).order_by("pk"))


def send(pk: int) -> None:
    """Wake the worker up for a change. Losing the call loses nothing: the beat looks for more."""
    with suppress(Exception):  # whatever the broker's client raises
        current_app.send_task("workspaces.tasks.run_change", [pk])


def roll_back(workspace: Workspace, by: User | None) -> Change:
    """Ask for the set that was there before the last change that was made. Raises Refused.

    The very versions: also those that a newer approval has replaced since.
    """
    last = last_done(workspace)
    if last is None:
        raise Refused("There is nothing to go back to.")
    old = list(last.old_plugins.select_related("plugin"))
    if words := not_allowed(workspace, last.old_release, old):
        raise Refused(words)
    return _ask(workspace, by, last.old_release, old, {})


def without_plugin(workspace: Workspace, by: User | None, plugin: Plugin) -> Change:
    """Ask for what a workspace has but one plugin. Raises Refused.

    As with every change, what it may not use any more goes too.
    """
    running = sets.names_of(workspace.plugins.select_related("plugin"))
    may_stay = sets.names_of(sets.available(workspace))
    return request(workspace, by, (running & may_stay) - {plugin.name})


def undelete(workspace: Workspace, by: User) -> None:
    """Bring a deleted workspace back, and ask for a change where something was withdrawn meanwhile.

    Whoever withdrew it asked nothing of workspaces that were deleted. Raises Refused.
    """
    with transaction.atomic():
        # First of all, as in `locked`: the request may be one transaction, with the change in it.
        _hold_approvals(workspace.pk, sets.available(workspace))
        _undelete(workspace, by)


def _undelete(workspace: Workspace, by: User) -> None:
    services.undelete(workspace, by)
    current = Workspace.objects.select_related("instance", "plan", "release").get(pk=workspace.pk)
    withdrawn = current.plugins.filter(state=Approval.State.WITHDRAWN)
    if workspace.deleted_at is None or not withdrawn.exists():
        return
    running = sets.names_of(current.plugins.select_related("plugin"))
    try:
        request(current, by, running & sets.names_of(sets.available(current)))
    except Refused as refusal:  # it is back all the same, and its page says what leaves
        logger.warning("%s keeps what was withdrawn: %s", current, refusal)


def to_release(
    workspace: Workspace, by: User | None, release: Release, rollout: Rollout | None = None
) -> Change:
    """Ask for the plugins that a workspace has, by name, on another release. Raises Refused.

    A `rollout` may go to the same one, for its newest image.
    """
    if workspace.release_id == release.pk and rollout is None:
        raise Refused(f"It is on {release} already.")
    running = sets.names_of(workspace.plugins.select_related("plugin"))
    names = running - sets.names_of(sets.required(release).select_related("plugin"))
    if lacking := sorted(names - sets.names_of(sets.available(workspace, release))):
        raise Refused(f"On {release} it may not use {', '.join(lacking)}.")
    return request(workspace, by, names, release=release, rollout=rollout)


def rebuild(workspace: Workspace, by: User | None) -> Change:
    """Ask for what a workspace has, with its image built anew. Raises Refused.

    At the versions that are approved now; what it may not use any more leaves, as ever.
    """
    running = sets.names_of(workspace.plugins.select_related("plugin"))
    names = running & sets.names_of(sets.available(workspace))
    return request(workspace, by, names, anew=True)


def last_done(workspace: Workspace) -> Change | None:
    """Return the last change that was made, if there is one to go back from."""
    return workspace.changes.filter(state=Change.State.DONE).first()


def not_allowed(workspace: Workspace, release: Release, wanted: Iterable[Approval]) -> str:
    """Return which of these a workspace may not have (any more), in words; nothing if all."""
    last = last_done(workspace)
    before = last.old_plugins.values_list("pk", flat=True) if last else ()
    allowed = {
        *sets.available(workspace, release).values_list("pk", flat=True),
        *sets.returnable(workspace, release, before).values_list("pk", flat=True),
    }
    refused = [approval.plugin.name for approval in wanted if approval.pk not in allowed]
    return f"This workspace may not use {', '.join(sorted(refused))} any more." if refused else ""


def open_change(workspace: Workspace) -> Change | None:
    """Return the change that is under way."""
    return workspace.changes.filter(state=Change.State.OPEN).first()


# --- secrets -------------------------------------------------------------------------------------


def sealed(values: Mapping[str, str]) -> dict[str, str]:
    """Return secrets as they are kept; an empty value says nothing.

    Raises Refused for a name or a value that no container may get.
    """
    for name, value in values.items():
        if words := vault.problem(name, value):
            raise Refused(words, code="invalid")
    return {name: vault.seal(value) for name, value in values.items() if value}


def _refuse_too_many(secrets: Mapping[str, str]) -> None:
    if len(secrets) > MAX_SECRETS:
        raise Refused(f"A workspace keeps at most {MAX_SECRETS} secrets.")


def remove_secret(workspace: Workspace, by: User, name: str) -> None:
    """Forget a secret; what runs has it until its next start. Raises Refused."""
    with services.changing(workspace, by, "change_secrets") as current:
        if name not in current.instance.secrets:
            raise Refused(f"There is no secret {name[:70]!r}.", code="not_found")
        kept = {k: v for k, v in current.instance.secrets.items() if k != name}
        lifecycle.set_secrets(current.instance.pk, kept)
        _outdo(current, name)
        activity.note(current, by, "removed_secret", name)


def set_secret(workspace: Workspace, by: User, name: str, value: str) -> None:
    """Keep a secret, or another value of it. What runs is replaced, so that it gets it at once.

    Raises Refused.
    """
    given = sealed({name: value})
    if not given:
        raise Refused("Give it a value; to forget it, remove it.", "value")
    with services.changing(workspace, by, "change_secrets") as current:
        secrets = current.instance.secrets | given
        _refuse_too_many(secrets)
        services.hold_to_restarts(current, by)
        lifecycle.change_spec(current.instance.pk, "set_secret", secrets=secrets)
        _outdo(current, name)
        activity.note(current, by, "set_secret", name)


def _outdo(workspace: Workspace, name: str) -> None:
    """Take a secret out of the change that is under way: what it brings is older than this word.

    The caller holds the workspace, as the change's worker does when it puts its secrets in.
    """
    change = workspace.changes.select_for_update().filter(state=Change.State.OPEN).first()
    if change and change.secrets.pop(name, None):
        change.save(update_fields=["secrets"])


def reseal_secrets() -> int:
    """Encrypt all secrets with the first key; return how many instances have any.

    Those of changes that are under way too. All or none: raises vault.Unreadable.
    """
    with transaction.atomic():
        done = lifecycle.reseal_secrets()
        for change in Change.objects.select_for_update().filter(state=Change.State.OPEN):
            change.secrets = vault.reseal(change.secrets)
            change.old_secrets = vault.reseal(change.old_secrets)
            change.save(update_fields=["secrets", "old_secrets"])
    return done


# --- what people watch ---------------------------------------------------------------------------


def tell(change: Change) -> None:
    """Have whoever watches a change look at it again."""
    notify.send(change.workspace.instance_id, step=True)
