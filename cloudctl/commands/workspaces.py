"""Workspaces: list, make, look at, start, stop, rename, delete, bring back."""

import sys
import webbrowser
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from cloudctl import plugin_sets, waiting
from cloudctl.commands.params import TIMEOUT, AsJson, Slug, Timeout, Wait
from cloudctl.errors import Failure, WrongUsage
from cloudctl.output import Column, when
from cloudctl.paths import Json, address
from cloudctl.session import Session


class Status(StrEnum):
    """What a workspace can be."""

    PROVISIONING = "provisioning"
    RUNNING = "running"
    SLEEPING = "sleeping"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


STATUSES = ", ".join(Status)


# --- looking -------------------------------------------------------------------------------------


def list_(
    status: Annotated[
        list[Status] | None,
        typer.Option(
            metavar="STATUS", help=f"Only those that are this; may be repeated. One of: {STATUSES}."
        ),
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only those with this in slug or name.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List your workspaces, newest first."""
    here = Session(as_json)
    wanted = [one.value for one in status or []]
    found = list(here.api.pages("/workspaces", status=wanted, q=search))
    if as_json:
        here.out.json(found)
        return
    if not found:
        here.out.note("There are none. Make one: cloudctl create NAME --wait")
        return
    columns = [Column("SLUG"), Column("STATUS"), Column("NAME", True), Column("CREATED")]
    rows = [[one["slug"], one["status"], one["name"], when(one["created_at"])] for one in found]
    here.out.table(columns, rows)


def show(slug: Slug, as_json: AsJson = False) -> None:
    """Show everything about a workspace."""
    here = Session(as_json)
    _print(here, here.api.get(address("workspaces", slug)))


def _print(here: Session, workspace: Json) -> None:
    if here.out.as_json:
        here.out.json(workspace)
        return
    metadata = [f"{name}={value}" for name, value in sorted(workspace["metadata"].items())]
    here.out.block(
        [
            ("slug", workspace["slug"]),
            ("name", workspace["name"]),
            ("status", workspace["status"]),
            ("url", workspace["url"]),
            ("role", workspace["role"] or ""),
            ("plan", workspace["plan"]),
            ("datasette", workspace["release"]),
            ("plugins", ", ".join(workspace["plugins"])),
            ("metadata", ", ".join(metadata)),
            ("error", workspace["error"] or ""),
            ("created", when(workspace["created_at"])),
            ("last used", when(workspace["last_used_at"])),
            ("deleted", when(workspace["deleted_at"])),
            ("data kept until", when(workspace["purge_at"])),
        ]
    )


def open_(
    slug: Slug,
    only_print: Annotated[bool, typer.Option("--print", help="Print the address only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Open a workspace in the browser."""
    here = Session(as_json)
    url = here.api.get(address("workspaces", slug))["url"]
    # A browser is another program, and opens more than web pages.
    if not url.startswith(("https://", "http://")):
        raise Failure(f"The server gave an address that is none of the web: {url!r}.")
    opened = not only_print and webbrowser.open(url)
    if as_json:
        here.out.json({"url": url, "opened": opened})
        return
    here.out.line(url)
    if not only_print and not opened:
        here.out.note("No browser could be started; open the address above yourself.")


# --- making --------------------------------------------------------------------------------------


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise WrongUsage(f"{text!r} is no metadata: write it as name=value.")
        pairs[name] = value
    return pairs


def create(  # noqa: PLR0917 - each is an option
    name: Annotated[str, typer.Argument(help="What people call it.", metavar="NAME")],
    slug: Annotated[
        str | None,
        typer.Option(
            metavar="SLUG", help="What its address is made of; left out, it follows from the name."
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A note for yourself; may be repeated."),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="PLUGIN", help="A plugin to switch on; may be repeated."),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Make a workspace, and watch it come up with --wait."""
    here = Session(as_json)
    wanted: Json = {"name": name, "metadata": _pairs(metadata or [])}
    if slug is not None:
        wanted["slug"] = slug
    made = here.api.post("/workspaces", wanted)
    slug = str(made["slug"])
    if wait:
        made = waiting.for_status(here, slug, "running", timeout, after=0)
    if plugin:
        made = _with_plugins(here, slug, plugin, timeout if wait else None)
    _tell(here, made)


def _with_plugins(here: Session, slug: str, names: list[str], timeout: float | None) -> Json:
    try:
        change = plugin_sets.change(here.api, slug, lambda on: on | set(names))
    except Failure as failure:
        failure.hint = f"The workspace {slug} is there, without the plugins. {failure.hint}".strip()
        raise
    if timeout is not None and change is not None:
        waiting.for_change(here, slug, change, timeout)
    return here.api.get(address("workspaces", slug))


def _tell(here: Session, workspace: Json) -> None:
    """Say how a workspace is, in one line."""
    if here.out.as_json:
        here.out.json(workspace)
        return
    here.out.line(f"{workspace['slug']} is {workspace['status']}: {workspace['url']}")


# --- deeds ---------------------------------------------------------------------------------------


def _deed(name: str, becomes: str, words: str) -> Callable[..., None]:
    """Return the command of something that the API does by one POST."""

    def command(
        slug: Slug, wait: Wait = False, timeout: Timeout = TIMEOUT, as_json: AsJson = False
    ) -> None:
        here = Session(as_json)
        before = waiting.newest_event(here, slug) if wait else None
        found = here.api.post(address("workspaces", slug, name))
        if wait:
            found = waiting.for_status(here, slug, becomes, timeout, before)
        _tell(here, found)

    command.__doc__ = words
    return command


start = _deed("start", "running", "Start a workspace, or try again now if it failed.")
stop = _deed("stop", "stopped", "Stop a workspace, so that no request wakes it.")
restart = _deed("restart", "running", "Replace the container by a fresh one; the data stays.")
wake = _deed("wake", "running", "Wake a workspace that sleeps.")
undelete = _deed(
    "undelete", "running", "Bring a deleted workspace back, data and address included."
)


def wait(
    slug: Slug,
    status: Annotated[
        Status, typer.Option(metavar="STATUS", help=f"What to wait for: {STATUSES}.")
    ] = Status.RUNNING,
    timeout: Timeout = TIMEOUT,
    as_json: AsJson = False,
) -> None:
    """Wait until a workspace has a status; fails at once when it never will."""
    here = Session(as_json)
    _tell(here, waiting.for_status(here, slug, status.value, timeout))


def rename(
    slug: Slug,
    name: Annotated[str, typer.Argument(help="What people shall call it.", metavar="NAME")],
    as_json: AsJson = False,
) -> None:
    """Give a workspace another name; its address stays."""
    here = Session(as_json)
    found: Json = here.api.send("PATCH", address("workspaces", slug), {"name": name}).json()
    if as_json:
        here.out.json(found)
    else:
        here.out.line(f"{found['slug']} is called “{found['name']}” now.")


def delete(
    slug: Slug,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a workspace. Its data is kept for a while, and `undelete` brings it back."""
    here = Session(as_json)
    if not yes:
        _ask(here, slug)
    found: Any = here.api.send("DELETE", address("workspaces", slug))
    workspace = found.json() if found.content else here.api.get(address("workspaces", slug))
    if as_json:
        here.out.json(workspace)
        return
    here.out.line(f"{slug} is deleted; its data is kept until {when(workspace['purge_at'])}.")
    here.out.note(f"Bring it back: cloudctl undelete {slug}")


def _ask(here: Session, slug: str) -> None:
    """Have the slug typed. Raises WrongUsage for anything else."""
    if here.out.as_json:
        raise WrongUsage("With --json nobody is asked.", "Say --yes if you mean it.")
    print(f"Type {slug} to delete it: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != slug:
        raise WrongUsage("Nothing was deleted: that was not its slug.", "Without asking: --yes")
