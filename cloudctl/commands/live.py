"""What happens in a workspace: its history and its log, also as they grow."""

import json
from typing import Annotated

import typer

from cloudctl.commands.params import AsJson, Slug
from cloudctl.output import seconds, when
from cloudctl.paths import Json, address
from cloudctl.session import Session
from cloudctl.stream import follow
from cloudctl.waiting import words_of

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what follows.")]


def events(
    slug: Slug,
    go_on: Follow = False,
    limit: Annotated[int, typer.Option(help="How many of the past.", min=1, max=200)] = 20,
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
    tail: Annotated[int, typer.Option(help="How many of the last lines.", min=0, max=200)] = 200,
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
    newest = ""
    for message in follow(here.api, path, {"tail": tail}):
        line = json.loads(message.data)
        # A stream that was taken up again begins with lines that were there; each has its time.
        time = line.partition(" ")[0]
        if time[:1].isdigit():
            if time <= newest:
                continue
            newest = time
        here.out.json_line({"line": line}) if as_json else here.out.line(line)
