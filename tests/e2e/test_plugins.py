"""Plugins in a real browser: switched on, used, switched off again.

Among them our own: data is transformed by Python that cannot escape, and then shown on a map.
"""

import csv
import json
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import Person
from tests.shelf import Shelf

ROWS = 1500
CHANGE_MS = 600_000


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    """A CSV file of trees, each with its position as one text."""
    path = tmp_path / "trees.csv"
    chance = random.Random(11)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["species", "position"])
        for number in range(ROWS):
            species = chance.choice(["Jacaranda", "Tipuana", "Platanus", "Celtis"])
            north, west = chance.uniform(38.69, 38.79), chance.uniform(9.09, 9.23)
            writer.writerow([species, f"{north:.5f} N / {west:.5f} W" if number else "unknown"])
    return path


def make_workspace(person: Person) -> str:
    """Sign up and make a workspace; return its slug."""
    slug = f"trees-{random.randrange(10**6)}"
    person.sign_up()
    person.go("/workspaces/new/")
    person.page.fill("input[name=name]", slug)
    expect(person.page.locator("input[name=slug]")).to_have_value(slug)
    person.page.get_by_role("button", name="Create workspace").click()
    person.page.wait_for_url(f"**/workspaces/{slug}/")
    person.status(becomes="running")
    return slug


def apply(person: Person, slug: str, *names: str) -> None:
    """Tick just these plugins, apply, and watch until it is done."""
    person.go(f"/workspaces/{slug}/plugins/")
    for box in person.page.locator("input[name=plugin]").all():
        box.set_checked(box.get_attribute("value") in names)
    person.page.click("#do-apply")
    expect(person.page.locator("#change-words")).to_contain_text("Done", timeout=CHANGE_MS)


def plugins_of(person: Person, slug: str) -> set[str]:
    """What Datasette itself says that it has."""
    person.page.goto(person.address(slug, "/-/plugins.json"))
    return {plugin["name"] for plugin in json.loads(person.page.inner_text("body"))}


def enrich(person: Person, slug: str, code: str, column: str) -> None:
    """Run Python over the positions of all trees, after looking at the preview."""
    page = person.page
    page.goto(person.address(slug, "/-/enrich/data/trees/python"))
    page.fill("textarea[name=code]", code)
    page.select_option("select[name=column]", "position")
    page.fill("input[name=output_column]", column)
    page.click("input[name=preview]")
    expect(page.get_by_role("heading", name="Preview")).to_be_visible()
    expect(page.locator(".enrich-preview tbody tr")).to_have_count(5)
    page.click("input[type=submit]:not([name=preview])")
    expect(page.locator("body")).to_contain_text(f"{ROWS:,}", timeout=CHANGE_MS)


def sql(person: Person, slug: str, query: str) -> list[dict[str, object]]:
    """Ask the workspace's JSON API, in the browser."""
    answer = person.page.goto(person.address(slug, f"/data.json?sql={query}&_shape=array"))
    assert answer is not None
    assert answer.status == 200, answer.text()
    rows: list[dict[str, object]] = answer.json()
    return rows


def test_from_a_csv_file_through_python_to_a_map(person: Person, trees: Path) -> None:
    page = person.page
    slug = make_workspace(person)
    before = plugins_of(person, slug)
    assert "datasette-enrichments-python" not in before

    apply(person, slug, "datasette-enrichments-python", "datasette-vega")
    assert plugins_of(person, slug) >= before | {"datasette-enrichments-python", "datasette-vega"}

    page.goto(person.address(slug, "/-/upload-csvs"))
    page.set_input_files("input[type=file]", trees)
    page.click("form [type=submit]")
    page.wait_for_url(re.compile(r"/data/trees"), timeout=CHANGE_MS)

    enrich(
        person,
        slug,
        "def transform(value, row):\n    return float(value.split(' N')[0])\n",
        "latitude",
    )
    enrich(
        person,
        slug,
        "def transform(value, row):\n    return -float(value.split('/ ')[1].split(' ')[0])\n",
        "longitude",
    )
    done = "select+count(*)+as+n+from+trees+where+latitude+between+38+and+39+and+longitude+<+-9"
    wait_for(lambda: sql(person, slug, done) == [{"n": ROWS - 1}], person)
    [errors] = sql(person, slug, "select+count(*)+as+n+from+_enrichment_errors")
    assert errors == {"n": 2}, "the tree whose position is unknown, once for each run"

    page.goto(person.address(slug, "/data/trees?_size=500"))
    expect(page.locator(".leaflet-marker-icon, .marker-cluster").first).to_be_visible()

    # One click, and it is as it was.
    person.go(f"/workspaces/{slug}/plugins/")
    page.click("#do-roll-back")
    expect(page.locator("#change-words")).to_contain_text("Done", timeout=CHANGE_MS)
    assert plugins_of(person, slug) == before
    assert sql(person, slug, done) == [{"n": ROWS - 1}], "the data stays"


