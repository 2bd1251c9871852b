"""Fifty programs at once, over bad connections: nothing is doubled, nothing lost, nothing stuck."""

import json
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import docker
import httpx
import pytest

from cloudapp.local.product import Product
from deploy.engines.docker import INSTANCE_LABEL, NAMESPACE_LABEL

CLIENTS = 50
USERS = 10
SECONDS = 900
# Of all requests, so many lose their connection: before they are whole, or before the answer.
LOST = 0.3

MAKE_TOKENS = """
import json
from allauth.account.models import EmailAddress
from accounts import api_tokens
from accounts.models import User
texts = []
for number in range({users}):
    user = User.objects.create_user()
    EmailAddress.objects.create(
        user=user, email=f"crowd-{mark}-{{number}}@example.org", verified=True, primary=True
    )
    texts.append(api_tokens.create(user, "crowd", ["read", "lifecycle"])[1])
print(json.dumps(texts))
"""
LOOK = """
import json
from workspaces.models import Workspace
rows = Workspace.objects.filter(slug__startswith="{prefix}").select_related("instance")
print(json.dumps([
    [row.slug, str(row.instance_id), row.instance.desired, row.status, row.deleted_at is not None]
    for row in rows
]))
"""


class Client:
    """A program with an unreliable line, that asks again with the same key until it is answered."""

    def __init__(self, product: Product, token: str, seed: int) -> None:
        self._address = ("127.0.0.1", product.port)
        self._token = token
        self._chance = random.Random(seed)
        self.lost = 0

    def ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Return the answer, however often the line broke on the way to it."""
        key = str(uuid.uuid4())
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            try:
                response = self._once(method, path, body, key)
            except (OSError, httpx.HTTPError):
                continue
            if response is not None and response.status_code not in (429, 502, 503, 504):
                return response
            time.sleep(0.05)
        raise AssertionError(f"no answer to {method} {path}")

    def _once(self, method: str, path: str, body: object, key: str) -> httpx.Response | None:
        if self._chance.random() < LOST:
            self.lost += 1
            self._break_off(method, path, body, key)
            return None
        headers = {"Authorization": f"Bearer {self._token}"}
        if method == "POST":
            headers["Idempotency-Key"] = key
        base = f"http://localhost:{self._address[1]}/api/v1"
        return httpx.request(method, base + path, json=body, headers=headers, timeout=120)

    def _break_off(self, method: str, path: str, body: object, key: str) -> None:
        """Send the request, or a part of it, and hang up without reading an answer."""
        content = json.dumps(body).encode() if body is not None else b""
        head = (
            f"{method} /api/v1{path} HTTP/1.1\r\nHost: localhost:{self._address[1]}\r\n"
            f"Authorization: Bearer {self._token}\r\nIdempotency-Key: {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        whole = head.encode() + content
        part = whole if self._chance.random() < 0.7 else whole[: self._chance.randrange(len(whole))]
        with socket.create_connection(self._address, timeout=60) as line:
            line.sendall(part)
            time.sleep(self._chance.choice([0, 0.01, 0.1]))

    def wait(self, slug: str, status: str) -> None:
        """Wait for a status, as long as it takes."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            response = self.ask("GET", f"/workspaces/{slug}/wait?status={status}&timeout=60")
            if response.status_code == 200:
                return
            assert response.json()["code"] == "timeout", response.text
        raise AssertionError(f"{slug} is not {status}")


@pytest.fixture
def tokens(product: Product) -> list[str]:
    """Tokens of some users."""
    script = MAKE_TOKENS.format(users=USERS, mark=uuid.uuid4().hex[:8])
    return list(json.loads(product.manage("shell", "--no-imports", "-c", script).splitlines()[-1]))


@pytest.fixture
def prefix() -> str:
    """What the slugs of this test begin with."""
    return f"crowd-{uuid.uuid4().hex[:8]}"


def rows(product: Product, prefix: str) -> list[tuple[str, str, str, str, bool]]:
    """What the database says of our workspaces."""
    script = LOOK.format(prefix=prefix)
    printed = product.manage("shell", "--no-imports", "-c", script).splitlines()[-1]
    return [tuple(row) for row in json.loads(printed)]


def life(client: Client, slug: str, chance: random.Random) -> str:
    """Make a workspace, do things to it, perhaps delete it; return what should be left."""
    made = client.ask("POST", "/workspaces", {"name": slug, "slug": slug})
    assert made.status_code == 202, made.text
    assert made.json()["slug"] == slug
    if chance.random() < 0.5:
        client.wait(slug, "running")
    left = "running"
    for deed in chance.choices(["stop", "start"], k=chance.randrange(1, 4)):
        done = client.ask("POST", f"/workspaces/{slug}/{deed}")
        assert done.status_code == 202, done.text
        left = {"stop": "stopped", "start": "running"}[deed]
        if chance.random() < 0.3:
            client.wait(slug, left)
    if chance.random() < 0.4:
        gone = client.ask("DELETE", f"/workspaces/{slug}")
        assert gone.status_code == 202, gone.text
        if chance.random() < 0.5:
            back = client.ask("POST", f"/workspaces/{slug}/undelete")
            assert back.status_code == 202, back.text
            left = "running"
        else:
            return "deleting"
    client.wait(slug, left)
    return left


def test_fifty_clients_with_bad_lines(
    product: Product, tokens: list[str], prefix: str, docker_client: docker.APIClient
) -> None:
    clients = [Client(product, tokens[n % USERS], seed=n) for n in range(CLIENTS)]
    begin = threading.Barrier(CLIENTS)

    def run(number: int) -> tuple[str, str]:
        begin.wait(60)
        slug = f"{prefix}-{number}"
        return slug, life(clients[number], slug, random.Random(number))

    with ThreadPoolExecutor(CLIENTS) as pool:
        expected = dict(pool.map(run, range(CLIENTS)))
    assert sum(client.lost for client in clients) > CLIENTS / 2  # lines did break

    def settled() -> bool:
        return {slug: status for slug, _, _, status, _ in rows(product, prefix)} == expected

    until(settled)
    # No duplicates: a slug once, and as many workspaces as clients.
    found = rows(product, prefix)
    assert len(found) == CLIENTS
    assert {slug: status for slug, _, _, status, _ in found} == expected

    namespace = product.namespace

    def holds() -> dict[str, str]:
        listed = docker_client.containers(
            all=True, filters={"label": f"{NAMESPACE_LABEL}={namespace}"}
        )
        labels = {c["Labels"].get(INSTANCE_LABEL, ""): c["State"] for c in listed}
        return {instance: state for instance, state in labels.items() if instance}

    wanted = {
        instance: "running" if desired == "running" else "exited"
        for _, instance, desired, _, _ in found
        if desired != "absent"
    }
    absent = {instance for _, instance, desired, _, _ in found if desired == "absent"}

    def agrees() -> bool:
        there = holds()
        never_started = {i for i, state in wanted.items() if state == "exited" and i not in there}
        same = all(there.get(i) == s for i, s in wanted.items() if i not in never_started)
        return same and not absent & set(there)

    until(agrees)
    for slug, status in expected.items():
        if status != "deleting":
            number = int(slug.rsplit("-", 1)[1])
            assert clients[number].ask("DELETE", f"/workspaces/{slug}").status_code == 202


def until(true: Callable[[], bool]) -> None:
    """Return when it is so; fail when it is not in time."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
