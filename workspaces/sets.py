"""Plugin sets: which plugins a workspace may have, and what a set of them is made from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from deploy import locks
from workspaces.models import Approval, Grant, Release, Workspace

ACTIVE = Approval.State.ACTIVE


def required(release: Release) -> QuerySet[Approval]:
    """Return the approvals that are part of every image of a release."""
    return Approval.objects.filter(release=release, state=ACTIVE, required=True)


def available(workspace: Workspace, release: Release | None = None) -> QuerySet[Approval]:
    """Return the approvals that a workspace may switch on, on its release or another one.

    The one place that decides it: page, form and task all ask here.
    """
    return _open_to(workspace, release or workspace.release, ACTIVE)


def returnable(workspace: Workspace, release: Release, had: Iterable[int]) -> QuerySet[Approval]:
    """Return those of the approvals `had` (their keys) that a workspace may go back to.

    Also such as a newer approval has replaced since; none that was withdrawn.
    """
    states = (ACTIVE, Approval.State.REPLACED)
    return _open_to(workspace, release, *states).filter(pk__in=list(had))


def _open_to(workspace: Workspace, release: Release, *states: str) -> QuerySet[Approval]:
    granted = Grant.objects.filter(workspace=workspace, plugin=OuterRef("plugin"))
    # Whoever has a plugin keeps it, also on terms that nobody new gets.
    has_it = Approval.objects.filter(workspaces=workspace, plugin=OuterRef("plugin"))
    good = Q(expires_at=None) | Q(expires_at__gt=timezone.now()) | Exists(has_it)
    return (
        Approval.objects.filter(good, release=release, state__in=states, required=False)
        .filter(Q(reach=Approval.Reach.EVERYONE) | Exists(granted))
        .select_related("plugin", "release")
        .order_by("plugin__name")
    )


def lock_of(release: Release, chosen: Iterable[Approval]) -> str:
    """Return the lock of an image of this release with these plugins. Raises locks.Conflict.

    What is required stands, also where another version of it was chosen before it was.
    """
    parts: dict[str, locks.Lock] = {str(release): release.pins}
    for approval in [*required(release).select_related("plugin"), *chosen]:
        parts.setdefault(approval.plugin.name, approval.pins)
    return locks.text_of(locks.merge(parts).values())


@dataclass(frozen=True)
class Spec:
    """What a set asks of an instance, besides its image."""

    internet: bool
    plugin_settings: Mapping[str, Any]


def spec_of(workspace: Workspace, release: Release, chosen: Iterable[Approval]) -> Spec:
    """Return what an instance with these plugins on a release needs: network and settings."""
    everything = [*chosen, *required(release).select_related("plugin")]
    settings: dict[str, dict[str, Any]] = {}
    for approval in everything:
        for need in approval.needs:
            if option := need.get("option"):
                here = settings.setdefault(approval.plugin.name, {})
                here[option] = {"$env": need["name"]}
    return Spec(
        internet=workspace.plan.internet or any(a.needs_internet for a in everything),
        plugin_settings=settings,
    )


def missing_secrets(
    workspace: Workspace, chosen: Iterable[Approval], given: Iterable[str] = ()
) -> list[str]:
    """Return the names of what these plugins need and no value is kept for, or given."""
    names = [need["name"] for approval in chosen for need in approval.needs]
    return sorted(set(names) - set(workspace.instance.secrets) - set(given))


def names_of(approvals: Iterable[Approval]) -> set[str]:
    """Return the plugins' names."""
    return {approval.plugin.name for approval in approvals}
