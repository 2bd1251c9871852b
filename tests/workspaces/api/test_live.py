"""Waiting, streams and logs, over real connections to a real server."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts import api_tokens
from accounts.models import User
from deploy import lifecycle
from deploy.models import Instance, InstanceEvent, LogTail
from deploy.states import Observed, Status, StopReason
from tests import factories
from tests.workspaces.api.conftest import EVERYTHING, api_of, code_of
from workspaces import events, services
from workspaces.api import live_routes, waiting
from workspaces.models import Member, Role, Workspace

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("ready")]

# Longer than any request waits by itself.
SECONDS = 90


@pytest.fixture
def http(live_server: LiveServer, owner: User) -> Iterator[httpx.Client]:
    """The owner's client, over HTTP."""
    _, text = api_tokens.create(owner, "test", EVERYTHING)
    headers = {"Authorization": f"Bearer {text}"}
    base = f"{live_server.url}/api/v1"
    with httpx.Client(base_url=base, headers=headers, timeout=SECONDS) as client:
        yield client


def become_ready(instance: Instance) -> None:
    """What a worker writes when it answered, with its notification."""
    Instance.objects.filter(pk=instance.pk).update(
        observed=Observed.RUNNING,
        observed_generation=F("generation"),
        ready=True,
        ready_at=timezone.now(),
    )
    lifecycle.record_claimed(instance)  # any event tells


def see_one_wait() -> None:
    """Return when a request has its place among those who wait; the server is a thread of ours."""
    deadline = time.monotonic() + SECONDS
    while not waiting._waiting:
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.01)


@contextmanager
def meanwhile(*calls: object) -> Iterator[None]:
    """Do these beside the block, and see them end."""
    threads = [threading.Thread(target=call) for call in calls]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(SECONDS)


# --- waiting -------------------------------------------------------------------------------------


def test_it_returns_the_moment_it_is_true(http: httpx.Client, owner: User) -> None:
    workspace = services.create_workspace(owner, "Trees", "trees")
    answers: list[httpx.Response] = []
    wait = "/workspaces/trees/wait?status=running&timeout=30"
    with meanwhile(lambda: answers.append(http.get(wait))):
        see_one_wait()
        assert not answers
        become_ready(workspace.instance)
    (answer,) = answers
    assert answer.status_code == 200
    assert answer.json()["status"] == "running"
    assert http.get(wait).json()["status"] == "running"


def test_it_says_so_when_time_is_up(http: httpx.Client, owner: User) -> None:
    services.create_workspace(owner, "Trees", "trees")
    answer = http.get("/workspaces/trees/wait?status=running&timeout=0.1")
    assert (answer.status_code, answer.json()["code"]) == (408, "timeout")


@pytest.mark.parametrize(
    ("status", "wanted", "words"),
    [
        (Status.STOPPED, "running", "/start"),
        (Status.SLEEPING, "running", "/wake"),
        (Status.SUSPENDED, "running", "operators"),
        (Status.FAILED, "running", "ran out of memory"),
        (Status.DELETING, "running", "/undelete"),
        (Status.RUNNING, "stopped", "/stop"),
        (Status.RUNNING, "deleted", "DELETE"),
        (Status.STOPPED, "sleeping", "/start"),
        (Status.RUNNING, "suspended", "suspended"),
    ],
)
def test_it_says_why_it_never_will(
    http: httpx.Client, owner: User, status: Status, wanted: str, words: str
) -> None:
    factories.make_workspace(owner, "trees", status=status)
    began = time.monotonic()
    answer = http.get(f"/workspaces/trees/wait?status={wanted}&timeout=60")
    assert (answer.status_code, answer.json()["code"]) == (409, "never")
    assert words in answer.json()["detail"]
    assert time.monotonic() - began < 30


