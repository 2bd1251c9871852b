"""Our own Datasette plugins (`plugins/`), as wheels that an image can be built from.

Built here, from sources of this repository, without a network and without running their code: the
same sources give the same bytes, so a lock can name their hash like anybody else's.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.locks import normalized

PLUGINS = Path(__file__).parent / "plugins"
BUILD_SECONDS = 60
# Every file in a wheel carries this date; zip knows none before it.
SOURCE_DATE_EPOCH = "315532800"
_BUILD = (
    "import sys, pathlib; from flit_core.wheel import make_wheel_in; "
    "make_wheel_in(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))"
)
_NOT_SOURCE = {"__pycache__", "runtime"}


class OwnPluginError(Exception):
    """One of our plugins does not become a wheel; the text says why."""


@dataclass(frozen=True)
class OwnWheel:
    """A wheel of ours, and what a lock says of it."""

    path: Path
    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """Its line in a lock."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n"


def own_wheels(cache: Path) -> list[Path]:
    """The wheels of all our plugins, sorted, built when the cache lacks them. OwnPluginError."""
    return [_wheel(source, cache) for source in plugin_sources()]


def described(wheel: Path) -> OwnWheel:
    """What the lock of an image with this wheel has to say."""
    name, version, *_ = wheel.name.split("-")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return OwnWheel(wheel, normalized(name), version, digest)


def plugin_sources() -> list[Path]:
    """The directory of each of our plugins."""
    return sorted(path.parent for path in PLUGINS.glob("*/pyproject.toml"))


def further_lock(name: str) -> str:
    """The locked packages that one of our plugins needs besides the default image's."""
    return (PLUGINS / name / "requirements.txt").read_text()


def _wheel(source: Path, cache: Path) -> Path:
    directory = cache / f"{source.name}-{_digest(source)[:32]}"
    if not (found := sorted(directory.glob("*.whl"))):
        directory.mkdir(parents=True, exist_ok=True)
        _build(source, directory)
        found = sorted(directory.glob("*.whl"))
    return found[0]


def _build(source: Path, directory: Path) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
    with tempfile.TemporaryDirectory(dir=directory, prefix="building-") as scratch:
        # From a copy of what is source: whatever else lies there must not get into the wheel.
        for path in _files(source):
            copy = Path(scratch, "source", path.relative_to(source))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        done = subprocess.run(
            [sys.executable, "-IBc", _BUILD, f"{scratch}/source/pyproject.toml", scratch],
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            tail = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise OwnPluginError(f"{source.name} could not be built:\n{tail}")
        # Whoever was first is overwritten with the same bytes.
        for wheel in Path(scratch).glob("*.whl"):
            wheel.replace(directory / wheel.name)


def _digest(source: Path) -> str:
    digest = hashlib.sha256(SOURCE_DATE_EPOCH.encode())
    for path in _files(source):
        digest.update(f"{path.relative_to(source).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files(source: Path) -> Iterator[Path]:
    for path in sorted(source.rglob("*")):
        if path.is_file() and not _NOT_SOURCE & set(path.relative_to(source).parts):
            yield path
