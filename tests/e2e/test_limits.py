"""A disk that fills and a plan that grows, in the running product and through the real router."""

import random
import re
import sqlite3
from pathlib import Path

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


def upload(person: Person, slug: str, name: str, data: bytes) -> httpx.Response:
    """Send a SQLite file to a workspace with the cookies of the person's browser."""
    cookies = person.page.context.cookies(person.address(slug))
    headers = {
        "Host": f"{slug}.localhost:{person.product.port}",
        "Cookie": "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in cookies),
        "Accept": "application/json",
    }
    return httpx.post(
        f"http://127.0.0.1:{person.product.port}/-/upload-dbs",
        files={"db": (f"{name}.db", data)},
        data={"xhr": "1"},
        headers=headers,
        timeout=PATIENCE_MS / 1000,
    )


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
    product: Product, person: Person, operator: Person, tmp_path: Path
) -> None:
    slug, plan = f"tiny-{random.randrange(10**6)}", f"Tiny {random.randrange(10**6)}"
    person.sign_up()
    person.go("/workspaces/new/")
    person.page.fill("input[name=name]", slug)
    person.page.fill("input[name=slug]", slug)
    person.page.get_by_role("button", name="Create workspace").click()
    person.page.wait_for_url(f"**/workspaces/{slug}/")
    person.status(becomes="running")

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

    # It fills. Small and large are refused in words, through the router; reading goes on.
    person.page.goto(person.address(slug))
    first = upload(person, slug, "first", database(tmp_path / "1.db", 3 * MIB))
    assert first.status_code == 200, first.text
    for name, size in (("small", 1000), ("large", 40 * MIB)):
        refused = upload(person, slug, name, database(tmp_path / f"{name}.db", size))
        assert refused.status_code == 507, refused.text
        assert refused.json()["error"] == "The disk of this workspace is full"
    person.page.goto(person.address(slug, "/first/birds"))
    expect(person.page.locator("body")).to_contain_text("1 row")

    # The owner reads it on the workspace's page, and is led to where room is made.
    person.go(f"/workspaces/{slug}/")
    expect(person.page.locator("#live")).to_contain_text("Its disk is full", timeout=PATIENCE_MS)
    person.go(f"/workspaces/{slug}/usage/")
    expect(person.page.locator("svg.plot").first).to_be_visible()
    person.page.get_by_role("link", name=re.compile("Disk space")).click()
    expect(person.page.get_by_role("heading", name="Disk space")).to_be_visible()
    expect(person.page.locator("body")).to_contain_text("The disk is full.")

    # A larger plan makes room without a restart.
    generation = f"print('says:', {mine}.get().instance.generation)"
    before = shell(product, generation)
    change_plan(operator, plan, disk_mb=100)
    for _ in range(PATIENCE_MS // 500):
        again = upload(person, slug, "second", database(tmp_path / f"{random.random()}.db", 1000))
        if again.status_code == 200:
            break
        person.page.wait_for_timeout(500)
    assert again.status_code == 200, again.text
    assert shell(product, generation) == before
