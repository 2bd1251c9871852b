"""From a lock to an image: what names it, what may go in, and what stops it."""

import hashlib
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.conf import settings

from deploy import base_image, images, wheels
from deploy.base_image import Base, BaseImageError, apt_mirror, debootstrap_command
from deploy.builder import Builder
from deploy.engines import get_builder
from deploy.engines.base import EngineError
from deploy.images import (
    DEFAULT_RELEASE,
    ImageError,
    default_lock,
    image_inputs,
    release_lock,
)
from deploy.models import Image
from deploy.wheels import WheelsError, datasette_plugins, fetch_wheels, locked_versions, verified
from tests import factories
from tests.deploy.workspace_support import ALPHA

WHEELS = Path(settings.STATE_DIR) / "wheels"
BASE = Base("cloudapp-base:trixie", "sha256:1")
DEFAULT_PLUGINS = {
    "datasette-cluster-map",
    "datasette-configure-fts",
    "datasette-leaflet",
    "datasette-search-all",
    "datasette-upload-csvs",
    "datasette-upload-dbs",
}


# --- the name ----------------------------------------------------------------------------------


def test_the_same_inputs_give_the_same_name_and_the_same_bytes() -> None:
    one, two = (image_inputs(BASE, default_lock(), "x86_64") for _ in range(2))
    assert one.digest == two.digest
    assert one.reference == f"cloudapp-workspace:{one.digest[:12]}"
    contexts = [images.build_context([]).read() for _ in range(2)]
    assert contexts[0] == contexts[1]


@pytest.mark.parametrize(
    ("base", "lock", "architecture"),
    [
        (Base("cloudapp-base:trixie", "sha256:2"), default_lock(), "x86_64"),
        (BASE, default_lock() + f"\nowl==1 --hash=sha256:{'0' * 64}\n", "x86_64"),
        (BASE, default_lock(), "aarch64"),
    ],
)
def test_any_other_input_gives_another_name(base: Base, lock: str, architecture: str) -> None:
    usual = image_inputs(BASE, default_lock(), "x86_64")
    assert image_inputs(base, lock, architecture).digest != usual.digest


def test_a_changed_file_of_ours_gives_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = image_inputs(BASE, default_lock(), "x86_64")
    shutil.copytree(images.SOURCE, tmp_path / "workspace")
    monkeypatch.setattr(images, "SOURCE", tmp_path / "workspace")
    assert image_inputs(BASE, default_lock(), "x86_64").digest == usual.digest
    with (tmp_path / "workspace/cloudapp_workspace/guard.py").open("a") as file:
        file.write("# changed\n")
    assert image_inputs(BASE, default_lock(), "x86_64").digest != usual.digest


@pytest.mark.parametrize("release", [DEFAULT_RELEASE, ALPHA])
def test_each_release_has_a_lock_with_the_default_plugins_and_no_index(release: str) -> None:
    lock = release_lock(release)
    assert "http" not in lock.replace("httpcore", "").replace("httpx", "")
    versions = locked_versions(lock)
    assert versions["datasette"] == release
    plugins = {name for name in versions if name.startswith("datasette-")}
    assert plugins == DEFAULT_PLUGINS
    assert not versions.keys() & {"pip", "setuptools"}


def test_the_default_is_the_stable_release() -> None:
    assert locked_versions(default_lock())["datasette"] == "0.65.5"


@pytest.mark.parametrize("release", ["2.0", "", "../releases/0.65.5"])
def test_a_release_without_a_lock_is_refused_with_the_ones_that_there_are(release: str) -> None:
    with pytest.raises(ImageError, match=r"There are: 0\.65\.5, 1\.0a41\."):
        release_lock(release)


# --- the wheels --------------------------------------------------------------------------------


def make_wheel(directory: Path, name: str, entry_points: str = "") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
        if entry_points:
            archive.writestr(f"{name}-1.0.dist-info/entry_points.txt", entry_points)
    return path


def lock_of(*paths: Path) -> str:
    return "\n".join(
        f"{path.name.split('-')[0]}==1.0 \\\n    --hash=sha256:{digest}"
        for path in paths
        for digest in [hashlib.sha256(path.read_bytes()).hexdigest()]
    )


