"""The router: a real nginx, the real gateway behind it, and real sockets behind both."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import docker
import httpx
import jwt
import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django import DjangoDbBlocker
from websockets.sync.client import connect

from accounts import api_tokens
from accounts.models import User
from deploy import notify
from deploy.models import Image, Instance
from deploy.router import LOOK_AGAIN, NotSafe, RouterConfig, render
from deploy.router import Page as RouterPage
from deploy.states import Desired, Observed, Status
from tests.browser import NewPage
from tests.deploy.router_support import (
    START_SECONDS,
    Handler,
    Stack,
    Upstream,
    point,
    until,
    websocket_echo,
)
from tests.deploy.workspace_support import workspace as workspace_container
from tests.factories import add_member, make_user, make_workspace, set_status
from workspaces import members, services
from workspaces.models import Member, Plan, Role, Visibility, Workspace

_numbers = count(1)

HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Rows that other processes see, too; removed at the end of the module."""
    with django_db_blocker.unblock():
        Plan.objects.get_or_create(is_default=True, defaults={"name": "Default"})
        yield
        Workspace.objects.all().delete()
        Instance.objects.all().delete()
        Image.objects.all().delete()
        User.objects.all().delete()


@pytest.fixture(scope="module")
def stack(database: None) -> Iterator[Stack]:
    started = Stack()
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def owner(database: None) -> User:
    return make_user(name="Ada")


@pytest.fixture
def upstream(stack: Stack) -> Iterator[Upstream]:
    running = Upstream(stack.directory / f"{next(_numbers)}.sock")
    yield running
    if running.path.exists():
        running.close()


@pytest.fixture
def workspace(owner: User, upstream: Upstream) -> Workspace:
    made = make_workspace(owner, f"cats-{next(_numbers)}")
    point(made, upstream.endpoint)
    return made


@pytest.fixture
def visitor(stack: Stack, owner: User, workspace: Workspace) -> Iterator[httpx.Client]:
    with closing(stack.visitor(owner, workspace)) as client:
        yield client


def headers_of(response: httpx.Response) -> dict[str, list[str]]:
    """What the instance was told, as it says itself."""
    told: dict[str, list[str]] = {}
    for name, value in response.json()["headers"]:
        told.setdefault(name, []).append(value)
    return told


# --- what the instance is told -----------------------------------------------------------------


def test_a_member_gets_through(
    stack: Stack, visitor: httpx.Client, workspace: Workspace, owner: User
) -> None:
    response = visitor.get("/data/cats%20and%2Fdogs?sql=select+1&x=%2F..")
    assert response.status_code == 200
    assert response.json()["path"] == "/data/cats%20and%2Fdogs?sql=select+1&x=%2F.."
    told = headers_of(response)
    assert told["host"] == [f"{workspace.slug}.{stack.netloc}"]
    assert told["x-real-ip"] == told["x-forwarded-for"] == ["127.0.0.1"]
    assert told["x-forwarded-proto"] == ["http"]
    [token] = told["x-cloudapp-actor"]
    instance = workspace.instance
    claims = jwt.decode(token, instance.key, ["HS256"], audience=str(instance.pk))
    assert claims["actor"] == {"id": str(owner.pk), "name": "Ada", "role": "owner"}


def test_connections_to_an_instance_are_kept(visitor: httpx.Client, upstream: Upstream) -> None:
    for _ in range(20):
        assert visitor.get("/").status_code == 200
    # One for each of the router's two processes that may have got some of them.
    assert 1 <= upstream.connections <= 2


def test_a_kept_connection_never_leads_to_another_instance(stack: Stack, owner: User) -> None:
    """Two neighbours take turns, so that each request finds the other's connection lying there."""
    with contextlib.ExitStack() as left:
        visitors = {}
        for name in ("mine", "yours"):
            neighbour = Upstream(stack.directory / f"{name}.sock")
            left.callback(neighbour.close)
            neighbour.answers["/who"] = partial(Handler.reply, body=name.encode())
            workspace = make_workspace(owner, f"{name}-{next(_numbers)}")
            point(workspace, neighbour.endpoint)
            visitors[name] = left.enter_context(closing(stack.visitor(owner, workspace)))
        for _ in range(20):
            for name, visitor in visitors.items():
                assert visitor.get("/who").text == name


def test_a_kept_connection_that_ended_is_no_error(
    visitor: httpx.Client, upstream: Upstream
) -> None:
    """A workspace that slept in between has ended them all."""
    assert visitor.get("/").status_code == 200
    upstream.hang_up()
    assert visitor.post("/", content=b"x" * 100).json()["body"] == "x" * 100


SPOOFED = {
    "X-Cloudapp-Actor": "spoofed",
    "X-Cloudapp-Token": "spoofed",
    "X-Cloudapp-Upstream": "spoofed",
    "X-Cloudapp-Session": "spoofed",
    "X-Cloudapp-Slug": "spoofed",
    "X_Cloudapp_Actor": "spoofed",
    "X-Router-Secret": "spoofed",
    "X-Forwarded-For": "spoofed",
    "X-Forwarded-Host": "spoofed",
    "X-Forwarded-Proto": "spoofed",
    "X-Forwarded-Prefix": "spoofed",
    "X-Original-URL": "spoofed",
    "X-Real-IP": "spoofed",
    "Forwarded": "for=spoofed",
    "Proxy": "spoofed",
    "Authorization": "Bearer spoofed",
    "Upgrade": "spoofed",
}


