"""The starter catalogue: what an upgrade brings in, and what it leaves as operators have it."""

import json
from pathlib import Path

import pytest

from accounts.models import User
from deploy import images
from tests import factories
from workspaces import catalogue, starter
from workspaces.catalogue import Terms
from workspaces.models import Approval, Plugin, Release

State = Approval.State
RELEASE = images.DEFAULT_RELEASE
pytestmark = pytest.mark.usefixtures("ready")


def lock_of(version: str, name: str = "datasette-birds") -> str:
    return f"{name}=={version} --hash=sha256:{'a' * 64}\n"


@pytest.fixture
def ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Ship":
    return Ship(tmp_path / "starter.json", monkeypatch)


class Ship:
    """Loads a starter catalogue with one plugin, as an upgrade does."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = file
        monkeypatch.setattr(starter, "FILE", file)

    def __call__(self, version: str) -> dict[str, str]:
        """Return the states of all approvals of the plugin, by version."""
        entry = dict.fromkeys(starter.FACTS, "") | {"requires": [], "newest": version}
        on = {RELEASE: {"version": version, "lock": lock_of(version)}}
        plugin = entry | {"name": "datasette-birds", "own": False, "on": on}
        self.file.write_text(json.dumps({"plugins": [plugin]}))
        starter.load()
        return dict(Approval.objects.order_by("pk").values_list("version", "state"))


def test_a_newer_one_takes_the_place_of_the_one_that_came_before(ship: Ship) -> None:
    assert ship("1.0") == {"1.0": State.ACTIVE}
    assert ship("1.0") == {"1.0": State.ACTIVE}
    assert ship("2.0") == {"1.0": State.REPLACED, "2.0": State.ACTIVE}
    assert Approval.objects.filter(shipped=True, by=None).count() == 2


def test_what_an_operator_withdrew_stays_withdrawn(ship: Ship) -> None:
    ship("1.0")
    catalogue.withdraw(Approval.objects.get(), factories.make_user())
    assert ship("2.0") == {"1.0": State.WITHDRAWN}


def test_what_an_operator_decided_stays_when_the_account_is_gone(ship: Ship) -> None:
    ship("1.0")
    operator: User = factories.make_user()
    plugin, release = Plugin.objects.get(), Release.objects.get(version=RELEASE)
    approval = catalogue.approve(plugin, release, "1.5", Terms(), operator)
    assert ship("2.0") == {"1.0": State.ACTIVE, "1.5": State.LOCKING}
    catalogue.activate(approval, approval.pins | starter.locks.parse(lock_of("1.5")))
    operator.delete()
    assert ship("2.0") == {"1.0": State.REPLACED, "1.5": State.ACTIVE}


def test_what_does_not_fit_the_release_any_more_counts_no_more(ship: Ship) -> None:
    release = catalogue.default_release()
    held = release.pins["httpx"].version
    Release.objects.filter(pk=release.pk).update(lock=lock_of("0.1", "httpx"))
    old, fitting = (
        catalogue.approve(make_known(name), release, "1.0", Terms(), factories.make_user())
        for name in ("datasette-cats", "datasette-dogs")
    )
    pins = starter.locks.parse(lock_of("1.0", "datasette-cats") + lock_of("0.1", "httpx"))
    catalogue.activate(old, pins)
    catalogue.activate(fitting, starter.locks.parse(lock_of("1.0", "datasette-dogs")))
    ship("1.0")
    old.refresh_from_db()
    fitting.refresh_from_db()
    assert (old.state, fitting.state) == (State.FAILED, State.ACTIVE)
    assert f"needs httpx {held}, and datasette-cats needs httpx 0.1" in old.error
    assert old.ended_at is not None


def test_what_came_with_an_upgrade_takes_the_place_of_what_did_not_fit(ship: Ship) -> None:
    ship("1.0")
    lock = lock_of("1.0") + lock_of("0.1", "httpx")
    Approval.objects.update(lock=lock)
    Release.objects.filter(version=RELEASE).update(lock=lock_of("0.1", "httpx"))
    assert ship("2.0") == {"1.0": State.FAILED, "2.0": State.ACTIVE}


def make_known(name: str) -> Plugin:
    return Plugin.objects.create(name=name, state=Plugin.State.KNOWN, newest="1.0")
