"""From a lock to an image that is known to start. An image is named by all that went into it.

    inputs = image_inputs(ensure_base(builder), lock, builder.architecture())
    build_image(builder, inputs, wheels)            # offline
    try_out(builder, inputs, wheels)                # before anybody gets it

`ensure_image` does all of it and keeps the row.
"""

import fcntl
import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from django.utils import timezone

from deploy import logs
from deploy.base_image import PYTHON, Base, BaseImageError, ensure_base
from deploy.builder import Builder
from deploy.engines.base import EngineError
from deploy.locks import Lock, normalized, parse, text_of
from deploy.models import Image
from deploy.own_plugins import OwnPluginError, described, own_wheels
from deploy.wheels import (
    WheelsError,
    datasette_plugins,
    fetch_wheels,
    keep_wheels,
    locked_versions,
    package_of,
    refuse_code_at_start,
)

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).parent / "workspace"
REPOSITORY = "cloudapp-workspace"
DEFAULT_RELEASE = "0.65.5"
SMOKE_COMMAND = ("/opt/workspace/bin/python", "-IB", "-m", "cloudapp_workspace.smoke")
SMOKE_SECONDS = 60.0
# How long the server may take to start and answer; a good one needs about a second.
ANSWER_SECONDS = 20.0
OWN_PLUGIN = "cloudapp-workspace-plugin"
DIGEST_LABEL = "cloudapp.image.digest"
# What the stages of the Dockerfile but the last one carry.
STAGE_LABEL = "cloudapp.stage"


class BuildStep(StrEnum):
    """What is done to have an image, in this order."""

    FETCH = "fetch"
    BUILD = "build"
    CHECK = "check"


OnStep = Callable[[BuildStep], None]


class ImageError(Exception):
    """There is no such image; the text names the cause in words that an operator understands."""


@dataclass(frozen=True)
class ImageInputs:
    """Everything that decides what an image is. Same inputs, same digest, same image."""

    values: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """64 hex digits over all inputs."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()

    @property
    def reference(self) -> str:
        """The name on the engine."""
        return f"{REPOSITORY}:{self.digest[:12]}"

    @property
    def trial(self) -> str:
        """Its name until it is known to work."""
        return trial_of(self.reference)


def trial_of(reference: str) -> str:
    """Return the name that an image is built and tried out under."""
    return f"{reference}-trial"


def default_lock() -> str:
    """The locked packages of the default image."""
    return release_lock(DEFAULT_RELEASE)


def release_lock(version: str) -> str:
    """The locked packages of the image with this Datasette and the default plugins.

    Raises ImageError for a version that this installation has no lock for.
    """
    locks = release_locks()
    if version not in locks:
        known = ", ".join(sorted(locks))
        raise ImageError(f"There is no lock for Datasette {version!r}. There are: {known}.")
    return locks[version]


def release_locks() -> dict[str, str]:
    """The locks that come with this software, by Datasette's version."""
    return {path.stem: path.read_text() for path in (SOURCE / "releases").glob("*.txt")}


def image_inputs(base: Base, lock: str, architecture: str) -> ImageInputs:
    """Collect what goes into an image: base, machine, packages and our own files."""
    return ImageInputs(
        {
            "base": {"reference": base.reference, "id": base.id},
            "architecture": architecture,
            "python": PYTHON,
            "packages": locked_versions(lock),
            "lock": hashlib.sha256(text_of(parse(lock).values()).encode()).hexdigest(),
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in own_files().items()},
        }
    )


def own_files() -> dict[str, bytes]:
    """Our part of the build context: path in it -> content, in a stable order."""
    package = SOURCE / "cloudapp_workspace"
    paths = [SOURCE / "Dockerfile", SOURCE / "install.sh", *package.rglob("*")]
    return {
        path.relative_to(SOURCE).as_posix(): path.read_bytes()
        for path in sorted(paths)
        if path.is_file() and "__pycache__" not in path.parts
    }


