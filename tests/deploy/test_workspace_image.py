"""The workspace image for real, in a container hardened like a customer's; with each Datasette."""

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from playwright.sync_api import Page
from websockets.exceptions import InvalidStatus
from websockets.sync.client import unix_connect

from deploy.images import DEFAULT_RELEASE, DIGEST_LABEL
from tests.accessibility.axe import Findings
from tests.deploy.workspace_support import (
    ALPHA,
    START_SECONDS,
    STOP_SECONDS,
    Workspace,
    fulfil_from,
    wait_until,
    workspace,
)

PATHS = [
    "/",
    "/data.json",
    "/data/-/query?sql=select+1",
    "/-/static/app.css",
    "/-/plugins.json",
    "/-/no-such-page",
    "/-/instance/health",
    "/-/instance/else",
]
INTERNAL = ".datasette-internal"
PLUGINS = {
    "cloudapp_workspace.plugin",
    "datasette-cluster-map",
    "datasette-configure-fts",
    "datasette-leaflet",
    "datasette-search-all",
    "datasette-upload-csvs",
    "datasette-upload-dbs",
}
UPLOAD_PAGES = ["/-/upload-csvs", "/-/upload-dbs", "/-/configure-fts"]

only_stable = pytest.mark.parametrize("workspace_image", [DEFAULT_RELEASE], indirect=True)
only_alpha = pytest.mark.parametrize("workspace_image", [ALPHA], indirect=True)


@pytest.fixture(scope="module", params=[DEFAULT_RELEASE, ALPHA])
def workspace_image(request: pytest.FixtureRequest) -> str:
    """The image of either release; the containers of this module's tests are made of it."""
    if request.param == ALPHA:
        return str(request.getfixturevalue("alpha_image"))
    return str(request.getfixturevalue("workspace_image"))


# --- the token ---------------------------------------------------------------------------------


def bad_tokens(instance: Workspace) -> dict[str, str | bytes | None]:
    """By name: every way in which a token can be wrong."""
    good = instance.actor_token("owner")
    head, body, signature = good.split(".")
    return {
        "none": None,
        "empty": "",
        "garbage": "not-a-token",
        "expired": instance.actor_token("owner", exp=time.time() - 2),
        "another instance": instance.actor_token("owner", aud=str(uuid.uuid4())),
        "several audiences": instance.actor_token("owner", aud=[instance.id, "other"]),
        "another key": instance.actor_token("owner", key="k" * 43),
        "no expiry": instance.actor_token("owner", exp=None),
        "no audience": instance.actor_token("owner", aud=None),
        "unknown purpose": instance.actor_token("owner", purpose="admin"),
        "unknown role": instance.actor_token("emperor"),
        "no actor": instance.token(purpose="actor"),
        "unsigned": f"{head}.{body}.",
        "changed": f"{head}.{body[:-2]}xx.{signature}",
        "not text": b"\xff\xfe",
    }


def test_every_path_refuses_every_wrong_token(workspace_shared: Workspace) -> None:
    for name, token in bad_tokens(workspace_shared).items():
        with workspace_shared.client() as client:
            for path in PATHS:
                response = client.get(path, headers=headers_of(token))
                assert response.status_code == 403, (name, path, response.text)
                assert response.json() == {"ok": False, "error": "This page is not open to you"}


def headers_of(token: str | bytes | None) -> dict[bytes, bytes]:
    if token is None:
        return {}
    return {b"X-Cloudapp-Actor": token.encode() if isinstance(token, str) else token}


def test_no_cache_on_the_way_keeps_what_one_person_sees(workspace_shared: Workspace) -> None:
    """Datasette sees to it; a release that does not must not become one of ours unnoticed."""
    for who in ({}, {"visitor": True}):
        headers = {"X-Cloudapp-Actor": workspace_shared.actor_token("viewer", **who)}
        with workspace_shared.client() as client:
            for path in ("/", "/data", "/data.json", "/data/-/query?sql=select+1", "/nothing"):
                (told,) = client.get(path, headers=headers).headers.get_list("Cache-Control")
                assert "no-store" in told, path


def test_two_tokens_are_refused(workspace_shared: Workspace) -> None:
    token = workspace_shared.actor_token("owner")
    headers = [("X-Cloudapp-Actor", token), ("X-Cloudapp-Actor", token)]
    with workspace_shared.client() as client:
        assert client.get("/", headers=headers).status_code == 403


def test_a_browser_gets_a_page_that_tells_nothing(workspace_shared: Workspace) -> None:
    with workspace_shared.client(Accept="text/html") as client:
        response = client.get("/data")
    assert response.status_code == 403
    assert response.headers["content-type"].startswith("text/html")
    assert "not open to you" in response.text
    for word in ("Datasette", "data.db", "Birds", "token"):
        assert word not in response.text


def test_writes_and_odd_methods_are_refused_too(workspace_shared: Workspace) -> None:
    with workspace_shared.client() as client:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"):
            assert client.request(method, "/-/upload-dbs").status_code == 403


