"""Mount and unmount tiny file systems in memory (Linux, root). Standard library only."""

import ctypes
import os
import re
import socket
import struct
from pathlib import Path

_NOSUID, _NODEV, _NOEXEC, _NOSYMFOLLOW = 2, 4, 8, 256  # the last one since Linux 5.10
_DETACH, _NOFOLLOW = 2, 8

_libc = ctypes.CDLL(None, use_errno=True)


def mount_tmpfs(path: Path, *, size: int, inodes: int, mode: int) -> None:
    """Mount an empty tmpfs of `size` bytes (whole pages) over a directory. Raises OSError.

    No symbolic link in it is followed by whoever comes through this mount.
    """
    options = f"size={size},nr_inodes={inodes},mode={mode:o}".encode()
    flags = _NOSUID | _NODEV | _NOEXEC | _NOSYMFOLLOW
    if _libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", flags, options):
        raise _error(path)


def unmount(path: Path) -> None:
    """Take away whatever is mounted there, also what is in use; nothing mounted is fine."""
    while _libc.umount2(os.fsencode(path), _DETACH | _NOFOLLOW) == 0:
        pass


def unmount_below(path: Path) -> None:
    """Take away everything that is mounted in a directory, so that it can be removed."""
    try:
        mounted = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return  # no Linux: nothing of ours is mounted
    points = {Path(_unescaped(line.split(" ")[4])) for line in mounted}
    for point in sorted(points, reverse=True):  # what lies deeper goes first
        if point.is_relative_to(path) and point != path:
            unmount(point)


def shares_mounts(server: Path) -> bool:
    """Whether the process that listens on a unix socket sees the mounts that we make.

    Raises OSError when nobody listens there.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server))
        said = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid = struct.unpack("3i", said)[0]
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    except OSError:  # it lives in another container or machine, where its number means nothing
        return False


def _unescaped(text: str) -> str:
    """Undo the kernel's octal escapes of blanks in a path."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _error(path: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(path))
