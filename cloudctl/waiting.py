"""Waiting for a status or for the end of a change, and showing how far it is.

What ends the waiting is the server's word alone. The events are for people: when their stream
cannot be had, the waiting goes on without them.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from cloudctl.config import API
from cloudctl.errors import Failure, Interrupted, TimedOut
from cloudctl.paths import Json, address
from cloudctl.patience import WAITING_PATIENCE
from cloudctl.progress import Progress
from cloudctl.session import Session
from cloudctl.stream import follow

if TYPE_CHECKING:
    from cloudctl.api import Api

# Long waits are asked for in pieces: what lies between may cut off what is silent for a minute.
PIECE_SECONDS = 45.0
# A change's steps are not among the events, so its row is looked at.
LOOK_SECONDS = 1.0

STEPS_TO = {"running": ("create", "start", "await_ready"), "stopped": ("stop",)}
CHANGE_STEPS = {
    "resolve": "Put the set together",
    "fetch": "Fetched the packages",
    "build": "Built the image",
    "check": "Tried it out",
    "switch": "Switched over",
}


@contextmanager
def goes_on(what: str, slug: str) -> Iterator[None]:
    """Have failures name the workspace, and Ctrl-C say that the server's work goes on.

    Raises Interrupted.
    """
    try:
        yield
    except Failure as failure:
        failure.instance = f"{API}{address('workspaces', slug)}"
        raise
    except KeyboardInterrupt:
        hint = f"See how far it is: cloudctl events {slug} -f"
        raise Interrupted(f"{what} goes on on the server.", hint) from None


# --- a status ------------------------------------------------------------------------------------


def newest_event(here: Session, slug: str) -> int | None:
    """Return where to begin to watch: behind what has happened so far. None with --json."""
    if here.out.as_json:
        return None
    found = here.api.get(address("workspaces", slug, "events"), limit=1)["items"]
    return found[0]["id"] if found else 0


def for_status(
    here: Session, slug: str, wanted: str, timeout: float, after: int | None = None
) -> Json:
    """Return the workspace once it has a status, and show the events behind `after` meanwhile.

    Raises Refused when it will never have it, TimedOut when not in so many seconds.
    """
    words = f"{slug}: waiting for {wanted}"
    steps = STEPS_TO.get(wanted, ())
    with goes_on("The work", slug), Progress(here.out, words, len(steps)) as progress:
        watching = (
            nullcontext() if here.out.as_json else _Watcher(here.api, slug, progress, steps, after)
        )
        with watching:
            return _in_pieces(here.api, slug, wanted, timeout)


def _in_pieces(api: "Api", slug: str, wanted: str, timeout: float) -> Json:
    deadline = time.monotonic() + timeout
    path = address("workspaces", slug, "wait")
    while True:
        piece = max(0.0, min(PIECE_SECONDS, deadline - time.monotonic()))
        params = {"status": wanted, "timeout": round(piece, 3)}
        try:
            found: Json = api.send("GET", path, params=params, patience=WAITING_PATIENCE).json()
            return found
        except TimedOut:
            if time.monotonic() >= deadline:
                raise TimedOut(
                    f"{slug} is not {wanted} after {timeout:g} s; the server goes on.",
                    f"Wait on: cloudctl wait {slug} --status {wanted}",
                ) from None


class _Watcher:
    """Shows what happens to a workspace, in a thread of its own; at the end, all that did."""

    def __init__(
        self, api: "Api", slug: str, progress: Progress, steps: Sequence[str], after: int | None
    ) -> None:
        self._api = api
        self._path = address("workspaces", slug, "events")
        self._progress = progress
        self._steps = steps
        self._done = 0
        self._last = after
        self._lock = threading.Lock()
        self._left = False

    def __enter__(self) -> None:
        threading.Thread(target=self._follow, daemon=True).start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            self._left = True
        # What ended the waiting may be known before the stream has told how it came about.
        if self._last is not None and (kind is None or issubclass(kind, Failure)):
            with suppress(Failure):
                late = self._api.get(self._path, after=self._last, limit=50)["items"]
                for event in reversed(late):
                    self._show(event)

    def _follow(self) -> None:
        after = "" if self._last is None else str(self._last)
        with suppress(Failure):
            for message in follow(self._api, self._path, last_id=after):
                with self._lock:
                    if self._left:
                        return
                    self._show(json.loads(message.data))

    def _show(self, event: Json) -> None:
        if self._last is not None and event["id"] <= self._last:
            return
        self._last = event["id"]
        self._progress.step(words_of(event), event["duration_ms"], failed=event["failed"])
        # What comes before a step is done as well: one that was stopped needs no new container.
        if event["kind"] in self._steps and not event["failed"]:
            self._done = self._steps.index(event["kind"]) + 1
        self._progress.now(words_of(event), self._done)


def words_of(event: Json) -> str:
    """Return what an event says to people."""
    text = f"{event['who']} {event['text']}" if event["who"] else event["text"]
    return f"{text}: {event['detail']}" if event["detail"] else text


# --- a change ------------------------------------------------------------------------------------


def for_change(here: Session, slug: str, change: Json, timeout: float) -> Json:
    """Return a change of the plugins once it is done, and show its steps meanwhile.

    Raises Failure when it came to nothing, TimedOut when it is not over in so many seconds.
    """
    deadline = time.monotonic() + timeout
    words = f"{slug}: changing plugins"
    with goes_on("The change", slug), Progress(here.out, words, len(CHANGE_STEPS)) as progress:
        shown: set[str] = set()
        while True:
            _show_steps(progress, change, shown)
            if change["state"] != "open":
                return _good(change, slug)
            if time.monotonic() >= deadline:
                raise TimedOut(
                    f"The change is not over after {timeout:g} s; the server goes on.",
                    f"How far it is: cloudctl plugins list {slug}",
                )
            change = _change_later(here, slug, change["id"], deadline - time.monotonic())


def _change_later(here: Session, slug: str, number: int, left: float) -> Json:
    """Return the change when it is over, or as it is after a while."""
    path = address("workspaces", slug, "changes", number)
    piece = max(0.0, min(PIECE_SECONDS if here.out.as_json else LOOK_SECONDS, left))
    params = {"timeout": round(piece, 3)}
    try:
        answer = here.api.send("GET", f"{path}/wait", params=params, patience=WAITING_PATIENCE)
        found: Json = answer.json()
        return found
    except TimedOut:
        return here.api.get(path)


def _show_steps(progress: Progress, change: Json, shown: set[str]) -> None:
    durations: dict[str, Any] = change["durations"]
    for step, words in CHANGE_STEPS.items():
        if step in durations and step not in shown:
            shown.add(step)
            progress.step(words, durations[step])
    if change["state"] == "open":
        progress.now(f"under way: {change['step']}", len(shown))


def _good(change: Json, slug: str) -> Json:
    if change["state"] == "done":
        return change
    reason = change["error"] or f"It ended as: {change['state']}."
    hint = f"Nothing was lost: {slug} has the plugins that it had."
    raise Failure(f"The change failed at the step {change['step']}. {reason}", hint)