def test_a_probe_token_opens_the_health_and_nothing_else(workspace_shared: Workspace) -> None:
    wait_until(
        lambda: idle(workspace_shared) and not workspace_shared.health()["in_flight"],
        "the end of what was asked before",
    )
    with workspace_shared.client(workspace_shared.token()) as client:
        health = client.get("/-/instance/health")
        others = [client.get(path).status_code for path in PATHS if "health" not in path]
        assert client.post("/-/instance/health").status_code == 405
    assert set(others) == {403}
    body = health.json()
    assert (body["instance"], body["generation"]) == (workspace_shared.id, 7)
    assert (body["in_flight"], body["busy"]) == (0, [])
    assert body["pristine"]
    assert health.headers["cache-control"] == "no-store"


def test_nobody_but_a_probe_sees_the_health(workspace_shared: Workspace) -> None:
    with workspace_shared.as_role("owner") as client:
        assert client.get("/-/instance/health").status_code == 403


def test_websockets_need_a_token_of_this_instance_and_page(workspace_shared: Workspace) -> None:
    token = workspace_shared.actor_token("owner")
    for headers in (
        {},
        {"X-Cloudapp-Actor": workspace_shared.actor_token("owner", aud="other")},
        {"X-Cloudapp-Actor": token, "Origin": "http://evil.test"},
    ):
        with (
            pytest.raises(InvalidStatus) as refused,
            unix_connect(
                str(workspace_shared.socket),
                "ws://birds.test/-/ws",
                additional_headers=headers,
                open_timeout=START_SECONDS,
            ),
        ):
            pass
        assert refused.value.response.status_code == 403


def test_a_websocket_with_a_token_gets_as_far_as_datasette(workspace_shared: Workspace) -> None:
    """Datasette itself has none, so it ends badly, but past the guard, and it is counted out."""
    headers = {"X-Cloudapp-Actor": workspace_shared.actor_token("owner")}
    with (
        pytest.raises(InvalidStatus) as failed,
        unix_connect(
            str(workspace_shared.socket),
            "ws://birds.test/-/ws",
            additional_headers=headers,
            open_timeout=START_SECONDS,
        ),
    ):
        pass
    assert failed.value.response.status_code == 500
    wait_until(lambda: workspace_shared.health()["in_flight"] == 0, "it to be counted out")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
    ],
)
def test_a_neighbour_workspace_cannot_post_with_my_session(
    workspace_shared: Workspace, headers: dict[str, str]
) -> None:
    with workspace_shared.as_role("owner", **headers) as client:
        response = client.post("/-/upload-dbs", files={"db": ("x.db", b"SQLite format 3\x00")})
        assert response.status_code == 403
        assert response.json()["error"] == "This request came from another site"
        assert client.get("/").status_code == 200  # following a link is fine


def test_datasette_and_plugins_never_see_the_token(workspace_shared: Workspace) -> None:
    code = (
        "from cloudapp_workspace.guard import _with_actor\n"
        "from cloudapp_workspace.tokens import Claims\n"
        "scope = {'headers': [(b'X-Cloudapp-Actor', b't'), (b'x-cloudapp-other', b'o'),"
        " (b'accept', b'*')]}\n"
        "print(_with_actor(scope, Claims('actor', {'id': '1'}, {'url': 'u'})))"
    )
    done = workspace_shared.execute("/opt/workspace/bin/python", "-IBc", code)
    assert done.code == 0, done.output
    assert b"x-cloudapp" not in done.output.lower()
    assert b"accept" in done.output


# --- who may do what ---------------------------------------------------------------------------


def test_the_actor_is_who_the_token_says(workspace_shared: Workspace) -> None:
    with workspace_shared.as_role("editor", Cookie="ds_actor=forged") as client:
        actor = client.get("/-/actor.json").json()["actor"]
    assert actor == {"id": "u-editor", "name": "Ada editor", "role": "editor"}


@pytest.mark.parametrize("role", ["viewer", "editor", "owner"])
def test_everybody_reads_and_queries(workspace_shared: Workspace, role: str) -> None:
    with workspace_shared.as_role(role) as client:
        assert client.get("/").status_code == 200
        assert query(client, "data", "select 6 * 7 as answer") == [{"answer": 42}]


@pytest.mark.parametrize("page", UPLOAD_PAGES)
def test_only_editors_and_owners_write(workspace_shared: Workspace, page: str) -> None:
    statuses = {}
    for role in ("viewer", "editor", "owner"):
        with workspace_shared.as_role(role) as client:
            got = client.get(page, follow_redirects=True).status_code
            statuses[role] = got
            if role == "viewer":
                assert client.post(page, data={"a": "b"}).status_code == 403
    assert statuses == {"viewer": 403, "editor": 200, "owner": 200}


def test_a_query_that_writes_changes_nothing(workspace_shared: Workspace) -> None:
    with workspace_shared.as_role("owner", **{"Sec-Fetch-Site": "same-origin"}) as client:
        for sql in ("create table t (a)", "insert into t values (1)"):
            response = client.get("/data.json", params={"sql": sql}, follow_redirects=True)
            assert response.status_code == 400
        assert client.get("/data/t").status_code == 404


def test_the_internal_database_stays_hidden(workspace_shared: Workspace) -> None:
    with workspace_shared.as_role("owner") as client:
        assert "_internal" not in client.get("/-/databases.json").text
        assert client.get("/_internal").status_code in (403, 404)


