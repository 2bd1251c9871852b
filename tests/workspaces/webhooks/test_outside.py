"""What is sent to a customer's address: where it may go, and how little it may hold us up."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from tests.workspaces.webhooks import receiver as receivers
from tests.workspaces.webhooks.receiver import Receiver
from workspaces import outside

Resolve = Callable[..., None]
PUBLIC = "93.184.216.34"
# Far longer than anybody may be held up here.
SECONDS = 40


@pytest.fixture
def loopback(settings: Settings) -> None:
    """The operators allow this machine by name."""
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]


@pytest.fixture
def receiver(loopback: None) -> Iterator[Receiver]:
    with receivers.listening() as receiver:
        yield receiver


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Decide what the name server says of a name: each time the next of these."""
    real = socket.getaddrinfo
    known: dict[str, list[list[str]]] = {}

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host not in known:
            return real(host, port, *args, **options)
        answers = known[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [entry for one in addresses for entry in real(one, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    def say(name: str, *answers: list[str]) -> None:
        known[name] = list(answers)

    return say


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "localhost",
        "0.0.0.0",  # noqa: S104
        "0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[64:ff9b::10.0.0.1]",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b:1::1]",
        "[2002:0a00:0001::1]",
        "[2002:7f00:0001::]",
        "[2001:0:0a00:1::1]",
        "[2001:0:5db8:d822:0:0:f5ff:fffe]",
        "[2001:db8::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[ff0e::1]",
    ],
)
def test_what_is_not_on_the_public_internet_is_refused(host: str) -> None:
    with pytest.raises(outside.NotAllowed, match="not lead to the public internet"):
        outside.check(f"https://{host}/hook")
    with pytest.raises(outside.NotAllowed, match="not lead to the public internet"):
        outside.post(f"https://{host}/hook", b"{}", {})


@pytest.mark.parametrize(
    "host",
    [PUBLIC, "[2606:2800:220:1:248:1893:25c8:1946]", "[64:ff9b::8.8.8.8]", "[::ffff:8.8.8.8]"],
)
def test_what_is_public_is_fine(host: str) -> None:
    outside.check(f"https://{host}/hook?a=b")
    outside.check(f"https://{host}:8443")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "Begin with https://"),
        ("hooks.example.org", "Begin with https://"),
        ("ftp://93.184.216.34/", "Begin with https://"),
        ("file:///etc/passwd", "Begin with https://"),
        ("gopher://93.184.216.34/", "Begin with https://"),
        ("https://", "Begin with https://"),
        ("https:///hook", "Begin with https://"),
        ("http://93.184.216.34/", "nobody on the way"),
        ("https://ada:secret@93.184.216.34/", "Leave user and password out"),
        ("https://@93.184.216.34/", "Leave user and password out"),
        ("https://93.184.216.34:22/", "Port 22"),
        ("https://93.184.216.34:99999/", "no web address"),
        ("https://[::1/", "no web address"),
        ("https://93.184.216.34/a b", "without spaces"),
        ("https://93.184.216.34/a\r\nX-Header: b", "without spaces"),
        ("https://bücher.example/", "plain characters"),
        ("https://93.184.216.34/" + "x" * 500, "at most 500"),
    ],
)
def test_what_is_no_address_to_send_to_is_explained(url: str, words: str) -> None:
    with pytest.raises(outside.NotAllowed, match=words) as caught:
        outside.check(url)
    assert "secret" not in str(caught.value)


def test_names_go_by_what_they_lead_to(resolve: Resolve) -> None:
    resolve("hooks.example.org", [PUBLIC])
    outside.check("https://hooks.example.org/")
    for addresses in (["10.0.0.1"], [PUBLIC, "10.0.0.1"], ["::1", PUBLIC]):
        resolve("hooks.example.org", addresses)
        with pytest.raises(outside.NotAllowed, match="not lead to the public internet") as caught:
            outside.check("https://hooks.example.org/")
        assert "10.0.0.1" not in str(caught.value), "our own network is nobody's business"
    resolve("hooks.example.org", [])
    with pytest.raises(outside.NotAllowed, match="not lead to the public internet"):
        outside.check("https://hooks.example.org/")


def test_a_name_server_that_takes_its_time_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: answer.wait(SECONDS))
    began = time.monotonic()
    try:
        monkeypatch.setattr(outside, "CHECK_SECONDS", 0.1)
        with pytest.raises(outside.NotAllowed, match="not found in time"):
            outside.check("https://hooks.example.org/")
        monkeypatch.setattr(outside, "LOOK_UP_SECONDS", 0.1)
        with pytest.raises(outside.Unreachable, match="not found in time"):
            outside.post("https://hooks.example.org/", b"{}", {})
    finally:
        answer.set()
    assert time.monotonic() - began < SECONDS / 2, "a request waits for it"


