"""`manage.py lock_starter`: resolve the starter catalogue anew. For those who develop cloudapp."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from deploy import index, locks
from deploy.base_image import PYTHON
from deploy.images import DEFAULT_RELEASE, release_locks
from deploy.index import Facts, IndexRefusal, Target
from deploy.own_plugins import own_wheels
from deploy.wheels import package_of
from workspaces.starter import FACTS, FILE, OWN_WHEELS

# What customers read instead of the package's own summary.
PLUGINS = {
    "datasette-cluster-map": "Shows rows with latitude and longitude on a map.",
    "datasette-configure-fts": "Lets editors make a table searchable.",
    "datasette-search-all": "Searches all searchable tables at once.",
    "datasette-upload-csvs": "Turns CSV files into tables.",
    "datasette-upload-dbs": "Takes whole SQLite files.",
    "datasette-edit-schema": "Lets editors make tables and change their columns.",
    "datasette-vega": "Draws bar, line and scatter charts of any table or query.",
    "datasette-enrichments": "The frame for enrichments: change a column for many rows at once.",
    "datasette-enrichments-jinja": "Enrichment: make a column from a template over the others.",
    "datasette-enrichments-re2": "Enrichment: extract or replace with regular expressions.",
    "datasette-enrichments-python": (
        "Enrichment: transform a column with Python that you write, in a sandbox without network, "
        "files or anybody else's data."
    ),
}
# Which wheels' names are read. The catalogue's locks hold the files for this machine.
TARGET = Target("x86_64", PYTHON)


class Command(BaseCommand):
    """Ask the package index for each plugin on each release, and write starter.json."""

    help = "Resolve the starter catalogue anew into workspaces/starter.json."

    def handle(self, *args: Any, **options: Any) -> None:
        entries = {name: self._entry(name) for name in PLUGINS}
        for version, text in sorted(release_locks().items()):
            self._lock_all(entries, version, locks.parse(text))
        FILE.write_text(json.dumps({"plugins": list(entries.values())}, indent=1) + "\n")
        self.stdout.write(f"{len(entries)} plugins are in {FILE.name}")

    def _lock_all(
        self, entries: dict[str, dict[str, Any]], release: str, base: dict[str, locks.Pin]
    ) -> None:
        shared: dict[str, locks.Pin] = {}
        for name, entry in entries.items():
            try:
                pins = self._pins(name, release, {**shared, **base})
            except IndexRefusal as error:
                self.stdout.write(f"{name} is not on {release}: {error}")
                continue
            added = {package: pin for package, pin in pins.items() if package not in base}
            version = pins[name].version if name in pins else entry["newest"]
            entry["on"][release] = {"version": version, "lock": locks.text_of(added.values())}
            shared |= added

    def _pins(
        self, name: str, release: str, constraints: dict[str, locks.Pin]
    ) -> dict[str, locks.Pin]:
        requirements = [name]
        if name in self._ours:
            facts = index.facts_of(name, self._ours[name])
            requirements = [r for r in facts.requires if ";" not in r]
        newer = release != DEFAULT_RELEASE
        return index.lock(requirements, TARGET, constraints=constraints, prereleases=newer)

    def _entry(self, name: str) -> dict[str, Any]:
        facts = self._facts(name)
        said = {fact: getattr(facts, fact, "") for fact in FACTS}
        said |= {"newest": facts.version, "description": PLUGINS[name]}
        return {"name": name, "own": name in self._ours, **said, "on": {}}

    @cached_property
    def _ours(self) -> dict[str, Path]:
        return {package_of(wheel): wheel for wheel in own_wheels(OWN_WHEELS)}

    def _facts(self, name: str) -> Facts:
        try:
            if name in self._ours:
                return index.facts_of(name, self._ours[name])
            return index.read(name, TARGET)
        except IndexRefusal as error:
            raise CommandError(str(error)) from error