def test_the_home_page_of_an_empty_workspace(workspace_shared: Workspace) -> None:
    with workspace_shared.as_role("editor") as client:
        page = client.get("/").text
        assert "/-/upload-csvs" in page
        assert "/-/upload-dbs" in page
        assert 'href="http://cloud.test/workspaces/birds"' in page
        assert 'href="/-/cloudapp/sign-out"' in page
    with workspace_shared.as_role("viewer") as client:
        page = client.get("/").text
        assert "/-/upload-csvs" not in page
        assert "Nothing here yet" in page


@only_stable
def test_axe_finds_nothing_wrong_with_our_pages_in_it(
    workspace_shared: Workspace, page: Page
) -> None:
    findings = Findings()
    for role in ("owner", "viewer"):
        with workspace_shared.as_role(role, Accept="text/html") as client:
            page.route("**/*", fulfil_from(client))
            for path in ("/", "/-/space", "/-/upload-dbs"):
                page.goto(f"http://birds.test{path}")
                findings.look_at(page, f"{path} ({role})")
            page.unroute("**/*")
    assert not findings.found, f"\n{findings}"


# What Datasette calls it, and where: nothing for the whole instance, else database and table.
READS = [
    ("view-instance", ()),
    ("view-database", ("birds",)),
    ("view-table", ("birds", "birds")),
    ("view-database-download", ("birds",)),
    ("execute-sql", ("birds",)),
]
WRITES = [
    ("upload-csvs", ()),
    ("upload-dbs", ()),
    ("configure-fts", ("birds",)),
    ("insert-row", ("birds", "birds")),
    ("update-row", ("birds", "birds")),
    ("delete-row", ("birds", "birds")),
    ("create-table", ("birds",)),
    ("alter-table", ("birds", "birds")),
    ("drop-table", ("birds", "birds")),
]
ELSE = [("permissions-debug", ()), ("debug-menu", ())]
MAY = {
    "visitor": READS,
    "viewer": READS,
    "editor": [*READS, *WRITES],
    "owner": [*READS, *WRITES, *ELSE],
}


def asked() -> list[tuple[str, dict[str, str], str, tuple[str, ...]]]:
    """Who, as which actor, wants to do what, and where."""
    roles = {who: "viewer" if who == "visitor" else who for who in MAY}
    actors = {who: {"id": who, "name": who, "role": role} for who, role in roles.items()}
    return [
        (who, actors[who], action, where)
        for who in MAY
        for action, where in [*READS, *WRITES, *ELSE]
    ]


# 0.65 has no page that tells.
ASK_065 = """
import asyncio, json, sys
from datasette.app import Datasette
from datasette.plugins import pm
from cloudapp_workspace import plugin
pm.register(plugin, "cloudapp_workspace.plugin")

async def main():
    datasette, said = Datasette([], memory=True), []
    await datasette.invoke_startup()
    for actor, action, where, default in json.loads(sys.argv[1]):
        resource = where[0] if len(where) == 1 else tuple(where) or None
        said.append(bool(await datasette.permission_allowed(actor, action, resource, default)))
    print(json.dumps(said))

asyncio.run(main())
"""


@only_stable
def test_datasette_itself_says_what_each_role_may(workspace_shared: Workspace) -> None:
    reads = [action for action, _ in READS]
    questions = [(actor, action, where, action in reads) for _, actor, action, where in asked()]
    python = ("/opt/workspace/bin/python", "-IBc", ASK_065, json.dumps(questions))
    done = workspace_shared.execute(*python)
    assert done.code == 0, done.output
    said = json.loads(done.output)
    for (who, _, action, where), allowed in zip(asked(), said, strict=True):
        assert allowed == ((action, where) in MAY[who]), (who, action)


@only_alpha
def test_the_alpha_itself_says_what_each_role_may(
    workspace_container: Workspace, tmp_path: Path
) -> None:
    """An owner may ask it about anybody, at its page for debugging permissions."""
    bring_birds(workspace_container, tmp_path)
    with workspace_container.as_role("owner", **{"Sec-Fetch-Site": "same-origin"}) as client:
        for who, actor, action, where in asked():
            question = {"actor": json.dumps(actor), "permission": action}
            question |= {f"resource_{number}": name for number, name in enumerate(where, 1)}
            told = client.post("/-/permissions", data=question).json()
            assert told["allowed"] == ((action, where) in MAY[who]), (who, action, told)


# --- visitors of a public workspace ------------------------------------------------------------


def visitor_token(workspace: Workspace) -> str:
    """As the gateway signs it for whoever is no member."""
    actor = {"id": "visitor", "name": "Visitor", "role": "viewer"}
    return workspace.actor_token("viewer", actor=actor, public=True, visitor=True)


def bring_birds(workspace: Workspace, tmp_path: Path) -> None:
    """Upload a database called birds, with a table of that name."""
    with workspace.as_role("editor") as client:
        done = upload_db(client, sqlite_bytes(tmp_path, "birds"), "birds")
    assert done.json()["redirect"] == "/birds"


