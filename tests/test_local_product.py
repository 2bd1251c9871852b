"""`make run`, as a person runs it: it comes up, is killed, comes up again, stops in order."""

import http.client
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from redis import Redis

from cloudapp.local.places import PROJECT, VAR, Places
from cloudapp.local.processes import WORKERS
from cloudapp.local.product import Product, free_port
from cloudapp.local.say import Failure
from tests.test_local_supervisor import lives, until

START_SECONDS = 600.0
READY = "Ctrl-C stops it all."


@pytest.fixture
def places() -> Iterator[Places]:
    one = Places.of(VAR / "test" / f"{os.environ['NAMESPACE']}-run")
    yield one
    Product(one.state, namespace=one.state.name, env=engine(), fast=True).discard()


def engine() -> dict[str, str]:
    """The engine that the tests use."""
    return {"DOCKER_HOST": os.environ["DOCKER_HOST"]}


@contextmanager
def make_run(places: Places, port: int) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run `make run` until it says that it is up; give the process and what it printed."""
    inherited = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "ROUTER_SECRET", "CLOUD_URL")
    environment = {k: v for k, v in os.environ.items() if k not in (*inherited, "APPS_DOMAIN")}
    environment |= {
        "STATE_DIR": str(places.state),
        "NAMESPACE": places.state.name,
        "PORT": str(port),
        "CLOUDAPP_OPERATOR_EMAIL": "operator@example.org",
    }
    output = places.state.with_suffix(".out")
    with output.open("w") as file:
        process = subprocess.Popen(
            ["make", "run"],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        until(lambda: READY in output.read_text() or process.poll() is not None, START_SECONDS)
        said = output.read_text()
        assert READY in said, said
        yield process, said
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.unlink()


def processes_of(places: Places) -> set[int]:
    """Return the pids of everything that runs for this product, by its directory for sockets."""
    name = str(places.run).encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if name in told and lives(int(entry.name)):
            found.add(int(entry.name))
    return found


def health(port: int, host: str = "127.0.0.1") -> int:
    """Return the status of /healthz through the router."""
    with closing(http.client.HTTPConnection(host, port, timeout=60)) as connection:
        connection.request("GET", "/healthz", headers={"Host": f"localhost:{port}"})
        return connection.getresponse().status


def test_it_comes_up_survives_a_kill_and_stops_in_order(places: Places) -> None:
    port = free_port()
    with make_run(places, port) as (process, said):
        assert re.search(r"operator@example\.org, password: \S+ \(shown once\)", said)
        assert f"http://localhost:{port}/" in said
        assert health(port) == 200
        assert len(processes_of(places)) >= 11
        with pytest.raises(Failure, match="runs already"):
            Product(places.state, free_port(), env=engine()).start()
        secret = (places.secrets / "SECRET_KEY").read_text()
        os.kill(process.pid, signal.SIGKILL)  # make itself: the worst that can happen
        process.wait()
        until(lambda: not processes_of(places))

    # Again, on another port, with the state of the first time.
    port = free_port()
    with make_run(places, port) as (process, said):
        assert "shown once" not in said
        assert (places.secrets / "SECRET_KEY").read_text() == secret
        assert health(port) == 200
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches make and all of its children
        process.wait(timeout=120)
        assert not processes_of(places)


def assert_each_queue_is_served(product: Product) -> None:
    """A task that is sent to a queue is taken from it."""
    queues = [queue for queue, _ in WORKERS.values()]
    send = "from cloudapp.celery import app; [app.send_task('celery.accumulate', queue=queue)"
    product.manage("shell", "-c", f"{send} for queue in {queues}]")
    with Redis.from_url(product.environment["REDIS_URL"]) as broker:
        until(lambda: not any(broker.llen(queue) for queue in queues))


def test_the_processes_of_a_product_come_back(places: Places) -> None:
    product = Product(places.state, free_port(), places.state.name, env=engine(), fast=True)
    product.start()
    try:
        names = {"postgres", "redis", "web", "waiting", *WORKERS, "beat", "watcher", "nginx"}
        before = product.pids()
        assert set(before) == names
        for name in names - {"postgres"}:
            product.kill(name)
        until(
            lambda: (
                {n for n, pid in product.pids().items() if pid != before[n]} >= names - {"postgres"}
            )
        )
        product.wait_healthy()
        assert_each_queue_is_served(product)
        product.stop_process("web")
        with pytest.raises(Failure, match="does not say 200"):
            product.wait_healthy(timeout=0.5)
        product.start_process("web")
        product.wait_healthy()
        assert "is in" in product.manage("render_router", "--output", str(places.run / "test.conf"))
    finally:
        product.stop()
    assert not processes_of(places)
