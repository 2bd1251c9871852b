"""A disk that fills and a plan that grows, in the running product and through the real router."""

import random
import re
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import docker
import httpx
from playwright.sync_api import expect

from cloudapp.local.product import Product
from tests.e2e.conftest import Person

MIB = 1 << 20
# What is waited for comes within a second or two; a busy machine may take longer.
PATIENCE_MS = 90_000


def database(path: Path, size: int) -> bytes:
    with sqlite3.connect(path) as connection:
        connection.execute("create table birds (id integer primary key, song blob)")
        connection.execute("insert into birds (song) values (zeroblob(?))", [size])
    connection.close()
    return path.read_bytes()


def client_of(person: Person, slug: str) -> httpx.Client:
    """A program that has the cookies of the person's browser, for one workspace."""
    cookies = person.page.context.cookies(person.address(slug))
    return httpx.Client(
        base_url=f"http://127.0.0.1:{person.product.port}",
        headers={
            "Host": f"{slug}.localhost:{person.product.port}",
            "Cookie": "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in cookies),
            "Accept": "application/json",
        },
        timeout=PATIENCE_MS / 1000,
    )


def upload(client: httpx.Client, name: str, data: bytes) -> httpx.Response:
    """Send a SQLite file to a workspace."""
    files = {"db": (f"{name}.db", data)}
    return client.post("/-/upload-dbs", files=files, data={"xhr": "1"})


def rows(client: httpx.Client, database: str) -> int:
    """Count the birds of a database, by reading them."""
    response = client.get(f"/{database}/birds.json?_shape=array&_col=id")
    assert response.status_code == 200, response.text
    return len(response.json())


class Neighbour:
    """Somebody who reads and writes in a workspace of their own, again and again."""

    def __init__(self, client: httpx.Client, data: bytes) -> None:
        self._client = client
        self._data = data
        self._stop = Event()
        self.rounds = 0

    def live(self) -> None:
        """Write something and read it, until `stop`. Every answer must be a good one."""
        while not self._stop.wait(0.1):
            answer = upload(self._client, f"n{self.rounds}", self._data)
            assert answer.status_code == 200, answer.text
            assert rows(self._client, answer.json()["redirect"].strip("/")) == 1
            self.rounds += 1

    def goes_on(self, rounds: int = 5) -> None:
        """Wait until they have written and read so many times more."""
        wanted, deadline = self.rounds + rounds, time.monotonic() + PATIENCE_MS / 1000
        while self.rounds < wanted:
            assert time.monotonic() < deadline, f"{self.rounds} rounds and no more"
            time.sleep(0.01)

    def stop(self) -> None:
        """Let it end with the round that it is at."""
        self._stop.set()


@contextmanager
def living(person: Person, slug: str, data: bytes) -> Iterator[Neighbour]:
    """Have somebody live beside what happens meanwhile. At the end all that they wrote is there."""
    with client_of(person, slug) as client, ThreadPoolExecutor(1) as pool:
        neighbour = Neighbour(client, data)
        life = pool.submit(neighbour.live)
        try:
            yield neighbour
        finally:
            neighbour.stop()
        life.result()
        for number in range(neighbour.rounds):
            assert rows(client, f"n{number}") == 1


CHECK = """
import json, pathlib, sqlite3
for file in sorted(pathlib.Path("/data").glob("*.db")):
    ask = lambda sql: sqlite3.connect(file).execute(sql).fetchall()
    tables = [name for name, in ask("select name from sqlite_master where type = 'table'")]
    rows = {name: ask(f"select count(*) from [{name}]")[0][0] for name in tables}
    print(json.dumps([file.name, ask("pragma integrity_check"), rows]))
"""


def contents(docker_client: docker.APIClient, product: Product, instance: str) -> list[str]:
    """A line for each database: whether it is whole, and how many rows its tables have."""
    name = f"{product.namespace}-{instance}"
    command = ["/opt/workspace/bin/python", "-Ic", CHECK]
    done = docker_client.exec_create(name, command)
    told: str = docker_client.exec_start(done["Id"]).decode()
    assert docker_client.exec_inspect(done["Id"])["ExitCode"] == 0, told
    found = told.splitlines()
    assert all('[["ok"]]' in line for line in found), told
    return found


def make_workspace(person: Person, slug: str) -> None:
    """Sign up and make one, and look until it runs; then go there, which signs in."""
    person.sign_up()
    person.go("/workspaces/new/")
    person.page.fill("input[name=name]", slug)
    person.page.fill("input[name=slug]", slug)
    person.page.get_by_role("button", name="Create workspace").click()
    person.page.wait_for_url(f"**/workspaces/{slug}/")
    person.status(becomes="running")
    person.page.goto(person.address(slug))


