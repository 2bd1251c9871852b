"""Webhooks in the running product: an owner adds one, and a receiver hears what happens."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import Person
from tests.workspaces.webhooks import receiver as receivers
from tests.workspaces.webhooks.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Another program on this machine; the product's operators allow loopback."""
    with receivers.listening() as receiver:
        yield receiver


def heard(receiver: Receiver, secret: str, type: str, seconds: float = 120) -> float:
    """Wait until a message of a type has arrived and verifies; return how long that took."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        types = [message.verified(secret)["type"] for message in receiver.received]
        if type in types:
            return time.monotonic() - began
        time.sleep(0.02)
    raise AssertionError(f"{type} did not arrive within {seconds} s, only {types}")


def test_what_happens_is_heard_elsewhere_at_once(person: Person, receiver: Receiver) -> None:
    person.sign_up()
    page = person.page
    person.go("/workspaces/new/")
    page.fill("#id_name", "Birds heard")
    page.click("main button[type=submit]")
    person.status(becomes="running")
    page.click("text=Webhooks")

    # An address inside is refused, in words.
    page.fill("#id_url", "https://169.254.169.254/latest/meta-data/")
    page.click("#do-add")
    expect(page.locator("#id_url_error")).to_contain_text("not lead to the public internet")

    page.fill("#id_url", receiver.url)
    page.click("#do-add")
    secret = page.locator("#secret").inner_text()
    page.click("#do-test")
    expect(page.locator("#log .status").first).to_have_text("Delivered")
    heard(receiver, secret, "ping")

    # It is down for one message, and gets it five seconds later.
    receiver.answers = [receivers.status(503)]
    page.click("text=Overview")
    page.click("#do-stop")
    person.status(becomes="stopped")
    took = heard(receiver, secret, "workspace.stopped")
    print(f"heard of it {took:.2f} s after the page showed it")
    page.click("text=Webhooks")
    page.click("main .list__title")
    stopped = page.locator("#log .list__item", has_text="workspace.stopped")
    expect(stopped.locator(".status")).to_have_text("Delivered", timeout=120_000)
    expect(stopped).to_contain_text("2 attempts")
    ids = [m.id for m in receiver.received if b'"workspace.stopped"' in m.body]
    assert len(ids) == 2
    assert len(set(ids)) == 1