def test_exactly_the_locked_wheels_are_accepted(tmp_path: Path) -> None:
    one, two = make_wheel(tmp_path, "one_bird"), make_wheel(tmp_path, "two")
    assert verified(lock_of(one, two), tmp_path) == [one, two]
    with pytest.raises(WheelsError, match=r"Not what the lock says: two-1\.0"):
        verified(lock_of(one), tmp_path)
    lock = lock_of(one, two)
    two.unlink()
    with pytest.raises(WheelsError, match="Not fetched: two"):
        verified(lock, tmp_path)


def test_a_changed_wheel_in_the_cache_is_dropped_and_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_wheel(tmp_path / "mirror", "cloudapp_no_such_bird")
    only_from(source.parent, monkeypatch)
    lock, cache = lock_of(source), tmp_path / "cache"
    [cached] = fetch_wheels(lock, "x86_64", "3.13", cache)
    cached.write_bytes(b"something else")
    [healed] = fetch_wheels(lock, "x86_64", "3.13", cache)
    assert healed.read_bytes() == source.read_bytes()
    cached.write_bytes(b"something else")
    source.unlink()
    with pytest.raises(WheelsError, match="could not fetch"):
        fetch_wheels(lock, "x86_64", "3.13", cache)
    assert not cached.exists()


def test_a_file_that_is_not_the_approved_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index has another file under the same name and version."""
    source = make_wheel(tmp_path / "mirror", "cloudapp_no_such_bird")
    only_from(source.parent, monkeypatch)
    lock = lock_of(source)
    make_wheel(tmp_path / "mirror", "cloudapp_no_such_bird", "[datasette]\nevil = evil\n")
    with pytest.raises(
        WheelsError, match=r"cloudapp.no.such.bird==1\.0.* is not the file that was"
    ):
        fetch_wheels(lock, "x86_64", "3.13", tmp_path / "cache")


def test_one_more_package_fetches_one_more_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_wheel(tmp_path / "mirror", "cloudapp_no_such_bird")
    two = make_wheel(tmp_path / "mirror", "cloudapp_no_such_cat")
    only_from(one.parent, monkeypatch)
    cache = tmp_path / "cache"
    fetch_wheels(lock_of(one), "x86_64", "3.13", cache)
    one.unlink()
    fetched = fetch_wheels(
        lock_of(two) + "\n" + lock_of(fetched_one(cache)), "x86_64", "3.13", cache
    )
    assert [wheel.name for wheel in fetched] == [one.name, two.name]


def fetched_one(cache: Path) -> Path:
    [wheel] = cache.rglob("*.whl")
    return wheel


def only_from(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pip know this directory of wheels and nothing else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))


def test_wheels_come_with_the_hosts_own_pip_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a directory of wheels that only the host's pip configuration knows."""
    wheel = tmp_path / "mirror" / "cloudapp_no_such_bird-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    metadata = "Metadata-Version: 2.1\nName: cloudapp-no-such-bird\nVersion: 1.0\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("cloudapp_no_such_bird-1.0.dist-info/METADATA", metadata)
        archive.writestr(
            "cloudapp_no_such_bird-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("cloudapp_no_such_bird-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    cache = tmp_path / "cache"
    fetched = fetch_wheels(lock_of(wheel), "x86_64", "3.13", cache)
    assert [path.name for path in fetched] == [wheel.name]
    wheel.unlink()
    assert fetch_wheels(lock_of(fetched[0]), "x86_64", "3.13", cache) == fetched  # no pip again


def test_what_pip_could_not_fetch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    lock = lock_of(make_wheel(tmp_path, "cloudapp_missing"))
    with pytest.raises(WheelsError, match=r"cloudapp.missing"):
        fetch_wheels(lock, "x86_64", "3.13", tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_plugins_are_found_by_their_entry_point(tmp_path: Path) -> None:
    plugin = make_wheel(tmp_path, "datasette_birds", "[datasette]\nbirds = datasette_birds\n")
    script = make_wheel(tmp_path, "datasette_tool", "[console_scripts]\ntool = t:main\n")
    plain = make_wheel(tmp_path, "plain")
    assert datasette_plugins([plugin, script, plain]) == {"datasette-birds"}


def wheel_with(directory: Path, name: str, text: bytes = b"") -> Path:
    """A plugin's wheel with one more file in it."""
    path = make_wheel(directory, "datasette_birds")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, text)
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("../owl.py", "/owl.py", "a//owl.py", "./owl.pth", "a/./owl.py", "a\\..\\owl.py"),
        *("owl.pth", "sitecustomize.py", "usercustomize/__init__.py"),
        *("birds.data/purelib/owl.pth", "birds.data/platlib/sitecustomize.py"),
        *("birds.data/data/lib/owl.pth", "birds.data/scripts/python3"),
        *("birds.data/data/share/../lib/owl.pth", "birds.data/headers//owl.h"),
        *("owl-1.0.dist-info/entry_points.txt", "birds.data/purelib/owl-1.0.dist-info/METADATA"),
        *("owl.egg-info", "datasette_birds-1.0.egg-info/entry_points.txt"),
        *("cloudapp_workspace/guard.py", "cloudapp_workspace.py", "datasette/app.py"),
        "birds.data/platlib/datasette/app.py",
    ],
)
def test_a_file_that_takes_the_place_of_something_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WheelsError, match=r"datasette-birds holds .*, which"):
        wheels.refuse_code_at_start([wheel_with(tmp_path, name)])


