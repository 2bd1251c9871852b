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
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import Distribution
from pathlib import Path

from deploy.locks import Lock, Pin, normalized, parse, text_of

PIP_SECONDS = 600
# What the bases (Debian trixie, glibc 2.41) run; newest first.
_GLIBC = ("2_35", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17")
# pip's words for a file whose hash is not the locked one.
_CHANGED = re.compile(
    r"DO NOT MATCH THE HASHES.*?\n\s+(\S+==\S+) from [^\n]*\n\s+Expected sha256", re.DOTALL
)
# What Python runs by itself, at the top of what a wheel unpacks.
_AT_START = re.compile(r"[^/]+\.pth|(?:site|user)customize(?:/.*|\.[^/]+)")
# Files beside the packages, in the prefix where Python itself lies: what no package need bring.
_INTO_PYTHON = re.compile(r"data/(?!share/|etc/).+|scripts/python[^/]*")
# What a wheel may say that it unpacks elsewhere: name.data/<where>/<path>.
_DATA = re.compile(r"[^/]+\.data/(purelib|platlib|data|scripts|headers)/(.+)")
_INFO = re.compile(r"([^/]+?)(?:-[^-/]*)?\.(dist|egg)-info(?:/.*)?")
# Names that are ours, or Datasette's: whoever brings one of them would take its place.
_TAKEN = {"cloudapp_workspace": "", "datasette": "datasette"}
# What a build runs, of our own plugins only: see cloudapp_workspace.image_build.
_BUILD_GROUP = "cloudapp.image_build"
_ENTRY_POINTS = re.compile(r"[^/]+\.dist-info/entry_points\.txt")
# Bytes; a large package has a few thousand.
MAX_ENTRY_POINTS = 1_000_000


class WheelsError(Exception):
    """The wheels cannot be had, or are not what the lock says; the text says why."""


def locked_versions(lock: str) -> dict[str, str]:
    """The packages of a lock: normalized name -> version."""
    return {name: pin.version for name, pin in parse(lock).items()}


def fetch_wheels(lock: str, architecture: str, python: str, cache: Path) -> list[Path]:
    """Return one verified wheel per locked package, downloading those that the cache lacks.

    `architecture` is the kernel's word (x86_64), `python` a version such as 3.13.
    Raises WheelsError.
    """
    pins = parse(lock)
    shelf = _shelf(cache, architecture, python)
    missing = [pin for pin in pins.values() if _cached(pin, shelf) is None]
    if missing:
        _download(missing, architecture, python, shelf)
    wheels = {name: _cached(pin, shelf) for name, pin in pins.items()}
    if lost := sorted(name for name, wheel in wheels.items() if wheel is None):
        raise WheelsError(f"Not fetched: {', '.join(lost)}")
    return sorted((wheel for wheel in wheels.values() if wheel), key=lambda wheel: wheel.name)


def keep_wheels(wheels: Iterable[Path], architecture: str, python: str, cache: Path) -> None:
    """Put wheels that no index has, our own, where `fetch_wheels` looks first."""
    for wheel in wheels:
        _put(wheel, _shelf(cache, architecture, python))


def _shelf(cache: Path, architecture: str, python: str) -> Path:
    """Where the wheels for one kind of machine lie, each in a directory named by its sha256."""
    return cache / f"{architecture}-{python}"


def _cached(pin: Pin, shelf: Path) -> Path | None:
    """The wheel of a pin, if it is there. One that was changed since is removed."""
    for digest in pin.hashes:
        for wheel in (shelf / digest).glob("*.whl"):
            if _sha256(wheel) == digest:
                return wheel
            wheel.unlink(missing_ok=True)
    return None


def _put(wheel: Path, shelf: Path) -> None:
    """Copy a wheel to its place, in one piece: others may be reading there."""
    place = shelf / _sha256(wheel) / wheel.name
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shelf, prefix="putting-") as scratch:
        Path(shutil.copy(wheel, scratch)).replace(place)


def _download(pins: Sequence[Pin], architecture: str, python: str, shelf: Path) -> None:
    shelf.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shelf, prefix="fetching-") as scratch:
        requirements, wheels = Path(scratch, "requirements.txt"), Path(scratch, "wheels")
        requirements.write_text(text_of(pins))
        _pip(pip_command(requirements, wheels, architecture, python))
        for wheel in verified(text_of(pins), wheels):
            _put(wheel, shelf)


def pip_command(requirements: Path, target: Path, architecture: str, python: str) -> list[str]:
    """The download for a machine that is not this one: another Python, perhaps another CPU."""
    return [
        sys.executable,
        *("-m", "pip", "download"),
        *("--disable-pip-version-check", "--no-input", "--quiet"),
        *("--require-hashes", "--no-deps"),
        *platform_options(architecture, python),
        f"--dest={target}",
        f"--requirement={requirements}",
    ]


