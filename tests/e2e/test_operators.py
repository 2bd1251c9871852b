"""Operators at work in the whole product: the front page, a rebuild, a customer's consent."""

import random
import time

from tests.e2e.conftest import Person

SECONDS = 60.0


def make_workspace(person: Person) -> str:
    """Sign up and make one; return its slug."""
    slug = f"helped-{random.randrange(10**6)}"
    person.sign_up()
    person.go("/workspaces/new/")
    person.page.fill("input[name=name]", slug)
    person.page.fill("input[name=slug]", slug)
    person.page.get_by_role("button", name="Create workspace").click()
    person.page.wait_for_url(f"**/workspaces/{slug}/")
    person.status(becomes="running")
    return slug


def until(person: Person, path: str, text: str, *, there: bool = True) -> None:
    """Open a page again and again until it says something, or does not any more."""
    deadline = time.monotonic() + SECONDS
    while True:
        person.page.goto(path)
        if (text in person.page.content()) == there:
            return
        assert time.monotonic() < deadline, f"{text!r}: {person.page.inner_text('body')[:500]}"
        person.page.wait_for_timeout(200)


def test_operators_look_only_while_an_owner_lets_them(person: Person, operator: Person) -> None:
    slug = make_workspace(person)
    address = person.address(slug)
    operator.page.goto(address)
    assert "/enter/" in operator.page.url  # a page of the cloud host: there is nothing here

    person.go(f"/workspaces/{slug}/")
    person.page.get_by_role("button", name="Let them look for 1 day").click()
    person.page.get_by_text("Operators may look at the data", exact=True).wait_for()
    operator.page.goto(address)
    assert operator.page.url == address
    person.go(f"/workspaces/{slug}/activity/")
    person.page.get_by_text("an operator came in to look at the data").wait_for()

    # As a viewer, who may not upload.
    refused = operator.page.goto(f"{address}-/upload-csvs")
    assert refused
    assert refused.status == 403

    person.go(f"/workspaces/{slug}/")
    person.page.get_by_role("button", name="Close it now").click()
    person.page.get_by_text("The operators cannot look at the data.").wait_for()
    deadline = time.monotonic() + SECONDS
    while operator.page.goto(address) and operator.page.url == address:
        assert time.monotonic() < deadline, "the door stays open"
        operator.page.wait_for_timeout(200)


def test_the_front_page_and_a_rebuild(person: Person, operator: Person) -> None:
    slug = make_workspace(person)
    base = operator.product.base_url
    # Workers write it down: which queues are worked off, and what the host has.
    until(operator, f"{base}/admin/", '<strong class="refused">never', there=False)
    until(operator, f"{base}/admin/", "cores <span")
    operator.page.goto(f"{base}/admin/workspaces/workspace/?q={slug}")
    operator.page.get_by_role("link", name=slug).click()
    operator.page.get_by_role("button", name="Rebuild").click()
    operator.page.get_by_text("has its image built anew").wait_for()
    operator.page.get_by_role("button", name="Give up the change").wait_for()
    person.go(f"/workspaces/{slug}/activity/")
    until(person, person.page.url, "built anew")
    deadline = time.monotonic() + 400
    while "changed the plugins built anew" not in " ".join(person.page.inner_text("body").split()):
        assert time.monotonic() < deadline, person.page.inner_text("body")[:800]
        person.page.wait_for_timeout(500)
        person.page.reload()
    person.page.goto(person.address(slug))
    assert person.page.locator("body").inner_text()


def until_answered(person: Person, address: str, status: int) -> None:
    """Open a page again and again until it is answered with this."""
    deadline = time.monotonic() + SECONDS
    while (response := person.page.goto(address)) is None or response.status != status:
        assert time.monotonic() < deadline, person.page.inner_text("body")[:500]
        person.page.wait_for_timeout(200)


def test_a_suspension_is_seen_by_its_owner_with_the_reason(
    person: Person, operator: Person
) -> None:
    slug = make_workspace(person)
    address = person.address(slug)
    # In another window of the same browser.
    inside = Person(person.product, person.page.context.new_page(), person.email)
    until_answered(inside, address, 200)
    assert inside.page.url == address

    reason = f"Unpaid since June {random.randrange(10**6)}"
    operator.page.goto(f"{operator.product.base_url}/admin/workspaces/workspace/?q={slug}")
    operator.page.get_by_role("link", name=slug).click()
    operator.page.get_by_role("link", name="Suspend…").click()
    operator.page.get_by_label("Reason").fill(reason)
    operator.page.get_by_role("button", name="Suspend").click()
    operator.page.get_by_text(f"Suspended: “{reason}”").wait_for()

    # The owner's page follows by itself, and the door closes for those who were inside.
    person.status(becomes="suspended")
    assert f"The operators suspended it: “{reason}”" in person.page.inner_text("#state-words")
    until_answered(inside, address, 503)
    assert inside.page.url == address
    assert inside.page.get_by_role("heading", name="This workspace is suspended").is_visible()
    assert reason not in inside.page.content(), "whoever opens it may be a visitor"
    inside.page.get_by_role("link", name="Go to the workspace").click()
    inside.page.get_by_text(f"suspended it: “{reason}”").wait_for()

    operator.page.get_by_role("button", name="Resume").click()
    operator.page.get_by_text("is not suspended any more").wait_for()
    person.status(becomes="running")
    until_answered(inside, address, 200)
    assert inside.page.url == address
