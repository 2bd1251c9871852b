"""The package index: what is read from it, what is refused in which words, and what is locked."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy import index
from deploy.index import IndexRefusal, Target
from deploy.locks import Pin
from tests.shelf import TARGET, Shelf


def test_what_the_newest_version_says_of_itself(shelf: Shelf) -> None:
    shelf.wheel("datasette-birds", "1.0")
    shelf.wheel(
        "datasette-birds",
        "1.2",
        requires=["datasette (>=0.60)", "httpx", 'pytest ; extra == "test"'],
        metadata={
            "Summary": "Birds on a map",
            "License": "Apache-2.0",
            "Project-URL": "Homepage, https://birds.example.org/",
            "Requires-Python": ">=3.9",
        },
    )
    shelf.wheel("datasette-birds", "2.0a1")
    facts = index.read("Datasette_Birds", TARGET)
    assert (facts.name, facts.version) == ("datasette-birds", "1.2")
    assert (facts.summary, facts.licence) == ("Birds on a map", "Apache-2.0")
    assert facts.home_page == "https://birds.example.org/"
    assert (facts.requires_python, facts.requires_datasette) == (">=3.9", ">=0.60")
    assert facts.requires == ("datasette (>=0.60)", "httpx", 'pytest ; extra == "test"')


def test_just_one_version_and_prereleases_when_they_are_asked_for(shelf: Shelf) -> None:
    for version in ("1.0", "1.2", "2.0a1"):
        shelf.wheel("datasette-birds", version)
    assert index.read("datasette-birds", TARGET, version="1.0").version == "1.0"
    assert index.read("datasette-birds", TARGET, prereleases=True).version == "2.0a1"
    assert index.read("datasette-birds", TARGET, version="2.0a1").version == "2.0a1"


def test_where_there_are_only_prereleases_the_newest_counts(shelf: Shelf) -> None:
    shelf.wheel("datasette-birds", "0.1a0")
    shelf.wheel("datasette-birds", "0.1a2")
    assert index.read("datasette-birds", TARGET).version == "0.1a2"


@pytest.mark.parametrize("name", ["", "birds and cats", "-birds", "--pre", "a/b", "birds==1", "é"])
def test_what_can_be_no_name_never_reaches_pip(name: str) -> None:
    with pytest.raises(IndexRefusal, match="is no package name"):
        index.checked_name(name)


def test_unknown_names_source_code_and_other_packages_are_refused(shelf: Shelf) -> None:
    shelf.sdist("datasette-source")
    shelf.wheel("plain", entry_points="[console_scripts]\nplain = plain:main\n")
    shelf.wheel("datasette-none", entry_points="")
    shelf.wheel("datasette-broken", entry_points="no section\n")
    for name in ("datasette-nobody", "datasette-source"):
        with pytest.raises(IndexRefusal, match=rf"has no {name}, or has it only as source code"):
            index.read(name, TARGET)
    for name in ("plain", "datasette-none", "datasette-broken"):
        with pytest.raises(IndexRefusal, match=rf"{name} is no Datasette plugin: it registers"):
            index.read(name, TARGET)


def test_a_version_that_is_not_there_is_told_with_those_that_are(shelf: Shelf) -> None:
    shelf.wheel("datasette-birds", "1.0")
    shelf.wheel("datasette-birds", "1.1")
    with pytest.raises(IndexRefusal, match=r"There is no datasette-birds==3\.0.*1\.0, 1\.1"):
        index.read("datasette-birds", TARGET, version="3.0")


def test_what_needs_another_python_is_refused(shelf: Shelf) -> None:
    shelf.wheel("datasette-birds", metadata={"Requires-Python": ">=3.99"})
    with pytest.raises(IndexRefusal, match=r"datasette-birds"):
        index.read("datasette-birds", TARGET)


def test_a_strangers_words_are_cut_and_an_address_that_is_none_is_dropped(shelf: Shelf) -> None:
    metadata = {
        "Summary": "long " * 200,
        "Home-page": "javascript:alert(1)",
        "License": "L" * 500,
        "Requires-Python": ">=3.9" + ",!=3.10.1" * 50,
    }
    shelf.wheel("datasette-birds", metadata=metadata)
    facts = index.read("datasette-birds", TARGET)
    assert len(facts.summary) <= 300
    assert facts.home_page == ""
    assert (len(facts.licence), len(facts.requires_python)) == (100, 100)


def test_a_wheel_that_claims_too_much_or_is_none_is_refused(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shelf.wheel("datasette-birds")
    [wheel] = shelf.directory.glob("*.whl")
    monkeypatch.setattr(index, "INFO_BYTES", 10)
    with pytest.raises(IndexRefusal, match="METADATA in the wheel is too big"):
        index.facts_of("datasette-birds", wheel)
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(IndexRefusal, match="cannot be read"):
        index.facts_of("datasette-birds", broken)


# --- locking -------------------------------------------------------------------------------------


def test_the_closure_is_locked_with_the_hash_of_each_file(shelf: Shelf) -> None:
    hashes = {
        "datasette-birds": shelf.wheel("datasette-birds", requires=["feathers>=2", "pip"]),
        "feathers": shelf.wheel("feathers", "2.5", requires=["down"], entry_points=""),
        "down": shelf.wheel("down", "0.1", entry_points=""),
    }
    shelf.wheel("pip", "99")  # named by some, needed by nothing that runs
    shelf.wheel("feathers", "1.0", entry_points="")
    versions = {"datasette-birds": "1.0", "feathers": "2.5", "down": "0.1"}
    assert index.lock(["datasette-birds==1.0"], TARGET) == {
        name: Pin(name, version, (hashes[name],)) for name, version in versions.items()
    }


def test_what_is_locked_already_is_kept_to(shelf: Shelf) -> None:
    shelf.wheel("datasette-birds", requires=["feathers"])
    for version in ("1.0", "2.0"):
        shelf.wheel("feathers", version, entry_points="")
    limits = {"feathers": Pin("feathers", "1.0", ("0" * 64,))}
    assert index.lock(["datasette-birds"], TARGET)["feathers"].version == "2.0"
    pins = index.lock(["datasette-birds"], TARGET, constraints=limits)
    assert pins["feathers"].version == "1.0"


def test_a_conflict_with_what_is_locked_names_both_packages(shelf: Shelf) -> None:
    shelf.wheel("datasette-birds", requires=["feathers>=2"])
    for version in ("1.0", "2.0"):
        shelf.wheel("feathers", version, entry_points="")
    limits = {"feathers": Pin("feathers", "1.0", ("0" * 64,))}
    with pytest.raises(IndexRefusal) as refusal:
        index.lock(["datasette-birds==1.0"], TARGET, constraints=limits)
    said = str(refusal.value)
    assert "datasette-birds 1.0 depends on feathers>=2" in said
    assert "we have locked (constraint) feathers==1.0" in said


def test_a_dependency_that_is_not_to_be_had_is_named(shelf: Shelf) -> None:
    shelf.wheel("datasette-birds", requires=["feathers"])
    shelf.sdist("feathers")
    with pytest.raises(IndexRefusal, match=r"no feathers \(which datasette-birds needs\), or"):
        index.lock(["datasette-birds"], TARGET)


def test_the_wheel_for_the_images_machine_and_python_is_taken(shelf: Shelf) -> None:
    tag = "cp313-cp313-manylinux2014_{}"
    hashes = {
        machine: shelf.wheel("datasette-birds", tag=tag.format(machine), content=machine)
        for machine in ("x86_64", "aarch64")
    }
    assert len(set(hashes.values())) == 2
    for machine, digest in hashes.items():
        pins = index.lock(["datasette-birds"], Target(machine, "3.13"))
        assert pins["datasette-birds"].hashes == (digest,)
    with pytest.raises(IndexRefusal, match="datasette-birds"):
        index.lock(["datasette-birds"], Target("x86_64", "3.12"))


def test_set_up_code_is_never_run(shelf: Shelf) -> None:
    shelf.sdist("datasette-birds", "2.0")
    digest = shelf.wheel("datasette-birds", "1.0")
    assert index.read("datasette-birds", TARGET).version == "1.0"
    assert index.lock(["datasette-birds"], TARGET)["datasette-birds"].hashes == (digest,)
    assert digest == hashlib.sha256(next(shelf.directory.glob("*.whl")).read_bytes()).hexdigest()


def set_up_that_leaves(shelf: Shelf, marker: Path) -> str:
    """Return the address of source code whose set-up writes a file."""
    return shelf.sdist("down", code=f"open({str(marker)!r}, 'w').close()\n").as_uri()


def test_set_up_code_behind_an_address_is_not_run_either(shelf: Shelf, tmp_path: Path) -> None:
    marker = tmp_path / "set-up-was-run"
    address = set_up_that_leaves(shelf, marker)
    shelf.wheel("datasette-birds", requires=["feathers"])
    shelf.wheel("feathers", requires=[f"down @ {address}"], entry_points="")
    with pytest.raises(IndexRefusal, match="would be built from source code"):
        index.lock(["datasette-birds"], TARGET)
    assert not marker.exists()
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--only-binary=:all:"]
    options = [f"--target={tmp_path}/none", "datasette-birds"]
    subprocess.run([*command, *options], check=False, capture_output=True)
    assert marker.exists()  # pip alone would have run it


def test_git_is_not_run_for_what_a_package_needs(shelf: Shelf) -> None:
    shelf.wheel("datasette-birds", requires=["feathers"])
    address = "git+https://git.invalid/down.git"
    shelf.wheel("feathers", requires=[f"down @ {address}"], entry_points="")
    with pytest.raises(IndexRefusal, match="would be built from source code"):
        index.lock(["datasette-birds"], TARGET)


def test_a_wheel_from_another_address_is_not_locked(shelf: Shelf, tmp_path: Path) -> None:
    elsewhere = Shelf(tmp_path / "elsewhere")
    elsewhere.wheel("down", entry_points="")
    [wheel] = elsewhere.directory.glob("*.whl")
    shelf.wheel("datasette-birds", requires=["feathers"])
    shelf.wheel("feathers", requires=[f"down @ {wheel.as_uri()}"], entry_points="")
    with pytest.raises(IndexRefusal, match=r"down would come from file:.* nothing from another"):
        index.lock(["datasette-birds"], TARGET)


def test_a_plugin_that_asks_for_an_address_is_refused(shelf: Shelf) -> None:
    for marker in ("", ' ; extra == "test"'):
        requires = [f"down @ https://down.example.org/down.tar.gz{marker}"]
        shelf.wheel("datasette-birds", requires=requires)
        with pytest.raises(IndexRefusal, match=r"asks for “down @ https://down\.example\.org"):
            index.read("datasette-birds", TARGET)


@pytest.mark.parametrize(
    "said",
    [
        {"url": "https://x.example.org/down.git", "vcs_info": {"vcs": "git"}},
        {
            "url": "https://x.example.org/down-1.0.tar.gz",
            "archive_info": {"hashes": {"sha256": "a"}},
        },
        {"url": "https://x.example.org/down-1.0-py3-none-any.whl"},
        {"url": "https://x.example.org/down-1.0-py3-none-any.whl", "archive_info": {}},
    ],
)
def test_what_pip_reports_without_wheel_or_hash_is_refused(said: dict[str, Any]) -> None:
    item = {"metadata": {"name": "down", "version": "1.0"}, "download_info": said}
    with pytest.raises(IndexRefusal, match="down"):
        dict(index._pins([item]))