def test_what_clients_send_under_our_names_is_dropped(visitor: httpx.Client) -> None:
    response = visitor.get("/", headers=SPOOFED | {"X-Other": "kept", "User-Agent": "kept"})
    assert "spoofed" not in response.text
    told = headers_of(response)
    assert told["x-other"] == told["user-agent"] == ["kept"]
    assert len(told["x-cloudapp-actor"]) == 1


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ("", "", None),
        ("ds_csrftoken=a; ", "", "ds_csrftoken=a; "),
        ("", "; ds_csrftoken=a", "ds_csrftoken=a"),
        ("a=1; ", "; b=2", "a=1; b=2"),
        ("a=1; cloudapp_state=x; ", "; b=2", "a=1; b=2"),
        # Whoever has two of ours, or the cloud host's, gets none through.
        ("a=1; ", "; cloudapp_workspace=other; b=2", None),
        ("cloudapp_session=mine; ", "; a=1", None),
    ],
)
def test_our_cookies_stay_with_us(
    before: str, after: str, kept: str | None, visitor: httpx.Client
) -> None:
    cookie = visitor.headers["Cookie"]
    response = visitor.get("/", headers={"Cookie": f"{before}{cookie}{after}"})
    assert headers_of(response).get("cookie") == ([kept] if kept else None)


def test_a_lookalike_cookie_is_not_ours(visitor: httpx.Client) -> None:
    cookie = visitor.headers["Cookie"]
    response = visitor.get("/", headers={"Cookie": f"my_{cookie}; {cookie}"})
    assert headers_of(response)["cookie"] == [f"my_{cookie}; "]


def test_nobody_smuggles_another_protocol(visitor: httpx.Client) -> None:
    response = visitor.get("/", headers={"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"})
    told = headers_of(response)
    assert "upgrade" not in told
    assert "connection" not in told


def test_the_host_is_the_workspaces_whatever_the_header_says(
    stack: Stack, visitor: httpx.Client, workspace: Workspace
) -> None:
    """An absolute address decides for nginx; a Host header beside it must not decide for others."""
    request = (
        f"GET http://{workspace.slug}.{stack.netloc}/ HTTP/1.1\r\nHost: evil.example\r\n"
        f"Cookie: {visitor.headers['Cookie']}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", stack.port), 60) as client:
        client.sendall(request.encode())
        answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    assert "evil.example" not in answer
    assert f'["host", "{workspace.slug}.{stack.netloc}"]' in answer


def test_a_container_steers_neither_router_nor_neighbours(
    visitor: httpx.Client, upstream: Upstream, stack: Stack
) -> None:
    def answer(handler: Any) -> None:
        handler.reply(
            b"mine",
            X_Accel_Redirect="/-/cloudapp/pages/waking.html",
            X_Accel_Limit_Rate="1",
            X_Request_ID="mine",
            Set_Cookie="a=1; Domain=localhost; Path=/",
            Strict_Transport_Security="max-age=1; includeSubDomains",
        )

    upstream.answers["/"] = answer
    response = visitor.get("/")
    assert response.text == "mine"
    assert "Strict-Transport-Security" not in response.headers
    assert response.headers["X-Request-ID"] != "mine"
    host = visitor.headers["Host"].split(":")[0]
    assert response.headers["Set-Cookie"] == f"a=1; Domain={host}; Path=/"


# --- who is not let in -------------------------------------------------------------------------


def test_strangers_are_led_to_sign_in(stack: Stack, workspace: Workspace) -> None:
    with stack.stranger(workspace.slug) as client:
        page = client.get("/data?a=1", headers=HTML)
        assert page.status_code == 302
        assert page.headers["Location"] == "/-/cloudapp/start?/data?a=1"
        assert page.headers["Cache-Control"] == "no-store"
        answer = client.get("/data.json")
        assert answer.status_code == 401
        assert answer.json()["status"] == "sign-in"
        form = client.post("/data", headers=HTML, data={"a": "1"})
        assert form.status_code == 401
        assert "Sign in to go on" in form.text
        with_token = client.get("/data", headers=HTML | {"Authorization": "Bearer x"})
        assert with_token.status_code == 401


def test_a_private_workspace_looks_like_none(stack: Stack, workspace: Workspace) -> None:
    with stack.stranger(workspace.slug) as there, stack.stranger("nobodys") as nowhere:
        for headers in (HTML, {}):
            one, other = there.get("/", headers=headers), nowhere.get("/", headers=headers)
            assert (one.status_code, one.text) == (other.status_code, other.text)


def test_a_removed_member_is_out_within_seconds(
    visitor: httpx.Client, workspace: Workspace
) -> None:
    assert visitor.get("/").status_code == 200
    Member.objects.filter(workspace=workspace).delete()
    began = time.monotonic()
    until(lambda: visitor.get("/").status_code == 404)
    # The yes is remembered for 5 seconds; the rest is for a busy machine.
    assert time.monotonic() - began < 60
    page = visitor.get("/", headers=HTML)
    assert page.status_code == 404
    assert "There is nothing here for you" in page.text


def test_signing_out_closes_the_door_at_once(visitor: httpx.Client) -> None:
    assert visitor.get("/").status_code == 200
    origin = {"Origin": f"http://{visitor.headers['Host']}"}
    out = visitor.post("/-/cloudapp/sign-out", headers=origin)
    assert out.status_code == 200, out.text
    assert 'cloudapp_workspace=""' in out.headers["Set-Cookie"]


# --- programs with an API token ------------------------------------------------------------------


def program(stack: Stack, workspace: Workspace, text: str) -> httpx.Client:
    """A program with a token at a workspace's own host."""
    client = stack.stranger(workspace.slug)
    client.headers["Authorization"] = f"Bearer {text}"
    return client


