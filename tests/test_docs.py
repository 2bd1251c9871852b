"""The docs name what there is, and nothing that is not."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accounts import api_tokens
from tests.cloudctl import reference
from workspaces.api.reference import with_parts
from workspaces.api.urls import api

PROJECT = Path(__file__).parent.parent
CONFIGURATION = PROJECT / "docs" / "configuration.md"
API = PROJECT / "docs" / "api.md"

READ = re.compile(r'env(?:\.\w+)?\(\s*"([A-Z][A-Z0-9_]+)"')
DOCUMENTED = re.compile(r"^\| `([A-Z][A-Z0-9_]+)` \|", re.MULTILINE)
SCOPE = re.compile(r"^\| `([a-z]+)` \| ([^|]+) \|$", re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    read = set(READ.findall((PROJECT / "cloudapp" / "settings.py").read_text()))
    documented = set(DOCUMENTED.findall(CONFIGURATION.read_text()))
    assert len(read) > 20
    runner_only = {"PORT", "CLOUDAPP_OPERATOR_EMAIL", "CLOUDAPP_OPERATOR_PASSWORD"}
    assert read - documented == set(), "not in docs/configuration.md"
    assert documented - read - runner_only == set(), "documented, but not read anywhere"


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")]
    assert len(documents) >= 4
    broken = [
        f"{document.name}: {target}"
        for document in documents
        for target in LINK.findall(document.read_text())
        if not (document.parent / target).exists()
    ]
    assert not broken, broken


def test_the_reference_of_cloudctl_is_what_help_says() -> None:
    words = "Run: python -m tests.cloudctl.reference"
    assert reference.DOCUMENT.read_text() == reference.whole(), words


def test_every_scope_is_documented_in_its_own_words() -> None:
    section = API.read_text().partition("### Scopes\n")[2].partition("\n### ")[0]
    documented = dict(SCOPE.findall(section))
    assert documented == {scope.value: words for scope, words in api_tokens.WORDS.items()}


def test_leak_scanners_are_told_the_truth() -> None:
    text = API.read_text()
    assert f"\n    {api_tokens.PATTERN}\n" in text
    (snippet,) = (code for code in PYTHON.findall(text) if "is_token" in code)
    told: dict[str, Any] = {}
    exec(snippet, told)  # noqa: S102 - our own document
    is_token: Callable[[str], bool] = told["is_token"]
    for _ in range(200):
        token = api_tokens.new_text()
        assert is_token(token)
        other = token[:-1] + ("0" if token[-1] != "0" else "1")
        assert not is_token(other)
        assert not api_tokens.is_wellformed(other)


def test_the_generated_parts_of_the_api_page_are_what_the_api_is() -> None:
    text = (PROJECT / "docs" / "api.md").read_text()
    assert text.count("<!-- generated: ") == 3
    words = "stale: run `manage.py api_reference docs/api.md`"
    assert with_parts(text, api.get_openapi_schema()) == text, words
