"""What the package index says: which versions there are, what a package is, what it needs.

Everything is asked through the host's own pip, so that mirrors and private authorities just work.
Only wheels count, and none of their code ever runs here.
"""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from configparser import ConfigParser, Error
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploy.locks import Lock, Pin, normalized
from deploy.wheels import platform_options

PIP_SECONDS = 300
BY_ADDRESS = "We install only wheels that the package index has, and nothing from another address."
# More than any package says of itself; a stranger's wheel may claim what it likes.
INFO_BYTES = 1_000_000
# What zipfile raises for archives that are broken, encrypted or packed in a way it does not know.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError)
# Datasette names them, and needs neither to run. No image has an installer.
NEVER = frozenset({"pip", "setuptools"})
# pip as it is, in a process that cannot start any other one. A requirement of the form `name @ URL`
# may lead pip to source code, whatever options say, and to read what that needs it runs its set-up
# code, always in another process; so do git and its like for what they fetch. OSErrors pip expects.
NO_PROGRAMS = "cloudapp lets pip start no program"
_GUARDED_PIP = f"""
import runpy, sys
STARTS = {{"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
          "os.system"}}
def refuse(event, _):
    if event in STARTS:
        raise PermissionError({NO_PROGRAMS!r})
sys.addaudithook(refuse)
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_CAUSE = re.compile(r"The conflict is caused by:\n(?P<lines>(?:    .+\n)+)")
_DEPENDS = re.compile(r"(?P<who>\S+) \S+ depends on (?P<what>[A-Za-z0-9._-]+)")
_MISSING = re.compile(r"satisfies the requirement (?P<what>.+?) \(from versions")
_FROM = re.compile(r" \(from (\S+?)(?:->\S+)?\)")
_WANTED = re.compile(r"The user requested (?:\(constraint\) )?(?P<what>[A-Za-z0-9._-]+)")


class IndexRefusal(Exception):
    """The index has no such thing, or it is not what we can use. The text says why."""


@dataclass(frozen=True)
class Target:
    """What the wheels must run on: the kernel's word for the machine, and Python's version."""

    architecture: str
    python: str


@dataclass(frozen=True)
class Facts:
    """What a package says of itself. Texts are empty where it says nothing."""

    name: str
    version: str
    summary: str
    licence: str
    home_page: str
    requires_python: str
    requires: tuple[str, ...]

    @property
    def requires_datasette(self) -> str:
        """Which Datasette it asks for, as it says itself; empty for any."""
        for requirement in self.requires:
            found = re.match(r"datasette(?![\w-])\s*([^;]*)", requirement, re.IGNORECASE)
            if found:
                return found[1].strip(" ()")[:100]
        return ""


def checked_name(name: str) -> str:
    """Return the normalized name. Raises IndexRefusal for what can be no package's name."""
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise IndexRefusal(
            f"“{name[:100]}” is no package name: letters, digits, and - _ . between them."
        )
    return normalized(name)


def read(name: str, target: Target, *, version: str = "", prereleases: bool = False) -> Facts:
    """Return what the newest version (or just this one) of a Datasette plugin says of itself.

    Raises IndexRefusal when there is none, none as a wheel, or it is no plugin.
    """
    name = checked_name(name)
    wanted = f"{name}=={version}" if version else name
    with tempfile.TemporaryDirectory(prefix="cloudapp-index-") as scratch:
        command = ["download", "--no-deps", f"--dest={scratch}", *platform_options(*_of(target))]
        done = _pip([*command, *(["--pre"] if prereleases else []), wanted])
        if done.returncode:
            raise IndexRefusal(_not_there(wanted, done))
        [wheel] = Path(scratch).glob("*.whl")
        return facts_of(name, wheel)


def lock(
    requirements: Sequence[str],
    target: Target,
    *,
    constraints: Lock | None = None,
    prereleases: bool = False,
) -> dict[str, Pin]:
    """Return the pins of these requirements and of all that they need.

    `constraints` are kept to where a package is needed that they name. Raises IndexRefusal.
    """
    with tempfile.TemporaryDirectory(prefix="cloudapp-index-") as scratch:
        report, limits = Path(scratch, "report.json"), Path(scratch, "constraints.txt")
        pins = (constraints or {}).values()
        limits.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins))
        command = ["install", "--dry-run", "--ignore-installed", f"--report={report}"]
        command += [f"--target={scratch}/none", f"--constraint={limits}"]
        command += [*platform_options(*_of(target)), *(["--pre"] if prereleases else [])]
        done = _pip([*command, *requirements])
        if done.returncode:
            raise IndexRefusal(_unresolvable(requirements, done))
        return dict(_pins(json.loads(report.read_text())["install"]))


def _of(target: Target) -> tuple[str, str]:
    return target.architecture, target.python


def _pins(installed: Iterable[dict[str, Any]]) -> Iterable[tuple[str, Pin]]:
    for item in installed:
        name = normalized(item["metadata"]["name"])
        if name in NEVER:
            continue
        said = item["download_info"]
        if item.get("is_direct") or not urlsplit(said["url"]).path.endswith(".whl"):
            raise IndexRefusal(f"{name} would come from {said['url'][:200]}. {BY_ADDRESS}")
        digest = said.get("archive_info", {}).get("hashes", {}).get("sha256")
        if not digest:
            raise IndexRefusal(f"The index tells no sha256 of {name}, so it cannot be locked.")
        yield name, Pin(name, item["metadata"]["version"], (digest,))


