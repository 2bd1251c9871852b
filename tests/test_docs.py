"""The docs name what there is, and nothing that is not."""

import re
from pathlib import Path

from tests.cloudctl import reference

PROJECT = Path(__file__).parent.parent
CONFIGURATION = PROJECT / "docs" / "configuration.md"

READ = re.compile(r'env(?:\.\w+)?\(\s*"([A-Z][A-Z0-9_]+)"')
DOCUMENTED = re.compile(r"^\| `([A-Z][A-Z0-9_]+)` \|", re.MULTILINE)
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
