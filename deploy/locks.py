"""Locked package sets: exact versions, and the sha256 of every file that may be taken. Pure.

A lock is a text as pip reads it (`name==version --hash=sha256:…`), and here a mapping of pins.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def normalized(name: str) -> str:
    """A package name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Pin:
    """One package at one version; `hashes` are 64 hex digits each, in order."""

    name: str
    version: str
    hashes: tuple[str, ...]

    def __str__(self) -> str:
        hashes = [f"    --hash=sha256:{digest}" for digest in self.hashes]
        return " \\\n".join([f"{self.name}=={self.version}", *hashes])


Lock = Mapping[str, Pin]


class Conflict(Exception):
    """Two sets want different versions of one package."""

    def __init__(self, package: str, first: tuple[str, str], second: tuple[str, str]) -> None:
        """`first` and `second` are (who wants it, which version)."""
        self.package, self.first, self.second = package, first, second
        super().__init__(
            f"{first[0]} needs {package} {first[1]}, and {second[0]} needs {package} {second[1]}. "
            "They cannot be on together."
        )


def parse(text: str) -> dict[str, Pin]:
    """Return the pins of a lock by normalized name. Raises ValueError for a pin without a hash."""
    starts = list(_PIN.finditer(text))
    ends = [*(match.start() for match in starts[1:]), len(text)]
    pins = {}
    for match, end in zip(starts, ends, strict=False):
        hashes = tuple(sorted(set(_HASH.findall(text[match.end() : end]))))
        if not hashes:
            raise ValueError(f"{match['name']} is locked without a hash")
        name = normalized(match["name"])
        pins[name] = Pin(name, match["version"], hashes)
    return pins


def text_of(pins: Iterable[Pin]) -> str:
    """Return the lock as pip reads it: the same text for the same pins."""
    return "".join(f"{pin}\n" for pin in sorted(pins, key=lambda pin: pin.name))


def merge(parts: Mapping[str, Lock]) -> dict[str, Pin]:
    """Return the pins of all parts together; the names of the parts are for the words of Conflict.

    Where two parts have the same version, only the files that both allow are allowed.
    """
    wanted: dict[str, tuple[str, Pin]] = {}
    for who, lock in parts.items():
        for name, pin in lock.items():
            if name not in wanted:
                wanted[name] = (who, pin)
                continue
            first, known = wanted[name]
            if known.version != pin.version:
                raise Conflict(name, (first, known.version), (who, pin.version))
            common = tuple(sorted(set(known.hashes) & set(pin.hashes)))
            if not common:
                raise Conflict(name, (first, f"{known.version} (other files)"), (who, pin.version))
            wanted[name] = (first, Pin(name, pin.version, common))
    return {name: pin for name, (_, pin) in wanted.items()}
