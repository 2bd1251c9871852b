"""What a workspace is made of: its plugins and its secrets."""

from collections.abc import Callable
from typing import Annotated

import typer

from cloudctl import plugin_sets, waiting
from cloudctl.commands.account import secret
from cloudctl.commands.params import TIMEOUT, AsJson, Slug, Timeout, Wait, group
from cloudctl.errors import WrongUsage
from cloudctl.output import Column
from cloudctl.paths import Json, address
from cloudctl.session import Session

plugins = group("Which plugins a workspace has: `cloudctl plugins SLUG` lists them.")
secrets = group("The secrets of a workspace. Nobody can read their values.")

Names = Annotated[list[str], typer.Argument(help="Names of plugins.", metavar="PLUGIN")]
SecretName = Annotated[str, typer.Argument(help="Such as OPENCAGE_KEY.", metavar="NAME")]


# --- plugins -------------------------------------------------------------------------------------


@plugins.command("list")
def list_plugins(slug: Slug, as_json: AsJson = False) -> None:
    """List the plugins that a workspace may have, and the newest change."""
    here = Session(as_json)
    found = here.api.get(address("workspaces", slug, "plugins"))
    if as_json:
        here.out.json(found)
        return
    columns = [Column("PLUGIN"), Column("ON"), Column("VERSION"), Column("WHAT IT DOES", True)]
    rows = [
        [p["name"], "on" if p["on"] else "", p["version"], p["summary"]] for p in found["items"]
    ]
    here.out.table(columns, rows)
    change = found["change"]
    if change and change["state"] != "done":
        here.out.note(
            f"Newest change: {change['state']} at {change['step']}. {change['error'] or ''}"
        )


def _change(
    slug: str, wanted_of: Callable[[set[str]], set[str]], wait: bool, timeout: float, as_json: bool
) -> None:
    here = Session(as_json)
    change = plugin_sets.change(here.api, slug, wanted_of)
    if wait and change is not None:
        change = waiting.for_change(here, slug, change, timeout)
    if as_json:
        here.out.json(change)
    elif change is None:
        here.out.line(f"{slug} has just these plugins already.")
    elif change["state"] == "done":
        here.out.line(f"{slug} has now: {', '.join(change['plugins']) or 'no plugins'}")
    else:
        here.out.line(f"{slug} is being changed; how far it is: cloudctl plugins list {slug}")


@plugins.command("set")
def set_plugins(
    slug: Slug,
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of plugins; none for none.", metavar="PLUGIN")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Have just these plugins on. Prints the change; null if there is nothing to change."""
    _change(slug, lambda _: set(names or []), wait, timeout, as_json)


@plugins.command("add")
def add_plugins(
    slug: Slug,
    names: Names,
    wait: Wait = False,
    timeout: Timeout = TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Switch these plugins on, beside those that are."""
    _change(slug, lambda on: on | set(names), wait, timeout, as_json)


@plugins.command("remove")
def remove_plugins(
    slug: Slug,
    names: Names,
    wait: Wait = False,
    timeout: Timeout = TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Switch these plugins off."""

    def without(on: set[str]) -> set[str]:
        if missing := sorted(set(names) - on):
            raise WrongUsage(f"{slug} does not have {', '.join(missing)} on.")
        return on - set(names)

    _change(slug, without, wait, timeout, as_json)


# --- secrets -------------------------------------------------------------------------------------


@secrets.command("list")
def list_secrets(slug: Slug, as_json: AsJson = False) -> None:
    """List the names of a workspace's secrets."""
    here = Session(as_json)
    found = list(here.api.pages(address("workspaces", slug, "secrets")))
    if as_json:
        here.out.json(found)
    elif found:
        rows = [[one["name"], ", ".join(one["used_by"])] for one in found]
        here.out.table([Column("NAME"), Column("USED BY", True)], rows)
    else:
        here.out.note("There are none.")


@secrets.command("set")
def set_secret(slug: Slug, name: SecretName, as_json: AsJson = False) -> None:
    """Set a secret. Its value is asked for, or read from stdin; what runs is made anew with it."""
    here = Session(as_json)
    value = secret(f"Value of {name}: ")
    answer = here.api.send("PUT", address("workspaces", slug, "secrets", name), {"value": value})
    workspace: Json = answer.json()
    if as_json:
        here.out.json(workspace)
    else:
        here.out.line(f"{name} is set.")


@secrets.command("remove")
def remove_secret(slug: Slug, name: SecretName, as_json: AsJson = False) -> None:
    """Remove a secret. What runs has it until the next start."""
    here = Session(as_json)
    here.api.send("DELETE", address("workspaces", slug, "secrets", name))
    if as_json:
        here.out.json({"removed": name})
    else:
        here.out.line(f"{name} is removed; what runs has it until: cloudctl restart {slug}")