def test_a_token_gets_a_program_in_and_stays_with_us(
    stack: Stack, owner: User, workspace: Workspace
) -> None:
    _, text = api_tokens.create(owner, "ci", ["data"])
    with program(stack, workspace, text) as client:
        response = client.post("/data/-/insert", json={"row": 1})
    assert response.status_code == 200
    told = headers_of(response)
    assert "authorization" not in told
    assert text not in response.text
    claims = jwt.decode(told["x-cloudapp-actor"][0], options={"verify_signature": False})
    assert claims["actor"] == {"id": str(owner.pk), "name": "Ada (token ci)", "role": "owner"}


def test_a_token_that_is_no_good_is_told_so(stack: Stack, workspace: Workspace) -> None:
    with program(stack, workspace, api_tokens.new_text()) as client:
        answer = client.get("/data.json")
        assert (answer.status_code, answer.json()["status"]) == (401, "sign-in")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        page = client.get("/data", headers=HTML)
        assert page.status_code == 401, "not led to sign in: it is no person"
        assert "WWW-Authenticate" not in page.headers
    with stack.stranger(workspace.slug) as stranger:
        assert stranger.get("/data.json").headers["WWW-Authenticate"] == "Bearer"
        del stranger.headers["Accept"]
        assert stranger.get("/data.json").headers["WWW-Authenticate"] == "Bearer"


def test_a_token_for_elsewhere_finds_nothing(
    stack: Stack, owner: User, workspace: Workspace
) -> None:
    elsewhere = make_workspace(owner, f"dogs-{next(_numbers)}")
    _, text = api_tokens.create(owner, "ci", ["read"], only=elsewhere.pk)
    with program(stack, workspace, text) as there, stack.stranger("nobodys") as nowhere:
        nowhere.headers["Authorization"] = there.headers["Authorization"]
        for headers in (HTML, {}):
            one, other = there.get("/", headers=headers), nowhere.get("/", headers=headers)
            assert one.status_code == 404
            assert (other.status_code, other.text) == (one.status_code, one.text)


@contextlib.contextmanager
def remembered(stack: Stack) -> Iterator[None]:
    """See that the gateway is asked no more often than once in 5 seconds meanwhile."""
    before, began = stack.gateway_calls(), time.monotonic()
    yield
    # One that was asked for just before may be written down only now.
    assert stack.gateway_calls() - before <= 2 + (time.monotonic() - began) / 5


def test_a_tokens_yes_is_remembered_for_it_alone(
    stack: Stack, owner: User, workspace: Workspace
) -> None:
    token, text = api_tokens.create(owner, "ci", ["read"])
    with program(stack, workspace, text) as client:
        assert client.get("/").status_code == 200
        with remembered(stack):
            for _ in range(20):
                assert client.get("/").status_code == 200
    with program(stack, workspace, api_tokens.new_text()) as other:
        assert other.get("/").status_code == 401
    with stack.stranger(workspace.slug) as stranger:
        assert stranger.get("/").status_code == 401
    token.refresh_from_db()
    assert token.last_used_at


@pytest.mark.parametrize("end", ["revoke", "remove the member", "deactivate"])
def test_a_token_that_ended_is_out_within_seconds_and_stays_out(
    end: str, stack: Stack, workspace: Workspace
) -> None:
    member = make_user()
    place = add_member(workspace, member, Role.EDITOR)
    token, text = api_tokens.create(member, "ci", ["data"])
    with program(stack, workspace, text) as client:
        assert client.get("/").status_code == 200
        expected = 401
        if end == "revoke":
            api_tokens.revoke(token)
        elif end == "deactivate":
            User.objects.filter(pk=member.pk).update(is_active=False)
        else:
            expected = 404
            place.delete()
        began = time.monotonic()
        until(lambda: client.get("/").status_code == expected)
        # The yes is remembered for 5 seconds; the rest is for a busy machine.
        assert time.monotonic() - began < 60
        stack.stop_web()
        try:
            time.sleep(2)  # the no is old by then
            assert client.get("/").status_code == expected
        finally:
            stack.start_web()


def _upload_birds(client: httpx.Client) -> httpx.Response:
    birds = {"csv": ("birds.csv", b"name\nowl\nwren\n", "text/csv")}
    return client.post("/-/upload-csvs", files=birds, data={"xhr": "1", "table": "birds"})


def _create_birds(client: httpx.Client) -> httpx.Response:
    birds = {"table": "birds", "rows": [{"name": "owl"}, {"name": "wren"}]}
    return client.post("/data/-/create", json=birds)