def test_what_is_about_to_stop_is_not_waited_for(http: httpx.Client, owner: User) -> None:
    """It says `running` until it is stopped, but whoever wants it running waits in vain."""
    workspace = factories.make_workspace(owner, "trees")
    services.stop(workspace, owner)
    assert http.get("/workspaces/trees").json()["status"] == "running"
    answer = http.get("/workspaces/trees/wait?status=running")
    assert answer.json()["code"] == "never"
    short = http.get("/workspaces/trees/wait?status=stopped&timeout=0")
    assert short.json()["code"] == "timeout"


def test_waiting_ends_when_the_hope_ends(http: httpx.Client, owner: User) -> None:
    workspace = services.create_workspace(owner, "Trees", "trees")
    answers: list[httpx.Response] = []
    wait = "/workspaces/trees/wait?status=running&timeout=30"
    with meanwhile(lambda: answers.append(http.get(wait))):
        see_one_wait()
        lifecycle.want_stopped(workspace.instance_id, StopReason.OWNER)
    assert answers[0].json()["code"] == "never"


def test_deleted_is_waited_for_until_the_data_is_gone(http: httpx.Client, owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees", status=Status.DELETING)
    answers: list[httpx.Response] = []
    wait = "/workspaces/trees/wait?status=deleted&timeout=30"
    with meanwhile(lambda: answers.append(http.get(wait))):
        see_one_wait()
        factories.set_status(workspace.instance, Status.DELETED)
        services.release_purged()
        lifecycle.record_claimed(workspace.instance)
    assert answers[0].json()["status"] == "deleted"
    assert http.get("/workspaces/trees").status_code == 404


def test_so_many_wait_and_no_more(http: httpx.Client, owner: User, settings: Settings) -> None:
    settings.API_HOLDS_PER_USER = 1
    workspace = services.create_workspace(owner, "Trees", "trees")
    wait = "/workspaces/trees/wait?status=running&timeout=30"
    answers: list[httpx.Response] = []
    with meanwhile(lambda: answers.append(http.get(wait))):
        see_one_wait()
        second = http.get("/workspaces/trees/wait?status=running&timeout=0")
        assert (second.status_code, second.json()["code"]) == (503, "too_many_waiting")
        assert second.headers["Retry-After"]
        assert http.get("/workspaces/trees").status_code == 200
        # Another token of the same person is no other person; and logs take a place as well.
        another = api_of(owner)
        third = another.get("/workspaces/trees/wait?status=running&timeout=0")
        assert code_of(third) == "too_many_waiting"
        assert code_of(another.get("/workspaces/trees/logs")) == "too_many_waiting"
        become_ready(workspace.instance)
    assert answers[0].status_code == 200
    assert http.get(wait).status_code == 200


# --- events --------------------------------------------------------------------------------------


def test_history_has_parts_and_no_gaps(http: httpx.Client, owner: User) -> None:
    workspace = services.create_workspace(owner, "Trees", "trees")
    for number in range(7):
        services.rename(workspace, owner, f"Trees {number}")
    everything = http.get("/workspaces/trees/events?limit=200").json()
    assert everything["next"] is None
    ids = [item["id"] for item in everything["items"]]
    assert ids == sorted(ids, reverse=True)
    kinds = [item["kind"] for item in everything["items"]]
    assert kinds == ["renamed"] * 7 + ["created", "create_requested"]
    assert everything["items"][0]["who"] == "Ada"
    assert everything["items"][-1]["status"] == "provisioning"
    found, cursor = [], ""
    while cursor is not None:
        part = http.get("/workspaces/trees/events", params={"limit": 2, "cursor": cursor}).json()
        found += [item["id"] for item in part["items"]]
        cursor = part["next"]
    assert found == ids
    newer = http.get(f"/workspaces/trees/events?after={ids[3]}").json()["items"]
    assert [item["id"] for item in newer] == ids[:3]


def read(lines: Iterator[str], events: int) -> list[dict[str, object]]:
    """Read so many events from a stream; the id of each is that of its data."""
    found: list[dict[str, object]] = []
    last = ""
    while len(found) < events:
        line = next(lines)
        if line.startswith("id: "):
            last = line[4:]
        elif line.startswith("data: "):
            found.append(json.loads(line[6:]))
            assert str(found[-1]["id"]) == last
    return found


SSE = {"Accept": "text/event-stream"}


def test_a_stream_tells_at_once_and_goes_on_where_it_was_broken(
    http: httpx.Client, owner: User
) -> None:
    workspace = services.create_workspace(owner, "Trees", "trees")
    address = "/workspaces/trees/events"
    with http.stream("GET", address, headers=SSE) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        services.rename(workspace, owner, "Oaks")
        (seen,) = read(lines, 1)
        assert (seen["kind"], seen["detail"]) == ("renamed", "from “Trees” to “Oaks”")
    services.rename(workspace, owner, "Elms")  # while nobody listens
    services.stop(workspace, owner)
    again = SSE | {"Last-Event-ID": str(seen["id"])}
    with http.stream("GET", address, headers=again) as stream:
        lines = stream.iter_lines()
        kinds = [event["kind"] for event in read(lines, 3)]
        assert kinds == ["renamed", "stop_owner", "stopped"]
        services.start(workspace, owner)
        assert [event["kind"] for event in read(lines, 2)] == ["want_running", "started"]
    bad = http.get(address, headers=SSE | {"Last-Event-ID": "x"})
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid")


def test_nothing_is_missed_while_many_write_at_once(http: httpx.Client, owner: User) -> None:
    """Ids become visible in their order, so the last one that was seen is enough to go on from."""
    workspace = services.create_workspace(owner, "Trees", "trees")
    names = [f"Trees {number}" for number in range(40)]

    def rename(mine: list[str]) -> None:
        for name in mine:
            services.rename(Workspace.objects.get(pk=workspace.pk), owner, name)

    renaming = meanwhile(*(partial(rename, names[part::4]) for part in range(4)))
    with http.stream("GET", "/workspaces/trees/events?after=0", headers=SSE) as stream, renaming:
        told = read(stream.iter_lines(), 42)
    ids = [int(str(event["id"])) for event in told]
    assert ids == sorted(set(ids))
    assert {str(e["detail"]).split("to ")[-1].strip("“”") for e in told[2:]} == set(names)


def test_a_stream_ends_when_the_token_does(
    http: httpx.Client, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_routes, "HEARTBEAT_SECONDS", 0.2)
    services.create_workspace(owner, "Trees", "trees")
    with http.stream("GET", "/workspaces/trees/events", headers=SSE) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        for token in api_tokens.good(owner):
            api_tokens.revoke(token)
        rest = list(lines)
    assert "event: end" in rest
    assert json.loads(rest[-2].removeprefix("data: "))["code"] == "not_signed_in"


# --- logs ----------------------------------------------------------------------------------------


def test_logs(owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    api = api_of(owner)
    text = "\n".join(f"2026-11-27T10:00:0{n}Z line {n}" for n in range(5))
    LogTail.objects.create(instance=workspace.instance, text=text)
    lines = api.get("/workspaces/trees/logs?tail=2").json()["lines"]
    assert [line[-6:] for line in lines] == ["line 3", "line 4"]
    assert code_of(api.get("/workspaces/trees/logs?tail=201")) == "invalid"


def test_following_tells_each_line_once() -> None:
    follower = live_routes._Follower(tail=2)
    assert follower.new(["a", "b", "c"]) == ["b", "c"]
    assert follower.new(["a", "b", "c"]) == []
    assert follower.new(["b", "c", "d", "e"]) == ["d", "e"]
    assert follower.new([]) == []  # a fresh container has written nothing yet
    assert follower.new(["f"]) == ["f"]
    assert follower.new(["x", "y"]) == [live_routes._GAP, "x", "y"]


# --- those who stay while things change ----------------------------------------------------------


def test_an_undelete_is_told_whole_and_in_order(http: httpx.Client, owner: User) -> None:
    """Two instances, one history: nothing is missed, and the old one's end is nobody's news."""
    workspace = factories.make_workspace(owner, "trees")
    services.delete(workspace, owner)
    old = Workspace.objects.get().instance
    with http.stream("GET", "/workspaces/trees/events", headers=SSE) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        services.undelete(Workspace.objects.get(), owner)
        told = read(lines, 3)
        assert [(event["kind"], event["status"]) for event in told] == [
            ("succeeded", None),
            ("create_requested", "provisioning"),
            ("restored", None),
        ]
        factories.set_status(old, Status.DELETED)
        factories.add_event(Instance.objects.get(pk=old.pk), "purge", status="deleted")
        services.rename(Workspace.objects.get(), owner, "Oaks")
        assert [event["kind"] for event in read(lines, 1)] == ["renamed"]
    kinds = [e["kind"] for e in http.get("/workspaces/trees/events").json()["items"]]
    assert "purge" not in kinds
    # All of it is still there after it was deleted and restored again.
    services.delete(Workspace.objects.get(), owner)
    services.undelete(Workspace.objects.get(), owner)
    again = [e["kind"] for e in http.get("/workspaces/trees/events?limit=200").json()["items"]]
    assert again[-len(kinds) :] == kinds


@pytest.mark.parametrize(("address", "code"), [("events", "not_found"), ("logs", "role_too_low")])
def test_a_stream_ends_with_the_right_to_it(
    live_server: LiveServer, owner: User, address: str, code: str
) -> None:
    workspace = factories.make_workspace(owner, "trees")
    LogTail.objects.create(instance=workspace.instance, text="2026-11-27T10:00:00Z one")
    friend = factories.make_user()
    member = factories.add_member(workspace, friend, Role.EDITOR)
    _, text = api_tokens.create(friend, "test", EVERYTHING)
    headers = SSE | {"Authorization": f"Bearer {text}"}
    path = f"{live_server.url}/api/v1/workspaces/trees/{address}"
    with httpx.stream("GET", path, headers=headers, timeout=SECONDS) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        if code == "not_found":
            member.delete()
        else:
            Member.objects.filter(pk=member.pk).update(role=Role.VIEWER)
        services.rename(workspace, owner, "Oaks")
        rest = list(lines)
    assert not any("Oaks" in line for line in rest)
    assert json.loads(rest[-2].removeprefix("data: "))["code"] == code


def test_whoever_is_removed_while_waiting_hears_nothing(
    live_server: LiveServer, owner: User
) -> None:
    workspace = services.create_workspace(owner, "Trees", "trees")
    friend = factories.make_user()
    member = factories.add_member(workspace, friend, Role.VIEWER)
    _, text = api_tokens.create(friend, "test", EVERYTHING)
    address = f"{live_server.url}/api/v1/workspaces/trees/wait?status=running&timeout=30"
    headers = {"Authorization": f"Bearer {text}"}
    answers: list[httpx.Response] = []
    with meanwhile(lambda: answers.append(httpx.get(address, headers=headers, timeout=SECONDS))):
        see_one_wait()
        member.delete()
        factories.set_status(workspace.instance, Status.FAILED)
        lifecycle.record_claimed(workspace.instance)
    assert (answers[0].status_code, answers[0].json()["code"]) == (404, "not_found")
    assert "memory" not in answers[0].text


def test_history_costs_the_same_however_long_it_is(owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    InstanceEvent.objects.bulk_create(
        InstanceEvent(
            instance=workspace.instance,
            history=workspace.instance.history,
            generation=1,
            kind="start",
        )
        for _ in range(20_000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE deploy_instanceevent, workspaces_activity")
    seen = api_of(owner).get("/workspaces/trees/events?limit=1").json()
    last = seen["items"][0]["id"]
    for look in (
        lambda: events.newest(workspace, 1),
        lambda: events.following(workspace, last - 2, 10),
    ):
        with CaptureQueriesContext(connection) as queries:
            assert look()
        (query,) = queries
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query['sql']}")
            (plan,) = cursor.fetchone()[0]
        assert read_rows(plan["Plan"]) < 200


def read_rows(node: dict[str, Any]) -> int:
    """How many rows a plan read, all in all."""
    own = int(node["Actual Rows"]) + int(node.get("Rows Removed by Filter", 0))
    return own + sum(read_rows(part) for part in node.get("Plans", ()))
