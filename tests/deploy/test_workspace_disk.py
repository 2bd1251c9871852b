"""A workspace's disk, measured and limited from inside, with each Datasette; and a full one."""

import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import docker
import httpx
import pytest

from deploy import probe
from deploy.images import DEFAULT_RELEASE
from deploy.models import Instance
from tests.deploy.workspace_support import (
    ALPHA,
    START_SECONDS,
    TEST_LABEL,
    Workspace,
    wait_until,
    workspace,
)

MIB = 1 << 20
# Beyond its limit a database may grow by so much, for what deleting needs (disk.py).
SLACK = 4 * MIB


@pytest.fixture(scope="module", params=[DEFAULT_RELEASE, ALPHA])
def workspace_image(request: pytest.FixtureRequest) -> str:
    """The image of either release."""
    name = "alpha_image" if request.param == ALPHA else "workspace_image"
    return str(request.getfixturevalue(name))


only_alpha = pytest.mark.parametrize("workspace_image", [ALPHA], indirect=True)


def database(path: Path, size: int, table: str = "birds") -> bytes:
    """A SQLite file of about so many bytes."""
    with sqlite3.connect(path) as connection:
        connection.execute(f"create table {table} (id integer primary key, song blob)")
        songs = [(bytes(100_000),) for _ in range(max(1, size // 100_000))]
        connection.executemany(f"insert into {table} (song) values (?)", songs)  # noqa: S608
    connection.close()
    return path.read_bytes()


def upload(client: httpx.Client, name: str, data: bytes) -> httpx.Response:
    files = {"db": (f"{name}.db", data)}
    headers = {"Accept": "application/json"}
    fields = {"xhr": "1", "db_name": name}
    return client.post("/-/upload-dbs", files=files, data=fields, headers=headers)


def address(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    found: str = response.json()["redirect"].strip("/")
    return found


def rows(client: httpx.Client, database: str, table: str = "birds") -> int:
    response = client.get(f"/{database}/{table}.json?_shape=array&_size=max&_col=id")
    assert response.status_code == 200, response.text
    return len(response.json())


def disk_bytes(instance: Workspace, limit: int | None = None) -> int:
    """Tell it its limit, if any; return what it says that it holds."""
    told = instance.health(disk=limit) if limit is not None else instance.health()
    found: int = told["usage"]["disk_bytes"]
    return found


def make_room(client: httpx.Client, **fields: str) -> str:
    response = client.post("/-/space", data=fields)
    assert response.status_code == 200, response.text
    return response.text


# --- what it says --------------------------------------------------------------------------------


def test_it_says_what_it_uses(workspace_container: Workspace, tmp_path: Path) -> None:
    before = workspace_container.health()["usage"]
    assert before["memory_bytes"] > 10 * MIB
    assert before["cpu_seconds"] > 0
    with workspace_container.as_role("owner") as client:
        address(upload(client, "birds", database(tmp_path / "birds.db", 3 * MIB)))
    after = workspace_container.health()["usage"]
    assert after["run"] == before["run"]
    assert after["requests"] == before["requests"] + 1
    assert after["cpu_seconds"] >= before["cpu_seconds"]
    assert after["up_seconds"] > before["up_seconds"]
    wait_until(lambda: disk_bytes(workspace_container) > before["disk_bytes"] + 2 * MIB, "the file")
    assert workspace_container.stop() == 0
    workspace_container.start()
    again = workspace_container.health()["usage"]
    assert again["run"] != before["run"]
    assert again["requests"] == 0


def test_the_control_plane_asks_and_tells(workspace_container: Workspace) -> None:
    """Both sides as they are: what the probe sends, and what it makes of the answer."""
    instance = Instance(id=UUID(workspace_container.id), key=workspace_container.key, disk_mb=3)
    health = probe.health(instance, f"unix:{workspace_container.socket}", START_SECONDS)
    assert health.usage is not None
    assert health.usage.memory_bytes > 10 * MIB
    assert health.usage.disk_bytes > 0
    with workspace_container.as_role("owner") as client:
        assert "of 3.0 MiB" in client.get("/-/space").text


def test_a_limit_that_is_no_number_is_no_probe(workspace_container: Workspace) -> None:
    for wrong in ("10", -1, 1.5, True):
        with workspace_container.client(workspace_container.token(disk=wrong)) as client:
            assert client.get("/-/instance/health").status_code == 403


# --- what it refuses -----------------------------------------------------------------------------


def test_a_full_disk_is_read_only_until_there_is_room(
    workspace_container: Workspace, tmp_path: Path
) -> None:
    with workspace_container.as_role("owner") as client:
        first = address(upload(client, "first", database(tmp_path / "1.db", 5 * MIB)))
        second = address(upload(client, "second", database(tmp_path / "2.db", 5 * MIB)))
        limit = 9 * MIB
        disk_bytes(workspace_container, limit)

        refused = upload(client, "third", database(tmp_path / "3.db", MIB))
        assert refused.status_code == 507
        assert refused.json() == {"ok": False, "error": "The disk of this workspace is full"}
        page = client.post("/-/upload-csvs", headers={"Accept": "text/html"})
        assert page.status_code == 507
        assert "Everything can be read" in page.text
        # Nothing is lost, and everything is read.
        assert rows(client, first) == rows(client, second) == 5 * MIB // 100_000
        assert "is full" in client.get("/").text

        # The way back: not by mistake, and then for good.
        unsure = client.post("/-/space", data={"do": "drop", "database": first, "table": "birds"})
        assert unsure.status_code == 400
        assert rows(client, first)
        said = make_room(client, do="drop", database=first, table="birds", sure="yes")
        assert "The table birds is deleted" in said
        assert "The disk is full." in said  # the pages are free, and still there
        assert "The disk is full." not in make_room(client, do="compact", database=first)
        address(upload(client, "third", database(tmp_path / "4.db", MIB)))
        make_room(client, do="remove", database=second, sure="yes")
        assert client.get(f"/{second}").status_code == 404
        assert not [name for name in workspace_container.files() if name.startswith(second)]
        # Another one of that name is read by every thread that has read the first.
        assert address(upload(client, "second", database(tmp_path / "5.db", MIB))) == second
        assert [rows(client, second) for _ in range(10)] == [MIB // 100_000] * 10
        # Where uploads go, it stays.
        assert "it stays" in make_room(client, do="remove", database="data", sure="yes")


def test_a_size_is_that_of_all_that_was_written(workspace_container: Workspace) -> None:
    """Also of what stands in the log yet, which is not in the file."""
    nests = "name,eggs\n" + "owl,3\n" * 5000
    with workspace_container.as_role("owner") as client:
        files = {"csv": ("nests.csv", nests.encode(), "text/csv")}
        data = {"xhr": "1", "table": "nests"}
        client.post("/-/upload-csvs", files=files, data=data).raise_for_status()
        wait_until(lambda: not workspace_container.health()["busy"], "the import")
        held = "select page_count * page_size / 1024 from pragma_page_count, pragma_page_size"
        query = {"sql": held, "_shape": "arrayfirst"}
        asked = client.get("/data.json", params=query, follow_redirects=True)
        said = client.get("/-/space").text
        assert re.search(r"<p>(\d+) KiB", said)[1] == str(asked.json()[0]), said


def test_a_larger_limit_counts_while_it_runs(
    workspace_container: Workspace, tmp_path: Path
) -> None:
    data = database(tmp_path / "birds.db", 3 * MIB)
    with workspace_container.as_role("owner") as client:
        disk_bytes(workspace_container, 1000)
        assert upload(client, "birds", data).status_code == 507
        disk_bytes(workspace_container, 100 * MIB)
        assert rows(client, address(upload(client, "birds", data)))


def test_what_does_not_fit_is_refused_before_and_while_it_comes(
    workspace_container: Workspace, tmp_path: Path
) -> None:
    limit = 12 * MIB
    disk_bytes(workspace_container, limit)
    large = database(tmp_path / "large.db", 40 * MIB)
    with workspace_container.as_role("owner") as client:
        refused = upload(client, "large", large)
        assert refused.status_code == 507
        assert refused.json()["error"] == "There is no room for this upload"
        assert len([name for name in workspace_container.files() if name.endswith(".db")]) == 1

        def parts() -> Iterator[bytes]:
            """Without a length: nobody knows how much comes."""
            boundary = b"--x\r\nContent-Disposition: form-data; name="
            yield boundary + b'"db"; filename="large.db"\r\n\r\n'
            for start in range(0, len(large), MIB):
                yield large[start : start + MIB]
            yield b"\r\n--x--\r\n"

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        refused = client.post("/-/upload-dbs", content=parts(), headers=headers)
        assert refused.status_code == 507, refused.text
        assert refused.json()["error"] == "There is no room for this upload"
        assert client.get("/data.json").status_code == 200
    wait_until(lambda: not unfinished(workspace_container), "the rest of the upload to go")
    assert disk_bytes(workspace_container) < limit


def unfinished(instance: Workspace) -> list[str]:
    return [name for name in instance.files() if name.startswith(".tmp/")]


HELD = """
import asyncio, os, tempfile
from pathlib import Path
from cloudapp_workspace.body import Body
from cloudapp_workspace.disk import Disk

MIB = 1 << 20
disk = Disk(Path("/data"))
disk.limit = disk.used() + 8 * MIB

async def receive():
    return {"type": "http.request", "body": bytes(MIB), "more_body": True}

async def upload(size):
    file = tempfile.TemporaryFile(dir="/data/.tmp", buffering=0)
    with Body(disk, {"headers": []}, receive, None) as body:
        for n in range(size):
            file.write((await body.receive())["body"])
            left = 8 * MIB - disk.room(fresh=True)
            assert (n + 1) * MIB <= left <= (n + 1) * MIB + 65536, "counted, and not twice"
    return file

file = asyncio.run(upload(5))
assert disk.room(fresh=True) <= 3 * MIB, "the request is over, the import is not"
assert not disk.full
with open("/data/.tmp/named", "wb", buffering=0) as named:
    named.write(bytes(3 * MIB))
    assert -65536 <= disk.room(fresh=True) <= 0
    assert disk.full
file.close()
assert 4 * MIB < disk.room(fresh=True) <= 5 * MIB, "no file is open, one has a name"
os.unlink("/data/.tmp/named")
assert disk.room(fresh=True) == 8 * MIB
"""

VANISHED = """
import os, pathlib
from cloudapp_workspace import disk

directory = pathlib.Path("/data/some")
directory.mkdir()
for name in ("a", "b", "c"):
    directory.joinpath(name).write_bytes(bytes(8192))
entries = disk._entries

def late(directory):
    found = sorted(entries(directory), key=lambda entry: entry.name)
    os.unlink(found[0].path)
    return found

disk._entries = late
assert disk._size(directory) == 2 * 8192
"""

SHARED = """
import contextlib, sqlite3
from pathlib import Path
from cloudapp_workspace import disk

MIB = 1 << 20
it = disk.Disk(Path("/data"))
files = [Path(f"/data/{n}.db") for n in range(20)]
connections = [sqlite3.connect(file, isolation_level=None) for file in files]
for connection in connections:
    connection.execute("pragma journal_mode = wal")
    connection.execute("create table birds (song)")
it.limit = it.used(fresh=True) + 60 * MIB  # 64 with what deleting may need

def most(connection):
    return connection.execute("pragma max_page_count").fetchone()[0] * 4096

def now(connection):
    return connection.execute("pragma page_count").fetchone()[0] * 4096

def sing(connection, mib):
    connection.execute("begin")
    for _ in range(mib):
        connection.execute("insert into birds values (zeroblob(1048576))")

first, second, third, *rest = connections
with it.held(first):
    assert 55 * MIB < most(first) <= 57 * MIB, "nearly everything, for whoever is alone"
    sing(first, 40)
    with it.held(second):
        assert 6 * MIB < most(second) <= 8 * MIB, "what it has taken is not counted twice"
        sing(second, 5)
        with it.held(third):
            assert 0.5 * MIB < most(third) <= 1.5 * MIB
        rest.append(third)  # it is over
        with contextlib.ExitStack() as stack:
            for connection in rest:
                stack.enter_context(it.held(connection))
            assert sum(most(connection) for connection in connections) <= 65 * MIB
            try:
                sing(rest[-1], 1)
            except sqlite3.OperationalError as error:
                assert str(error) == "database or disk is full"
            else:
                raise AssertionError("it grew")
    first.execute("commit")
    second.execute("commit")
for connection in connections[:2]:
    connection.execute("pragma wal_checkpoint(truncate)")
with it.held(third):
    assert 15 * MIB < most(third) <= 18 * MIB, "what the others did not take is free again"
"""


@pytest.mark.parametrize("program", [HELD, VANISHED, SHARED], ids=["held", "vanished", "shared"])
def test_what_lies_there_counts(workspace_container: Workspace, program: str) -> None:
    """Files without a name that an import holds open; a neighbour of one that goes away; and
    databases that are written to at the same time.
    """
    done = workspace_container.execute("/opt/workspace/bin/python", "-IBc", program)
    assert done.code == 0, done.output


def test_an_import_that_grows_too_large_ends_in_words(workspace_container: Workspace) -> None:
    """The plugin writes by itself, long after its request: SQLite stops it."""
    limit = 12 * MIB
    disk_bytes(workspace_container, limit)
    csv = b"id,song\n" + b"".join(b"%d,%s\n" % (n, b"la" * 50_000) for n in range(105))
    with workspace_container.as_role("editor") as client:
        response = client.post(
            "/-/upload-csvs",
            files={"csv": ("birds.csv", csv, "text/csv")},
            data={"xhr": "1", "table": "birds"},
        )
        assert response.status_code == 200, response.text
        wait_until(lambda: not workspace_container.health(disk=limit)["busy"], "the import")
        progress = client.get("/data/_csv_progress_.json?_shape=array").json()
        assert [row["error"] for row in progress] == ["database or disk is full"], progress
        assert rows(client, "data")
    assert database_bytes(workspace_container, "data") <= limit + SLACK + MIB


def database_bytes(instance: Workspace, name: str) -> int:
    return len(instance.get_file(f"/data/{name}.db"))


@only_alpha
def test_sql_may_delete_on_a_full_disk_and_not_grow(workspace_container: Workspace) -> None:
    limit = 8 * MIB

    def write(client: httpx.Client, sql: str) -> httpx.Response:
        return client.post("/data/-/execute-write", json={"sql": sql})

    with workspace_container.as_role("owner") as client:
        create = {"table": "birds", "rows": [{"id": 1, "song": "la"}], "pk": "id"}
        assert client.post("/data/-/create", json=create).status_code == 201
        disk_bytes(workspace_container, limit)
        fill = "insert into birds (song) values (zeroblob(1000000))"
        codes = [write(client, fill).status_code for _ in range(30)]
        assert codes[0] == 200
        assert codes[-1] != 200
        assert disk_bytes(workspace_container) <= 2 * (limit + SLACK)
        held = rows(client, "data")
        assert client.post("/data/birds/-/insert", json={"row": {"song": "x"}}).status_code == 507
        assert write(client, "delete from birds where id > 2").status_code == 200
        assert rows(client, "data") == 2 < held
        make_room(client, do="compact", database="data")
        assert disk_bytes(workspace_container) < limit
        inserted = client.post("/data/birds/-/insert", json={"row": {"song": "x"}})
        assert inserted.status_code == 201, inserted.text


# So much is written after some thinking, which all of them begin before the first ends.
SLOWLY = """
insert into birds (song) select zeroblob(1000000) from (
  with recursive c(n) as (select 1 union all select n + 1 from c where n < 100000) select n from c
) where n > 100000 - 12
"""


@only_alpha
def test_many_databases_at_once_do_not_multiply_the_limit(
    workspace_container: Workspace, tmp_path: Path
) -> None:
    small = database(tmp_path / "small.db", 1)
    with workspace_container.as_role("editor") as client:
        names = [address(upload(client, f"d{n}", small)) for n in range(6)]
        limit = disk_bytes(workspace_container) + 12 * MIB
        disk_bytes(workspace_container, limit)

        def fill(name: str) -> None:
            client.post(f"/{name}/-/execute-write", json={"sql": SLOWLY})

        for _ in range(2):
            with ThreadPoolExecutor(len(names)) as pool:
                list(pool.map(fill, names))
        everything = sum(database_bytes(workspace_container, name) for name in names)
        assert everything <= limit + SLACK
        assert all(rows(client, name) % 12 == 1 for name in names), "all of a write, or nothing"


# --- what queries sort ---------------------------------------------------------------------------


def sort(client: httpx.Client, mib: int) -> httpx.Response:
    """Have about so much sorted, and a few bytes of it answered.

    Anew when a busy machine does not get that far in the second that a query may take.
    """
    sql = f"""
    with recursive c(n) as (select 1 union all select n + 1 from c where n < {mib * 10})
    select n, length(song) from (select n, zeroblob(100000 + n % 2) as song from c) order by song
    """  # noqa: S608
    found: list[httpx.Response] = []

    def answered() -> bool:
        found.append(client.get("/data.json", params={"sql": sql}, follow_redirects=True))
        return "too long" not in found[-1].text and "nterrupted" not in found[-1].text

    wait_until(answered, "a query within its time")
    return found[-1]


def test_what_visitors_sort_is_bounded_and_keeps_nobody_from_writing(
    workspace_container: Workspace, tmp_path: Path
) -> None:
    small = database(tmp_path / "small.db", 1)
    disk_bytes(workspace_container, disk_bytes(workspace_container) + 12 * MIB)
    stop = Event()

    def visit() -> None:
        visitor = workspace_container.actor_token("viewer", public=True, visitor=True)
        with workspace_container.client(visitor) as client:
            while not stop.is_set():
                refused = sort(client, 100)
                assert refused.status_code == 400, refused.text
                assert "database or disk is full" in refused.text

    with ThreadPoolExecutor(2) as pool, workspace_container.as_role("editor") as client:
        assert sort(client, 8).status_code == 200
        visits = [pool.submit(visit) for _ in range(2)]
        try:
            for _ in range(20):
                name = address(upload(client, "birds", small))
                assert rows(client, name) == 1
                assert disk_bytes(workspace_container)
                make_room(client, do="remove", database=name, sure="yes")
        finally:
            stop.set()
        for visit_ in visits:
            visit_.result()


def test_writes_may_put_aside_more_than_reads(
    workspace_container: Workspace, workspace_image: str, alpha_image: str, tmp_path: Path
) -> None:
    """Giving pages back needs as much as the database, and so does an index of all of it."""
    size = 40 * MIB
    with workspace_container.as_role("owner") as client:
        birds = address(upload(client, "birds", database(tmp_path / "birds.db", size)))
        disk_bytes(workspace_container, 200 * MIB)
        assert "no more room than it needs" in make_room(client, do="compact", database=birds)
        assert rows(client, birds) == size // 100_000
        if workspace_image == alpha_image:  # 0.65 has no SQL that writes
            for sql in (
                "create index songs on birds (song)",
                "update birds set song = zeroblob(100001) where id > 0",
            ):
                done = client.post(f"/{birds}/-/execute-write", json={"sql": sql})
                assert done.status_code == 200, done.text
        assert not unfinished(workspace_container)


def test_viewers_make_no_room_and_everybody_sees_a_page_that_works(
    workspace_container: Workspace,
) -> None:
    with workspace_container.as_role("viewer") as client:
        assert client.get("/-/space").status_code == 403
        assert client.post("/-/space", data={"do": "compact"}).status_code == 403
        assert "/-/space" not in client.get("/").text
    with workspace_container.as_role("editor") as client:
        assert "/-/space" in client.get("/").text
        assert client.post("/-/space", data={"do": "nothing"}).status_code == 400
        disk_bytes(workspace_container, 100 * MIB)
        page = client.get("/-/space").text
        assert re.search(r"KiB of 100\.0 MiB\s*used", page), page


# --- a volume that is really full ----------------------------------------------------------------


@pytest.fixture
def small(
    workspace_docker: docker.DockerClient, workspace_image: str, tmp_path: Path
) -> Iterator[Workspace]:
    """A workspace on a disk of 24 MiB, which outlives its stops."""
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=24m,uid=10001,gid=10001,mode=0755"}
    with workspace(workspace_docker, workspace_image, tmp_path / "small", options) as made:
        mounts: Any = {made.volume.name: {"bind": "/data", "mode": "rw"}}
        holder = workspace_docker.containers.run(
            workspace_image,
            entrypoint=["/usr/bin/sleep", "infinity"],
            labels={TEST_LABEL: "1"},
            volumes=mounts,
            network_mode="none",
            detach=True,
        )
        try:
            made.start()
            yield made
        finally:
            print(made.report())  # shown when the test failed
            holder.remove(force=True)


FILL = """
import errno
with open("/data/fill", "ab", buffering=0) as file:
    for size in (1 << 20, 1 << 12, 1):
        try:
            while True:
                file.write(bytes(size))
        except OSError as error:
            assert error.errno == errno.ENOSPC
"""


def test_a_disk_that_is_really_full_loses_nothing_and_neighbours_feel_nothing(
    small: Workspace, workspace_container: Workspace, tmp_path: Path
) -> None:
    neighbour = workspace_container
    with small.as_role("owner") as client:
        birds = address(upload(client, "birds", database(tmp_path / "birds.db", 5 * MIB)))
        assert rows(client, birds) == 5 * MIB // 100_000
        large = upload(client, "large", database(tmp_path / "large.db", 30 * MIB))
        assert not (large.status_code == 200 and large.json()["ok"]), large.text
        done = small.execute("/opt/workspace/bin/python", "-IBc", FILL)
        assert done.code == 0, done.output
        refused = upload(client, "more", database(tmp_path / "more.db", 3 * MIB))
        assert not (refused.status_code == 200 and refused.json()["ok"]), refused.text
        assert rows(client, birds) == 5 * MIB // 100_000
        assert small.health()["usage"]["disk_bytes"] > 20 * MIB

    with neighbour.as_role("owner") as client:
        there = address(upload(client, "birds", database(tmp_path / "theirs.db", 5 * MIB)))
        assert rows(client, there) == 5 * MIB // 100_000

    # It stops in order and comes up again, still full.
    assert small.stop() == 0
    small.start()
    with small.as_role("owner") as client:
        assert rows(client, birds) == 5 * MIB // 100_000
        assert small.execute("/usr/bin/rm", "/data/fill").code == 0
    # With room again, and a start later at the latest, everything is as before.
    assert small.stop() == 0
    small.start()
    with small.as_role("owner") as client:
        assert rows(client, birds) == 5 * MIB // 100_000
        more = address(upload(client, "more", database(tmp_path / "again.db", 3 * MIB)))
        assert rows(client, more) == 3 * MIB // 100_000
