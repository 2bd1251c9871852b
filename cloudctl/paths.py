"""Addresses inside the API, and what comes from there."""

from typing import Any
from urllib.parse import quote

from cloudctl.errors import WrongUsage

Json = dict[str, Any]


def address(*parts: str | int) -> str:
    """Return a path of the API. Raises WrongUsage for a part that would lead elsewhere."""
    for part in parts:
        if str(part) in ("", ".", ".."):
            raise WrongUsage(f"{part!r} is no name of anything.")
    return "".join(f"/{quote(str(part), safe='')}" for part in parts)
