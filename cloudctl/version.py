"""Which version this is. Apart, because finding out loads more than all of --help."""

from importlib.metadata import PackageNotFoundError, version


def installed() -> str:
    """Return the version that is installed; `dev` when it runs from the source."""
    try:
        return version("cloudapp")
    except PackageNotFoundError:
        return "dev"
