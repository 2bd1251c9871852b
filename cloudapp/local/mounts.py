"""Clear away mounts that killed processes left, so that their directories can be deleted."""

import subprocess
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")


def unmount_below(directory: Path) -> None:
    """Unmount what is mounted at or below a directory, the innermost first.

    Lazily: whoever still holds on to one keeps it until they let go. What we may not unmount stays.
    """
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return
    # The fifth word is the mount point, with \040 for a space.
    points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]
    for point in reversed(points):
        if point.is_relative_to(directory):
            subprocess.run(["umount", "--lazy", str(point)], stderr=subprocess.DEVNULL, check=False)
