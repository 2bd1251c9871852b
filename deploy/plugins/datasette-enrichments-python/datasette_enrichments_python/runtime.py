"""The prepared WebAssembly runtime: what it is, where it is, how it is made.

It is two things: the interpreter as machine code with guest.py already run in it, and the standard
library that code in the sandbox may read. Making it takes 10 to 20 seconds and about 700 MB of
memory and needs no network; using it compiles and writes nothing.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
# Where the package lies: the first place to look, and where an image builder puts it.
BESIDE = HERE / "runtime"
VARIABLE = "DATASETTE_ENRICHMENTS_PYTHON_RUNTIME"
# pyeryx unpacks what it carries below the directory for temporary files.
UNPACKED = "eryx-embedded"
# An image is made on one machine and runs on others: no more than what all of them have.
CPU_FEATURES = {"x86_64": "x86-64-v2"}


def runtime_name() -> str:
    """The file name of the runtime that fits this pyeryx, this guest code and this machine."""
    guest = hashlib.sha256((HERE / "guest.py").read_bytes()).hexdigest()[:12]
    return f"runtime-{version('pyeryx')}-{guest}-{platform.machine()}.bin"


def environment(directory: Path) -> dict[str, str]:
    """All that a process with pyeryx gets to see of the environment."""
    found = {"TMPDIR": str(directory), "PATH": os.defpath}
    if level := CPU_FEATURES.get(platform.machine()):
        found["ERYX_CPU_FEATURES"] = level
    return found


def prepare(directory: Path) -> Path:
    """Make the runtime in this directory, if it is not there; return its path.

    Raises subprocess.CalledProcessError when pyeryx fails, OSError when nothing can be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / runtime_name()
    if not target.exists():
        command = [sys.executable, "-IB", __file__, str(directory), str(target)]
        subprocess.run(command, check=True, env=environment(directory))
    return target


def find(configured: Path | None = None) -> Path:
    """The prepared runtime, made now if nobody has made it. Blocks.

    It is looked for where the configuration says, where DATASETTE_ENRICHMENTS_PYTHON_RUNTIME says,
    beside this file, and in the user's cache. It is made in the first of these that somebody named,
    else in the cache. Raises RuntimeMissing.
    """
    places = list(_places(configured))
    for place in places:
        if (found := place / runtime_name()).exists():
            return found
    place = places[-1] if len(places) == 2 else places[0]
    try:
        return prepare(place)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeMissing(
            f"The Python runtime is not prepared, and could not be made in {place}. "
            "Run: python -m datasette_enrichments_python.bake"
        ) from error


class RuntimeMissing(Exception):
    """There is no prepared runtime; the text says what to do."""


def _places(configured: Path | None) -> Iterator[Path]:
    if configured:
        yield configured
    if named := os.environ.get(VARIABLE):
        yield Path(named)
    yield BESIDE
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    yield Path(cache, "datasette-enrichments-python")


def _compile(directory: Path, target: Path) -> None:
    """Runs in a process of its own, as pyeryx reads TMPDIR once and memory is given back."""
    # What this package needs lies where it lies itself, also while an image is put together.
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    import eryx  # noqa: PLC0415

    factory = eryx.SandboxFactory(setup_code=(HERE / "guest.py").read_text(), cache=False)
    with tempfile.NamedTemporaryFile(dir=directory, delete=False) as unfinished:
        pass
    factory.save(unfinished.name)
    # Loading insists on pyeryx's own runtime being there, and never opens it: ours takes its place.
    for unused in (directory / UNPACKED).glob("*.cwasm"):
        os.truncate(unused, 0)
    for path in [Path(unfinished.name), *(directory / UNPACKED).rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    Path(unfinished.name).replace(target)


if __name__ == "__main__":
    _compile(Path(sys.argv[1]), Path(sys.argv[2]))