def platform_options(architecture: str, python: str) -> list[str]:
    """What tells pip which wheels run in our images. No source code: to build it is to run it."""
    tags = [f"manylinux_{version}_{architecture}" for version in _GLIBC]
    platforms = [f"--platform={tag}" for tag in (*tags, f"manylinux2014_{architecture}")]
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    return [*options, *platforms]


def _pip(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise WheelsError(f"pip did not fetch the packages in {PIP_SECONDS} s.") from error
    if done.returncode != 0:
        if changed := _CHANGED.search(done.stderr + done.stdout):
            raise WheelsError(
                f"{changed[1]} is not the file that was approved: the package index has another "
                "one under the same name and version (its sha256 differs). Nothing was installed."
            )
        errors = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise WheelsError("pip could not fetch the packages:\n" + "\n".join(errors[-8:]))


def verified(lock: str, directory: Path) -> list[Path]:
    """The wheels in a directory, when they are exactly the ones locked. Raises WheelsError."""
    wheels = sorted(directory.glob("*.whl"))
    pins = parse(lock)
    changed = [wheel.name for wheel in wheels if not _is_locked(wheel, pins)]
    if changed:
        raise WheelsError(f"Not what the lock says: {', '.join(changed)}")
    found = {package_of(wheel) for wheel in wheels}
    if missing := pins.keys() - found:
        raise WheelsError(f"Not fetched: {', '.join(sorted(missing))}")
    return wheels


def package_of(wheel: Path) -> str:
    """The normalized name of the package in a wheel, by the file's name."""
    return normalized(wheel.name.split("-")[0])


def _is_locked(wheel: Path, pins: Lock) -> bool:
    pin = pins.get(package_of(wheel))
    return pin is not None and _sha256(wheel) in pin.hashes


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_code_at_start(wheels: Iterable[Path], ours: Collection[str] = ()) -> None:
    """Raise WheelsError for what would have Python run its code unasked, or change Python itself.

    Every Python in the image would run it, before our own code and whoever it is started by.
    `ours` are the sha256 of our own plugins: they alone may have a build run something.
    """
    for wheel in wheels:
        package = package_of(wheel)
        with _opened(wheel) as archive:
            for name in archive.namelist():
                if words := _trouble_with(name, package):
                    raise WheelsError(
                        f"{package} holds {name!r}, which {words}. Such packages are not installed."
                    )
        if _sha256(wheel) not in ours and _BUILD_GROUP in _offers(wheel):
            raise WheelsError(
                f"{package} wants to run code while an image is built: only ours may."
            )


def _trouble_with(name: str, package: str) -> str:
    """Return what speaks against a file in a wheel, in words; else nothing."""
    # Directories end with a slash.
    if "\\" in name or {"", ".", ".."} & set(name.removesuffix("/").split("/")):
        return "is no plain path"
    where, landing = _landing(name)
    if _INTO_PYTHON.fullmatch(f"{where}/{landing}") or _AT_START.fullmatch(landing):
        return "runs code whenever Python starts, or changes Python itself"
    if where in ("data", "scripts", "headers"):  # beside the packages
        return ""
    top = landing.split("/")[0].split(".")[0].lower()
    if _TAKEN.get(top, package) != package:
        return f"takes the place of {top}"
    info = _INFO.fullmatch(landing)
    if info and (info[2] == "egg" or normalized(info[1]) != package):
        return "speaks for another package"
    return ""


def _landing(name: str) -> tuple[str, str]:
    """Return where a file of a wheel is unpacked, in pip's words, and the path there."""
    data = _DATA.fullmatch(name)
    return (data[1], data[2]) if data else ("purelib", name)


@contextmanager
def _opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """Open a wheel. Whatever is wrong with the file is a WheelsError that names it."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except WheelsError:
        raise
    except Exception as error:  # zipfile and what parses it raise a dozen kinds
        raise WheelsError(f"{wheel.name} is broken: {type(error).__name__}.") from error


def datasette_plugins(wheels: list[Path]) -> frozenset[str]:
    """The packages among these that Datasette loads as plugins, by normalized name.

    Raises WheelsError.
    """
    return frozenset(package_of(wheel) for wheel in wheels if "datasette" in _offers(wheel))


class _Offers(Distribution):
    """Has Python itself read what a package offers, as it will in the image."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "entry_points.txt" else None

    def locate_file(self, path: object) -> Path:
        raise FileNotFoundError(path)


def _offers(wheel: Path) -> set[str]:
    """Return the groups of entry points that a wheel has. Raises WheelsError."""
    groups: set[str] = set()
    with _opened(wheel) as archive:
        for entry in archive.infolist():
            if _ENTRY_POINTS.fullmatch(_landing(entry.filename)[1]):
                if entry.file_size > MAX_ENTRY_POINTS:
                    raise WheelsError(f"{wheel.name} is broken: its entry points are too many.")
                groups |= _Offers(archive.read(entry).decode()).entry_points.groups
    return groups