@pytest.mark.parametrize(
    "name",
    [
        *("datasette_birds/datasette/x.py", "datasette_birds/", "datasette_birds/x.pth"),
        *("birds.data/data/share/man/owl.1", "birds.data/scripts/owl", "birds.data/headers/owl.h"),
        *("datasette_birds/_vendor/owl-1.0.dist-info/METADATA", "birds.data/purelib/owl.py"),
    ],
)
def test_a_file_in_its_own_place_is_taken(tmp_path: Path, name: str) -> None:
    wheels.refuse_code_at_start([wheel_with(tmp_path, name)])


def test_datasette_itself_is_taken(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "datasette")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("datasette/app.py", "")
    wheels.refuse_code_at_start([wheel])


@pytest.mark.parametrize("before", ["", "  ", "[datasette]\nbirds = birds\n  "])
def test_only_our_own_have_a_build_run_something(tmp_path: Path, before: str) -> None:
    text = f"{before}[cloudapp.image_build]\nbake = birds:bake\n"
    wheel = make_wheel(tmp_path, "datasette_birds", text)
    with pytest.raises(WheelsError, match="only ours may"):
        wheels.refuse_code_at_start([wheel])
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    wheels.refuse_code_at_start([wheel], {digest})


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"[datasette]\nno equals sign\n", b" " * (wheels.MAX_ENTRY_POINTS + 1)]
)
def test_a_wheel_with_broken_entry_points_is_named(tmp_path: Path, text: bytes) -> None:
    wheel = wheel_with(tmp_path, "datasette_birds-1.0.dist-info/entry_points.txt", text)
    for read in (wheels.datasette_plugins, wheels.refuse_code_at_start):
        with pytest.raises(WheelsError, match=r"datasette_birds-1\.0.*broken"):
            read([wheel])


def test_what_is_no_wheel_is_named(tmp_path: Path) -> None:
    wheel = tmp_path / "datasette_birds-1.0-py3-none-any.whl"
    wheel.write_bytes(b"no zip")
    with pytest.raises(WheelsError, match=r"datasette_birds-1\.0.*broken"):
        wheels.refuse_code_at_start([wheel])


def test_the_wheels_of_every_release_are_taken() -> None:
    found = [wheel for wheel in WHEELS.rglob("*.whl") if "enrichments_python" not in wheel.name]
    wheels.refuse_code_at_start(found)


# --- the base ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        (
            "sources.list",
            "deb http://mirror.test/debian/ trixie main\n",
            "http://mirror.test/debian/",
        ),
        ("sources.list", "# deb http://old.test/debian trixie main\n", None),
        (
            "sources.list.d/debian.sources",
            "Types: deb\n# URIs: http://snapshot.test/debian\nURIs: https://in.test/debian\n",
            "https://in.test/debian",
        ),
        ("sources.list.d/other.list", "deb [arch=amd64] https://other.test/repo stable main", None),
        ("sources.list.d/sec.sources", "URIs: http://in.test/debian-security\n", None),
        ("sources.list.d/debian.sources.save", "URIs: http://in.test/debian\n", None),
    ],
)
def test_the_hosts_own_mirror_is_used(
    tmp_path: Path, name: str, text: str, mirror: str | None
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    assert apt_mirror(tmp_path) == mirror


def test_debootstrap_checks_signatures_and_has_a_default_of_its_own() -> None:
    command = debootstrap_command("x86_64", Path("/root-fs"), None)
    assert command[-2:] == ["trixie", "/root-fs"]
    assert "--force-check-gpg" in command
    assert debootstrap_command("aarch64", Path("/r"), "http://m")[-1] == "http://m"
    assert "--arch=arm64" in debootstrap_command("aarch64", Path("/r"), None)


def test_what_to_do_without_root_or_debootstrap_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = os.uname().machine
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BaseImageError, match=r"needs root|not installed"):
        base_image.ensure_tarball(machine, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BaseImageError, match="apt-get install debootstrap"):
        base_image.ensure_tarball(machine, tmp_path)
    with pytest.raises(BaseImageError, match="riscv64"):
        base_image.ensure_tarball("riscv64", tmp_path)


