"""Prepare the runtime ahead of time:

    python -m datasette_enrichments_python.bake [DIRECTORY]

Without DIRECTORY it goes beside this package, where the plugin looks by itself. Elsewhere, name the
directory in DATASETTE_ENRICHMENTS_PYTHON_RUNTIME or in the plugin's configuration (`runtime`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from datasette_enrichments_python import runtime


def image_build() -> None:
    """For whoever builds an image with this package in it."""
    print(f"prepared {runtime.prepare(runtime.BESIDE).name}")


if __name__ == "__main__":
    print(runtime.prepare(Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else runtime.BESIDE))