@pytest.mark.parametrize(
    "case", [("workspace_image", _upload_birds), ("alpha_image", _create_birds)]
)
def test_a_token_wakes_reads_and_writes_a_real_workspace(
    case: tuple[str, Callable[[httpx.Client], httpx.Response]],
    stack: Stack,
    owner: User,
    workspace_docker: docker.DockerClient,
    request: pytest.FixtureRequest,
) -> None:
    image, write = case
    made = make_workspace(owner, f"real-{next(_numbers)}")
    _, reading = api_tokens.create(owner, "reader", ["read"], only=made.pk)
    token, writing = api_tokens.create(owner, "writer", ["data"], only=made.pk)
    directory = stack.directory / f"{next(_numbers)}"
    reference = request.getfixturevalue(image)
    with workspace_container(workspace_docker, reference, directory) as container:
        Instance.objects.filter(pk=made.instance_id).update(key=container.key)
        Workspace.objects.filter(pk=made.pk).update(instance=_renamed(made, container.id))
        made.refresh_from_db()
        set_status(made.instance, Status.SLEEPING)
        worker = _play_worker(made, f"unix:{container.socket}", container.start)
        with program(stack, made, reading) as reader, program(stack, made, writing) as writer:
            # Held until it is up; on a busy machine longer than anybody is held here, so ask again.
            until(lambda: reader.get("/data.json").status_code == 200)
            worker.join()
            assert reader.get("/data.json").json()["database"] == "data"
            actor = reader.get("/-/actor.json").json()["actor"]
            assert (actor["name"], actor["role"]) == ("Ada (token reader)", "viewer")

            refused = write(reader)
            assert refused.status_code == 403, refused.text
            written = write(writer)
            assert written.status_code in (200, 201), written.text
            # The rows of a CSV come after the answer.
            until(lambda: "wren" in reader.get("/data/birds.json?_shape=array").text)

            api_tokens.revoke(token)
            began = time.monotonic()
            until(lambda: writer.get("/data.json").status_code == 401)
            assert time.monotonic() - began < 60  # as above
            assert reader.get("/data.json").status_code == 200


# --- the gateway is nobody else's ----------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/_gateway/authorize",
        "/_gateway/unreachable",
        "/%5Fgateway/authorize",
        "//_gateway/authorize",
        "/account/../_gateway/authorize",
        "/account/..%2f_gateway/authorize",
        "/-/cloudapp/start",
        "/-/cloudapp/_authorize",
        "/-/cloudapp/pages/waking.html",
    ],
)
def test_the_cloud_host_has_no_gateway(path: str, stack: Stack) -> None:
    secret = stack.environment["ROUTER_SECRET"]
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {stack.netloc}\r\nX-Router-Secret: {secret}\r\n"
        "X-Cloudapp-Slug: x\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", stack.port), 60) as client:
        client.sendall(request.encode())
        assert client.recv(65536).split(b"\r\n")[0] == b"HTTP/1.1 404 Not Found"


@pytest.mark.parametrize(
    "path",
    [
        "/-/cloudapp/_authorize",
        "/-/cloudapp/_unreachable",
        "/-/cloudapp/pages/waking.html",
        "/-/cloudapp/",
        "/-/cloudapp/other",
        "/-/cloudapp/start/more",
    ],
)
def test_a_workspace_host_has_none_either(path: str, visitor: httpx.Client) -> None:
    assert visitor.get(path).status_code == 404


def test_no_page_of_the_cloud_host_shows_at_a_workspace(stack: Stack, workspace: Workspace) -> None:
    """What nginx matched as ours must not be another page to Django."""
    request = (
        f"GET /admin/..%2f-/cloudapp/start HTTP/1.1\r\nHost: {workspace.slug}.{stack.netloc}\r\n"
        "Connection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", stack.port), 60) as client:
        client.sendall(request.encode())
        answer = client.recv(65536).decode()
    assert f"/workspaces/{workspace.slug}/enter/" in answer


def test_a_name_of_nobodys(stack: Stack) -> None:
    with stack.stranger("x") as client:
        for host in ("evil.example", "127.0.0.1", f"a.b.{stack.netloc}"):
            response = client.get("/", headers={"Host": host})
            assert response.headers["Location"] == f"http://{stack.netloc}/"


# --- remembering -------------------------------------------------------------------------------


def test_a_yes_is_remembered_and_a_no_not_for_long(
    stack: Stack, visitor: httpx.Client, workspace: Workspace
) -> None:
    visitor.get("/")
    with remembered(stack):
        for number in range(20):
            assert visitor.get(f"/{number}").status_code == 200
    with stack.stranger(workspace.slug) as stranger:
        before = stack.gateway_calls()

        def asked_again() -> bool:
            assert stranger.get("/").status_code == 401
            return stack.gateway_calls() - before >= 3

        until(asked_again)


def test_one_persons_yes_is_nobody_elses(
    stack: Stack, visitor: httpx.Client, owner: User, workspace: Workspace
) -> None:
    assert visitor.get("/").status_code == 200
    with stack.stranger(workspace.slug) as stranger:
        assert stranger.get("/").status_code == 401
        forged = {"Cookie": visitor.headers["Cookie"][:-1] + "_"}
        assert stranger.get("/", headers=forged).status_code == 401
    other = make_workspace(owner, f"dogs-{next(_numbers)}")
    with stack.stranger(other.slug) as elsewhere:
        same = {"Cookie": visitor.headers["Cookie"]}
        assert elsewhere.get("/", headers=same).status_code == 401


# Whoever reads these in a log could use them.
KEYS = (
    "/account/confirm-email/THE-KEY/",
    "/account/password/reset/key/THE-KEY/",
    "/invitations/THE-KEY/",
)


def test_the_control_plane_may_go_away(stack: Stack, visitor: httpx.Client) -> None:
    assert visitor.get("/").status_code == 200
    stack.stop_web()
    try:
        time.sleep(5.5)  # what is remembered is old by then
        assert visitor.get("/").status_code == 200
        for client in (stack.stranger("x"), stack.cloud()):
            with client:
                answer = client.get("/")
                assert answer.status_code == 503
                assert answer.headers["Retry-After"] == "5"
                assert answer.json()["status"] == "unavailable"
                page = client.get("/", headers=HTML)
                assert page.status_code == 503
                assert "We are not there just now" in page.text
                assert '<script data-seconds="5">' in page.text
        for path in ("/api/v1/workspaces", "/api/v1/workspaces/trees/wait"):
            with stack.cloud() as client:
                refused = client.get(path, headers=HTML)
                assert refused.status_code == 503
                assert refused.headers["Content-Type"].startswith("application/problem+json")
                assert refused.headers["Retry-After"] == "5"
                assert refused.json()["code"] == "unavailable"
                assert refused.json()["request_id"] == refused.headers["X-Request-ID"]
        with stack.cloud() as client:
            for path in KEYS:
                assert (away := client.get(path, headers=HTML)).status_code == 503
                # What a browser asks for next, such as its icon, does not say from which page.
                assert away.headers.get_list("Referrer-Policy") == ["no-referrer"]
        assert "THE-KEY" not in stack.error_log()
        assert "/api/v1/workspaces" in stack.error_log()
    finally:
        stack.start_web()
    assert visitor.get("/").status_code == 200