# --- building, on the real engine --------------------------------------------------------------


@pytest.fixture(scope="module")
def builder() -> Builder:
    return get_builder()


@pytest.mark.django_db
def test_the_default_image_is_built_once_and_recorded(
    builder: Builder, workspace_image: str, tmp_path: Path
) -> None:
    (tmp_path / "wheels").symlink_to(WHEELS)
    image = images.ensure_image(builder, default_lock(), tmp_path)
    assert image.state == Image.State.READY
    assert image.reference == workspace_image
    assert image.built_at is not None
    assert image.inputs["packages"]["datasette"] == "0.65.5"
    again = images.ensure_image(builder, default_lock(), tmp_path)
    assert (again.pk, again.built_at) == (image.pk, image.built_at)
    assert Image.objects.count() == 1


@pytest.mark.django_db
def test_a_set_that_cannot_be_fetched_is_recorded_and_tried_again(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    lock = lock_of(make_wheel(tmp_path, "cloudapp_missing"))
    for _ in range(2):
        with pytest.raises(ImageError, match=r"cloudapp.missing"):
            images.ensure_image(builder, lock, tmp_path)
    image = Image.objects.get()
    assert image.state == Image.State.FAILED
    assert "cloudapp-missing" in image.error
    assert not builder.image_exists(image.reference)


def test_an_image_with_other_plugins_than_locked_is_refused(
    builder: Builder, workspace_image: str
) -> None:
    lock = default_lock()
    fetched = fetch_wheels(lock, builder.architecture(), base_image.PYTHON, WHEELS)
    report = images.smoke_test(builder, workspace_image, fetched)
    assert report["datasette"] == "0.65.5"
    assert 0 < report["seconds"] < images.ANSWER_SECONDS
    fewer = [wheel for wheel in fetched if "cluster_map" not in wheel.name]
    with pytest.raises(ImageError, match="not expected: datasette-cluster-map"):
        images.smoke_test(builder, workspace_image, fewer)


def test_an_image_that_does_not_start_is_refused_with_its_own_words(
    builder: Builder, workspace_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = images.SMOKE_COMMAND[0]
    monkeypatch.setattr(images, "SMOKE_COMMAND", (python, "-c", "raise SystemExit('no birds')"))
    with pytest.raises(ImageError, match="no birds"):
        images.smoke_test(builder, workspace_image, [])
    monkeypatch.setattr(images, "SMOKE_COMMAND", ("/no/such/program",))
    with pytest.raises((EngineError, ImageError), match="no such file"):
        images.smoke_test(builder, workspace_image, [])


def test_the_context_holds_what_is_needed_and_nothing_else() -> None:
    with tarfile.open(fileobj=images.build_context([])) as tar:
        members = tar.getmembers()
    assert {"Dockerfile", "common/requirements.txt", "further/requirements.txt"} <= {
        member.name for member in members
    }
    assert not [member.name for member in members if "__pycache__" in member.name]
    assert {(member.mtime, member.uid, member.mode) for member in members} == {(0, 0, 0o644)}


def test_wheels_module_knows_names_as_indexes_do() -> None:
    assert wheels.normalized("Datasette_Upload.CSVs") == "datasette-upload-csvs"


@pytest.mark.django_db
def test_what_an_image_says_with_a_nul_can_be_kept() -> None:
    said = SimpleNamespace(exit_code=1, output="no \0birds")
    fake = SimpleNamespace(run_once=lambda *args: said)
    with pytest.raises(ImageError, match="no birds"):
        images.smoke_test(fake, "birds", [])  # type: ignore[arg-type]
    row = factories.make_image()
    images._record(row, Image.State.FAILED, "no \0birds")
    row.refresh_from_db()
    assert row.error == "no birds"