HELLO = """
from datasette import hookimpl
from datasette.utils.asgi import Response


@hookimpl
def register_routes():
    return [(r"^/-/hello$", lambda: Response.text("Hello from a plugin"))]
"""


def test_an_operator_approves_and_grants_and_only_that_customer_gets_it(
    operator: Person, person: Person, stranger: Person, uploads: Shelf
) -> None:
    name = "datasette-hello-cloudapp"
    digest = uploads.wheel(
        name,
        "1.2",
        entry_points="[datasette]\nhello = datasette_hello_cloudapp\n",
        content=HELLO,
        metadata={"Summary": "Says hello", "License": "MIT"},
    )
    mine, theirs = make_workspace(person), make_workspace(stranger)

    # Into the catalogue: a worker reads what it is.
    page = operator.page
    operator.go("/admin/workspaces/plugin/add/")
    page.fill("input[name=name]", name)
    page.get_by_role("button", name="Read it from the index").click()
    expect(page.locator("body")).to_contain_text("Says hello", timeout=CHANGE_MS)

    # Approved: just this version, just these files, and for whom it is granted.
    page.get_by_role("link", name="Approve…").click()
    expect(page.locator("input[name=version]")).to_have_value("1.2")
    page.select_option("select[name=reach]", "granted")
    page.fill("textarea[name=note]", "Read its source.")
    page.get_by_role("button", name="Approve and lock").click()
    expect(page.locator("#approvals")).to_contain_text(
        re.compile("1.2 on Datasette 0.65.5: active", re.I), timeout=CHANGE_MS
    )
    assert digest in page.content()
    page.get_by_role("link", name="Grant…").click()
    page.fill("[name=workspace]", mine)
    page.get_by_role("button", name="Grant", exact=True).click()
    expect(page.get_by_role("button", name=f"Revoke the grant of {mine}")).to_be_visible()

    # The customer switches it on, and Datasette has it.
    apply(person, mine, name)
    assert name in plugins_of(person, mine)
    person.page.goto(person.address(mine, "/-/hello"))
    expect(person.page.locator("body")).to_contain_text("Hello from a plugin")

    # Somebody else neither sees nor gets it.
    stranger.go(f"/workspaces/{theirs}/plugins/")
    assert name not in stranger.page.content()
    box = stranger.page.locator("input[name=plugin]").first
    box.evaluate("(box, name) => { box.value = name; box.checked = true }", name)
    stranger.page.click("#do-apply")
    expect(stranger.page.locator("#refused")).to_contain_text("may not use")
    assert name not in plugins_of(stranger, theirs)


class Visitors:
    """People who look at a workspace the whole time, through the router, until `leave`."""

    def __init__(self, person: Person, slug: str, count: int = 4) -> None:
        cookies = person.page.context.cookies(person.address(slug))
        self._headers = {
            "Cookie": "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in cookies),
            "Host": f"{slug}.localhost:{person.product.port}",
            "Accept": "text/html",
        }
        self._url = f"http://127.0.0.1:{person.product.port}/data"
        self._left = threading.Event()
        self.statuses: list[int] = []
        self.slowest = 0.0
        self._threads = [threading.Thread(target=self._look) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _look(self) -> None:
        with httpx.Client(headers=self._headers, timeout=120) as client:
            while not self._left.is_set():
                began = time.monotonic()
                self.statuses.append(client.get(self._url).status_code)
                self.slowest = max(self.slowest, time.monotonic() - began)

    def leave(self) -> None:
        self._left.set()
        for thread in self._threads:
            thread.join()


def test_nobody_who_looks_at_it_notices_a_change(person: Person) -> None:
    slug = make_workspace(person)
    apply(person, slug, "datasette-vega")  # built once, so that the next changes are quick
    plugins_of(person, slug)
    visitors = Visitors(person, slug)
    try:
        apply(person, slug)
        apply(person, slug, "datasette-vega")
    finally:
        visitors.leave()
    assert len(visitors.statuses) > 20, "too few to have met the changes"
    assert set(visitors.statuses) == {200}
    print(f"{len(visitors.statuses)} requests, the slowest took {visitors.slowest:.2f} s")


def wait_for(true: Callable[[], bool], person: Person) -> None:
    """Return once `true()` is; fail when it is not after a generous time."""
    deadline = time.monotonic() + 240
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        person.page.wait_for_timeout(100)