def build_context(wheels: list[Path], common: Lock | None = None) -> BinaryIO:
    """The tar that the engine builds from; the same bytes for the same inputs.

    Wheels of packages in `common` (all, without it) go into the layer that images share.
    """
    parts: dict[str, list[Path]] = {"common": [], "further": []}
    for wheel in wheels:
        shared = common is None or package_of(wheel) in common
        parts["common" if shared else "further"].append(wheel)
    files = own_files()
    for part, members in parts.items():
        # Of these very files, not of all that the lock allows: so it is the same in every set.
        lock = "".join(described(wheel).requirement for wheel in members)
        files[f"{part}/requirements.txt"] = lock.encode()
        files |= {f"{part}/{wheel.name}": wheel.read_bytes() for wheel in members}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def build_image(
    builder: Builder,
    inputs: ImageInputs,
    wheels: list[Path],
    common: Lock | None = None,
    *,
    anew: bool = False,
) -> None:
    """Build the image to be tried out, labelled with its inputs. Raises EngineError."""
    builder.build(
        build_context(wheels, common),
        inputs.trial,
        labels_of(inputs),
        {"BASE": inputs.values["base"]["reference"]},
        anew=anew,
    )


def labels_of(inputs: ImageInputs) -> dict[str, str]:
    """What the engine tells of an image: its digest, and what went into it."""
    packages = inputs.values["packages"]
    base = inputs.values["base"]
    return {
        DIGEST_LABEL: inputs.digest,
        "cloudapp.image.base": f"{base['reference']} {base['id']}",
        "cloudapp.image.release": f"Datasette {packages.get('datasette', 'none')}",
        "cloudapp.image.packages": " ".join(f"{n}=={v}" for n, v in sorted(packages.items())),
        "cloudapp.image.lock": inputs.values["lock"],
    }


def smoke_test(builder: Builder, reference: str, wheels: list[Path]) -> dict[str, Any]:
    """Start it once: it must answer, refuse strangers, and have exactly the locked plugins.

    Returns what it reported ({"plugins": [...], "datasette": "0.65.5", "seconds": 0.4}).
    Raises ImageError or EngineError.
    """
    command = (*SMOKE_COMMAND, str(ANSWER_SECONDS))
    result = builder.run_once(reference, command, SMOKE_SECONDS)
    if result.exit_code != 0:
        tail = "\n".join(logs.storable(result.output).strip().splitlines()[-15:])
        raise ImageError(f"The image was built, but does not work:\n{tail}")
    report = _report(result.output)
    found = {normalized(name) for name in report["plugins"]}
    expected = datasette_plugins(wheels) | {OWN_PLUGIN}
    if found != expected:
        raise ImageError(
            f"The image has other plugins than locked. Missing: {_names(expected - found)}; "
            f"not expected: {_names(found - expected)}."
        )
    return report


def _report(output: str) -> dict[str, Any]:
    lines = output.strip().splitlines()
    try:
        report = json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        raise ImageError("The image was built, but its test ended without a report.") from error
    return dict(report)


