"""The whole story in a real browser: from sign-up to a table of one's own, and all the way back."""

import csv
import random
import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from cloudapp.local.product import Product
from tests.e2e.conftest import Person

ROWS = 4000


@pytest.fixture
def stations(tmp_path: Path) -> Path:
    """A CSV file of some thousand weather stations."""
    path = tmp_path / "stations.csv"
    chance = random.Random(7)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "country", "elevation", "latitude", "longitude"])
        for number in range(ROWS):
            writer.writerow(
                [
                    f"Station {number:04} Zürich, “north”",
                    chance.choice(["CH", "FR", "IT", "NO"]),
                    chance.randint(-10, 4000),
                    round(chance.uniform(36, 70), 5),
                    round(chance.uniform(-9, 30), 5),
                ]
            )
    return path


def leave_alone_for_an_hour(product: Product, slug: str, idle_seconds: int) -> None:
    """Change the instance's row as an hour without visitors would."""
    product.manage(
        "shell",
        "-c",
        "from datetime import timedelta as t; from django.utils.timezone import now;"
        "from deploy.models import Instance;"
        f"Instance.objects.filter(workspace__slug={slug!r})"
        f".update(idle_seconds={idle_seconds}, last_used_at=now() - t(hours=1))",
    )


def give_time(product: Product, slug: str) -> None:
    """Have it fall asleep no more."""
    product.manage(
        "shell",
        "-c",
        "from deploy.models import Instance;"
        f"Instance.objects.filter(workspace__slug={slug!r}).update(idle_seconds=0)",
    )


def count_rows(person: Person, slug: str) -> int:
    """Ask the workspace's JSON API, in the browser, for it knows where *.localhost is."""
    sql = "select+count(*)+as+n+from+stations"
    answer = person.page.goto(person.address(slug, f"/data.json?sql={sql}&_shape=array"))
    assert answer is not None
    assert answer.status == 200, answer.text()
    return int(answer.json()[0]["n"])


def spares(product: Product) -> int:
    """Return how many instances are ready for whoever comes next."""
    told = product.manage(
        "shell",
        "-c",
        "from deploy.models import Instance;"
        "print('ready:', Instance.objects.filter("
        "spare=True, ready=True, pristine_at__isnull=False).count())",
    )
    return int(told.rpartition("ready:")[2])


def keep_spares(product: Product, count: int) -> None:
    """Have so many spares, and wait until they are there, and no more."""
    product.manage(
        "shell",
        "-c",
        f"from workspaces.models import Plan; Plan.objects.update(spares={count})",
    )
    deadline = time.monotonic() + 300
    while spares(product) != count:
        assert time.monotonic() < deadline, f"{spares(product)} spares, not {count}"


def test_a_spare_is_somebodys_at_once(product: Product, person: Person) -> None:
    """The page that follows the form shows a workspace that runs, and its address answers."""
    keep_spares(product, 1)
    slug = f"quick-{random.randrange(10**6)}"
    person.sign_up()
    person.go("/workspaces/new/")
    person.page.fill("input[name=name]", slug)
    expect(person.page.locator("input[name=slug]")).to_have_value(slug)
    with person.page.expect_navigation(url=f"**/workspaces/{slug}/") as shown:
        person.page.get_by_role("button", name="Create workspace").click()
    answer = shown.value
    assert answer is not None
    assert re.search(r'class="status[^"]*running', answer.text()), "as the server sent it"
    opened = person.page.goto(person.address(slug))
    assert opened is not None
    assert opened.status == 200
    expect(person.page.locator("body")).to_contain_text("Datasette")


def test_the_whole_story(
    product: Product, person: Person, stranger: Person, stations: Path
) -> None:
    keep_spares(product, 0)  # so that there is something to watch
    page = person.page
    slug = f"weather-{random.randrange(10**6)}"

    # Sign up, and be led to the first workspace.
    person.sign_up()
    expect(page.get_by_role("heading", name="Make your first workspace")).to_be_visible()
    page.get_by_role("link", name="New workspace").click()
    page.fill("input[name=name]", slug.replace("-", " ").title())
    expect(page.locator("input[name=slug]")).to_have_value(slug)
    page.get_by_role("button", name="Create workspace").click()

    # Watch it come up; nobody reloads the page.
    page.wait_for_url(f"**/workspaces/{slug}/")
    page.evaluate("window.notReloaded = true")
    person.status(becomes="running")
    assert page.evaluate("window.notReloaded")

    # Open it at its own address and upload the file.
    page.get_by_role("link", name="Open", exact=True).first.click()
    page.wait_for_url(person.address(slug))
    page.goto(person.address(slug, "/-/upload-csvs"))
    page.set_input_files("input[type=file]", stations)
    page.click("form [type=submit]")
    page.wait_for_url(re.compile(r"/data/stations"), timeout=240_000)
    expect(page.locator("body")).to_contain_text("Zürich")
    assert count_rows(person, slug) == ROWS

    # Somebody else is refused, at both addresses, in words that tell nothing.
    stranger.sign_up()
    at_cloud = stranger.page.goto(f"{product.base_url}/workspaces/{slug}/")
    at_workspace = stranger.page.goto(stranger.address(slug))
    unknown = stranger.page.goto(stranger.address("no-such-workspace"))
    assert at_cloud is not None
    assert at_workspace is not None
    assert unknown is not None
    assert [at_cloud.status, at_workspace.status, unknown.status] == [404, 404, 404]
    assert "stations" not in stranger.page.content()

    # Stop: the address says so and does not start it.
    person.go(f"/workspaces/{slug}/")
    page.click("#do-stop")
    person.status(becomes="stopped")
    stopped = page.goto(person.address(slug))
    assert stopped is not None
    assert stopped.status == 503
    expect(page.locator("main")).to_contain_text("stopped")
    person.go(f"/workspaces/{slug}/")
    page.click("#do-start")
    person.status(becomes="running")

    # Nobody uses it, so it goes to sleep; a request wakes it and gets its page.
    leave_alone_for_an_hour(product, slug, idle_seconds=1)
    person.status(becomes="sleeping")
    woken = page.goto(person.address(slug, "/data/stations"))
    assert woken is not None
    assert woken.status == 200
    expect(page.locator("body")).to_contain_text("Zürich")
    assert count_rows(person, slug) == ROWS
    give_time(product, slug)

    # Delete, undo: it is all there again. Delete.
    delete(person, slug)
    gone = page.goto(person.address(slug))
    assert gone is not None
    assert gone.status in (404, 410, 503)
    person.go(f"/workspaces/{slug}/")
    page.click("#do-undelete")
    person.status(becomes="running")
    assert count_rows(person, slug) == ROWS
    delete(person, slug)

    # Sign out: the door is closed here, and at the workspaces.
    person.sign_out()
    page.goto(person.address(slug))
    assert "/account/login/" in page.url


def delete(person: Person, slug: str) -> None:
    page = person.page
    person.go(f"/workspaces/{slug}/")
    page.get_by_text("Delete ", exact=False).and_(page.locator("summary")).click()
    page.fill("input[name=confirm]", slug)
    page.get_by_role("button", name="Delete workspace").click()
    page.goto(f"{person.product.base_url}/workspaces/{slug}/")
    person.status(becomes="deleting")