def shell(product: Product, code: str) -> str:
    """Run something in Django's shell; return what it prints behind “says:”."""
    told = product.manage("shell", "-c", f"from workspaces.models import *; {code}")
    return told.rpartition("says:")[2].strip()


def change_plan(operator: Person, name: str, **fields: int) -> None:
    """Change a plan in the admin, and look until the workspace that has it follows."""
    operator.go("/admin/workspaces/plan/")
    operator.page.locator("#result_list").get_by_role("link", name=name, exact=True).click()
    for field, value in fields.items():
        operator.page.fill(f"#id_{field}", str(value))
    operator.page.get_by_role("button", name="Save and continue editing").click()
    for _ in range(PATIENCE_MS // 500):
        if "1: it follows it as it is now." in operator.page.locator("body").inner_text():
            return
        operator.page.wait_for_timeout(500)
        operator.page.get_by_role("link", name="Look again").click()
    raise AssertionError(operator.page.locator("body").inner_text())


def test_a_disk_fills_and_a_larger_plan_makes_room(
    person: Person,
    stranger: Person,
    operator: Person,
    docker_client: docker.APIClient,
    tmp_path: Path,
) -> None:
    """And nobody else feels it, and nothing is lost."""
    product = person.product
    slug, plan = f"tiny-{random.randrange(10**6)}", f"Tiny {random.randrange(10**6)}"
    make_workspace(person, slug)
    beside = f"beside-{random.randrange(10**6)}"
    make_workspace(stranger, beside)
    song = database(tmp_path / "song.db", 1000)

    # The operators make a plan and change it. The workspace that has it gets a new container.
    operator.go("/admin/workspaces/plan/add/")
    operator.page.fill("#id_name", plan)
    operator.page.fill("#id_disk_mb", "2")
    operator.page.get_by_role("button", name="Save", exact=True).click()
    operator.page.locator("#result_list").wait_for()
    mine = f"Workspace.objects.filter(slug={slug!r})"
    shell(product, f"{mine}.update(plan=Plan.objects.get(name={plan!r}))")
    change_plan(operator, plan, memory_mb=384)
    memory = person.page.locator(".facts").get_by_text("384 MiB")
    for _ in range(PATIENCE_MS // 500):
        person.go(f"/workspaces/{slug}/")
        if memory.count():
            break
        person.page.wait_for_timeout(500)
    expect(memory).to_be_visible()
    person.status(becomes="running")

    # It fills. Small and large are refused in words, through the router; reading goes on. And so
    # does the life of who has another workspace on the same machine.
    instance = shell(product, f"print('says:', {mine}.get().instance.pk)")
    person.page.goto(person.address(slug))
    with client_of(person, slug) as client, living(stranger, beside, song) as neighbour:
        first = upload(client, "first", database(tmp_path / "1.db", 3 * MIB))
        assert first.status_code == 200, first.text
        held = contents(docker_client, product, instance)
        assert '"birds": 1' in held[-1], held
        neighbour.goes_on()
        for name, size in (("small", 1000), ("large", 40 * MIB)):
            refused = upload(client, name, database(tmp_path / f"{name}.db", size))
            assert refused.status_code == 507, refused.text
            assert refused.json()["error"] == "The disk of this workspace is full"
            assert rows(client, "first") == 1
            neighbour.goes_on()
        person.page.goto(person.address(slug, "/first/birds"))
        expect(person.page.locator("body")).to_contain_text("1 row")

        # The owner reads it on the workspace's page, and is led to where room is made.
        person.go(f"/workspaces/{slug}/")
        live = person.page.locator("#live")
        expect(live).to_contain_text("Its disk is full", timeout=PATIENCE_MS)
        person.go(f"/workspaces/{slug}/usage/")
        expect(person.page.locator("svg.plot").first).to_be_visible()
        person.page.get_by_role("link", name=re.compile("Disk space")).click()
        expect(person.page.get_by_role("heading", name="Disk space")).to_be_visible()
        expect(person.page.locator("body")).to_contain_text("The disk is full.")
        neighbour.goes_on()
        assert contents(docker_client, product, instance) == held

    # A larger plan makes room without a restart.
    generation = f"print('says:', {mine}.get().instance.generation)"
    before = shell(product, generation)
    change_plan(operator, plan, disk_mb=100)
    with client_of(person, slug) as client:
        for _ in range(PATIENCE_MS // 500):
            again = upload(client, "second", song)
            if again.status_code == 200:
                break
            person.page.wait_for_timeout(500)
        assert again.status_code == 200, again.text
    assert set(held) < set(contents(docker_client, product, instance))
    assert shell(product, generation) == before
