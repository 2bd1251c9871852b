"""All starter plugins together in one image of the stable release, and what viewers may not do.

`starter.txt` locks the set. Each plugin has to show what it is there for, not only to load.
"""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest

from deploy.engines.base import Engine
from tests.deploy.workspace_support import Workspace, built_image, wait_until, workspace

LOCK = Path(__file__).parent / "starter.txt"
ROLES = ("viewer", "editor", "owner")
WRITERS_ONLY = {"viewer": 403, "editor": 200, "owner": 200}
EVERYBODY = {"viewer": 200, "editor": 200, "owner": 200}
# A job of this many rows takes a minute: long enough to be met while it runs. None is waited for.
MANY = 300_000


@pytest.fixture(scope="session")
def starter_image(engine: Engine) -> str:
    """The reference of the image with all starter plugins, built and tried out."""
    return built_image(LOCK.read_text())


@pytest.fixture(scope="module")
def starter(
    workspace_docker: docker.DockerClient,
    starter_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Workspace]:
    """One running workspace with some birds in it."""
    directory = tmp_path_factory.mktemp("starter")
    with workspace(workspace_docker, starter_image, directory / "run") as made:
        made.put_file("/data/birds.db", birds(directory / "birds.db"))
        made.start()
        yield made


def birds(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.executescript(
        "create table places (id integer primary key, name text, latitude real, longitude real);"
        "insert into places values (1, 'Wren Hill', 51.5, -0.1), (2, 'Owl Wood', 48.8, 2.3);"
        "create table rings (id integer primary key, name text);"
    )
    numbers = ((f"ring {number}",) for number in range(MANY))
    connection.executemany("insert into rings (name) values (?)", numbers)
    connection.commit()
    connection.close()
    return path.read_bytes()


def statuses(instance: Workspace, path: str) -> dict[str, int]:
    found = {}
    for role in ROLES:
        with instance.as_role(role) as client:
            found[role] = client.get(path).status_code
    return found


# --- each plugin answers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/birds/places", EVERYBODY),
        ("/-/search?q=owl", EVERYBODY),
        ("/-/upload-csvs", WRITERS_ONLY),
        ("/-/upload-dbs", WRITERS_ONLY),
        ("/-/configure-fts/birds", WRITERS_ONLY),
        ("/-/edit-schema/birds", WRITERS_ONLY),
        ("/-/edit-schema/birds/places", WRITERS_ONLY),
        ("/-/enrich/birds/places", WRITERS_ONLY),
        ("/-/enrich/birds/places/jinja-sandbox", WRITERS_ONLY),
        ("/-/enrich/birds/places/re2", WRITERS_ONLY),
        ("/-/enrich/birds/-/jobs", WRITERS_ONLY),
    ],
)
def test_each_page_answers_whom_it_is_for(
    starter: Workspace, path: str, expected: dict[str, int]
) -> None:
    assert statuses(starter, path) == expected


def test_maps_and_charts_come_with_the_table(starter: Workspace) -> None:
    with starter.as_role("viewer") as client:
        page = client.get("/birds/places").text
        assert "datasette-cluster-map.js" in page
        scripts = re.findall(r'/-/static-plugins/datasette_vega/[^"]+\.js', page)
        assert scripts
        assert client.get(scripts[0]).status_code == 200
        assert "vega" in client.get(scripts[0]).text


def test_uploads_and_search(starter: Workspace, tmp_path: Path) -> None:
    with starter.as_role("editor") as client:
        files = {"csv": ("nests.csv", b"name,eggs\nowl,3\n", "text/csv")}
        data = {"xhr": "1", "database": "birds", "table": "nests"}
        client.post("/-/upload-csvs", files=files, data=data).raise_for_status()
        wait_until(lambda: not starter.health()["busy"], "the import")
        upload = {"db": ("more.db", birds(tmp_path / "more.db"))}
        done = client.post("/-/upload-dbs", files=upload, data={"xhr": "1", "db_name": "more"})
        assert done.json() == {"ok": True, "redirect": "/more"}
        done = client.post("/-/configure-fts/birds", data={"table": "nests", "column.name": "on"})
        assert done.status_code == 302, done.text
        found = client.get("/birds/nests.json", params={"_search": "owl", "_shape": "array"})
        assert [row["eggs"] for row in found.json()] == [3]
        assert "nests" in client.get("/-/search", params={"q": "owl"}).text


def test_schemas_are_edited(starter: Workspace) -> None:
    with starter.as_role("editor") as client:
        fields = {"table_name": "made", "primary_key_name": "id", "primary_key_type": "INTEGER"}
        done = client.post("/-/edit-schema/birds/-/create", data=fields)
        assert done.status_code == 302, done.text
        assert client.get("/birds/made").status_code == 200