def test_a_name_is_resolved_once_and_the_connection_goes_where_was_looked(
    receiver: Receiver, resolve: Resolve
) -> None:
    # Were it resolved again for the connection, that would lead to where nobody listens.
    resolve("hooks.example.org", ["127.0.0.1"], ["127.0.0.99"])
    url = f"http://hooks.example.org:{receiver.port}/hook"
    assert outside.post(url, b"{}", {}).status == 200
    assert receiver.received[0].headers["host"] == f"hooks.example.org:{receiver.port}"


def test_a_name_that_turned_private_after_it_was_saved_is_refused_when_sending(
    receiver: Receiver, resolve: Resolve, settings: Settings
) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = []
    resolve("hooks.example.org", [PUBLIC], ["127.0.0.1"])
    url = f"https://hooks.example.org:{receiver.port}/hook"
    outside.check(url)
    with pytest.raises(outside.NotAllowed, match="not lead to the public internet"):
        outside.post(url, b"{}", {})
    assert not receiver.received


def test_the_next_address_is_tried_when_one_takes_no_connection(
    receiver: Receiver, resolve: Resolve
) -> None:
    resolve("hooks.example.org", ["127.0.0.99", "127.0.0.1"])
    url = f"http://hooks.example.org:{receiver.port}/hook"
    assert outside.post(url, b"{}", {}).status == 200


def test_operators_may_name_networks_and_only_these(settings: Settings) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")]
    for host in ("10.1.2.3", "[::ffff:10.1.2.3]", "[fd00:1::5]"):
        outside.check(f"http://{host}/")
    for host in ("10.2.0.1", "[fd00:2::1]", "127.0.0.1"):
        with pytest.raises(outside.NotAllowed):
            outside.check(f"https://{host}/")


# --- sending -------------------------------------------------------------------------------------


def test_what_is_sent_arrives_as_it_is(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    receiver.answers = [receivers.status(202, b"taken\0\xff")]
    answer = outside.post(receiver.url, '{"a":"ü"}'.encode(), {"webhook-id": "7"})
    assert (answer.status, answer.text) == (202, "taken\ufffd\ufffd")
    (message,) = receiver.received
    assert (message.path, message.body) == ("/hook?from=cloudapp", '{"a":"ü"}'.encode())
    assert message.headers["webhook-id"] == "7"
    assert message.headers["content-length"] == "10"


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.answers = [receivers.status(307, Location=receiver.url)]
    assert outside.post(receiver.url, b"{}", {}).status == 307
    assert len(receiver.received) == 1


def test_of_an_endless_body_only_the_beginning_is_read(receiver: Receiver) -> None:
    receiver.answers = [receivers.endless]
    answer = outside.post(receiver.url, b"{}", {})
    assert (answer.status, answer.text) == (200, "na" * (outside.MAX_ANSWER // 2))


@pytest.mark.parametrize("answer", [receivers.silent(SECONDS), receivers.dripping])
def test_slow_answers_are_cut_off(
    receiver: Receiver, answer: receivers.Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "WHOLE_SECONDS", 0.5)
    receiver.answers = [answer]
    began = time.monotonic()
    with pytest.raises(outside.Unreachable, match="did not answer within"):
        outside.post(receiver.url, b"{}", {})
    assert time.monotonic() - began < SECONDS / 2


def test_who_does_not_listen_or_talks_something_else_is_told_apart(receiver: Receiver) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(outside.Unreachable, match="took no connection"):
            outside.post(f"http://127.0.0.1:{deaf.getsockname()[1]}/", b"{}", {})
    receiver.answers = [lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")]  # type: ignore[list-item]
    with pytest.raises(outside.Unreachable, match="without an answer that is HTTP"):
        outside.post(receiver.url, b"{}", {})
    with pytest.raises(outside.Unreachable, match="does not speak TLS"):
        outside.post(receiver.url.replace("http:", "https:"), b"{}", {})


def test_tls_goes_by_the_name_and_checks_the_certificate(
    loopback: None, resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = receivers.make_certificate(tmp_path / "hooks.pem", "hooks.example.org")
    for name in ("hooks.example.org", "other.example.org"):
        resolve(name, ["127.0.0.1"])
    with receivers.listening(certificate) as receiver:
        url = f"https://hooks.example.org:{receiver.port}/hook"
        outside._tls.cache_clear()
        with pytest.raises(outside.Unreachable, match="certificate of hooks"):
            outside.post(url, b"{}", {})
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        outside._tls.cache_clear()
        assert outside.post(url, b"{}", {}).status == 200
        with pytest.raises(outside.Unreachable, match="certificate of other"):
            outside.post(url.replace("hooks.", "other."), b"{}", {})
        assert receiver.names == ["hooks.example.org"] * 2 + ["other.example.org"]
        assert len(receiver.received) == 1
    outside._tls.cache_clear()
