"""The whole product, as `make run` starts it, and people with browsers in front of it."""

import os
import re
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default as mail_policy
from pathlib import Path

import pytest
from playwright.sync_api import Page

from cloudapp.local.places import VAR
from cloudapp.local.product import Product, free_port
from tests.browser import NewPage
from tests.shelf import Shelf

LINK = re.compile(r"https?://\S+")
PASSWORD = "a rather long password 42"
OPERATOR = "operator@example.org"
METRICS_TOKEN = "what-prometheus-shows-0123456789"
MAIL_SECONDS = 120.0


@pytest.fixture(scope="session")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Packages that authors have uploaded to the index, besides what is really there."""
    return Shelf(tmp_path_factory.mktemp("uploads"))


@pytest.fixture(scope="package")
def product(uploads: Shelf, workspace_image: str) -> Iterator[Product]:
    """The running product, alone with its state, on the engine that the tests share."""
    namespace = f"{os.environ['NAMESPACE']}-e2e"
    environment = {
        "DOCKER_HOST": os.environ["DOCKER_HOST"],
        "CLOUDAPP_OPERATOR_EMAIL": OPERATOR,
        "CLOUDAPP_OPERATOR_PASSWORD": PASSWORD,
        "IDLE_CHECK_SECONDS": "1",
        "SWEEP_SECONDS": "2",
        "LOG_FORMAT": "json",
        "DISK_CHECK_SECONDS": "1",
        # Tests give single workspaces other limits than their plan: nobody sets these right.
        "PLAN_CHECK_SECONDS": "3600",
        "METRICS_TOKEN": METRICS_TOKEN,
        # Where the tests' own receivers of webhooks are.
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
        # A busy machine may take longer over a good change than the product allows it.
        "SWITCH_SECONDS": "45",
        "WAKE_HOLD_SECONDS": "50",
        # The host's own, and ours.
        "PIP_FIND_LINKS": f"{os.environ.get('PIP_FIND_LINKS', '')} {uploads.directory}".strip(),
    }
    state = VAR / "test" / namespace
    product = Product(state, free_port(), namespace, env=environment, fast=True)
    try:
        product.start()
        yield product
    finally:
        product.discard()


@pytest.fixture(autouse=True)
def logs_of_a_failure(request: pytest.FixtureRequest, product: Product) -> Iterator[None]:
    """Print what each process logged last when a test fails."""
    failed_before = request.session.testsfailed
    yield
    if request.session.testsfailed > failed_before:
        for log in sorted(product.logs.glob("*.log")):
            print(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-40:]))


class Person:
    """Somebody at a browser of their own."""

    def __init__(self, product: Product, page: Page, email: str) -> None:
        self.product = product
        self.page = page
        self.email = email

    def go(self, path: str) -> None:
        """Open a page of the cloud host."""
        self.page.goto(f"{self.product.base_url}{path}")

    def address(self, slug: str, path: str = "/") -> str:
        """A workspace's own address."""
        return f"http://{slug}.localhost:{self.product.port}{path}"

    def sign_up(self) -> None:
        """Sign up by email and follow the link in the mail."""
        self.go("/account/signup/")
        self.page.fill("input[name=email]", self.email)
        self.page.fill("input[name=password1]", PASSWORD)
        self.page.click("main button[type=submit]")
        self.page.wait_for_url("**/confirm-email/")
        self.page.goto(mailed_link(self.product.mail, self.email, "confirm-email"))
        self.page.click("main button[type=submit]")
        self.page.wait_for_url("**/workspaces/")

    def sign_in(self, password: str = PASSWORD) -> None:
        """Sign in with an account that is there."""
        self.go("/account/login/")
        self.page.fill("input[name=login]", self.email)
        self.page.fill("input[name=password]", password)
        self.page.click("main button[type=submit]")
        self.page.wait_for_url("**/workspaces/")

    def sign_out(self) -> None:
        """Sign out by the button that every page has."""
        self.go("/workspaces/")
        self.page.click("header form[action='/account/logout/'] button")
        self.page.wait_for_url(f"{self.product.base_url}/")

    def status(self, *, becomes: str, seconds: float = 240) -> None:
        """Wait until the page shows a status, without reloading it."""
        shown = self.page.locator("#live .status").first
        deadline = time.monotonic() + seconds
        while shown.inner_text().strip().lower() != becomes:
            assert time.monotonic() < deadline, f"{shown.inner_text()}, not {becomes}"
            self.page.wait_for_timeout(50)


@pytest.fixture
def person(product: Product, new_page: NewPage) -> Person:
    """A new customer, not signed up yet."""
    return Person(product, new_page(), f"ada-{time.monotonic_ns()}@example.org")


@pytest.fixture
def operator(product: Product, new_page: NewPage) -> Person:
    """The first operator, signed in."""
    one = Person(product, new_page(), OPERATOR)
    one.sign_in()
    return one


@pytest.fixture
def stranger(product: Product, new_page: NewPage) -> Person:
    """Another one, who has nothing to do with the first."""
    return Person(product, new_page(), f"eve-{time.monotonic_ns()}@example.org")


def mailed_link(mail: Path, to: str, what: str) -> str:
    """Return the newest link with `what` in it that was mailed to somebody."""
    deadline = time.monotonic() + MAIL_SECONDS
    while time.monotonic() < deadline:
        for path in sorted(mail.glob("*"), key=lambda p: p.stat().st_mtime, reverse=True):
            link = _link_in(path, to, what)
            if link:
                return link
        time.sleep(0.05)
    raise AssertionError(f"no mail to {to} with a link to {what}")


def _link_in(path: Path, to: str, what: str) -> str | None:
    message = message_from_bytes(path.read_bytes(), policy=mail_policy)
    if to not in str(message["to"]):
        return None
    body = message.get_body(("plain",))
    text = body.get_content() if body else ""
    return next((link for link in LINK.findall(text) if what in link), None)
