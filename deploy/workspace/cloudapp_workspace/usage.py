"""What this instance uses: counters since its start, and what it holds now."""

from __future__ import annotations

import os
import resource
import time
import uuid
from pathlib import Path
from typing import Any

from cloudapp_workspace.activity import Activity
from cloudapp_workspace.disk import Disk

PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage:
    """Counts from when it is made: one for each process, with a name of its own."""

    def __init__(self, activity: Activity, disk: Disk) -> None:
        self._activity = activity
        self._disk = disk
        self._run = uuid.uuid4().hex
        self._began = time.monotonic()

    def told(self) -> dict[str, Any]:
        """The part of the health that says it; the shape is part of the contract (README.md)."""
        return {
            "run": self._run,
            "up_seconds": round(time.monotonic() - self._began, 3),
            "cpu_seconds": round(_cpu_seconds(), 3),
            "requests": self._activity.requests,
            "memory_bytes": _memory_bytes(),
            "disk_bytes": self._disk.used(),
        }


def _cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def _memory_bytes() -> int:
    """What all processes here hold in memory. Nobody else's are seen in a container."""
    total = 0
    for process in Path("/proc").glob("[0-9]*/statm"):
        try:
            total += int(process.read_text().split()[1]) * PAGE
        except (OSError, ValueError, IndexError):  # it has just ended
            continue
    return total