def test_a_request_to_the_api_that_is_too_large(stack: Stack) -> None:
    with stack.cloud() as client:
        refused = client.post("/api/v1/workspaces", content=b"x" * 600_000)
    assert refused.status_code == 413
    assert refused.headers["Content-Type"].startswith("application/problem+json")
    assert refused.json()["code"] == "too_large"
    assert refused.json()["request_id"] == refused.headers["X-Request-ID"]


def test_who_was_turned_away_stays_out_when_the_control_plane_goes_away(
    stack: Stack, visitor: httpx.Client, workspace: Workspace
) -> None:
    assert visitor.get("/").status_code == 200
    Member.objects.filter(workspace=workspace).delete()
    until(lambda: visitor.get("/").status_code == 404)
    stack.stop_web()
    try:
        time.sleep(2)  # the no is old by then
        assert visitor.get("/").status_code == 404
    finally:
        stack.start_web()


def test_what_is_public_is_open_to_everybody_and_closed_again_within_seconds(
    stack: Stack, owner: User, workspace: Workspace
) -> None:
    services.set_visibility(workspace, owner, Visibility.PUBLIC)
    with stack.stranger(workspace.slug) as stranger:
        told = headers_of(stranger.get("/data", headers=HTML))
        claims = jwt.decode(told["x-cloudapp-actor"][0], options={"verify_signature": False})
        assert (claims["visitor"], claims["actor"]["role"]) == (True, "viewer")
        before = stack.gateway_calls()
        for _ in range(20):
            with stack.stranger(workspace.slug) as another:
                assert another.get("/").status_code == 200
        assert stack.gateway_calls() - before < 20, "they share what the router remembers"
        services.set_visibility(workspace, owner, Visibility.PRIVATE)
        until(lambda: stranger.get("/").status_code == 401)
        led = stranger.get("/", headers=HTML)
        assert led.headers["Location"].startswith("/-/cloudapp/start")
        stack.stop_web()
        try:
            time.sleep(2)  # the no is old by then
            assert stranger.get("/").status_code == 401, "and not what was remembered before it"
        finally:
            stack.start_web()


def test_another_role_reaches_the_instance_within_seconds(
    stack: Stack, owner: User, workspace: Workspace
) -> None:
    member = make_user()
    add_member(workspace, member, Role.EDITOR)
    with closing(stack.visitor(member, workspace)) as client:

        def role() -> str:
            (token,) = headers_of(client.get("/"))["x-cloudapp-actor"]
            claims = jwt.decode(token, options={"verify_signature": False})
            return str(claims["actor"]["role"])

        assert role() == "editor"
        members.change_role(workspace, owner, member.pk, Role.VIEWER)
        until(lambda: role() == "viewer")


def test_signing_in_leads_back_to_the_very_address(stack: Stack, workspace: Workspace) -> None:
    address = "/data/a%20b%2Fc?sql=select+%27%26%27&x=1&x=%C3%A9"
    with stack.stranger(workspace.slug) as client:
        page = client.get(address, headers=HTML)
        begun = client.get(page.headers["Location"])
        assert parse_qs(urlsplit(begun.headers["Location"]).query)["next"] == [address]
        long = client.get("/" + "a" * 2000, headers=HTML)
        assert long.headers["Location"] == "/-/cloudapp/start?/"


def test_an_old_yes_is_no_answer_while_the_gateway_says_no(
    visitor: httpx.Client, workspace: Workspace
) -> None:
    assert visitor.get("/").status_code == 200
    set_status(workspace.instance, Status.STOPPED)
    until(lambda: visitor.get("/").status_code == 503)
    assert visitor.get("/").json()["status"] == "stopped"


# --- pages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        (Status.STOPPED, 503, "stopped", None),
        (Status.SUSPENDED, 503, "suspended", None),
        (Status.FAILED, 503, "failed", "15"),
        (Status.PROVISIONING, 503, "waking", "1"),
        (Status.DELETING, 404, "deleting", None),
    ],
)
def test_pages_say_which(
    case: tuple[Status, int, str, str | None],
    stack: Stack,
    visitor: httpx.Client,
    workspace: Workspace,
) -> None:
    status, code, word, retry_after = case
    set_status(workspace.instance, status)
    if status is Status.PROVISIONING:
        Instance.objects.filter(pk=workspace.instance_id).update(
            ready=False, observed=Observed.CREATED
        )
    answer = visitor.get("/")
    assert (answer.status_code, answer.json()["status"]) == (code, word)
    assert answer.headers.get("Retry-After") == retry_after
    page = visitor.get("/", headers=HTML)
    assert page.status_code == code
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    looks_again = f'<script data-seconds="{retry_after}">{LOOK_AGAIN}</script>'
    assert (looks_again in page.text) == (retry_after is not None)
    assert page.text.count("<script") == page.text.count("Look again") == bool(retry_after)
    if status not in (Status.PROVISIONING,):
        assert f"http://{stack.netloc}/workspaces/{workspace.slug}/" in page.text
    assert "<!--#" not in page.text
    assert "error occurred" not in page.text


