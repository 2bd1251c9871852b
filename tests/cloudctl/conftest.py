"""The command as people run it, and one whole product that all these tests share."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloudapp.local.places import PROJECT, VAR
from cloudapp.local.product import Product, free_port

SECONDS = 240.0
OWNER = "ada@example.org"
OTHER = "eve@example.org"
SCOPES = ("read", "lifecycle", "plugins", "secrets", "members")
# Nothing falls asleep while nobody happens to use it.
PEOPLE = """
from allauth.account.models import EmailAddress
from accounts.models import User
from workspaces.models import Plan
Plan.objects.update(idle_seconds=0)
for email in {emails!r}:
    user = User.objects.create_user(None)
    EmailAddress.objects.create(user=user, email=email, primary=True, verified=True)
"""
MEMBER = """
from accounts.models import User
from workspaces.models import Member, Workspace
user = User.objects.get(emailaddress__email={email!r})
workspace = Workspace.objects.get(slug={slug!r})
Member.objects.get_or_create(workspace=workspace, user=user, defaults=dict(role="viewer"))
"""
_numbers = count(1)


@pytest.fixture(scope="session")
def product() -> Iterator[Product]:
    """The running product, alone with its state, on the engine that the tests share."""
    namespace = f"{os.environ['NAMESPACE']}-ctl"
    environment = {"DOCKER_HOST": os.environ["DOCKER_HOST"], "CHANGES_PER_HOUR": "100"}
    product = Product(
        VAR / "test" / namespace, free_port(), namespace, env=environment, fast=True, echo=False
    )
    try:
        product.start()
        product.manage("shell", "-c", PEOPLE.format(emails=[OWNER, OTHER]))
        yield product
    finally:
        product.discard()


def add_member(product: Product, slug: str, email: str) -> None:
    """Have somebody be a viewer: inviting people is not in the API yet."""
    product.manage("shell", "-c", MEMBER.format(slug=slug, email=email))


@pytest.fixture(scope="session")
def token(product: Product) -> str:
    """A token of somebody who has an account, for everything but an operator's work."""
    made = product.manage("create_token", OWNER, "--name", "tests", "--scope", *SCOPES)
    return made.splitlines()[-1].strip()


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, which must be one JSON document and nothing else."""
        return json.loads(self.out)

    @property
    def problem(self) -> dict[str, Any]:
        """The problem that it printed, and nothing else."""
        assert not self.out
        found: dict[str, Any] = json.loads(self.err)
        assert {"type", "title", "detail", "code"} <= set(found)
        return found


class Ctl:
    """`cloudctl` with an environment of its own."""

    def __init__(self, home: Path, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOUD")}
        self.environment = {**kept, "XDG_CONFIG_HOME": str(home), "TZ": "UTC", **environment}
        self.config = home / "cloudctl" / "config.json"

    def command(self, *arguments: str) -> list[str]:
        """Return what to run."""
        return [sys.executable, "-m", "cloudctl", *arguments]

    def start(self, *arguments: str, **more: Any) -> "subprocess.Popen[str]":
        """Start it; whoever does ends it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=PROJECT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def __call__(self, *arguments: str, stdin: str = "") -> Ran:
        """Run it to its end. The token must never be in what it prints."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=PROJECT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        secret = self.environment.get("CLOUDCTL_TOKEN")
        assert not secret or secret not in done.stdout + done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, stdin: str = "") -> Ran:
        """Run it; it must succeed."""
        ran = self(*arguments, stdin=stdin)
        assert ran.code == 0, f"{arguments}: {ran}"
        return ran

    def on_terminal(
        self, *arguments: str, columns: int = 80, typed: Sequence[str] = (), **environment: str
    ) -> tuple[int, str]:
        """Run it on a terminal of its own; return the exit code and all that it showed.

        Each of `typed` is typed once it has shown something more and waits.
        """
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=PROJECT,
            env={**self.environment, "COLUMNS": str(columns), "TERM": "xterm", **environment},
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
        )
        os.close(follower)
        try:
            shown = _read_terminal(leader, list(typed))
            return process.wait(timeout=SECONDS), shown
        finally:
            process.kill()
            process.wait()
            os.close(leader)


def _read_terminal(leader: int, typed: list[str]) -> str:
    shown = b""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ready, _, _ = select.select([leader], [], [], 0.3)
        if ready:
            try:
                found = os.read(leader, 4096)
            except OSError:  # nobody has the other end any more
                break
            shown += found
        elif typed and shown.endswith(b": "):
            os.write(leader, f"{typed.pop(0)}\n".encode())
            shown += b"|"
    return shown.decode()


@pytest.fixture
def ctl(product: Product, token: str, tmp_path: Path) -> Ctl:
    """The command, signed in as the owner by its environment."""
    return Ctl(tmp_path, CLOUDCTL_URL=product.base_url, CLOUDCTL_TOKEN=token)


@pytest.fixture
def slug(product: Product, token: str) -> Iterator[str]:
    """A slug that nobody has. What a test makes of it is deleted: one may have so many only."""
    one = f"trees-{next(_numbers)}"
    yield one
    httpx.delete(
        f"{product.base_url}/api/v1/workspaces/{one}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=SECONDS,
    )


@pytest.fixture(scope="session")
def shared(product: Product, token: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A running workspace that tests may look at, and leave as it is."""
    ctl = Ctl(
        tmp_path_factory.mktemp("config"), CLOUDCTL_URL=product.base_url, CLOUDCTL_TOKEN=token
    )
    ctl.ok("create", "Shared", "--slug", "shared", "--wait")
    return "shared"
