"""Fetch the wheels of a hash lock to this host, with the host's own pip settings.

The image is built without a network, so everything comes from here; mirrors and private
authorities that the host's pip knows just work. Only wheels: nobody's set-up code runs.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

PIP_SECONDS = 600
# What the bases (Debian trixie, glibc 2.41) run; newest first.
_GLIBC = ("2_35", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17")

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class WheelsError(Exception):
    """The wheels cannot be had, or are not what the lock says; the text says why."""


def normalized(name: str) -> str:
    """A package name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_versions(lock: str) -> dict[str, str]:
    """The packages of a lock: normalized name -> version."""
    return {normalized(name): version for name, version in _REQUIREMENT.findall(lock)}


def fetch_wheels(lock: str, architecture: str, python: str, cache: Path) -> list[Path]:
    """Return one verified wheel per locked package, downloading when the cache lacks the set.

    `architecture` is the kernel's word (x86_64), `python` a version such as 3.13.
    Raises WheelsError.
    """
    key = hashlib.sha256(f"{architecture}\n{python}\n{lock}".encode()).hexdigest()
    directory = cache / key[:32]
    if not directory.is_dir():
        _download(lock, architecture, python, directory)
    try:
        return verified(lock, directory)
    except WheelsError:
        # Half a set or a changed one heals itself the next time.
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _download(lock: str, architecture: str, python: str, directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="fetching-") as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(lock)
        wheels = Path(scratch, "wheels")
        _pip(pip_command(requirements, wheels, architecture, python))
        verified(lock, wheels)
        try:
            wheels.rename(directory)
        except OSError:
            # Somebody else was faster with the same set; theirs is as good.
            if not directory.is_dir():
                raise


def pip_command(requirements: Path, target: Path, architecture: str, python: str) -> list[str]:
    """The download for a machine that is not this one: another Python, perhaps another CPU."""
    tags = [f"manylinux_{version}_{architecture}" for version in _GLIBC]
    platforms = [f"--platform={tag}" for tag in (*tags, f"manylinux2014_{architecture}")]
    return [
        sys.executable,
        *("-m", "pip", "download"),
        *("--disable-pip-version-check", "--no-input", "--quiet"),
        *("--only-binary=:all:", "--require-hashes", "--no-deps"),
        *("--implementation=cp", f"--python-version={python}", *platforms),
        f"--dest={target}",
        f"--requirement={requirements}",
    ]


def _pip(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise WheelsError(f"pip did not fetch the packages in {PIP_SECONDS} s.") from error
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise WheelsError("pip could not fetch the packages:\n" + "\n".join(errors[-8:]))


def verified(lock: str, directory: Path) -> list[Path]:
    """The wheels in a directory, when they are exactly the ones locked. Raises WheelsError."""
    wheels = sorted(directory.glob("*.whl"))
    allowed = set(_HASH.findall(lock))
    changed = [wheel.name for wheel in wheels if _sha256(wheel) not in allowed]
    if changed:
        raise WheelsError(f"Not what the lock says: {', '.join(changed)}")
    found = {normalized(wheel.name.split("-")[0]) for wheel in wheels}
    if missing := locked_versions(lock).keys() - found:
        raise WheelsError(f"Not fetched: {', '.join(sorted(missing))}")
    return wheels


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def datasette_plugins(wheels: list[Path]) -> frozenset[str]:
    """The packages among these that Datasette loads as plugins, by normalized name."""
    return frozenset(normalized(w.name.split("-")[0]) for w in wheels if _is_plugin(w))


def _is_plugin(wheel: Path) -> bool:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/entry_points.txt"):
                entry_points = ConfigParser(delimiters=("=",), strict=False)
                entry_points.read_string(archive.read(name).decode())
                return entry_points.has_section("datasette")
    return False
