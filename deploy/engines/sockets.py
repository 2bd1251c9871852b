"""The directories on the host that hold the instances' sockets.

One directory per instance, named by its id. The container may write to its directory only while
it starts, to put its socket there; then the directory is sealed, so that it can neither fill the
host nor put another socket in its place. Nobody but the router and the worker gets past the
parent directory.
"""

import grp
import os
import shutil
from pathlib import Path

from deploy.engines.base import SOCKET_NAME

OPEN = 0o777
SEALED = 0o755


class SocketDirs:
    """The socket directories below one parent. Each method takes an instance id."""

    def __init__(self, parent: Path, router_group: str) -> None:
        self._parent = parent
        self._router_group = router_group

    def path(self, instance_id: str) -> Path:
        """Return the instance's directory on the host."""
        return self._parent / instance_id

    def endpoint(self, instance_id: str) -> str:
        """Return where the instance listens, as an endpoint value."""
        return f"unix:{self.path(instance_id) / SOCKET_NAME}"

    def make(self, instance_id: str) -> None:
        """Make the directory; the container cannot write there yet."""
        self._make_parent()
        path = self.path(instance_id)
        path.mkdir(exist_ok=True)
        path.chmod(SEALED)

    def open(self, instance_id: str) -> None:
        """Let the container put its socket there; what it left last time goes."""
        self.make(instance_id)
        path = self.path(instance_id)
        path.joinpath(SOCKET_NAME).unlink(missing_ok=True)
        path.chmod(OPEN)

    def seal(self, instance_id: str) -> None:
        """Take the right to write away."""
        path = self.path(instance_id)
        if path.is_dir():
            path.chmod(SEALED)

    def remove(self, instance_id: str) -> None:
        """Remove the directory and what is in it."""
        shutil.rmtree(self.path(instance_id), ignore_errors=True)

    def _make_parent(self) -> None:
        self._parent.mkdir(parents=True, exist_ok=True)
        if self._router_group and os.geteuid() == 0:
            os.chown(self._parent, 0, grp.getgrnam(self._router_group).gr_gid)
            self._parent.chmod(0o750)
        elif not self._router_group:
            self._parent.chmod(0o700)