def test_a_refused_upload_is_not_even_read(
    stack: Stack, visitor: httpx.Client, workspace: Workspace
) -> None:
    set_status(workspace.instance, Status.STOPPED)
    request = (
        f"POST /-/upload HTTP/1.1\r\nHost: {workspace.slug}.{stack.netloc}\r\nAccept: text/html\r\n"
        f"Cookie: {visitor.headers['Cookie']}\r\nContent-Length: 1000000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", stack.port), 60) as client:
        client.sendall(request.encode() + b"a" * 5000)
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 503 ")


def test_a_page_for_a_form_does_not_reload_itself(
    visitor: httpx.Client, workspace: Workspace
) -> None:
    Instance.objects.filter(pk=workspace.instance_id).update(ready=False)
    page = visitor.post("/", headers=HTML, data={"a": "1"})
    assert page.status_code == 503
    assert "was not carried out" in page.text
    assert "<script" not in page.text
    assert "Look again" not in page.text


def open_while_it_starts(
    page: Page, stack: Stack, visitor: httpx.Client, workspace: Workspace
) -> None:
    """Come to the workspace in a browser, as the visitor, and see that it is starting."""
    set_status(workspace.instance, Status.PROVISIONING)
    Instance.objects.filter(pk=workspace.instance_id).update(ready=False, observed=Observed.CREATED)
    address = f"http://{workspace.slug}.{stack.netloc}/"
    name, _, value = visitor.headers["Cookie"].partition("=")
    page.context.add_cookies([{"name": name, "value": value, "url": address}])
    page.goto(address)
    expect(page.get_by_role("heading", name="This workspace is starting")).to_be_visible()


def test_a_page_opens_the_workspace_by_itself(
    stack: Stack, visitor: httpx.Client, workspace: Workspace, page: Page
) -> None:
    """And until there is something else to see, nobody who reads it is torn away."""
    open_while_it_starts(page, stack, visitor, workspace)
    expect(page.get_by_text("opens it by itself")).to_be_visible()
    expect(page.get_by_role("link", name="Look again")).to_have_count(0)
    page.evaluate("window.isTheFirst = true")
    page.wait_for_event("response", lambda answer: answer.status == 503)
    page.wait_for_event("request")
    assert page.evaluate("window.isTheFirst")
    set_status(workspace.instance, Status.STOPPED)
    expect(page.get_by_role("heading", name="This workspace is stopped")).to_be_visible()


def test_without_a_script_there_is_a_link(
    stack: Stack, visitor: httpx.Client, workspace: Workspace, new_page: NewPage
) -> None:
    page = new_page(java_script_enabled=False)
    open_while_it_starts(page, stack, visitor, workspace)
    expect(page.get_by_text("by itself")).to_be_hidden()
    set_status(workspace.instance, Status.STOPPED)
    page.get_by_role("link", name="Look again").click()
    expect(page.get_by_role("heading", name="This workspace is stopped")).to_be_visible()


# --- waking ------------------------------------------------------------------------------------


def _in_thread(work: Any) -> threading.Thread:
    def run() -> None:
        work()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _play_worker(
    workspace: Workspace, endpoint: str, start: Callable[[], object] = lambda: None
) -> threading.Thread:
    """Once the instance is wanted, start it and say that it is there."""
    instance = Instance.objects.filter(pk=workspace.instance_id)

    def work() -> None:
        until(instance.filter(desired=Desired.RUNNING).exists)
        start()
        instance.update(
            ready=True,
            endpoint=endpoint,
            observed=Observed.RUNNING,
            ready_at=timezone.now() + timedelta(seconds=1),
        )
        notify.send(workspace.instance_id)

    return _in_thread(work)


@pytest.fixture
def patient(stack: Stack) -> Iterator[None]:
    """A gateway that gives nobody up because this machine is busy."""
    with stack.patient_web():
        yield


@pytest.mark.usefixtures("patient")
def test_a_sleeping_workspace_wakes_and_the_body_is_not_lost(
    visitor: httpx.Client, workspace: Workspace, upstream: Upstream
) -> None:
    set_status(workspace.instance, Status.SLEEPING)
    Instance.objects.filter(pk=workspace.instance_id).update(ready=False, endpoint="")
    worker = _play_worker(workspace, upstream.endpoint)
    body = "precious " * 100_000
    response = visitor.post("/save", content=body)
    worker.join()
    assert response.status_code == 200
    assert response.json()["body"] == body


@pytest.mark.usefixtures("patient")
def test_a_container_that_vanished_is_waited_for(
    visitor: httpx.Client, workspace: Workspace, upstream: Upstream, stack: Stack
) -> None:
    assert visitor.get("/").status_code == 200
    upstream.close()
    again = Upstream(stack.directory / f"{next(_numbers)}.sock")
    revision = Instance.objects.get(pk=workspace.instance_id).revision
    instance = Instance.objects.filter(pk=workspace.instance_id)

    def work() -> None:
        until(instance.filter(revision__gt=revision).exists)
        instance.update(endpoint=again.endpoint, ready_at=timezone.now())
        notify.send(workspace.instance_id)

    worker = _in_thread(work)
    try:
        response = visitor.get("/path?q=1")
        worker.join()
        assert response.status_code == 200
        assert response.json()["path"] == "/path?q=1"
    finally:
        again.close()