def _pip(arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", _GUARDED_PIP, "--disable-pip-version-check", "--no-input"]
    try:
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            timeout=PIP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise IndexRefusal(f"The package index did not answer in {PIP_SECONDS} s.") from error
    if NO_PROGRAMS in done.stderr:
        raise IndexRefusal(f"Something that it needs would be built from source code. {BY_ADDRESS}")
    return done


# --- what a wheel says ---------------------------------------------------------------------------


def facts_of(name: str, wheel: Path) -> Facts:
    """Return what a wheel says of itself. Raises IndexRefusal when it is no Datasette plugin."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            said = message_from_bytes(_info(archive, "METADATA"))
            points = _info(archive, "entry_points.txt")
    except _UNREADABLE as error:
        raise IndexRefusal(f"The wheel of {name} cannot be read: {error}") from error
    if not _has_group(points.decode(errors="replace"), "datasette"):
        raise IndexRefusal(
            f"{name} is no Datasette plugin: it registers nothing with Datasette "
            "(no entry point in the group “datasette”)."
        )
    requires = said.get_all("Requires-Dist", [])
    if direct := [line for line in requires if "@" in str(line).partition(";")[0]]:
        raise IndexRefusal(f"{name} asks for “{_line(direct[0], 200)}”. {BY_ADDRESS}")
    return Facts(
        name=name,
        version=_line(said.get("Version", ""), 60),
        summary=_line(said.get("Summary", ""), 300),
        licence=_line(_licence(said), 100),
        home_page=_line(_home_page(said), 300),
        requires_python=_line(said.get("Requires-Python", ""), 100),
        requires=tuple(_line(line, 300) for line in requires),
    )


def _line(text: Any, length: int) -> str:
    """One printable line of what a stranger wrote, at most so long."""
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()[:length]


def _info(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a file of the wheel's .dist-info, empty when it has none. Raises IndexRefusal."""
    for entry in archive.infolist():
        directory, _, file = entry.filename.partition("/")
        if file == name and directory.endswith(".dist-info"):
            if entry.file_size > INFO_BYTES:
                raise IndexRefusal(f"{entry.filename} in the wheel is too big to be read.")
            return archive.read(entry)
    return b""


def _has_group(entry_points: str, group: str) -> bool:
    parser = ConfigParser(delimiters=("=",), strict=False)
    try:
        parser.read_string(entry_points)
    except Error:  # not what pip could read either
        return False
    return parser.has_section(group)


def _licence(said: Any) -> str:
    if expression := said.get("License-Expression"):
        return str(expression)
    classifiers = [c for c in said.get_all("Classifier", []) if c.startswith("License :: ")]
    named = str(said.get("License", "")).strip().splitlines()
    return named[0] if named else (classifiers[0].rpartition(" :: ")[2] if classifiers else "")


def _home_page(said: Any) -> str:
    found = {}
    for entry in said.get_all("Project-URL", []):
        label, _, address = entry.partition(",")
        found[label.strip().lower()] = address.strip()
    labels = ("homepage", "home", "source", "repository", "documentation")
    named = next((found[label] for label in labels if label in found), "")
    page = str(said.get("Home-page", "")).strip() or named or next(iter(found.values()), "")
    return page if page.startswith(("https://", "http://")) else ""


# --- what pip says, in our words -----------------------------------------------------------------


def _not_there(wanted: str, done: "subprocess.CompletedProcess[str]") -> str:
    said = done.stderr + done.stdout
    if missing := _MISSING.search(said):  # perhaps not what was asked for, but what that needs
        wanted = _FROM.sub(r" (which \1 needs)", missing["what"].strip())
    if python := re.search(r"different python version: (.+)", said):
        return f"{wanted} needs another Python than the one in our images: {python[1][:200]}"
    if "from versions: none" in said:
        return (
            f"The package index has no {wanted}, or has it only as source code and not as a wheel. "
            "We install wheels only, because building source code would run it."
        )
    if versions := re.search(r"\(from versions: (.+)\)", said):
        return f"There is no {wanted}. The index has {versions[1][-200:]}."
    return f"{wanted} cannot be read from the package index: {_last_line(said)}"


def _unresolvable(requirements: Sequence[str], done: "subprocess.CompletedProcess[str]") -> str:
    cause = _CAUSE.search(done.stdout + "\n")
    if cause is None:
        return _not_there(", ".join(requirements), done)
    lines = [line.strip() for line in cause["lines"].splitlines() if line.strip()]
    packages = {match["what"] for line in lines if (match := _DEPENDS.search(line))}
    packages |= {match["what"] for line in lines if (match := _WANTED.search(line))}
    told = "; ".join(line.replace("The user requested", "we have locked") for line in lines)
    return f"It does not fit with what is locked ({', '.join(sorted(packages))}): {told}."


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and "WARNING" not in line]
    return lines[-1][:300] if lines else "pip said nothing"
