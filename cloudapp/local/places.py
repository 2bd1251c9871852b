"""Where things lie: the project, a product's state, and the short directory for its sockets."""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cloudapp.local.mounts import unmount_below

PROJECT = Path(__file__).resolve().parent.parent.parent
VAR = PROJECT / "var"


def short_name(path: Path) -> str:
    """Return eight hex digits that stand for this path, the same ones every time."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]


def run_dir_for(path: Path) -> Path:
    """Return the directory for the sockets that belong to `path`.

    A unix socket's path ends at 107 characters, so sockets cannot live deep inside a project.
    """
    name = f"cloudapp-{short_name(path)}"
    if os.geteuid() == 0:
        return Path("/run") / name
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / name
    return Path(tempfile.gettempdir()) / f"{name}-{os.geteuid()}"


@dataclass(frozen=True)
class Places:
    """One product's directories: `state` outlives it, `run` holds its sockets while it runs."""

    state: Path
    run: Path

    @classmethod
    def of(cls, state: Path) -> "Places":
        """Return the places of the product whose state lies in `state`."""
        state = state.resolve()
        return cls(state=state, run=run_dir_for(state))

    @property
    def logs(self) -> Path:
        return self.state / "log"

    @property
    def mail(self) -> Path:
        return self.state / "mail"

    @property
    def secrets(self) -> Path:
        return self.state / "secrets"

    def make(self) -> None:
        """Create the directories. The router's workers, another user, pass through `run`."""
        for path in (self.state, self.logs, self.mail):
            path.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(parents=True, exist_ok=True)
        self.run.chmod(0o711)
        # Named by their content, so all products of a clone may share them.
        wheels, shared = self.state / "wheels", VAR / "wheels"
        shared.mkdir(parents=True, exist_ok=True)
        if not wheels.exists():
            wheels.symlink_to(shared)

    def discard(self) -> None:
        """Delete all of it, also the sockets' directories, which are mounts of their own."""
        unmount_below(self.run)
        for path in (self.state, self.run):
            shutil.rmtree(path, ignore_errors=True)