def _names(names: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def ensure_image(
    builder: Builder,
    lock: str,
    state_dir: Path,
    on_step: OnStep = lambda step: None,
    common: Lock | None = None,
    *,
    anew: bool = False,
) -> Image:
    """Return the ready image of a lock, building it when the engine has none. Raises ImageError.

    `on_step` is told what begins; nothing when there is nothing to do. `common` are the packages
    that many images have, the release's: built once, they are a layer of each. `anew` builds also
    what is there, for one that something is wrong with; instances that run keep the old one.

    The row says "ready" only after the image has really started. A failure is kept in the row, and
    the next call tries again. The engine is asked every time: it may have lost what the row knows.
    An image that is there stays as it is, row and all, until one that was built anew has proved
    itself: others make workspaces from it meanwhile.
    """
    try:
        architecture = builder.architecture()
        inputs = image_inputs(ensure_base(builder), lock, architecture)
        with _only_one(state_dir, inputs.digest):
            image, _ = Image.objects.get_or_create(
                digest=inputs.digest,
                defaults={"reference": inputs.reference, "inputs": dict(inputs.values)},
            )
            there = image.state == Image.State.READY and builder.image_exists(inputs.reference)
            if anew or not there:
                with _recorded(image, there=there):
                    _make(builder, inputs, lock, state_dir, on_step, common, anew=anew)
    except (BaseImageError, EngineError, WheelsError, OwnPluginError) as error:
        raise ImageError(str(error)) from error
    return image


def remove(
    builder: Builder, image: Image, state_dir: Path, is_needed: Callable[[Image], bool]
) -> bool:
    """Remove an image from the engine, unless somebody needs it by now. Return whether it went.

    Nobody builds or takes it meanwhile. One that a container uses stays.
    """
    with _only_one(state_dir, image.digest):
        if is_needed(image):
            return False
        try:
            builder.remove_image(trial_of(image.reference))  # a worker died at it
            builder.remove_image(image.reference)
        except EngineError as error:
            logger.warning("%s is not removed: %s", image, error)
            return False
        _record(image, Image.State.PRUNED)
    return True


def remove_leftovers(builder: Builder, state_dir: Path, ages: Mapping[str, timedelta]) -> None:
    """Remove what builds left behind, by the stage of the Dockerfile and how old it may become.

    Not while something is built, which may be about to take it.
    """
    with _builds(state_dir).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for stage, age in ages.items():
                builder.remove_leftovers(f"{STAGE_LABEL}={stage}", timezone.now() - age)
        except (BlockingIOError, EngineError) as error:
            logger.warning("what builds left behind stays for now: %s", error)


def _builds(state_dir: Path) -> Path:
    """The file that every build holds a shared lock on."""
    directory = state_dir / "images"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / "builds.lock"


@contextmanager
def _only_one(state_dir: Path, digest: str) -> Iterator[None]:
    """One build of the same image at a time on this machine; the second one finds it done."""
    directory = state_dir / "images"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{digest[:12]}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetched(inputs: ImageInputs, lock: str, state_dir: Path) -> list[Path]:
    architecture = inputs.values["architecture"]
    cache = state_dir / "wheels"
    own = state_dir / "own-wheels"
    keep_wheels(own_wheels(own), architecture, PYTHON, cache)
    wheels = fetch_wheels(lock, architecture, PYTHON, cache)
    # Also those from before this software was updated: sets that had them are built anew.
    refuse_code_at_start(wheels, {described(wheel).sha256 for wheel in own.rglob("*.whl")})
    return wheels


@contextmanager
def _recorded(image: Image, *, there: bool) -> Iterator[None]:
    """Keep the row while an image is made. Of one that is there, only that it was made anew."""
    if not there:
        _record(image, Image.State.BUILDING)
    try:
        yield
    except (ImageError, WheelsError, OwnPluginError, EngineError) as error:
        if not there:
            _record(image, Image.State.FAILED, str(error))
        raise
    _record(image, Image.State.READY)


def _make(  # noqa: PLR0917 - each is another thing
    builder: Builder,
    inputs: ImageInputs,
    lock: str,
    state_dir: Path,
    on_step: OnStep,
    common: Lock | None,
    *,
    anew: bool,
) -> None:
    on_step(BuildStep.FETCH)
    wheels = _fetched(inputs, lock, state_dir)
    with _builds(state_dir).open("w") as building:
        fcntl.flock(building, fcntl.LOCK_SH)
        on_step(BuildStep.BUILD)
        # One that has its name but no row that says so worked before: it is tried out again.
        if anew or not builder.image_exists(inputs.reference):
            build_image(builder, inputs, wheels, common, anew=anew)
        else:
            builder.tag_image(inputs.reference, inputs.trial)
        on_step(BuildStep.CHECK)
        try_out(builder, inputs, wheels, anew=anew)


def try_out(
    builder: Builder, inputs: ImageInputs, wheels: list[Path], *, anew: bool = False
) -> None:
    """Give what was built its name if it works; one that does not is not kept.

    What had the name before keeps it then, if that was built `anew`. Raises ImageError or
    EngineError.
    """
    try:
        smoke_test(builder, inputs.trial, wheels)
        builder.tag_image(inputs.trial, inputs.reference)
    except (ImageError, EngineError):
        if not anew:
            with suppress(EngineError):
                builder.remove_image(inputs.reference)
        raise
    finally:
        with suppress(EngineError):
            builder.remove_image(inputs.trial)


def _record(image: Image, state: Image.State, error: str = "") -> None:
    image.state, image.error = state, logs.storable(error)
    image.built_at = timezone.now() if state == Image.State.READY else image.built_at
    image.save(update_fields=["state", "error", "built_at"])
