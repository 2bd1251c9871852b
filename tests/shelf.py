"""A package index for tests: a directory of small wheels, and nothing else that pip would know."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from deploy.base_image import PYTHON
from deploy.index import Target

TARGET = Target("x86_64", PYTHON)
PLUGIN = "[datasette]\nit = it\n"


class Shelf:
    """The directory. Packages are put there as their authors would upload them."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory

    def wheel(
        self,
        name: str,
        version: str = "1.0",
        *,
        requires: Sequence[str] = (),
        entry_points: str = PLUGIN,
        metadata: Mapping[str, str] | None = None,
        tag: str = "py3-none-any",
        content: str = "",
    ) -> str:
        """Upload a wheel, a Datasette plugin by default; return its sha256."""
        stem = name.replace("-", "_")
        path = self.directory / f"{stem}-{version}-{tag}.whl"
        said = {"Metadata-Version": "2.1", "Name": name, "Version": version, **(metadata or {})}
        lines = [f"{key}: {value}" for key, value in said.items()]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        info = f"{stem}-{version}.dist-info"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{stem}.py", content)
            archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
            wheel = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n"
            archive.writestr(f"{info}/WHEEL", wheel)
            archive.writestr(f"{info}/RECORD", "")
            if entry_points:
                archive.writestr(f"{info}/entry_points.txt", entry_points)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def sdist(
        self,
        name: str,
        version: str = "1.0",
        *,
        code: str = "raise SystemExit('set-up code was run')\n",
    ) -> Path:
        """Upload source code whose set-up would fail whoever ran it; return the file."""
        top = f"{name.replace('-', '_')}-{version}"
        build = '[build-system]\nrequires = []\nbuild-backend = "setup"\nbackend-path = ["."]\n'
        path = self.directory / f"{top}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for file, text in (
                ("PKG-INFO", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"),
                ("pyproject.toml", build),
                ("setup.py", code),
            ):
                entry = tarfile.TarInfo(f"{top}/{file}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        return path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """An empty index, and the only one that pip knows."""
    made = Shelf(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.directory))
    return made