NOT_FOR_VISITORS = [
    *UPLOAD_PAGES,
    "/-/actor.json",
    "/-/allow-debug",
    "/-/config.json",
    "/-/databases.json",
    "/-/logs",
    "/-/metadata.json",
    "/-/no-such-page",
    "/-/permissions",
    "/-/plugins",
    "/-/plugins.json",
    "/-/settings.json",
    "/-/threads.json",
    "/-/versions.json",
    "/-/enrichment-jobs/data",
    "/-/instance/health",
    "/-/search-more",
    "/-/",
    "/-",
]


def test_visitors_read_tables_and_nothing_about_the_instance(
    workspace_container: Workspace, tmp_path: Path
) -> None:
    bring_birds(workspace_container, tmp_path)
    with workspace_container.client(visitor_token(workspace_container)) as client:
        for path in ("/", "/birds", "/birds/birds", "/birds/birds.json", "/birds/birds.csv"):
            assert client.get(path).status_code == 200, path
        assert client.get("/-/static/app.css").status_code == 200
        assert client.get("/-/search").status_code == 200
        assert query(client, "birds", "select max(number) as n from birds") == [{"n": 2}]
        for path in NOT_FOR_VISITORS:
            refused = client.get(path)
            assert refused.status_code == 403, path
        home = client.get("/").text
        assert 'href="/-/cloudapp/start?/"' in home
        for word in ("This workspace is public", "Workspace settings", "/-/upload-csvs"):
            assert word not in home
        assert client.get("/_internal").status_code in (403, 404)


def test_visitors_change_nothing(workspace_container: Workspace, tmp_path: Path) -> None:
    bring_birds(workspace_container, tmp_path)
    with workspace_container.client(visitor_token(workspace_container)) as client:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            for path in (
                *("/", "/birds", "/-/upload-dbs", "/-/search", "/-/static/app.css"),
                *("/birds/-/create", "/birds/birds/-/insert", "/birds/birds/1/-/delete"),
                *("/birds/-/execute-write", "/birds/-/queries/store"),
            ):
                assert client.request(method, path, json={}).status_code == 403, (method, path)
        for sql in ("delete from birds", "create table t (a)", "attach 'x.db' as x"):
            answer = client.get("/birds.json", params={"sql": sql}, follow_redirects=True)
            assert answer.status_code == 400, sql
        # A form of 1.0; 0.65 looks for a table of that name.
        assert client.get("/birds/-/execute-write").status_code in (400, 403, 404)
        assert query(client, "birds", "select max(number) as n from birds") == [{"n": 2}]
    with (
        pytest.raises(InvalidStatus) as failed,
        unix_connect(
            str(workspace_container.socket),
            "ws://birds.test/-/ws",
            additional_headers={"X-Cloudapp-Actor": visitor_token(workspace_container)},
        ),
    ):
        pass
    assert failed.value.response.status_code == 403


def test_members_are_told_that_it_is_public(workspace_shared: Workspace) -> None:
    for role in ("viewer", "editor", "owner"):
        token = workspace_shared.actor_token(role, public=True, visitor=False)
        with workspace_shared.client(token) as client:
            assert "This workspace is public" in client.get("/").text
            assert client.get("/-/versions.json").status_code == 200
    with workspace_shared.as_role("owner") as client:
        assert "This workspace is public" not in client.get("/").text


@only_alpha
def test_only_editors_and_owners_write_by_json_and_by_sql(workspace_container: Workspace) -> None:
    """Everything that 1.0 can write by itself; in this order each write finds what it needs."""
    writes: list[tuple[str, dict[str, Any], int]] = [
        ("/data/-/create", {"table": "birds", "rows": [{"id": 1, "name": "owl"}], "pk": "id"}, 201),
        ("/data/birds/-/insert", {"row": {"id": 2, "name": "wren"}}, 201),
        ("/data/birds/-/upsert", {"rows": [{"id": 2, "name": "robin"}]}, 200),
        ("/data/birds/2/-/update", {"update": {"name": "tit"}}, 200),
        ("/data/birds/1/-/delete", {}, 200),
        ("/data/-/execute-write", {"sql": "update birds set name = 'wren'"}, 200),
        ("/data/birds/-/drop", {"confirm": True}, 200),
    ]
    with workspace_container.as_role("viewer") as viewer:
        for role in ("editor", "owner"):
            with workspace_container.as_role(role) as client:
                for path, body, status in writes:
                    assert viewer.post(path, json=body).status_code == 403, path
                    response = client.post(path, json=body)
                    assert response.status_code == status, (role, path, response.text)
                    if "execute-write" in path:
                        found = query(viewer, "data", "select * from birds")
                        assert found == [{"id": 2, "name": "wren"}]


@only_alpha
def test_whoever_became_a_viewer_keeps_no_power_over_what_they_stored(
    workspace_container: Workspace,
) -> None:
    """1.0 lets the owner of a query change it by a rule that is narrower than our general one."""
    stored = {"name": "kept", "sql": "select 1", "is_private": False}
    same = {"id": "u-ada", "name": "Ada"}
    editor = workspace_container.actor_token("editor", actor={**same, "role": "editor"})
    viewer = workspace_container.actor_token("viewer", actor={**same, "role": "viewer"})
    with workspace_container.client(editor) as client:
        done = client.post("/data/-/queries/store", json={"query": stored})
        assert done.status_code == 201, done.text
    # The forms are asked for, because the guard lets no viewer's POST get that far.
    forms = ["/data/kept/-/edit", "/data/kept/-/delete", "/data/-/execute-write"]
    for token, expected in ((editor, 200), (viewer, 403)):
        with workspace_container.client(token) as client:
            assert [client.get(form).status_code for form in forms] == [expected] * len(forms)


