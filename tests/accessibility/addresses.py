"""Every address that the URLs know by a name."""

from collections.abc import Iterable, Iterator
from typing import Any

from django.urls import URLResolver


def named(patterns: Iterable[Any], before: str = "", space: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and the route of every address that has a name, but those of the API."""
    for entry in patterns:
        route = before + str(entry.pattern)
        if isinstance(entry, URLResolver):
            inner = f"{space}{entry.namespace}:" if entry.namespace else space
            yield from named(entry.url_patterns, route, inner)
        elif entry.name and (not route.startswith("api/v1/") or entry.name == "api_docs"):
            yield space + entry.name, route
