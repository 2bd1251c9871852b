"""What our images stand on: Debian and Python, pulled where a registry answers, else made here.

The made one is a minimal Debian, packed once and kept in the user's cache, so that a clean clone
does not make it again. The control plane's own image stands on it too.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.builder import BaseBuilder

SUITE = "trixie"
PYTHON = "3.13"
MADE = f"cloudapp-base:{SUITE}"
PUBLIC = f"python:{PYTHON}-slim"
REGISTRY_SECONDS = 5.0
DEBOOTSTRAP_SECONDS = 900

DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Nobody reads these inside a container; they are a third of the size.
_UNREAD = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/cache/apt")
_LISTS = ("var/lib/apt/lists", "var/log")


class BaseImageError(Exception):
    """There is no base to build on; the text says what to do about it."""


@dataclass(frozen=True)
class Base:
    """A base that the engine has: a name to build from, and the id that says what it is."""

    reference: str
    id: str


def ensure_base(builder: BaseBuilder, cache: Path | None = None) -> Base:
    """Return a base that the engine has, pulling or making one when it has none.

    Raises BaseImageError, or EngineError from the engine.
    """
    for reference in (MADE, PUBLIC):
        if found := builder.image_id(reference):
            return Base(reference, found)
    if builder.pull(PUBLIC, REGISTRY_SECONDS) and (found := builder.image_id(PUBLIC)):
        return Base(PUBLIC, found)
    tarball = ensure_tarball(builder.architecture(), cache or default_cache())
    with tarball.open("rb") as tar:
        return Base(MADE, builder.import_image(tar, MADE))


def default_cache() -> Path:
    """Where the made base is kept between clones."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cloudapp"


def ensure_tarball(architecture: str, cache: Path) -> Path:
    """Return the packed Debian root, making it when the cache has none (40 s). BaseImageError."""
    tarball = cache / f"base-{SUITE}-{architecture}.tar.gz"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _only_one(cache / f"{tarball.name}.lock"):
            if not tarball.exists():
                _make(architecture, tarball)
    except OSError as error:
        raise BaseImageError(f"The Debian base could not be kept in {cache}: {error}") from error
    return tarball


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Two processes that want the same base wait for one another."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(architecture: str, tarball: Path) -> None:
    _check_means(architecture)
    unfinished = tarball.with_suffix(".part")
    with tempfile.TemporaryDirectory(dir=tarball.parent, prefix="root-") as directory:
        root = Path(directory)
        _run(debootstrap_command(architecture, root, apt_mirror()))
        for unread in (*_UNREAD, *_LISTS):
            _empty(root / unread)
        _run(["tar", "--numeric-owner", "-C", str(root), "-czf", str(unfinished), "."])
    unfinished.replace(tarball)


def _check_means(architecture: str) -> None:
    if architecture not in DEBIAN_ARCHITECTURES:
        raise BaseImageError(f"No base is made for the machine type {architecture}.")
    if architecture != platform.machine():
        raise BaseImageError(
            f"The engine runs on {architecture} and this machine is {platform.machine()}: "
            f"pull {PUBLIC} on the engine's machine, or run this there."
        )
    if shutil.which("debootstrap") is None:
        raise BaseImageError(
            f"No registry answered for {PUBLIC}, and debootstrap is not installed to make a base: "
            f"apt-get install debootstrap, or load {PUBLIC} into the engine."
        )
    if os.geteuid() != 0:
        raise BaseImageError(
            f"No registry answered for {PUBLIC}, and making a base needs root: run this once as "
            f"root, or load {PUBLIC} into the engine."
        )


def debootstrap_command(architecture: str, root: Path, mirror: str | None) -> list[str]:
    """The command that fills `root`; without a mirror debootstrap takes its own default."""
    command = [
        "debootstrap",
        "--variant=minbase",
        f"--arch={DEBIAN_ARCHITECTURES[architecture]}",
        # Without this it goes on unverified when the keyring is missing.
        "--force-check-gpg",
        "--include=python3,python3-venv,ca-certificates",
        SUITE,
        str(root),
    ]
    return [*command, mirror] if mirror else command


def apt_mirror(configuration: Path = Path("/etc/apt")) -> str | None:
    """The Debian mirror that this host uses; None when it names none (or is no Debian)."""
    files = [configuration / "sources.list", *sorted((configuration / "sources.list.d").glob("*"))]
    for file in files:
        if file.suffix not in {".list", ".sources"} or not file.is_file():
            continue
        for address in _ADDRESS.findall(_without_comments(file.read_text(errors="replace"))):
            # An archive of Debian itself, not -security and not somebody's own repository.
            if address.rstrip("/").endswith("/debian"):
                return str(address)
    return None


_ADDRESS = re.compile(r"\b(?:https?|file)://?[^\s\]]+")


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _empty(directory: Path) -> None:
    """Remove what is in it and keep the directory: packages expect their places to be there."""
    for entry in directory.iterdir() if directory.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=DEBOOTSTRAP_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired as error:
        raise BaseImageError(f"{command[0]} was not done in {DEBOOTSTRAP_SECONDS} s.") from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
        raise BaseImageError(f"{command[0]} failed with {done.returncode}:\n{tail}")
