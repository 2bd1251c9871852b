"""Build the control plane's image. Runs inside the virtual environment, with Django set up.

The workspaces' images are built the same way (deploy/images.py): wheels fetched on this host, the
build itself without a network.
"""

import io
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from packaging.requirements import Requirement

from cloudapp.local.places import PROJECT, VAR
from deploy.base_image import PYTHON, ensure_base
from deploy.builder import Builder
from deploy.wheels import fetch_wheels

SOURCES = ("manage.py", "pyproject.toml", "LICENSE", "cloudapp", "accounts", "deploy", "workspaces")
SKIPPED = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def version() -> str:
    """Return the project's version."""
    return str(tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"])


def lock_for(architecture: str, lock: str) -> str:
    """Return the part of a lock for every system that this one needs: Linux, the image's Python."""
    target = {
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": architecture,
        "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.0",
    }
    kept = []
    # One requirement is one logical line: its hashes follow on continued lines.
    for entry in lock.replace("\\\n", "\x00").splitlines():
        first, *hashes = entry.split("\x00")
        if not first.strip() or first.startswith("#"):
            continue
        requirement = Requirement(first.strip())
        if requirement.marker is None or requirement.marker.evaluate(target):
            name = f"{requirement.name}{requirement.specifier}"
            kept.append(" \\\n".join([name, *hashes]))
    return "\n".join(kept) + "\n"


def _sources() -> Iterator[Path]:
    for name in SOURCES:
        top = PROJECT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and not SKIPPED & set(path.parts):
                yield path


def build_context(lock: str, wheels: list[Path]) -> BinaryIO:
    """Return the tar that the engine builds from; the same bytes for the same content."""
    files = {
        "Dockerfile": (PROJECT / "Dockerfile").read_bytes(),
        "requirements.txt": lock.encode(),
        **{f"wheels/{wheel.name}": wheel.read_bytes() for wheel in wheels},
        **{f"source/{p.relative_to(PROJECT).as_posix()}": p.read_bytes() for p in _sources()},
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def build(builder: Builder, reference: str, wheels_dir: Path = VAR / "wheels") -> str:
    """Build the image under this name; return its id.

    Raises WheelsError, BaseImageError or EngineError, each in words.
    """
    architecture = builder.architecture()
    lock = lock_for(architecture, (PROJECT / "requirements.txt").read_text())
    wheels = fetch_wheels(lock, architecture, PYTHON, wheels_dir)
    base = ensure_base(builder)
    context = build_context(lock, wheels)
    labels = {"org.opencontainers.image.version": version()}
    return builder.build(context, reference, labels, {"BASE": base.reference})
