"""The services of a local product, for real: they start, keep what they should, and stop."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from redis import Redis as RedisClient

from cloudapp.local.engine import Engine, OwnEngine
from cloudapp.local.engine_api import EngineApi
from cloudapp.local.places import PROJECT, Places, run_dir_for
from cloudapp.local.postgres import Postgres
from cloudapp.local.redis import Redis
from cloudapp.local.say import Console, Failure
from cloudapp.local.supervisor import Supervisor
from tests.test_local_supervisor import lives, until

CONSOLE = Console(quiet=True)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    one = Places.of(tmp_path / "state")
    one.make()
    yield one
    one.discard()


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    one = Supervisor(CONSOLE)
    yield one
    one.close()


@pytest.fixture
def postgres(places: Places, supervisor: Supervisor) -> Iterator[Postgres]:
    one = Postgres(places, CONSOLE, fast=True)
    one.prepare()
    supervisor.start(one.program())
    supervisor.wait_ready("postgres")
    one.create_database()
    yield one
    supervisor.stop("postgres")
    one.discard()
    assert not one.data.exists()


def ask(postgres: Postgres, statement: str) -> list[tuple[object, ...]]:
    """Run one statement in the product's database."""
    dsn = f"host={postgres.sockets} dbname=cloudapp user=cloudapp"
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []


def test_postgres_keeps_its_data_over_a_kill_and_a_restart(
    postgres: Postgres, supervisor: Supervisor
) -> None:
    ask(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
    first = supervisor.pids()["postgres"]
    supervisor.kill("postgres")
    until(lambda: supervisor.pids().get("postgres", first) != first)
    supervisor.wait_ready("postgres")
    assert ask(postgres, "SELECT answer FROM kept") == [(42,)]
    supervisor.stop("postgres")
    postgres.prepare()
    supervisor.start(postgres.program())
    supervisor.wait_ready("postgres")
    postgres.create_database()
    assert ask(postgres, "SELECT answer FROM kept") == [(42,)]


def test_postgres_listens_on_no_network_and_lets_nobody_else_in(postgres: Postgres) -> None:
    assert ask(postgres, "SHOW listen_addresses") == [("",)]
    assert postgres.sockets.stat().st_mode & 0o077 == 0


def test_postgres_starts_over_a_lock_file_whose_number_somebody_else_has_now(
    postgres: Postgres, supervisor: Supervisor
) -> None:
    supervisor.stop("postgres")
    lock = postgres.data / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n{postgres.data}\n1\n5432\n")
    postgres.prepare()
    assert not lock.exists()
    supervisor.start(postgres.program())
    supervisor.wait_ready("postgres")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")
def test_postgres_goes_where_its_user_can_reach(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    chosen = Postgres(Places.of(closed / "state"), CONSOLE, fast=True).data
    assert not chosen.is_relative_to(closed)
    kept = Postgres(Places.of(closed / "state"), CONSOLE).data
    assert kept.is_relative_to("/var/lib")


def test_redis_answers_on_its_socket_only_to_us(places: Places, supervisor: Supervisor) -> None:
    redis = Redis(places)
    redis.prepare()
    supervisor.start(redis.program())
    supervisor.wait_ready("redis")
    with RedisClient.from_url(redis.url) as client:
        assert client.ping()
        assert client.config_get("port")["port"] == "0"
        assert client.config_get("save")["save"] == ""
    assert redis.socket.stat().st_mode & 0o077 == 0
    supervisor.kill("redis")
    supervisor.wait_ready("redis")
    supervisor.stop("redis")
    assert not redis.is_ready()


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    # The engine's directory; it must not be the one of this clone, which the tests run on.
    yield tmp_path / "docker"
    last = OwnEngine(tmp_path / "docker")
    if last.pid is not None and lives(last.pid):
        last.start()
        last.release()
    shutil.rmtree(run_dir_for(tmp_path / "docker"), ignore_errors=True)


def test_an_engine_lives_as_long_as_its_last_user(data: Path) -> None:
    first, second = OwnEngine(data), OwnEngine(data)
    first.start()
    pid = first.pid
    assert pid is not None
    second.start()
    assert second.pid == pid
    first.release()
    assert EngineApi(second.host).version()
    assert lives(pid)
    second.release()
    assert not lives(pid)
    assert EngineApi(second.host).version() is None


def test_a_killed_engine_comes_back_soon(data: Path) -> None:
    engine = OwnEngine(data)
    engine.start()
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: engine.pid not in (pid, None) and EngineApi(engine.host).version())
    engine.release()
    assert EngineApi(engine.host).version() is None


def test_an_engine_stops_after_a_user_that_was_killed(data: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cloudapp.local.engine import OwnEngine\n"
        f"engine = OwnEngine(Path({str(data)!r}))\n"
        "engine.start()\n"
        "print(engine.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    until(lambda: not lives(int(done.stdout)))
    # Who comes at this very moment gets a new one.
    engine = OwnEngine(data)
    engine.start()
    assert EngineApi(engine.host).version()
    engine.release()


def test_an_engine_starts_over_what_a_crash_left(data: Path) -> None:
    engine = OwnEngine(data)
    engine.start()
    engine.release()
    engine.socket.touch()
    engine.socket.with_name("docker.pid").write_text(str(os.getpid()))
    engine.start()
    assert engine.pid != os.getpid()
    engine.release()


def test_a_given_engine_that_does_not_answer_is_named(tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/nobody.sock"
    with pytest.raises(Failure, match="DOCKER_HOST"):
        Engine(host).start()


def test_the_choice_of_an_engine_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workspaces' data lies in the engine: with another one it would seem lost."""
    remember = tmp_path / "engine"
    monkeypatch.setattr("cloudapp.local.engine.DEFAULT_HOST", f"unix://{tmp_path}/stopped.sock")
    remember.write_text("machine\n")
    with pytest.raises(Failure, match="machine's Docker engine"):
        Engine(remember=remember).start()
    assert remember.read_text() == "machine\n"
