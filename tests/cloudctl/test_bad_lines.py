"""Lines that break: nothing is done twice, nothing is missed, and errors say what to do."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudapp.local.product import Product
from tests.cloudctl.conftest import SECONDS, Ctl
from tests.cloudctl.proxy import Proxy

TOO_MANY = b'{"type":"x","title":"T","status":429,"detail":"Too many.","code":"too_many_requests"}'


@pytest.fixture
def proxy(product: Product) -> Iterator[Proxy]:
    with Proxy(product.base_url) as one:
        yield one


@pytest.fixture
def far(proxy: Proxy, token: str, tmp_path: Path) -> Ctl:
    """The command, behind the proxy."""
    return Ctl(tmp_path, CLOUDCTL_URL=proxy.url, CLOUDCTL_TOKEN=token)


def keys(proxy: Proxy, end: str) -> list[str]:
    return [seen.headers["idempotency-key"] for seen in proxy.of("POST", end)]


def test_an_answer_that_gets_lost_makes_no_second_workspace(proxy: Proxy, far: Ctl) -> None:
    proxy.bad("POST", "/workspaces", times=2, drop=True)
    made = far.ok("create", "Lost and found", "--json").json
    assert made["name"] == "Lost and found"
    assert len(keys(proxy, "/workspaces")) == 3
    assert len(set(keys(proxy, "/workspaces"))) == 1
    found = far.ok("list", "--search", "Lost and found", "--json").json
    assert [one["slug"] for one in found] == [made["slug"]]
    far.ok("delete", made["slug"], "--yes")


def test_a_deletion_whose_answer_gets_lost_is_done(proxy: Proxy, far: Ctl, slug: str) -> None:
    far.ok("create", "Short-lived", "--slug", slug)
    proxy.bad("DELETE", f"/{slug}", drop=True)
    assert far.ok("delete", slug, "--yes", "--json").json["status"] == "deleting"


def test_a_token_whose_text_gets_lost_is_made_once(proxy: Proxy, far: Ctl) -> None:
    proxy.bad("POST", "/tokens", drop=True)
    text = far.ok("tokens", "create", "lost", "--scope", "read").out
    assert text.startswith("cloudapp_")
    assert len(proxy.of("POST", "/tokens")) == 2
    assert len(set(keys(proxy, "/tokens"))) == 1
    listed = far.ok("tokens", "list", "--json").json
    assert [token["name"] for token in listed].count("lost") == 1


def test_what_the_server_asks_to_wait_for_is_waited_for(
    proxy: Proxy, far: Ctl, shared: str
) -> None:
    proxy.bad("POST", "/start", status=503, headers={"Retry-After": "1"}, body=TOO_MANY)
    proxy.bad("POST", "/start", status=502, body=b"<html>")
    far.ok("start", shared)
    assert len(keys(proxy, "/start")) == 3
    assert len(set(keys(proxy, "/start"))) == 1


def test_what_would_take_too_long_to_wait_for_is_told(proxy: Proxy, far: Ctl) -> None:
    proxy.bad("GET", "/workspaces", status=429, headers={"Retry-After": "3600"}, body=TOO_MANY)
    ran = far("list")
    assert ran.code == 1
    assert "Too many." in ran.err
    assert "Try again in 60 minutes." in ran.err


def test_a_wait_that_breaks_goes_on(proxy: Proxy, far: Ctl, shared: str) -> None:
    proxy.bad("GET", "/wait", drop=True)
    proxy.bad("GET", "/wait", status=504)
    assert far.ok("wait", shared, "--json").json["status"] == "running"


def test_a_stream_that_breaks_is_taken_up_again(proxy: Proxy, far: Ctl, slug: str) -> None:
    far.ok("create", "Streamed", "--slug", slug, "--wait", "--json")
    # The list of what was stays whole; the three streams after it break in the middle of an event.
    proxy.bad("GET", "/events", times=4, cut=1)
    following = far.start("events", slug, "-f", "--limit", "1", "--json")
    assert following.stdout
    try:
        seen = [json.loads(following.stdout.readline())]
        far.ok("restart", slug, "--wait", "--json")
        # The first may be the one with which it became ready.
        while len(seen) == 1 or seen[-1]["kind"] != "await_ready":
            seen.append(json.loads(following.stdout.readline()))
    finally:
        following.kill()
        following.communicate()
    streams = [one for one in proxy.of("GET", "/events") if "text/event" in one.headers["accept"]]
    assert len(streams) > 3
    assert all(int(one.headers["last-event-id"]) >= seen[0]["id"] for one in streams)
    past = far.ok("events", slug, "--limit", "200", "--json").json
    wanted = [event["id"] for event in past if event["id"] >= seen[0]["id"]]
    assert [event["id"] for event in seen] == wanted


def test_logs_that_break_are_shown_once(proxy: Proxy, far: Ctl, slug: str) -> None:
    far.ok("create", "Logged", "--slug", slug, "--wait", "--json")
    proxy.bad("GET", "/logs", cut=1)
    following = far.start("logs", slug, "-f")
    assert following.stdout
    try:
        assert "Datasette" in following.stdout.readline()
        # This writes one more line, in the middle of which the stream breaks.
        far.ok("stop", slug, "--wait", "--json")
        assert "stopped:" in following.stdout.readline()
    finally:
        following.kill()
        following.communicate()
    assert len(proxy.of("GET", "/logs")) == 2


def test_without_a_stream_the_waiting_goes_on(proxy: Proxy, far: Ctl, slug: str) -> None:
    proxy.bad("GET", "/events", times=50, status=404)
    assert f"{slug} is running" in far.ok("create", "Blind", "--slug", slug, "--wait").out


def test_a_redirect_is_not_followed(proxy: Proxy, far: Ctl, product: Product) -> None:
    with Proxy(product.base_url) as other:
        elsewhere = f"{other.url}/api/v1/workspaces"
        proxy.bad("GET", "/workspaces", status=302, headers={"Location": elsewhere})
        ran = far("list")
        assert ran.code == 4
        assert "sends us on" in ran.err
        assert not other.seen


@pytest.mark.parametrize("status", [200, 404])
def test_what_is_no_cloudapp_is_told(proxy: Proxy, far: Ctl, status: int) -> None:
    proxy.bad("GET", "/workspaces", status=status, body=b"<h1>Welcome to nginx</h1>")
    ran = far("list", "--json")
    assert ran.code == 4
    assert "no cloudapp" in ran.problem["detail"]


def test_a_server_that_is_away(token: str, tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        away = Ctl(tmp_path, CLOUDCTL_URL=url, CLOUDCTL_TOKEN=token)
        both = [away.start("list"), away.start("list", "--json")]
        (said, words), (printed, problem) = (
            process.communicate(timeout=SECONDS) for process in both
        )
    assert [process.returncode for process in both] == [4, 4]
    assert not said + printed
    assert "cannot be reached" in words
    assert json.loads(problem)["code"] == "unreachable"


def test_ctrl_c_ends_it_and_says_what_goes_on(proxy: Proxy, far: Ctl, slug: str) -> None:
    proxy.bad("GET", "/wait", hold=120.0)
    creating = far.start("create", "Interrupted", "--slug", slug, "--wait")
    proxy.until_seen("GET", "/wait")
    creating.send_signal(signal.SIGINT)
    out, err = creating.communicate(timeout=SECONDS)
    assert creating.returncode == 130
    assert not out
    assert "goes on on the server" in err
    assert f"cloudctl events {slug} -f" in err
    assert "Traceback" not in err


def test_ctrl_c_with_json_is_a_problem(proxy: Proxy, far: Ctl, shared: str) -> None:
    following = far.start("events", shared, "-f", "--json")
    assert following.stdout
    following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=SECONDS)
    assert following.returncode == 130
    assert json.loads(err)["code"] == "interrupted"
