"""From a lock to an image that is known to start. An image is named by all that went into it.

    inputs = image_inputs(ensure_base(builder), lock, builder.architecture())
    build_image(builder, inputs, lock, wheels)      # offline
    smoke_test(builder, inputs, wheels)             # before anybody gets it

`ensure_image` does all of it and keeps the row.
"""

import fcntl
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from django.utils import timezone

from deploy.base_image import PYTHON, Base, BaseImageError, ensure_base
from deploy.builder import Builder
from deploy.engines.base import EngineError
from deploy.models import Image
from deploy.wheels import WheelsError, datasette_plugins, fetch_wheels, locked_versions, normalized

SOURCE = Path(__file__).parent / "workspace"
REPOSITORY = "cloudapp-workspace"
DEFAULT_RELEASE = "0.65.5"
SMOKE_COMMAND = ("/opt/workspace/bin/python", "-IB", "-m", "cloudapp_workspace.smoke")
SMOKE_SECONDS = 60.0
OWN_PLUGIN = "cloudapp-workspace-plugin"
DIGEST_LABEL = "cloudapp.image.digest"


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


def default_lock() -> str:
    """The locked packages of the default image."""
    return release_lock(DEFAULT_RELEASE)


def release_lock(version: str) -> str:
    """The locked packages of the image with this Datasette and the default plugins.

    Raises ImageError for a version that this installation has no lock for.
    """
    locks = {path.stem: path for path in (SOURCE / "releases").glob("*.txt")}
    if version not in locks:
        known = ", ".join(sorted(locks))
        raise ImageError(f"There is no lock for Datasette {version!r}. There are: {known}.")
    return locks[version].read_text()


def image_inputs(base: Base, lock: str, architecture: str) -> ImageInputs:
    """Collect what goes into an image: base, machine, packages and our own files."""
    return ImageInputs(
        {
            "base": {"reference": base.reference, "id": base.id},
            "architecture": architecture,
            "python": PYTHON,
            "packages": locked_versions(lock),
            "lock": hashlib.sha256(lock.encode()).hexdigest(),
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in own_files().items()},
        }
    )


def own_files() -> dict[str, bytes]:
    """Our part of the build context: path in it -> content, in a stable order."""
    package = SOURCE / "cloudapp_workspace"
    paths = [SOURCE / "Dockerfile", *package.rglob("*")]
    return {
        path.relative_to(SOURCE).as_posix(): path.read_bytes()
        for path in sorted(paths)
        if path.is_file() and "__pycache__" not in path.parts
    }


def build_context(lock: str, wheels: list[Path]) -> BinaryIO:
    """The tar that the engine builds from; the same bytes for the same inputs."""
    files = {**own_files(), "requirements.txt": lock.encode()}
    files |= {f"wheels/{wheel.name}": wheel.read_bytes() for wheel in wheels}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def build_image(builder: Builder, inputs: ImageInputs, lock: str, wheels: list[Path]) -> None:
    """Build and tag the image. Raises EngineError."""
    builder.build(
        build_context(lock, wheels),
        inputs.reference,
        {DIGEST_LABEL: inputs.digest},
        {"BASE": inputs.values["base"]["reference"]},
    )


def smoke_test(builder: Builder, inputs: ImageInputs, wheels: list[Path]) -> dict[str, Any]:
    """Start it once: it must answer, refuse strangers, and have exactly the locked plugins.

    Returns what it reported ({"plugins": [...], "datasette": "0.65.5", "seconds": 0.4}).
    Raises ImageError or EngineError.
    """
    result = builder.run_once(inputs.reference, SMOKE_COMMAND, SMOKE_SECONDS)
    if result.exit_code != 0:
        tail = "\n".join(result.output.strip().splitlines()[-15:])
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


def ensure_default_image(builder: Builder, state_dir: Path) -> Image:
    """The image with the default plugin set, built when there is none. Raises ImageError."""
    return ensure_image(builder, default_lock(), state_dir)


def ensure_image(builder: Builder, lock: str, state_dir: Path) -> Image:
    """Return the ready image of a lock, building it when the engine has none. Raises ImageError.

    The row says "ready" only after the image has really started. A failure is kept in the row, and
    the next call tries again. The engine is asked every time: it may have lost what the row knows.
    """
    try:
        architecture = builder.architecture()
        inputs = image_inputs(ensure_base(builder), lock, architecture)
    except (BaseImageError, EngineError) as error:
        raise ImageError(str(error)) from error
    with _only_one(state_dir, inputs):
        image, _ = Image.objects.get_or_create(
            digest=inputs.digest,
            defaults={"reference": inputs.reference, "inputs": dict(inputs.values)},
        )
        try:
            if image.state != Image.State.READY or not builder.image_exists(inputs.reference):
                _build_row(builder, image, inputs, lock, state_dir)
        except (ImageError, WheelsError, EngineError) as error:
            _record(image, Image.State.FAILED, str(error))
            raise ImageError(str(error)) from error
    return image


@contextmanager
def _only_one(state_dir: Path, inputs: ImageInputs) -> Iterator[None]:
    """One build of the same image at a time on this machine; the second one finds it done."""
    directory = state_dir / "images"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{inputs.digest[:12]}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_row(
    builder: Builder, image: Image, inputs: ImageInputs, lock: str, state_dir: Path
) -> None:
    _record(image, Image.State.BUILDING)
    architecture = inputs.values["architecture"]
    wheels = fetch_wheels(lock, architecture, PYTHON, state_dir / "wheels")
    if not builder.image_exists(inputs.reference):
        build_image(builder, inputs, lock, wheels)
    smoke_test(builder, inputs, wheels)
    _record(image, Image.State.READY)


def _record(image: Image, state: Image.State, error: str = "") -> None:
    image.state, image.error = state, error
    image.built_at = timezone.now() if state == Image.State.READY else image.built_at
    image.save(update_fields=["state", "error", "built_at"])
