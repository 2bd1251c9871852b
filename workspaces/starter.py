"""The starter catalogue: the releases and approved plugins that come with this software.

`starter.json` was made by `manage.py lock_starter`, which asks the package index; loading it asks
nobody. What operators have changed since stays as they have it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from deploy import images, locks
from deploy.own_plugins import described, own_wheels
from workspaces import catalogue, sets
from workspaces.models import Approval, Plugin, Release

FILE = Path(__file__).parent / "starter.json"


def load() -> int:
    """Bring releases and plugins of the starter catalogue in; return how many approvals are new."""
    starter = json.loads(FILE.read_text())
    with transaction.atomic():
        for version, lock in images.release_locks().items():
            _load_release(version, lock)
        return sum(_load_plugin(entry) for entry in starter["plugins"])


def _load_release(version: str, lock: str) -> Release:
    """Have a release of ours, with the packages as this software locks them."""
    release, _ = Release.objects.get_or_create(
        version=version,
        defaults={
            "lock": lock,
            "prerelease": version != images.DEFAULT_RELEASE,
            "offered": version == images.DEFAULT_RELEASE,
            "is_default": version == images.DEFAULT_RELEASE
            and not Release.objects.filter(is_default=True).exists(),
        },
    )
    if release.lock != lock:
        Release.objects.filter(pk=release.pk).update(lock=lock)
        release.lock = lock
        _end_what_does_not_fit(release)
    return release


def _end_what_does_not_fit(release: Release) -> None:
    """Have no approval count that was locked against other versions than the release holds now.

    Nobody could switch it on, and one that is required would keep the release from being built.
    """
    for approval in release.approvals.filter(state=sets.ACTIVE).select_related("plugin"):
        try:
            locks.merge({str(release): release.pins, approval.plugin.name: approval.pins})
        except locks.Conflict as conflict:
            words = f"It does not fit {release} since an upgrade of this software: {conflict}"
            Approval.objects.filter(pk=approval.pk, state=sets.ACTIVE).update(
                state=Approval.State.FAILED,
                error=f"{words} Approve it again to have it locked anew.",
                ended_at=timezone.now(),
            )


def _load_plugin(entry: Mapping[str, Any]) -> int:
    facts = {name: entry[name] for name in FACTS}
    plugin, _ = Plugin.objects.get_or_create(
        name=entry["name"],
        defaults={**facts, "own": entry["own"], "state": Plugin.State.KNOWN},
    )
    return sum(_load_approval(plugin, version, said) for version, said in entry["on"].items())


def _load_approval(plugin: Plugin, release: str, said: Mapping[str, str]) -> int:
    """Approve a plugin as shipped, unless somebody decided about it already. Return 0 or 1."""
    pins = locks.parse(said["lock"])
    version = said["version"]
    if plugin.own:
        [ours] = [w for w in map(described, own_wheels(OWN_WHEELS)) if w.name == plugin.name]
        pins |= locks.parse(ours.requirement)
        version = ours.version
    known = Approval.objects.filter(plugin=plugin, release__version=release)
    decided = known.filter(Q(shipped=False) | Q(state=Approval.State.WITHDRAWN))
    if decided.exists() or known.filter(lock=locks.text_of(pins.values())).exists():
        return 0
    approval = Approval.objects.create(
        plugin=plugin,
        release=Release.objects.get(version=release),
        version=version,
        reach=Approval.Reach.EVERYONE,
        required=not pins,  # it is in the release already
        note="Came with this software.",
        shipped=True,
    )
    catalogue.activate(approval, pins)
    return 1


FACTS = (
    "newest",
    "summary",
    "description",
    "licence",
    "home_page",
    "requires_python",
    "requires_datasette",
    "requires",
)
OWN_WHEELS = Path(settings.STATE_DIR) / "own-wheels"