@only_alpha
def test_what_datasette_keeps_for_itself_survives_a_stop_and_is_not_served(
    workspace_container: Workspace,
) -> None:
    stored = {"name": "kept", "sql": "select 6 * 7 as answer", "is_private": False}
    with workspace_container.as_role("owner") as client:
        client.post("/data/-/queries/store", json={"query": stored}).raise_for_status()
        assert workspace_container.stop() == 0
        assert [name for name in workspace_container.files() if INTERNAL in name] == [INTERNAL]
        workspace_container.start()
        rows = client.get("/data/kept.json", params={"_shape": "array"})
        assert rows.json() == [{"answer": 42}]
        for path in (f"/{INTERNAL}", f"/{INTERNAL}.db", "/datasette-internal", "/_internal"):
            assert client.get(path).status_code in (403, 404)


@only_alpha
def test_a_broken_internal_database_is_put_aside(workspace_container: Workspace) -> None:
    assert workspace_container.stop() == 0
    workspace_container.put_file(f"/data/{INTERNAL}", b"no database at all" * 100)
    workspace_container.start()
    with workspace_container.as_role("viewer") as client:
        assert client.get("/data").status_code == 200
    assert f"{INTERNAL}.broken" in workspace_container.files()


# --- uploads -----------------------------------------------------------------------------------


def query(client: httpx.Client, database: str, sql: str) -> list[dict[str, Any]]:
    """The rows of a query: 0.65 answers at this address, 1.0 leads to its own."""
    asked = {"sql": sql, "_shape": "array"}
    response = client.get(f"/{database}.json", params=asked, follow_redirects=True)
    assert response.status_code == 200, response.text
    rows: list[dict[str, Any]] = response.json()
    return rows


def csv_of(rows: int) -> bytes:
    lines = [f"bird {number},{number},{number / 7:.3f}" for number in range(rows)]
    return "\n".join(["name,ring,weight", *lines]).encode()


def sqlite_bytes(tmp_path: Path, table: str, rows: int = 3) -> bytes:
    path = tmp_path / f"{table}.sqlite"
    connection = sqlite3.connect(path)
    connection.execute(f"create table {table} (number integer)")
    connection.executemany(f"insert into {table} values (?)", ((n,) for n in range(rows)))  # noqa: S608
    connection.commit()
    connection.close()
    return path.read_bytes()


def count(client: httpx.Client, database: str, table: str) -> int:
    return int(query(client, database, f"select count(*) as n from [{table}]")[0]["n"])  # noqa: S608


def upload_csv(client: httpx.Client, data: bytes, table: str) -> httpx.Response:
    files = {"csv": (f"{table}.csv", data, "text/csv")}
    response = client.post("/-/upload-csvs", files=files, data={"xhr": "1", "table": table})
    assert response.status_code == 200, response.text
    return response


def upload_db(client: httpx.Client, data: bytes, name: str) -> httpx.Response:
    files = {"db": (f"{name}.db", data)}
    return client.post("/-/upload-dbs", files=files, data={"xhr": "1", "db_name": name})


def idle(instance: Workspace) -> bool:
    return not instance.health()["busy"]


@contextmanager
def seen_busy(instance: Workspace, work: str) -> Iterator[None]:
    """See that it says meanwhile that it is at this work."""
    seen, over = threading.Event(), threading.Event()

    def look() -> None:
        while not (seen.is_set() or over.wait(0.01)):
            if work in instance.health()["busy"]:
                seen.set()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert seen.is_set(), f"it never said that it is {work}"


def test_a_csv_becomes_a_table_and_its_import_is_reported(workspace_container: Workspace) -> None:
    with workspace_container.as_role("editor") as client:
        with seen_busy(workspace_container, "importing a CSV file"):
            upload_csv(client, csv_of(60_000), "birds")
            # The response is out and the import has only begun.
            wait_until(lambda: idle(workspace_container), "the import")
        assert count(client, "data", "birds") == 60_000
        types = query(client, "data", "select distinct typeof(ring) as t from birds")
        assert types == [{"t": "integer"}]
        home = client.get("/").text
        assert "birds" in home
        assert ">_csv_progress_<" not in home


def test_large_utf8_is_read_as_utf8(workspace_container: Workspace) -> None:
    """The plugin's own guess takes this for windows-1250; ASCII first would be latin-1."""
    plain = "".join(f"Wren {number}\n" for number in range(1000))
    late = "".join(f"Zaunkönig {number} 鳥\n" for number in range(5_000))
    data = ("name\n" + plain + late).encode()
    beginnings = {"ascii_first": 5_000, "cut": data.index("ö".encode()) + 1}
    with workspace_container.as_role("editor") as client:
        for table, beginning in beginnings.items():
            client.post(
                "/-/upload-csvs",
                params={"_num_bytes_to_detect_with": beginning},
                files={"csv": ("birds.csv", data, "text/csv")},
                data={"xhr": "1", "table": table},
            ).raise_for_status()
            wait_until(lambda: idle(workspace_container), "the import")
            sql = f"select name from {table} where name like '%4999%'"  # noqa: S608
            assert query(client, "data", sql) == [{"name": "Zaunkönig 4999 鳥"}]


