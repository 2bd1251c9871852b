"""A program at work: a token made on the page opens a sleeping workspace until it is revoked."""

import random
import time

import httpx

from cloudapp.local.product import Product
from tests.e2e.conftest import PASSWORD, Person
from tests.e2e.test_story import leave_alone_for_an_hour


def make_token(person: Person, name: str) -> str:
    """Make one on the page, and answer the question for the password."""
    person.go("/account/tokens/")
    person.page.get_by_label("Name").fill(name)
    person.page.get_by_role("button", name="Make token").click()
    person.page.get_by_role("heading", name="Is it you?").wait_for()
    person.page.get_by_label("Password").fill(PASSWORD)
    person.page.get_by_role("button", name="Go on").click()
    return person.page.locator("#new-token").inner_text()


def test_a_program_wakes_and_reads_until_its_token_is_revoked(
    product: Product, person: Person
) -> None:
    slug = f"robots-{random.randrange(10**6)}"
    person.sign_up()
    person.go("/workspaces/new/")
    person.page.fill("input[name=name]", slug)
    person.page.fill("input[name=slug]", slug)
    person.page.get_by_role("button", name="Create workspace").click()
    person.page.wait_for_url(f"**/workspaces/{slug}/")
    person.status(becomes="running")
    text = make_token(person, "robot")

    program = httpx.Client(
        base_url=f"http://127.0.0.1:{product.port}",
        headers={"Host": f"{slug}.localhost:{product.port}", "Authorization": f"Bearer {text}"},
        timeout=120,
    )
    with program:
        leave_alone_for_an_hour(product, slug, 1)
        person.go(f"/workspaces/{slug}/")
        person.status(becomes="sleeping")
        answer = program.get("/data.json")
        assert answer.status_code == 200, answer.text
        assert answer.json()["database"] == "data"

        person.go("/account/tokens/")
        assert "last used" in person.page.locator(".list__item").inner_text()
        person.page.get_by_role("button", name="Revoke robot").click()
        person.page.get_by_text("“robot” is revoked.").wait_for()
        began = time.monotonic()
        while program.get("/data.json").status_code != 401:
            # The yes is remembered for 5 seconds; the rest is for a busy machine.
            assert time.monotonic() - began < 120
            time.sleep(0.1)

    logs = "".join(log.read_text() for log in product.logs.glob("*.log"))
    assert "/data.json" in logs
    assert text not in logs
