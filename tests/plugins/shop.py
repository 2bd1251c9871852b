"""A package index in a directory, with plugins that do all that a plugin should not."""

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PAGE = """
from datasette import Response, hookimpl

@hookimpl
def register_routes():
    return [(r"^/-/{path}$", lambda: Response.text("{words}"))]
"""
RAISES = 'raise RuntimeError("no owls today")\n'
HANGS = "import time\nwhile True:\n    time.sleep(0.1)\n"
IN_STARTUP = """
from datasette import hookimpl

@hookimpl
def startup(datasette):
    {body}
"""
RAISES_IN_STARTUP = IN_STARTUP.format(body='raise RuntimeError("no owls at the start")')
HANGS_IN_STARTUP = IN_STARTUP.format(body="import time; [time.sleep(0.1) for _ in iter(int, 1)]")
# What only shows with the workspace's own data. `{body}` may use `os`.
POISON = """
from datasette import hookimpl

@hookimpl
def startup(datasette):
    import os
    if os.path.exists("/data/poison.db"):
        {body}
"""
RAISES_AT_POISON = POISON.format(body='raise RuntimeError("poison.db: " + os.environ["OWL_KEY"])')
HANGS_AT_POISON = POISON.format(body="import time; time.sleep(1000)")
MARK = "import pathlib; pathlib.Path('{marker}').write_text('it ran')\n"


class Shop:
    """Wheels and source archives by name; pip finds them with --find-links."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def plugin(
        self,
        name: str,
        code: str,
        *,
        version: str = "1.0",
        requires: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
    ) -> Path:
        """Put a wheel of a Datasette plugin on the shelf."""
        module = name.replace("-", "_")
        return self._wheel(
            module,
            version,
            {f"{module}.py": code, **(files or {})},
            requires,
            f"[datasette]\n{module} = {module}\n",
        )

    def library(self, name: str, version: str) -> Path:
        """Put a wheel of something else on the shelf."""
        module = name.replace("-", "_")
        return self._wheel(module, version, {f"{module}.py": f"version = '{version}'\n"})

    def source(self, name: str, setup: str) -> Path:
        """Put a package on the shelf that is there as source code only."""
        path = self.directory / f"{name}-1.0.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            info = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            for file, text in (("setup.py", setup), ("PKG-INFO", info)):
                entry = tarfile.TarInfo(f"{name}-1.0/{file}")
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text.encode()))
        return path

    def _wheel(
        self,
        module: str,
        version: str,
        files: Mapping[str, str],
        requires: Sequence[str] = (),
        entry_points: str = "",
    ) -> Path:
        info = f"{module}-{version}.dist-info"
        metadata = ["Metadata-Version: 2.1", f"Name: {module}", f"Version: {version}"]
        metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
        files = {
            **files,
            f"{info}/METADATA": "\n".join(metadata) + "\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            **({f"{info}/entry_points.txt": entry_points} if entry_points else {}),
        }
        path = self.directory / f"{module}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for file, text in files.items():
                # Always the same date: the same plugin is the same file, in every run.
                archive.writestr(zipfile.ZipInfo(file), text)
            record = "".join(f"{file},{_digest(text)},\n" for file, text in files.items())
            archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), f"{record}{info}/RECORD,,\n")
        return path


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def lock_of(*wheels: Path) -> str:
    """The lock that names these very files."""
    return "".join(
        f"{name.replace('_', '-')}=={version} --hash=sha256:{digest}\n"
        for wheel in wheels
        for name, version, *_ in [wheel.name.split("-")]
        for digest in [hashlib.sha256(wheel.read_bytes()).hexdigest()]
    )