@pytest.mark.parametrize(
    ("page", "field", "name"), [("/-/upload-dbs", "db", "b.db"), ("/-/upload-csvs", "csv", "b.csv")]
)
def test_a_browser_uploads_with_the_forms_own_fields(
    workspace_container: Workspace, tmp_path: Path, page: str, field: str, name: str
) -> None:
    """With what the page gives it (0.65: a cookie and a token), without JavaScript."""
    data = sqlite_bytes(tmp_path, "b") if field == "db" else csv_of(3)
    browser = {"Sec-Fetch-Site": "same-origin", "Origin": "http://birds.test"}
    with workspace_container.as_role("editor", Accept="text/html", **browser) as client:
        token = client.get(page).text.split('name="csrftoken" value="')[1].split('"')[0]
        response = client.post(page, data={"csrftoken": token}, files={field: (name, data)})
        assert response.status_code in (200, 302), response.text
        wait_until(lambda: idle(workspace_container), "the import")
        database, table = ("b", "b") if field == "db" else ("data", "b")
        assert count(client, database, table) == 3


def test_search_and_maps_work(workspace_container: Workspace) -> None:
    """Every default plugin does what it is there for with these versions of everything else."""
    places = "name,latitude,longitude\nWren Hill,51.5,-0.1\nOwl Wood,48.8,2.3\n"
    with workspace_container.as_role("editor") as client:
        client.get("/-/configure-fts")
        upload_csv(client, places.encode(), "places")
        wait_until(lambda: idle(workspace_container), "the import")
        done = client.post("/-/configure-fts/data", data={"table": "places", "column.name": "on"})
        assert done.status_code == 302, done.text
        found = client.get("/data/places.json", params={"_search": "owl", "_shape": "objects"})
        assert [row["name"] for row in found.json()["rows"]] == ["Owl Wood"]
        assert "places" in client.get("/-/search", params={"q": "owl"}).text
        assert "search-all-q" in client.get("/").text
        page = client.get("/data/places").text
        assert "datasette-cluster-map.js" in page
        assert "leaflet" in page
        script = client.get("/-/static-plugins/datasette-cluster-map/datasette-cluster-map.js")
        assert script.status_code == 200


def test_a_killed_import_is_called_interrupted_and_does_not_keep_it_awake(
    workspace_container: Workspace,
) -> None:
    with workspace_container.as_role("editor") as client:
        upload_csv(client, csv_of(1_000_000), "birds")
        wait_until(lambda: client.get("/data/birds").status_code == 200, "the first rows")
        assert not idle(workspace_container)
        workspace_container.container.kill()
        workspace_container.container.wait()
        workspace_container.start()
        assert idle(workspace_container)
        rows = client.get("/data/_csv_progress_.json", params={"_shape": "array"}).json()
        assert "stopped before this import was finished" in rows[0]["error"]
        assert client.get("/data/birds").status_code == 200


def test_an_uploaded_database_is_there_after_a_restart(
    workspace_container: Workspace, tmp_path: Path
) -> None:
    with workspace_container.as_role("editor") as client:
        response = upload_db(client, sqlite_bytes(tmp_path, "finches", 5), "Finches of 1835")
        address = response.json()["redirect"].strip("/")
        assert address.startswith("Finches-of-1835-")
        assert count(client, address, "finches") == 5
    assert not workspace_container.health()["pristine"]
    assert workspace_container.stop() == 0
    workspace_container.start()
    with workspace_container.as_role("viewer") as client:
        assert count(client, address, "finches") == 5


def test_an_upload_never_replaces_a_database(
    workspace_container: Workspace, tmp_path: Path
) -> None:
    with workspace_container.as_role("editor") as client:
        upload_csv(client, csv_of(10), "mine")
        wait_until(lambda: idle(workspace_container), "the import")
        assert not workspace_container.health()["pristine"]
        for expected in ("/data_2", "/data_3"):
            response = upload_db(client, sqlite_bytes(tmp_path, f"t{expected[-1]}"), "data")
            assert response.json() == {"ok": True, "redirect": expected}
        assert count(client, "data", "mine") == 10
        assert count(client, "data_3", "t3") == 3


@pytest.mark.parametrize("content", [b"hello", b"SQLite format 3\x00" + b"rubbish" * 1000])
def test_a_file_that_is_no_database_is_refused_and_leaves_nothing(
    workspace_container: Workspace, content: bytes
) -> None:
    with workspace_container.as_role("editor") as client:
        response = upload_db(client, content, "bad")
        assert response.json() == {"ok": False, "error": "That file is not a SQLite database."}
        assert client.get("/").status_code == 200
    files = {Path(name).stem for name in workspace_container.files()}
    assert {name for name in files if not name.startswith(INTERNAL)} == {".tmp", "data"}


