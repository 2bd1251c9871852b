"""Changing which plugins a workspace has, when others may do the same."""

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cloudctl.errors import Refused
from cloudctl.paths import Json, address

if TYPE_CHECKING:
    from cloudctl.api import Api

TRIES = 3


def change(api: "Api", slug: str, wanted_of: Callable[[set[str]], set[str]]) -> Json | None:
    """Ask for the set that `wanted_of` makes of the one that is on; return the change.

    None when that is on already. What somebody else changed meanwhile is looked at anew.
    Raises Refused.
    """
    for left in reversed(range(TRIES)):
        answer = api.send("GET", address("workspaces", slug))
        on = set(answer.json()["plugins"])
        wanted = wanted_of(set(on))
        if wanted == on:
            return None
        try:
            return _ask(api, slug, wanted, answer.headers.get("ETag", "*"))
        except Refused as refusal:
            if refusal.code == "change_under_way" and (same := _under_way(api, slug, wanted)):
                return same
            if refusal.code != "changed_meanwhile" or not left:
                raise
    raise AssertionError("the last try returns or raises")


def _ask(api: "Api", slug: str, wanted: set[str], seen: str) -> Json:
    answer = api.send(
        "PUT",
        address("workspaces", slug, "plugins"),
        {"plugins": sorted(wanted)},
        headers={"If-Match": seen},
    )
    # Only the number: what the server calls itself may not be the name by which we reach it.
    number = urlsplit(answer.headers["Location"]).path.rpartition("/")[2]
    return api.get(address("workspaces", slug, "changes", number))


def _under_way(api: "Api", slug: str, wanted: set[str]) -> Json | None:
    """Return the open change when it is for this very set: ours, perhaps, whose answer got lost."""
    newest: Json | None = api.get(address("workspaces", slug, "plugins"))["change"]
    if newest and newest["state"] == "open" and set(newest["plugins"]) == wanted:
        return newest
    return None
