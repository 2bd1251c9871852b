"""Our own plugins as wheels: the same bytes every time, and nothing in them but source."""

import zipfile
from pathlib import Path

import pytest

from deploy import own_plugins
from deploy.own_plugins import OwnPluginError, described, further_lock, own_wheels
from deploy.wheels import datasette_plugins, locked_versions

NAME = "datasette-enrichments-python"


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = own_wheels(tmp_path / "a"), own_wheels(tmp_path / "b")
    assert [wheel.read_bytes() for wheel in first] == [wheel.read_bytes() for wheel in second]
    assert NAME in datasette_plugins(first)
    assert own_wheels(tmp_path / "a") == first


def test_a_lock_can_name_it(tmp_path: Path) -> None:
    (wheel,) = [described(path) for path in own_wheels(tmp_path) if described(path).name == NAME]
    lock = further_lock(NAME) + wheel.requirement
    assert locked_versions(lock)[NAME] == wheel.version
    assert "pyeryx" in locked_versions(lock)
    assert f"--hash=sha256:{wheel.sha256}" in lock


def test_a_change_makes_another_wheel_and_rubbish_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = plugin(tmp_path / "plugins" / "datasette-thing", "1.0")
    monkeypatch.setattr(own_plugins, "PLUGINS", tmp_path / "plugins")
    (first,) = own_wheels(tmp_path / "cache")
    for rubbish in ("runtime/compiled.bin", "__pycache__/x.pyc"):
        path = source / "datasette_thing" / rubbish
        path.parent.mkdir()
        path.write_bytes(b"x")
    assert own_wheels(tmp_path / "cache") == [first]
    with zipfile.ZipFile(first) as archive:
        names = [name for name in archive.namelist() if "dist-info" not in name]
    assert names == ["datasette_thing/__init__.py"]
    (source / "datasette_thing" / "__init__.py").write_text("changed = True\n")
    assert own_wheels(tmp_path / "cache") != [first]


def test_a_plugin_that_cannot_be_built_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(tmp_path / "plugins" / "datasette-broken", "not a version")
    monkeypatch.setattr(own_plugins, "PLUGINS", tmp_path / "plugins")
    with pytest.raises(OwnPluginError, match="datasette-broken could not be built"):
        own_wheels(tmp_path / "cache")


def plugin(directory: Path, version: str) -> Path:
    """The sources of a small plugin."""
    module = directory.name.replace("-", "_")
    (directory / module).mkdir(parents=True)
    (directory / module / "__init__.py").write_text("")
    (directory / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['flit_core']\nbuild-backend = 'flit_core.buildapi'\n"
        f"[project]\nname = '{directory.name}'\nversion = '{version}'\ndescription = 'small'\n"
    )
    return directory