@pytest.mark.parametrize(
    ("enrichment", "fields", "column", "expected"),
    [
        ("jinja-sandbox", {"template": "{{ row['name'] }}!"}, "output_column", "Owl Wood!"),
        (
            "re2",
            {"source_column": "name", "mode": "single", "regex": r"^(\w+)"},
            "single_column",
            "Owl",
        ),
    ],
)
def test_an_enrichment_fills_a_column(
    starter: Workspace, enrichment: str, fields: dict[str, str], column: str, expected: str
) -> None:
    made = enrichment.replace("-", "_")
    with starter.as_role("editor") as client:
        start_job(client, "places", enrichment, {**fields, column: made})
        wait_until(lambda: not starter.health()["busy"], "the enrichment")
        rows = client.get("/birds/places.json", params={"id": 2, "_shape": "array"}).json()
        assert [row[made] for row in rows] == [expected]


# --- enrichment jobs ---------------------------------------------------------------------------


def start_job(client: httpx.Client, table: str, enrichment: str, fields: dict[str, str]) -> int:
    """Start one and return its number."""
    done = client.post(f"/-/enrich/birds/{table}/{enrichment}", data=fields)
    assert done.status_code == 302, done.text
    query = {"sql": "select max(id) from _enrichment_jobs", "_shape": "arrayfirst"}
    return int(client.get("/birds.json", params=query).json()[0])


def status(client: httpx.Client, job: int) -> str:
    query = {
        "sql": "select status from _enrichment_jobs where id = :id",
        "id": job,
        "_shape": "arrayfirst",
    }
    return str(client.get("/birds.json", params=query).json()[0])


@pytest.fixture
def job(starter: Workspace) -> Iterator[int]:
    """A running job of many rows, cancelled at the end."""
    with starter.as_role("editor") as client:
        fields = {"template": "{{ row['name'] }}!", "output_column": "loud"}
        number = start_job(client, "rings", "jinja-sandbox", fields)
        try:
            wait_until(lambda: status(client, number) == "running", "the job to begin")
            yield number
        finally:
            client.post(f"/-/enrich/birds/-/jobs/{number}/cancel")
            wait_until(lambda: not starter.health()["busy"], "the end of the job")


def test_a_viewer_touches_no_job(starter: Workspace, job: int) -> None:
    jobs = f"/-/enrich/birds/-/jobs/{job}"
    with starter.as_role("editor") as editor, starter.as_role("viewer") as viewer:
        assert status(editor, job) == "running"
        for action in ("pause", "cancel"):
            assert viewer.post(f"{jobs}/{action}").status_code == 403
            assert status(editor, job) == "running"
        assert editor.post(f"{jobs}/pause").status_code == 302
        assert status(editor, job) == "paused"
        assert viewer.post(f"{jobs}/resume").status_code == 403
        assert status(editor, job) == "paused"
        assert viewer.get(f"/-/enrichment-jobs/birds/{job}").status_code == 403
        assert editor.get(f"/-/enrichment-jobs/birds/{job}").status_code == 200


def test_a_viewer_who_asks_for_a_job_makes_no_tables(starter: Workspace) -> None:
    with starter.as_role("viewer") as viewer:
        assert viewer.get("/-/enrichment-jobs/data/1").status_code == 403
        assert viewer.get("/data/_enrichment_jobs").status_code == 404


def test_the_tables_of_jobs_are_hidden_and_readable(starter: Workspace, job: int) -> None:
    with starter.as_role("viewer") as viewer:
        tables = viewer.get("/birds.json").json()["tables"]
        hidden = {table["name"]: table["hidden"] for table in tables}
        assert hidden["places"] is False
        names = [name for name in hidden if name.startswith("_enrichment_")]
        assert len(names) == 3
        assert all(hidden[name] for name in names)
        assert viewer.get("/birds/_enrichment_jobs").status_code == 200


def test_a_job_that_goes_on_after_a_crash_keeps_it_awake(starter: Workspace, job: int) -> None:
    """Nobody has asked for anything yet, so this work belongs to no request.

    Now and then it is writing to the table as well, and says so.
    """
    assert "enriching a table" in starter.health()["busy"]
    starter.container.kill()
    starter.container.wait()
    starter.start()
    wait_until(lambda: "enriching a table" in starter.health()["busy"], "the job to go on")
    with starter.as_role("editor") as client:
        assert status(client, job) == "running"
