"""What the pages are made of: colours that can be read, vendored code that is what it says."""

import hashlib
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.template.loader import render_to_string
from django.test import Client, RequestFactory
from django.views import defaults

from deploy.states import Status
from tests.workspaces import html

STATIC = settings.BASE_DIR / "cloudapp" / "static"
CSS = (STATIC / "app.css").read_text()
ADMIN_CSS = (settings.BASE_DIR / "workspaces" / "static" / "workspaces" / "admin.css").read_text()
# The gateway's pages are not among them: they stand on workspaces' hosts, with a CSP of their own.
TEMPLATES = [
    path
    for room in ("cloudapp", "accounts", "workspaces")
    for path in sorted((settings.BASE_DIR / room).rglob("templates/**/*.html"))
    if "gateway" not in path.parts
]

# What stands on what. Text needs 4.5:1; what is no text but must be seen needs 3:1.
TEXT_ON = [
    *[("ink", ground) for ground in ("paper", "surface", "sunken", "accent-soft")],
    *[("ink-soft", ground) for ground in ("paper", "surface", "sunken")],
    *[("accent", ground) for ground in ("paper", "surface", "sunken", "accent-soft")],
    *[("accent-strong", ground) for ground in ("paper", "surface")],
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
    ("red", "surface"),
    ("red", "paper"),
    ("red-strong", "red-soft"),
    ("green", "surface"),
    *[(tone, f"{tone}-soft") for tone in ("green", "amber", "red", "slate", "grey")],
    *[("ink", f"{tone}-soft") for tone in ("green", "amber", "red", "slate")],
]
SEEN_ON = [
    ("line-strong", "surface"),
    ("line-strong", "paper"),
    ("accent", "paper"),
    ("accent", "surface"),
]


def palettes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
    found = {}
    for name, block in (("light", light), ("dark", light + dark)):
        found[name] = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    return found


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(scheme: str) -> None:
    colours = palettes()[scheme]
    poor = [
        f"{front} on {back}: {ratio:.2f}"
        for pairs, least in ((TEXT_ON, 4.5), (SEEN_ON, 3.0))
        for front, back in pairs
        if (ratio := contrast(colours[front], colours[back])) < least
    ]
    assert not poor


def test_operators_pages_have_the_same_colours() -> None:
    colours = palettes()
    for light, dark in re.findall(r"light-dark\((.*?), (.*?)\)", ADMIN_CSS):
        assert light in colours["light"].values()
        assert dark in colours["dark"].values()
    elsewhere = re.sub(r"light-dark\(.*?\)", "", ADMIN_CSS)
    assert not re.findall(r"#[0-9a-f]{3,6};", elsewhere), "a colour that is not in both looks"


def test_every_status_has_a_look_and_a_word() -> None:
    for status in Status:
        assert f".status--{status}" in CSS
        badge = render_to_string("workspaces/_status.html", {"status": status.value})
        assert f">{status.value.title()}<" in badge


def test_the_vendored_script_is_what_was_reviewed() -> None:
    (vendored,) = (STATIC / "vendor").iterdir()
    assert vendored.name == "htmx-2.0.11.min.js"
    assert hashlib.sha256(vendored.read_bytes()).hexdigest() == (
        "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
    )
    base = (settings.BASE_DIR / "cloudapp" / "templates" / "base.html").read_text()
    assert f"vendor/{vendored.name}" in base
    assert '"includeIndicatorStyles": false' in base
    assert '"allowEval": false' in base


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: "/".join(path.parts[-2:]))
def test_templates_keep_to_the_content_security_policy(path: Path) -> None:
    text = re.sub(r"\{#.*?#\}|\{% comment %\}.*?\{% endcomment %\}", "", path.read_text(),
                  flags=re.DOTALL)  # fmt: skip
    assert not re.search(r"<[^>]*\sstyle\s*=", text)
    assert not re.search(r"<[^>]*\son[a-z]+\s*=", text)
    assert "<style" not in text
    assert "javascript:" not in text
    for script in re.findall(r"<script\b([^>]*)>", text):
        assert "src=" in script or "application/json" in script


def test_the_500_page_needs_no_database_and_no_request() -> None:
    # No django_db mark: any query fails this test.
    response = defaults.server_error(RequestFactory().get("/"))
    assert response.status_code == 500
    assert html.problems(response.content.decode()) == []
    assert "your data is safe" in response.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["400", "403", "403_csrf", "404"])
def test_error_pages_say_what_to_do(name: str) -> None:
    text = render_to_string(f"{name}.html")
    assert html.problems(text) == []
    assert 'href="/"' in text


@pytest.mark.django_db
def test_a_form_that_is_too_old_is_explained() -> None:
    response = Client(enforce_csrf_checks=True).post("/account/login/", {})
    assert response.status_code == 403
    assert "This form is too old to send" in response.content.decode()
