"""A workspace image with our own plugins in it, and containers made from it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from django.conf import settings

from deploy.images import default_lock
from deploy.own_plugins import further_lock, own_wheels
from tests.deploy.conftest import workspace_docker
from tests.deploy.workspace_support import Workspace, built_image, workspace

__all__ = ["workspace_docker"]

ENRICHMENT = "datasette-enrichments-python"


@pytest.fixture(scope="session")
def enrichment_image(workspace_docker: docker.DockerClient) -> str:
    """The default set and the enrichment, built and tried out when there is none."""
    ours = own_wheels(Path(settings.STATE_DIR) / "own-wheels")
    return built_image(default_lock() + further_lock(ENRICHMENT), ours)


@pytest.fixture(scope="session")
def birds(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with the tables that the tests need."""
    path = tmp_path_factory.mktemp("birds") / "birds.db"
    connection = sqlite3.connect(path)
    # A run over "busy" is met while it goes on, and never waited for.
    many = {"paused": 40, "busy": 1000}
    for table in ("happy", "errors", "state", "types", "paused", "busy", "sums"):
        connection.execute(f"create table {table} (id integer primary key, name text, n integer)")
        rows = [(f" bird {i} ", i) for i in range(1, many.get(table, 20) + 1)]
        connection.executemany(f"insert into {table} (name, n) values (?, ?)", rows)
    connection.execute(
        "create table strict (a text, b_n text, c text unique, primary key (a, b_n))"
    )
    connection.executemany("insert into strict values (?, 'x', ?)", [("1", "k"), ("2", "l")])
    connection.execute("create table nokey (name text)")
    connection.executemany("insert into nokey values (?)", [("a",), ("b",)])
    connection.commit()
    connection.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def enriched(
    workspace_docker: docker.DockerClient,
    enrichment_image: str,
    birds: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Workspace]:
    """One running workspace with the enrichment and a database `birds`."""
    directory = tmp_path_factory.mktemp("enriched") / "run"
    with workspace(workspace_docker, enrichment_image, directory) as made:
        made.put_file("/data/birds.db", birds)
        made.start()
        yield made