def test_a_container_that_stays_away(
    visitor: httpx.Client, workspace: Workspace, upstream: Upstream
) -> None:
    assert visitor.get("/").status_code == 200
    upstream.close()
    # nginx may hang up behind an answer to a request that it did not read to its end.
    posted = visitor.post("/", headers=HTML | {"Connection": "close"}, content="x")
    assert posted.status_code == 503
    assert "does not answer" in posted.text
    assert "was not carried out" in posted.text
    page = visitor.get("/", headers=HTML)
    assert page.status_code == 503
    assert '<script data-seconds="3">' in page.text
    answer = visitor.get("/")
    assert (answer.status_code, answer.json()["status"]) == (503, "unreachable")
    assert answer.headers["Retry-After"] == "3"


# --- streams -----------------------------------------------------------------------------------


def test_websockets_pass(stack: Stack, owner: User) -> None:
    workspace = make_workspace(owner, f"chat-{next(_numbers)}")
    path = stack.directory / f"{next(_numbers)}.sock"
    point(workspace, f"unix:{path}")
    with websocket_echo(path), closing(stack.visitor(owner, workspace)) as visitor:
        raw = socket.create_connection(("127.0.0.1", stack.port), 60)
        cookie = {"Cookie": visitor.headers["Cookie"]}
        with connect(
            f"ws://{workspace.slug}.{stack.netloc}/chat",
            sock=raw,
            additional_headers=cookie,
            open_timeout=START_SECONDS,
        ) as chat:
            for message in ("hello", "x" * 100_000):
                chat.send(message)
                assert chat.recv(timeout=60) == message


def test_a_response_is_passed_on_as_it_comes(visitor: httpx.Client, upstream: Upstream) -> None:
    seen = threading.Event()

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nfirst\r\n")
        handler.wfile.flush()
        assert seen.wait(60), "the first part did not arrive before the second was there"
        handler.wfile.write(b"6\r\nsecond\r\n0\r\n\r\n")

    upstream.answers["/stream"] = answer
    with visitor.stream("GET", "/stream") as response:
        parts = response.iter_raw()
        assert next(parts) == b"first"
        seen.set()
        assert b"".join(parts) == b"second"