def test_a_broken_file_does_not_take_the_others_down(workspace_container: Workspace) -> None:
    assert workspace_container.stop() == 0
    workspace_container.put_file("/data/broken.db", b"SQLite format 3\x00" + b"rubbish" * 1000)
    workspace_container.start()
    with workspace_container.as_role("viewer") as client:
        assert client.get("/").status_code == 200
        assert client.get("/data").status_code == 200
    assert workspace_container.stop() == 0
    assert "broken.db" in workspace_container.files()


def test_an_upload_larger_than_every_memory(workspace_container: Workspace, tmp_path: Path) -> None:
    """300 MB into 512 MiB with a 16 MiB /tmp; the CI machine would feel a gigabyte."""
    path = tmp_path / "large.db"
    connection = sqlite3.connect(path)
    connection.execute("create table blobs (content blob)")
    connection.executemany("insert into blobs values (zeroblob(?))", [(30_000_000,)] * 10)
    connection.commit()
    connection.close()
    with workspace_container.as_role("editor") as client, path.open("rb") as file:
        response = client.post("/-/upload-dbs", files={"db": ("large.db", file)}, data={"xhr": "1"})
        assert response.json() == {"ok": True, "redirect": "/large"}
        assert count(client, "large", "blobs") == 10
    workspace_container.container.reload()
    assert workspace_container.container.attrs["State"]["OOMKilled"] is False
    assert anonymous_memory(workspace_container) < 100 * 2**20


def anonymous_memory(instance: Workspace) -> int:
    """Bytes that cannot be dropped: everything but the page cache."""
    answer: Any = instance.container.stats(stream=False)
    stats = answer["memory_stats"]["stats"]
    return int(stats.get("total_rss", stats.get("anon", 0)))


# --- stopping and starting ---------------------------------------------------------------------


def slow_body(parts: list[bytes], go_on: Iterator[None]) -> Iterator[bytes]:
    """A request body that waits for `go_on` before its last part."""
    yield from parts[:-1]
    next(go_on, None)
    yield parts[-1]


def test_a_stop_lets_the_request_in_flight_finish(
    workspace_container: Workspace, tmp_path: Path
) -> None:
    request = httpx.Request(
        "POST",
        "http://birds.test/-/upload-dbs",
        files={"db": ("late.db", sqlite_bytes(tmp_path, "late"))},
        data={"xhr": "1"},
    )
    body = request.read()

    def stop_in_between() -> Iterator[None]:
        wait_until(lambda: workspace_container.health()["in_flight"] == 1, "the request")
        assert workspace_container.health()["idle_seconds"] == 0
        workspace_container.container.kill("SIGTERM")
        wait_until(lambda: not accepts(workspace_container), "the end of accepting")
        yield

    with workspace_container.as_role("editor") as client:
        headers = {
            "Content-Type": request.headers["content-type"],
            "Content-Length": str(len(body)),
        }
        parts = [body[:200], body[200:]]
        content = slow_body(parts, stop_in_between())
        response = client.post("/-/upload-dbs", content=content, headers=headers)
    assert response.json() == {"ok": True, "redirect": "/late"}
    assert workspace_container.container.wait(timeout=240)["StatusCode"] == 0


def accepts(instance: Workspace) -> bool:
    try:
        instance.health()
    except httpx.TransportError:
        return False
    return True


def test_a_stop_leaves_complete_files_and_no_log(
    workspace_container: Workspace, tmp_path: Path
) -> None:
    with workspace_container.as_role("editor") as client:
        upload_db(client, sqlite_bytes(tmp_path, "other"), "other")
        upload_csv(client, csv_of(30_000), "birds")
        assert "data.db-wal" in workspace_container.files()
    assert workspace_container.stop() == 0
    files = workspace_container.files()
    assert "data.db" in files
    assert not [name for name in files if name.endswith(("-wal", "-shm"))]
    copy = tmp_path / "copy.db"
    copy.write_bytes(workspace_container.get_file("/data/data.db"))
    connection = sqlite3.connect(copy)
    # The import was still running at the stop: it was waited for, not cut.
    assert connection.execute("select count(*) from birds").fetchone() == (30_000,)
    assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_stop_while_it_still_starts_is_a_clean_one(
    workspace_docker: docker.DockerClient, workspace_image: str, tmp_path: Path
) -> None:
    with workspace(workspace_docker, workspace_image, tmp_path / "run") as made:
        made.container.start()
        wait_until(made.socket.exists, "the socket")
        began = time.monotonic()
        assert made.stop() == 0
        assert time.monotonic() - began < STOP_SECONDS - 5


def test_idle_counts_from_the_last_request_and_probes_do_not(
    workspace_container: Workspace,
) -> None:
    wait_until(lambda: workspace_container.health()["idle_seconds"] > 0.2, "some idleness")
    before = workspace_container.health()["idle_seconds"]
    with workspace_container.client() as stranger:
        stranger.get("/")
    assert workspace_container.health()["idle_seconds"] > before
    asked = time.monotonic()
    with workspace_container.as_role("viewer") as client:
        client.get("/")
    # Counted from the start it would be longer than this by `before`.
    assert workspace_container.health()["idle_seconds"] <= time.monotonic() - asked


