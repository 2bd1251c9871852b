"""One id leads through all logs: router, web, worker, and the event that came of it."""

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import psycopg
import pytest

from cloudapp.local.product import Product
from tests.e2e.conftest import METRICS_TOKEN, OPERATOR

SECONDS = 120.0
SECRET = "dont-you-log-this"
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def token(product: Product) -> str:
    scopes = ["read", "lifecycle", "secrets"]
    made = product.manage("create_token", OPERATOR, "--name", "one id", "--scope", *scopes)
    return made.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def api(product: Product, token: str) -> httpx.Client:
    return httpx.Client(
        base_url=f"{product.base_url}/api/v1",
        headers={"Authorization": f"Bearer {token}"},
        timeout=SECONDS,
    )


def make_workspace(api: httpx.Client, slug: str) -> None:
    """Make a workspace, and wait until it answers."""
    made = api.post("/workspaces", json={"name": slug, "slug": slug})
    assert made.status_code == 202, made.text
    api.get(f"/workspaces/{slug}/wait?status=running&timeout=100").raise_for_status()


def lines_with(product: Product, name: str, request_id: str) -> Lines:
    """Return the lines of a process's log that say this id, as objects."""
    text = (product.logs / f"{name}.log").read_text()
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines() if request_id in line]


def eventually(found: Callable[[], Lines]) -> Lines:
    """Wait until there is something: a log is written a moment after the answer."""
    deadline = time.monotonic() + SECONDS
    while not (lines := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return lines


def connect(product: Product) -> psycopg.Connection[Any]:
    """Connect as the product's processes do."""
    told = urlsplit(product.environment["DATABASE_URL"])
    host = unquote(told.query.removeprefix("host="))
    return psycopg.connect(
        host=host, user=told.username, dbname=told.path.strip("/"), autocommit=True
    )


def test_one_id_from_the_router_to_the_workers_step(product: Product, api: httpx.Client) -> None:
    make_workspace(api, "one-id")
    answer = api.post("/workspaces/one-id/restart", headers={"X-Request-ID": "mine-0123456789"})
    assert answer.status_code == 202, answer.text
    request_id = answer.headers["X-Request-ID"]
    assert request_id != "mine-0123456789"  # nobody from outside chooses it
    (routed,) = eventually(lambda: lines_with(product, "nginx", request_id))
    assert routed["path"] == "/api/v1/workspaces/one-id/restart"
    assert routed["status"] == 202
    (answered,) = eventually(lambda: lines_with(product, "web", request_id))
    assert answered["workspace"] == "one-id"
    assert answered["status"] == 202
    worked = eventually(lambda: lines_with(product, "worker", request_id))
    assert {line["task"] for line in worked} == {"deploy.tasks.reconcile"}
    assert {line["workspace"] for line in worked} == {"one-id"}
    assert all(line["task_id"] and line["instance"] for line in worked)
    with connect(product) as database:
        noted = database.execute(
            "SELECT verb, via FROM accounts_auditentry WHERE request_id = %s", [request_id]
        ).fetchall()
        asked = database.execute(
            "SELECT kind FROM deploy_instanceevent WHERE request_id = %s", [request_id]
        ).fetchall()
    assert noted == [("restarted", "token")]
    assert ("restart",) in asked


def test_a_workspaces_own_requests_and_refusals_have_one(
    product: Product, api: httpx.Client, token: str
) -> None:
    make_workspace(api, "one-more")
    address = f"http://127.0.0.1:{product.port}/-/versions.json?q={SECRET}"
    host = {"Host": f"one-more.localhost:{product.port}"}
    headers = {**host, "Authorization": f"Bearer {token}", "X-Request-ID": "mine-0123456789"}
    inside = httpx.get(address, headers=headers, timeout=SECONDS)
    assert inside.status_code == 200
    refused = httpx.get(address, headers=host, timeout=SECONDS)
    assert refused.status_code == 401
    for answer in (inside, refused):
        request_id = answer.headers["X-Request-ID"]
        assert len(request_id) == 32
        (routed,) = eventually(lambda i=request_id: lines_with(product, "nginx", i))
        assert (routed["workspace"], routed["status"]) == ("one-more", answer.status_code)
        asked = eventually(lambda i=request_id: lines_with(product, "web", i))
        assert {line["route"] for line in asked} == {"_gateway/authorize"}
        assert {line["workspace"] for line in asked} == {"one-more"}


def test_no_secret_is_in_any_log(product: Product, api: httpx.Client, token: str) -> None:
    make_workspace(api, "secretive")
    put = api.put("/workspaces/secretive/secrets/SOME_KEY", json={"value": SECRET})
    assert put.status_code == 202, put.text
    last = ""
    for headers in (
        {"Cookie": f"cloudapp_session={SECRET}"},
        {"Authorization": f"Bearer {token}x"},
        {"Authorization": SECRET},
    ):
        for path in (
            f"/workspaces/?q={SECRET}",
            f"/api/v1/workspaces?x={SECRET}",
            f"/account/password/reset/key/1-{SECRET}/",
            f"/account/confirm-email/{SECRET}/",
        ):
            answer = httpx.get(f"{product.base_url}{path}", headers=headers, timeout=SECONDS)
            last = answer.headers["X-Request-ID"]
    form = {"login": OPERATOR, "password": SECRET}
    httpx.post(f"{product.base_url}/account/login/", data=form, timeout=SECONDS)
    eventually(lambda: lines_with(product, "web", last))
    logs = sorted(product.logs.glob("*.log"))
    assert {"nginx.log", "web.log", "worker.log"} <= {log.name for log in logs}
    keys = [path.read_text().strip() for path in product.places.secrets.iterdir()]
    assert keys
    for log in logs:
        text = log.read_text()
        for secret in (SECRET, token, *keys):
            assert secret not in text, log.name


def test_it_says_how_it_is(product: Product) -> None:
    """As the processes' role, which may read what it needs for that."""
    shown = {"Authorization": f"Bearer {METRICS_TOKEN}"}
    deadline = time.monotonic() + SECONDS
    while (ready := httpx.get(f"{product.base_url}/readyz", headers=shown)).status_code != 200:
        assert time.monotonic() < deadline, ready.text
        time.sleep(0.2)
    assert {check["code"] for check in ready.json()["checks"].values()} == {"ok"}
    assert httpx.get(f"{product.base_url}/readyz").json() == {"status": "ok"}
    metrics = httpx.get(f"{product.base_url}/metrics", headers=shown)
    assert metrics.status_code == 200
    assert "cloudapp_redis_up 1.0" in metrics.text
    assert httpx.get(f"{product.base_url}/metrics").status_code == 401


def test_the_products_own_role_cannot_touch_the_audit_log(product: Product) -> None:
    with connect(product) as database:
        found = database.execute("SELECT count(*) FROM accounts_auditentry").fetchone()
        assert found
        assert found[0] > 0
        for statement in (
            "UPDATE accounts_auditentry SET verb = 'nothing'",
            "DELETE FROM accounts_auditentry",
            "TRUNCATE accounts_auditentry",
            "ALTER TABLE accounts_auditentry DISABLE TRIGGER ALL",
            "DROP TABLE accounts_auditentry",
            "SET ROLE cloudapp",
            "SET session_replication_role = replica",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                database.execute(statement)
