"""What happens to a workspace, while it happens: waiting for a status, history and stream, logs."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from django.db import connection
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from ninja import Query, Router

from accounts import audit
from accounts.api_tokens import Scope
from deploy import logs, notify
from deploy.states import Status
from workspaces import events, history
from workspaces.api import pages, reach
from workspaces.api.callers import Caller, Needs, again, caller_of
from workspaces.api.problems import Problem, invalid
from workspaces.api.schema import SLUG, STREAM, may_refuse
from workspaces.api.shapes import EventOut, LogOut, Page, WorkspaceOut
from workspaces.api.waiting import HasLeft, Holds, a_place, is_so, look_for, why_never
from workspaces.api.workspace_routes import Cursor, Limit
from workspaces.models import Workspace

router = Router(tags=["live"])

MAX_WAIT = 300.0
# A stream says at least so often that it is there, and sees whether its caller still may.
HEARTBEAT_SECONDS = 15.0
BATCH = 200
LOG_SECONDS = 1.0


# --- waiting for a status ------------------------------------------------------------------------


@router.get(
    "/workspaces/{slug}/wait",
    response=WorkspaceOut,
    auth=Needs(Scope.READ),
    operation_id="wait_for_status",
    summary="Wait for a status",
    openapi_extra=may_refuse("not_found", "timeout", "never", "too_many_waiting"),
)
def wait(
    request: HttpRequest,
    slug: SLUG,
    status: Annotated[Status, Query(description="What to wait for.")],
    timeout: Annotated[
        float, Query(description="For how many seconds at most.", ge=0, le=MAX_WAIT)
    ] = 60.0,
) -> WorkspaceOut:
    """Return the workspace the moment it has this status, or say why it never will.

    `running` means that it answers, not merely that it was started.
    """
    caller = caller_of(request)
    found = reach.get(caller, slug, "see")

    mine = Workspace.objects.filter(pk=found.workspace.pk).select_related("instance")

    def settled() -> str:
        look_for(request)
        instance = mine.get().instance
        return _TRUE if is_so(instance, status) else why_never(instance, status)

    with a_place(caller):
        end = notify.wait_until(found.workspace.instance_id, settled, timeout, steps=False)
    reached = still(caller, found.workspace, "see")
    if end is None:
        words = f"It is not {status} after {timeout:g} s. Ask again to wait on."
        raise Problem("timeout", words)
    if end is not _TRUE:
        raise Problem("never", end)
    return WorkspaceOut.of(reached)


# What `settled` says when it is so; anything else is why it never will be.
_TRUE = "true"


# --- what happened -------------------------------------------------------------------------------


def shown(rows: list[dict[str, Any]], of: Workspace | None) -> list[EventOut]:
    """Return rows of `events.rows_of` as they come out of the API; one more query, for names.

    `of` as in history.names_of.
    """
    names = history.names_in(rows, of)
    return [
        EventOut(
            id=row["id"],
            at=row["at"],
            kind=row["what"],
            status=Status(row["status"]) if row["status"] else None,
            who=history.who_of(row, names),
            text=history.words_of(row),
            detail=row["more"],
            duration_ms=row["duration_ms"],
            failed=row["failed"],
        )
        for row in rows
    ]


@router.get(
    "/workspaces/{slug}/events",
    response=Page[EventOut],
    auth=Needs(Scope.READ),
    operation_id="list_events",
    summary="History, and what happens live",
    openapi_extra=may_refuse(
        "not_found",
        "too_many_waiting",
        stream={"$ref": "#/components/schemas/EventOut"},
        resumes=True,
    ),
)
def list_events(
    request: HttpRequest,
    slug: SLUG,
    cursor: Cursor = None,
    limit: Limit = pages.LIMIT,
    after: Annotated[
        int | None,
        Query(
            description="Only what came after the event with this id; as `Last-Event-ID` does.",
            ge=0,
            lt=2**63,
            examples=[1203],
        ),
    ] = None,
) -> Any:
    """What people did and what the instance did, newest first.

    With `Accept: text/event-stream` the same address streams what happens from now on, or from
    behind the event whose id `Last-Event-ID` (or `after`) names, and misses nothing in between.
    """
    caller = caller_of(request)
    found = reach.get(caller, slug, "read_activity")
    after = _last_seen(request, after)
    if wants_stream(request):
        return _stream_events(request, found.workspace, after)
    ids: dict[str, int] = {} if after is None else {"id__gt": after}
    if cursor:
        (ids["id__lt"],) = pages.read_cursor(cursor, pages.number)
    rows = events.newest(found.workspace, limit + 1, ids)
    more = pages.cursor_of(rows[limit - 1]["id"]) if len(rows) > limit else None
    return Page[EventOut](items=shown(rows[:limit], _told(caller, found.workspace)), next=more)


def _told(caller: Caller, workspace: Workspace) -> Workspace | None:
    """Return who is told names, as history.names_of takes it: members, or operators."""
    return None if caller.may("see_workspaces") else workspace


def _last_seen(request: HttpRequest, after: int | None) -> int | None:
    given = request.headers.get("Last-Event-ID", "")
    if not given:
        return after
    try:
        return pages.number(given)
    except ValueError as error:
        words = "It must be the id of an event."
        raise invalid("header.Last-Event-ID", words) from error


def wants_stream(request: HttpRequest) -> bool:
    """Whether the caller asked for a stream of events."""
    return STREAM in request.headers.get("Accept", "")


def _stream_events(
    request: HttpRequest, workspace: Workspace, after: int | None
) -> HttpResponseBase:
    caller = caller_of(request)
    if after is None:
        after = next((row["id"] for row in events.newest(workspace, 1)), 0)
    last = after
    of = _told(caller, workspace)

    def news() -> list[dict[str, Any]]:
        look_for(request)
        return events.following(workspace, last, BATCH)

    def wait(now: Workspace) -> list[str]:
        nonlocal last
        rows = notify.wait_until(now.instance_id, news, HEARTBEAT_SECONDS) or []
        last = rows[-1]["id"] if rows else last
        return [_message(event.model_dump_json(), str(event.id)) for event in shown(rows, of)]

    return _stream(caller, workspace, "read_activity", wait)


def still(caller: Caller, workspace: Workspace, ability: str) -> reach.Reached:
    """Return the workspace as it is now, if the caller still may do this to it. Raises Problem.

    Who waited may have lost the token, the role or the right meanwhile.
    """
    now = again(caller)
    row = reach.workspaces(now, gone=True).filter(pk=workspace.pk).first()
    if row is None:
        raise Problem("not_found")
    reached = reach.reached(now, row)
    if not reached.may(ability):
        raise Problem("role_too_low")
    return reached


# --- streams -------------------------------------------------------------------------------------


def _message(data: str, event_id: str = "", kind: str = "") -> str:
    head = (f"id: {event_id}\n" if event_id else "") + (f"event: {kind}\n" if kind else "")
    return f"{head}data: {data}\n\n"


def _stream(
    caller: Caller, workspace: Workspace, ability: str, wait: Callable[[Workspace], list[str]]
) -> HttpResponseBase:
    """Return a stream of what `wait` says; it says nothing now and then, to notice who left.

    Nothing goes out without another look at whether the caller still may have it.
    """
    holds = Holds(caller)
    holds.take()

    def messages() -> Iterator[str]:
        try:
            yield "retry: 2000\n\n"
            now = workspace
            while True:
                found = wait(now)
                now = still(caller, workspace, ability).workspace
                connection.close()  # between two looks it is others'
                yield "".join(found) if found else ": nothing new\n\n"
        except HasLeft:
            return
        except Problem as problem:
            yield _message(json.dumps(problem.body()), kind="end")
        finally:
            holds.give_back()

    response = _Closing(messages(), holds, content_type=STREAM)
    response["X-Accel-Buffering"] = "no"
    response["Cache-Control"] = "no-store"
    return response


class _Closing(StreamingHttpResponse):
    """Gives the place back also when nobody ever reads from it."""

    def __init__(self, messages: Iterator[str], holds: Holds, **more: Any) -> None:
        super().__init__(messages, **more)
        self._holds = holds

    def close(self) -> None:
        super().close()
        self._holds.give_back()


# --- logs ----------------------------------------------------------------------------------------


@router.get(
    "/workspaces/{slug}/logs",
    response=LogOut,
    auth=Needs(Scope.READ),
    operation_id="get_logs",
    summary="Logs: the last lines, or live",
    openapi_extra=may_refuse(
        "not_found",
        "role_too_low",
        "permission_missing",
        "too_many_waiting",
        stream={"type": "string"},
    ),
)
def get_logs(
    request: HttpRequest,
    slug: SLUG,
    tail: Annotated[
        int, Query(description="How many lines at most.", ge=0, le=logs.LINES)
    ] = logs.LINES,
) -> Any:
    """What the workspace's program wrote, oldest first; its secrets are taken out.

    With `Accept: text/event-stream` these lines and then each that follows, as `data`. Editors and
    owners may read them, and operators who may view log tails; the audit log says that these did.
    """
    caller = caller_of(request)
    found = reach.get(caller, slug, "read_logs")
    if not found.may_by_role("read_logs"):  # an operator: what customers' programs write is theirs
        audit.note(caller.user, "read_log", found.workspace, workspace=found.workspace.pk)
    if wants_stream(request):
        return _stream_log(request, found.workspace, tail)
    with a_place(caller):
        stored = logs.tail(found.workspace.instance_id)
    lines = stored.text.splitlines()[-tail:] if stored and tail else []
    return LogOut(lines=lines, fetched_at=stored.fetched_at if stored else None)


def _stream_log(request: HttpRequest, workspace: Workspace, tail: int) -> HttpResponseBase:
    caller = caller_of(request)
    follower = _Follower(tail)
    first = True

    def wait(now: Workspace) -> list[str]:
        nonlocal first
        if not first:
            connection.close()
            time.sleep(LOG_SECONDS)  # an engine says nothing by itself
        first = False
        look_for(request)
        stored = logs.tail(now.instance_id)
        lines = follower.new(stored.text.splitlines() if stored else [])
        return [_message(json.dumps(line)) for line in lines]

    return _stream(caller, workspace, "read_logs", wait)


class _Follower:
    """Tells new lines from those that were seen: each line begins with its time."""

    def __init__(self, tail: int) -> None:
        self._tail: int | None = tail
        self._seen: list[str] = []

    def new(self, lines: list[str]) -> list[str]:
        """Return what is new in the last lines of a log."""
        seen, self._seen = self._seen, lines
        if self._tail is not None:
            tail, self._tail = self._tail, None
            return lines[-tail:] if tail else []
        if not seen:
            return lines
        last = seen[-1]
        if last in lines:
            behind = len(lines) - 1 - lines[::-1].index(last)
            return lines[behind + 1 :]
        return [_GAP, *lines] if lines else []


_GAP = "… lines may be missing here"