def _bytes_below(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_a_gigabyte_passes_without_being_kept(
    stack: Stack, visitor: httpx.Client, upstream: Upstream
) -> None:
    size, block = 1024**3, bytes(1024**2)
    memory, disk = [stack.nginx_memory()], [0]

    def sink(handler: Any) -> None:
        got, buffer = 0, bytearray(len(block))
        while got < size:
            got += handler.rfile.readinto(memoryview(buffer)[: size - got])
            if got % (64 * len(block)) == 0:
                memory.append(stack.nginx_memory())
                disk.append(_bytes_below(stack.directory / "router" / "temp"))
        handler.reply(str(got).encode())

    upstream.answers["/upload"] = sink
    response = visitor.put(
        "/upload",
        content=(block for _ in range(size // len(block))),
        headers={"Content-Length": str(size)},
    )
    assert response.text == str(size)
    assert len(memory) > 10
    assert max(memory) - memory[0] < 16 * 1024, "KiB that nginx grew by"
    assert max(disk) == 0


def test_more_than_that_is_too_much(
    stack: Stack, visitor: httpx.Client, workspace: Workspace
) -> None:
    request = (
        f"PUT / HTTP/1.1\r\nHost: {workspace.slug}.{stack.netloc}\r\n"
        f"Cookie: {visitor.headers['Cookie']}\r\nContent-Length: {1200 * 1024**2}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", stack.port), 60) as client:
        client.sendall(request.encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


# --- what is written down ------------------------------------------------------------------------


def test_the_log_holds_no_secrets(
    stack: Stack, visitor: httpx.Client, owner: User, workspace: Workspace
) -> None:
    visitor.get("/data?sql=select+secret")
    _, text = api_tokens.create(owner, "ci", ["read"])
    with program(stack, workspace, text) as client:
        assert client.get("/data.json").status_code == 200
    stack.visitor(owner, workspace).close()
    with stack.cloud() as cloud:
        for path in KEYS:
            answer = cloud.get(path)
            assert answer.headers.get_list("Referrer-Policy") == ["strict-origin"]
    # The router's two processes write one after another, in any order.
    for said in ("password/reset", "/invitations/...", "/-/cloudapp/sign-in", "/data"):
        until(lambda said=said: said in stack.access_log())
    log = stack.access_log()
    for secret in ("code=", "state=", "select", "THE-KEY", "cloudapp_workspace", text):
        assert secret not in log
    for written in stack.directory.glob("*.*"):
        if written.suffix in (".log", ".out"):
            assert text not in written.read_text(), written


def log_line(stack: Stack, request_id: str) -> dict[str, Any]:
    """The line of a request in the access log; it is written a moment after the answer."""
    until(lambda: f'"{request_id}"' in stack.access_log())
    return next(json.loads(line) for line in stack.access_log().splitlines() if request_id in line)


def test_a_request_has_one_name_which_nobody_from_outside_gives(
    stack: Stack, visitor: httpx.Client, workspace: Workspace
) -> None:
    response = visitor.get("/data?sql=1", headers={"X-Request-ID": "from-outside-1"})
    request_id = response.headers["X-Request-ID"]
    assert headers_of(response)["x-request-id"] == [request_id]
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    line = log_line(stack, request_id)
    assert (line["method"], line["path"], line["status"]) == ("GET", "/data", 200)
    assert (line["workspace"], line["address"]) == (workspace.slug, "127.0.0.1")
    assert line["host"] == f"{workspace.slug}.localhost"
    assert line["seconds"] >= 0


def test_refusals_and_pages_have_one_too(stack: Stack, workspace: Workspace) -> None:
    with stack.cloud() as cloud, stack.stranger(workspace.slug) as stranger:
        answers = [cloud.get("/account/login/"), stranger.get("/"), stranger.get("/", headers=HTML)]
    for answer in answers:
        assert len(answer.headers.get_list("X-Request-ID")) == 1
        line = log_line(stack, answer.headers["X-Request-ID"])
        assert line["status"] == answer.status_code


def test_the_journal_takes_the_log_where_nobody_can_open_standard_output(database: None) -> None:
    """Below systemd it is a socket, and /dev/stdout cannot be opened: docs/operating.md."""
    stack = Stack()
    address = stack.directory / "journal"
    stack.environment["ROUTER_ACCESS_LOG"] = (
        f"syslog:server=unix:{address},nohostname,tag=cloudapp_router"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(address))
        address.chmod(0o666)
        journal.settimeout(90)
        try:
            stack.start()
            with stack.cloud() as cloud:
                name = cloud.get("/account/login/").headers["X-Request-ID"]
            line = journal.recv(65536).decode()
            head, _, message = line.partition(" cloudapp_router: ")
            assert head.startswith("<190>")
            assert json.loads(message)["request_id"] == name
        finally:
            stack.stop()


def test_a_proxy_that_is_trusted_may_have_named_it(database: None) -> None:
    stack = Stack(ROUTER_TRUSTED_PROXIES="127.0.0.0/8,::1")
    try:
        stack.start()
        with stack.cloud() as cloud:
            given = cloud.get("/account/login/", headers={"X-Request-ID": "by-the-proxy"})
            broken = cloud.get("/account/login/", headers={"X-Request-ID": 'x" $y {'})
        assert given.headers["X-Request-ID"] == "by-the-proxy"
        assert len(broken.headers["X-Request-ID"]) == 32
        assert log_line(stack, "by-the-proxy")["path"] == "/account/login/"
    finally:
        stack.stop()


def test_what_holds_secrets_is_not_for_everybody(stack: Stack) -> None:
    assert stack.config.stat().st_mode & 0o777 == 0o600
    assert (stack.directory / "router" / "cache").stat().st_mode & 0o777 == 0o700


# --- a poisoned route ----------------------------------------------------------------------------


def test_a_poisoned_route_shows_an_error_and_nobodys_data(
    stack: Stack,
    owner: User,
    workspace_docker: docker.DockerClient,
    workspace_image: str,
) -> None:
    """The gateway answers for A with the door of B: B's real container refuses."""
    other = make_user()
    first = make_workspace(owner, f"first-{next(_numbers)}")
    second = make_workspace(other, f"second-{next(_numbers)}")
    directory = stack.directory / f"{next(_numbers)}"
    with workspace_container(workspace_docker, workspace_image, directory) as container:
        container.start()
        Instance.objects.filter(pk=second.instance_id).update(key=container.key)
        # The container of B is who it says: B's instance, with B's key.
        Workspace.objects.filter(pk=second.pk).update(instance=_renamed(second, container.id))
        second.refresh_from_db()
        point(second, f"unix:{container.socket}")
        with closing(stack.visitor(other, second)) as rightful:
            page = rightful.get("/", headers=HTML)
            assert page.status_code == 200
            assert "Datasette" in page.text
        point(first, f"unix:{container.socket}")
        with closing(stack.visitor(owner, first)) as misled:
            for headers in (HTML, {}):
                refused = misled.get("/", headers=headers)
                assert refused.status_code == 403
                assert "Datasette" not in refused.text


def _renamed(workspace: Workspace, instance_id: str) -> Instance:
    """The same instance under the id of a container that a test made."""
    instance = Instance.objects.get(pk=workspace.instance_id)
    instance.pk = instance_id
    instance.save(force_insert=True)
    return instance


# --- what the configuration may hold -------------------------------------------------------------


def _config(**changes: Any) -> RouterConfig:
    values: dict[str, Any] = {
        "listen": ["127.0.0.1:1"],
        "web": "unix:/run/web.sock",
        "secret": "s" * 40,
        "cloud_url": "https://cloud.example",
        "cloud_netloc": "cloud.example",
        "cloud_host": "cloud.example",
        "apps_domain": "apps.example.net",
        "apps_host": "apps.example.net",
        "scheme": "https",
        "directory": Path("/run/router"),
        "waiting": "unix:/run/waiting.sock",
        "session_cookie": "__Host-s",
        "state_cookie": "__Host-t",
        "private_cookies": ["__Host-s"],
        "handoff_paths": ["/-/cloudapp/start"],
        "sign_in_path": "/-/cloudapp/start",
        "sign_in_verdict": "sign-in",
        "pages": [RouterPage("waking", 503, "Starting.", retry_after=1)],
    }
    return RouterConfig(**values | changes)


@pytest.mark.parametrize("bad", ['a"b', "a;b", "a{b", "a$b", "a\nb", "a\\b", ""])
def test_a_secret_cannot_change_what_the_configuration_means(bad: str) -> None:
    with pytest.raises(NotSafe):
        render(_config(secret=bad))


def test_dots_in_names_are_only_dots() -> None:
    assert r"\.apps\.example\.net$" in render(_config())


def test_only_a_yes_is_remembered_for_as_long_as_the_gateway_says() -> None:
    text = render(_config())
    assert "proxy_cache_valid" not in text
    [stale] = re.findall(r"proxy_cache_use_stale (.*);", text)
    assert set(stale.split()) == {
        *("error", "timeout", "invalid_header", "http_500", "http_502", "http_504")
    }
