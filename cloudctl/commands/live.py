"""What happens in a workspace: its history and its log, also as they grow."""

import json
from collections.abc import Iterator
from typing import Annotated

import typer

from cloudctl.commands.params import AsJson, Slug
from cloudctl.output import seconds, when
from cloudctl.paths import Json, address
from cloudctl.session import Session
from cloudctl.stream import follow
from cloudctl.waiting import words_of

MAX_TAIL = 200
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what follows.")]


def events(
    slug: Slug,
    go_on: Follow = False,
    limit: Annotated[
        int, typer.Option(metavar="N", help="How many of the past.", min=1, max=200)
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what happened to a workspace, oldest first."""
    here = Session(as_json)
    path = address("workspaces", slug, "events")
    past = here.api.get(path, limit=limit)["items"][::-1]
    if as_json and not go_on:
        here.out.json(past)
        return
    for event in past:
        _print_event(here, event)
    if go_on:
        last = past[-1]["id"] if past else 0
        for message in follow(here.api, path, last_id=str(last)):
            _print_event(here, json.loads(message.data))


def _print_event(here: Session, event: Json) -> None:
    if here.out.as_json:
        here.out.json_line(event)
        return
    took = seconds(event["duration_ms"])
    words = f"{when(event['at'], precise=True)}  {words_of(event)}{'  ' if took else ''}{took}"
    here.out.line(words, "red" if event["failed"] else "")


def logs(
    slug: Slug,
    go_on: Follow = False,
    tail: Annotated[
        int, typer.Option(metavar="N", help="How many of the last lines.", min=0, max=MAX_TAIL)
    ] = MAX_TAIL,
    as_json: AsJson = False,
) -> None:
    """Show what a workspace's program wrote, oldest first. For editors and owners."""
    here = Session(as_json)
    path = address("workspaces", slug, "logs")
    if not go_on:
        found = here.api.get(path, tail=tail)
        if as_json:
            here.out.json(found)
        for line in [] if as_json else found["lines"]:
            here.out.line(line)
        return
    for line in _new_lines(here, path, tail):
        if as_json:
            here.out.json_line({"line": line})
        else:
            here.out.line(line)


def _new_lines(here: Session, path: str, tail: int) -> Iterator[str]:
    """Return lines as they come, each once.

    A stream that was taken up again begins with some that were there. Each begins with its time.
    """
    newest = ""
    for message in follow(here.api, path, {"tail": tail}, again={"tail": MAX_TAIL}):
        line = json.loads(message.data)
        time = line.partition(" ")[0]
        if time[:1].isdigit():
            if time <= newest:
                continue
            newest = time
        yield line
