"""Arguments and options that several commands take, and what commands are made of."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cloudctl.errors import WrongUsage

SLUG_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def checked_slug(text: str) -> str:
    """Return a slug that can be one. Raises WrongUsage: it becomes part of an address."""
    if not text or not set(text) <= SLUG_LETTERS:
        raise WrongUsage(f"{text!r} is no slug: they have only a-z, 0-9 and hyphens.")
    return text


Slug = Annotated[
    str, typer.Argument(help="The workspace's slug.", metavar="SLUG", callback=checked_slug)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and problems as JSON on stderr.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for the end, and show what happens.")
]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="How long to wait at most.", min=0, max=86400)
]
TIMEOUT = 600.0


class _ListFirst(TyperGroup):
    """A group in which `list` may be left out: `cloudctl plugins trees`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `list` in front of what is no command of the group."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def group(words: str) -> typer.Typer:
    """Return a group of commands."""
    return typer.Typer(help=words, cls=_ListFirst, no_args_is_help=True, rich_markup_mode=None)