@only_stable
def test_sessions_of_open_pages_survive_a_restart(workspace_container: Workspace) -> None:
    """The secret is derived from the key, so a CSRF cookie of before the stop is still good."""
    with workspace_container.as_role("editor") as client:
        client.get("/-/upload-dbs")
        cookie = client.cookies["ds_csrftoken"]
        workspace_container.stop()
        workspace_container.start()
        client.get("/-/upload-dbs")
        assert client.cookies["ds_csrftoken"] == cookie


def test_the_socket_is_open_to_the_router_only_by_its_directory(
    workspace_shared: Workspace,
) -> None:
    assert workspace_shared.socket.stat().st_mode & 0o777 == 0o666


# --- what is in the image ----------------------------------------------------------------------


def test_it_has_the_default_plugins_and_ours_and_no_others(workspace_shared: Workspace) -> None:
    with workspace_shared.as_role("viewer") as client:
        answer = client.get("/-/plugins.json").json()
    plugins = answer["plugins"] if isinstance(answer, dict) else answer
    assert {plugin["name"] for plugin in plugins} == PLUGINS


def test_the_image_carries_no_installer_and_runs_as_nobody(
    workspace_docker: docker.DockerClient, workspace_image: str, workspace_shared: Workspace
) -> None:
    config = workspace_docker.images.get(workspace_image).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"][DIGEST_LABEL].startswith(workspace_image.split(":")[1])
    find = "find / -xdev -name '*.whl' -o -path '*/pip/__init__.py' -o -name 'pip3*' 2>/dev/null"
    done = workspace_shared.execute("sh", "-c", find)
    assert done.output == b""


def test_the_instance_key_is_not_in_the_environment_of_python(workspace_shared: Workspace) -> None:
    code = (
        "from cloudapp_workspace.environment import read_environment\n"
        "import os\nprint(read_environment(), os.environ.get('INSTANCE_KEY'))"
    )
    done = workspace_shared.execute("/opt/workspace/bin/python", "-IBc", code)
    assert done.code == 0, done.output
    assert workspace_shared.key.encode() not in done.output
    assert b"None" in done.output


def test_what_is_hardly_ever_used_is_imported_when_it_is_used(workspace_shared: Workspace) -> None:
    """httpx2 in 1.0, httpx in 0.65; each has a _client, and pdb needs cmd."""
    code = (
        "import sys\nfrom cloudapp_workspace import server\nimport datasette.app as app, pdb\n"
        "print({'httpx._client', 'httpx2._client', 'cmd'} & sys.modules.keys() or 'none')\n"
        "client = getattr(app, 'httpx', None) or app.httpx2\n"
        "print(client.AsyncClient.__name__, pdb.Pdb.__name__)"
    )
    done = workspace_shared.execute("/opt/workspace/bin/python", "-IBc", code)
    assert done.output.decode() == "none\nAsyncClient Pdb\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"INSTANCE_KEY": "short"}, "INSTANCE_KEY is shorter"),
        ({"INSTANCE_LISTEN": "http://x"}, "INSTANCE_LISTEN is neither"),
        ({"INSTANCE_ID": ""}, "not set: INSTANCE_ID"),
        ({"INSTANCE_GENERATION": "two"}, "INSTANCE_GENERATION is not a number"),
    ],
)
def test_a_wrong_environment_is_named(
    workspace_shared: Workspace, change: dict[str, str], message: str
) -> None:
    command = ["/opt/workspace/bin/python", "-IB", "-m", "cloudapp_workspace"]
    done = workspace_shared.execute(*command, environment=change)
    assert done.code == 2
    assert message in done.output.decode()


def test_it_can_listen_on_tcp_instead(workspace_shared: Workspace) -> None:
    """Where sockets cannot cross; asked from inside, as this container has no network."""
    code = (
        "import os, signal, subprocess, sys, time, urllib.request, urllib.error\n"
        "env = {**os.environ, 'INSTANCE_LISTEN': 'tcp:0.0.0.0:8001'}\n"
        "server = subprocess.Popen([sys.executable, '-IB', '-m', 'cloudapp_workspace'], env=env)\n"
        "deadline = time.monotonic() + 60\n"
        "while time.monotonic() < deadline:\n"
        "    try:\n"
        "        urllib.request.urlopen('http://127.0.0.1:8001/')\n"
        "    except urllib.error.HTTPError as error:\n"
        "        print('answered', error.code); break\n"
        "    except OSError:\n"
        "        time.sleep(0.02)\n"
        "server.send_signal(signal.SIGTERM); print('ended', server.wait(60))\n"
    )
    done = workspace_shared.execute("/opt/workspace/bin/python", "-IBc", code)
    assert b"answered 403" in done.output, done.output
    assert b"ended 0" in done.output


def test_memory_of_an_idle_workspace(workspace_container: Workspace) -> None:
    with workspace_container.as_role("viewer") as client:
        client.get("/")
    used = anonymous_memory(workspace_container)
    print(json.dumps({"anonymous_mib": round(used / 2**20, 1)}))
    assert used < 64 * 2**20
