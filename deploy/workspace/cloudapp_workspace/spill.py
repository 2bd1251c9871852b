"""Where SQLite puts what does not fit into memory, such as the rows that it sorts.

Writes put it on the data volume, beside uploads: giving pages back takes as much as the database,
and a large index as much as itself. Reads get the small tmpfs and no more: everybody may read a
public workspace, and nobody's query fills the host's disk or keeps others from writing. One that
needs more ends with "database or disk is full", and nobody else feels it.

SQLite knows one directory for all, and goes on to the next one where it may not write: from TMPDIR
to /tmp. So we stand in for the system call that it asks by, and tell reads that they may not.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import threading
from pathlib import Path

_ACCESS = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
_SET_SYSTEM_CALL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, _ACCESS)
# What stands before it in sqlite3_vfs, version 3, besides three numbers: see sqlite3.h.
_POINTERS = (
    *("pNext", "zName", "pAppData", "xOpen", "xDelete", "xAccess", "xFullPathname", "xDlOpen"),
    *("xDlError", "xDlSym", "xDlClose", "xRandomness", "xSleep", "xCurrentTime"),
    *("xGetLastError", "xCurrentTimeInt64"),
)
_thread = threading.local()
# SQLite calls it for as long as the process lives.
_installed: list[ctypes._CFuncPtr] = []


class _FileSystem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("iVersion", "szOsFile", "mxPathname")),
        *((name, ctypes.c_void_p) for name in _POINTERS),
        ("xSetSystemCall", _SET_SYSTEM_CALL),
    )


def this_thread_writes() -> None:
    """Let what runs in this thread, now and later, put as much aside as it needs."""
    _thread.writes = True


def keep_reads_off(directory: Path) -> None:
    """Have threads that do not write put nothing into a directory. Raises OSError."""
    refused = os.fsencode(directory)

    def access(path: bytes, mode: int) -> int:
        if path == refused and not getattr(_thread, "writes", False):
            return -1
        return 0 if os.access(path, mode) else -1

    function = _ACCESS(access)
    # The very library that Python's sqlite3 uses, however it was linked.
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_FileSystem)
    found = library.sqlite3_vfs_find(None)
    if found.contents.iVersion < 3 or found.contents.xSetSystemCall(found, b"access", function):
        raise OSError("SQLite does not let us say where queries put what they sort")
    _installed.append(function)
