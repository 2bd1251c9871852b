"""What our own plugins prepare when an image is made (its Dockerfile runs this; nobody else does).

A plugin says so with an entry point of the group `cloudapp.image_build`: a function without
arguments. Only ours are asked. Other people's packages are unpacked at a build, never run.
"""

from __future__ import annotations

import sys
from importlib.metadata import distributions

GROUP = "cloudapp.image_build"
OURS = ("datasette-enrichments-python",)


def main() -> None:
    """For the packages in the directory that it is called with.

    Raises whatever a plugin raises, which ends the build.
    """
    site = sys.argv[1]
    # It may be another one than our own. Appended like this, no .pth file in it is read.
    sys.path.append(site)
    for distribution in sorted(distributions(path=[site]), key=lambda found: found.name):
        if distribution.name in OURS:
            for entry_point in distribution.entry_points.select(group=GROUP):
                entry_point.load()()


if __name__ == "__main__":
    main()
