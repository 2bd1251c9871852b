"""The OpenAPI document is valid, and tells everything about everything; so does the page."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from jsonschema_rs import Draft202012Validator
from pytest_django.live_server_helper import LiveServer
from schemathesis.specs.openapi.definitions import OPENAPI_31

from tests.browser import NewPage
from tests.workspaces.api.conftest import Api
from tests.workspaces.html import problems
from workspaces.api import examples
from workspaces.api.problems import CODES
from workspaces.api.reference import groups_of, shapes_of
from workspaces.api.schema import STREAM

pytestmark = pytest.mark.django_db
Document = dict[str, Any]


@pytest.fixture
def document() -> Document:
    """As programs get it."""
    answer = Client().get("/api/v1/openapi.json")
    found: Document = json.loads(answer.content)
    return found


def operations(document: Document) -> Iterator[tuple[str, Document]]:
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            yield f"{method.upper()} {path}", told


def test_it_is_valid_openapi(document: Document) -> None:
    """The schema is the OpenAPI initiative's own, as Schemathesis brings it along."""
    errors = [str(error) for error in Draft202012Validator(OPENAPI_31).iter_errors(document)]
    assert not errors, "\n".join(errors)


def test_every_post_takes_a_key(document: Document) -> None:
    for where, told in operations(document):
        with_key = "Idempotency-Key" in {parameter["name"] for parameter in told["parameters"]}
        assert with_key == where.startswith("POST "), where


def test_every_operation_is_described_with_examples(document: Document) -> None:
    missing = []
    names = [told["operationId"] for _, told in operations(document)]
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for where, told in operations(document):
        needed = {"summary": told.get("summary"), "description": told.get("description")}
        needed |= {"tag": tags & set(told["tags"]), "security": told.get("security")}
        for parameter in told["parameters"]:
            name = parameter["name"]
            needed[f"{name}: description"] = parameter.get("description")
            needed[f"{name}: example"] = "example" in parameter
        for kind, media in told.get("requestBody", {}).get("content", {}).items():
            needed[f"{kind}: example"] = "example" in media
        for status, answer in told["responses"].items():
            needed[f"{status}: description"] = answer.get("description")
            for kind, media in answer.get("content", {}).items():
                needed[f"{status}, {kind}: example"] = media.get("example") or media.get("examples")
            for name, header in answer["headers"].items():
                needed[f"{status}, {name}"] = header["description"] and "example" in header
            for name, link in answer.get("links", {}).items():
                needed[f"{status}, link {name}"] = link["operationId"] in names
        missing += [f"{where}: {what}" for what, there in needed.items() if not there]
    assert not missing, "\n".join(missing)
    assert len(names) == len(set(names)) >= 30


def test_every_field_is_described_and_has_an_example(document: Document) -> None:
    components = document["components"]["schemas"]
    missing = []
    for name, schema in components.items():
        if not schema.get("description") and not name.startswith("Page_"):
            missing.append(f"{name}: description")
        for field, told in schema.get("properties", {}).items():
            if not told.get("description"):
                missing.append(f"{name}.{field}: description")
            try:
                examples.of(told, components)
            except examples.NoExample:
                missing.append(f"{name}.{field}: example")
    assert not missing, "\n".join(missing)


def test_examples_are_as_their_schemas_say(document: Document) -> None:
    components = {"components": document["components"]}
    wrong = []
    for where, told in operations(document):
        parts = [(f"{where} {one['name']}", one["schema"], one) for one in told["parameters"]]
        contents = [told.get("requestBody", {}), *told["responses"].values()]
        parts += [
            (f"{where} {kind}", media["schema"], media)
            for content in contents
            for kind, media in content.get("content", {}).items()
            if kind != STREAM  # its schema is that of each event, its example several
        ]
        for name, schema, part in parts:
            if "example" in part:
                # An answer's own schema is of no use without what it refers to.
                checked = Draft202012Validator({**schema, **components})
                wrong += [f"{name}: {error}" for error in checked.iter_errors(part["example"])]
    assert not wrong, "\n".join(wrong)


def test_every_error_is_described_and_comes_somewhere(document: Document) -> None:
    assert all(code.title and code.help for code in CODES.values())
    said = {
        name
        for _, told in operations(document)
        for answer in told["responses"].values()
        for media in answer.get("content", {}).values()
        for name in media.get("examples", {})
    }
    # Of the last one: whatever adds members may say it.
    anywhere = {"method_not_allowed", "broken", "member_limit"}
    assert set(CODES) - anywhere == said - anywhere


# --- the page ------------------------------------------------------------------------------------


def page(client: Client) -> str:
    response = client.get("/api/v1/docs")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/html")
    return response.content.decode()


def test_the_page_shows_all_of_it_and_its_links_lead_somewhere(document: Document) -> None:
    html = page(Client())
    assert problems(html) == []
    anchors = re.findall(r'id="([^"]+)"', html)
    assert len(anchors) == len(set(anchors))
    links = set(re.findall(r'href="#([^"]+)"', html))
    assert links <= set(anchors), links - set(anchors)
    for _, told in operations(document):
        assert told["operationId"] in links, "not in the contents"
    assert {f"problem-{code}" for code in CODES} <= set(anchors)
    assert "`" not in html, "a backtick is shown, and not code"


def test_what_a_problem_points_at_is_on_the_page(api: Api) -> None:
    address = api.get("/workspaces/nothing").json()["type"]
    path, _, anchor = address.partition("#")
    assert path.endswith("/api/v1/docs")
    assert f'id="{anchor}"' in page(Client())


def test_the_page_is_in_everybodys_frame(client_of_owner: Client) -> None:
    assert "Sign in" in page(Client())
    assert "Sign out" in page(client_of_owner)


def test_the_page_needs_no_script_and_no_style_of_its_own() -> None:
    html = page(Client())
    assert " style=" not in html
    assert "<style" not in html
    assert re.findall(r"<script(?! src)", html) == []


def test_curl_commands_are_for_what_they_stand_at(document: Document) -> None:
    for group in groups_of(document):
        for one in group.operations:
            assert one.curl.startswith("curl ")
            assert (f"-X {one.method} " in one.curl) == (one.method != "GET")
            assert "{" not in one.curl.split("--json")[0], "a place that nothing was put in"
            assert "$TOKEN" in one.curl
    assert {"Workspace", "Event", "Problem"} <= {shape.name for shape in shapes_of(document)}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("width", [390, 1280])
def test_on_any_width_only_boxes_scroll_sideways(
    new_page: NewPage, live_server: LiveServer, width: int
) -> None:
    browser = new_page(viewport={"width": width, "height": 900})
    browser.goto(f"{live_server.url}/api/v1/docs")
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    # What scrolls can be scrolled without a mouse.
    stuck = browser.evaluate(
        "[...document.querySelectorAll('.reference *')]"
        ".filter(one => one.scrollWidth > one.clientWidth && one.tabIndex < 0"
        " && /auto|scroll/.test(getComputedStyle(one).overflowX)).map(one => one.outerHTML)"
    )
    assert stuck == []
    browser.get_by_role("link", name="Error codes").focus()
    browser.keyboard.press("Enter")
    browser.wait_for_url("**#problems")
    browser.keyboard.press("Tab")
    seen = "getComputedStyle(document.activeElement).outlineStyle"
    assert browser.evaluate(seen) == "solid"
