"""The directories on the host that hold the instances' sockets.

One directory per instance, named by its id. The container may write to its directory only while
it starts, to put its socket there; then the directory is sealed, so that it can neither fill the
host nor put another socket in its place. Nobody but the router and the worker gets past the
parent directory.

Sealing takes no right away from a file that is open already, nor from a directory that the
container made for itself. So each directory is a file system of its own, one page large, where
the worker may mount one and the engine sees it. A worker restart leaves it as it is; each start
of the container begins with an empty one.
"""

import grp
import logging
import os
import shutil
import stat
from pathlib import Path

from deploy import mounts
from deploy.engines.base import SOCKET_NAME, EngineRefused

logger = logging.getLogger(__name__)

OPEN = 0o777
SEALED = 0o755
# The least that there is: a socket takes up no room, and two names while it gets its own.
ROOM_BYTES = 4096
ROOM_INODES = 8


class SocketDirs:
    """The socket directories below one parent. Each method takes an instance id.

    `limited`: give each a tiny file system; root only, and the engine must see our mounts.
    """

    def __init__(self, parent: Path, router_group: str, *, limited: bool) -> None:
        self._parent = parent
        self._router_group = router_group
        self._limited = limited
        if not limited:
            logger.warning(
                "socket directories have no size limit of their own: the worker is not root, or "
                "not in the engine's mount namespace. Keep %s on a small file system.",
                parent,
            )

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
        path.mkdir(mode=SEALED, exist_ok=True)
        path.chmod(SEALED)

    def open(self, instance_id: str) -> None:
        """Let the container, which does not run, put its socket into an empty directory."""
        self.remove(instance_id)
        self.make(instance_id)
        path = self.path(instance_id)
        if self._limited:
            mounts.mount_tmpfs(path, size=ROOM_BYTES, inodes=ROOM_INODES, mode=OPEN)
        else:
            path.chmod(OPEN)

    def seal(self, instance_id: str) -> None:
        """Take the right to write away. Raises EngineRefused if no socket was put there.

        A symbolic link in its place would lead the router to any other socket of the host.
        """
        self.path(instance_id).chmod(SEALED)
        if not self.has_socket(instance_id):
            raise EngineRefused("what it put in the place of its socket is none")

    def has_socket(self, instance_id: str) -> bool:
        """Whether there is a socket, and not a link to one."""
        try:
            mode = self.path(instance_id).joinpath(SOCKET_NAME).lstat().st_mode
        except FileNotFoundError:
            return False
        return stat.S_ISSOCK(mode)

    def remove(self, instance_id: str) -> None:
        """Remove the directory and what is in it."""
        path = self.path(instance_id)
        if self._limited:
            mounts.unmount(path)
        shutil.rmtree(path, ignore_errors=True)

    def _make_parent(self) -> None:
        self._parent.mkdir(parents=True, exist_ok=True)
        if self._router_group and os.geteuid() == 0:
            os.chown(self._parent, 0, grp.getgrnam(self._router_group).gr_gid)
            self._parent.chmod(0o750)
        elif not self._router_group:
            self._parent.chmod(0o700)
