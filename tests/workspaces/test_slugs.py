"""Which slugs there may be, and what is proposed for a name."""

import random

import pytest

from workspaces import slugs

RESERVED = ["www", "api", "admin", "cloud", "mail", "static", "account", "login", "status"]
RESERVED += ["localhost", "new", "workspaces"]


@pytest.mark.parametrize("slug", ["abc", "a1b", "trees-of-lisbon", "2026", "x" * 40])
def test_good_slugs(slug: str) -> None:
    assert slugs.problem(slug) == ""


@pytest.mark.parametrize(
    ("slug", "words"),
    [
        ("", "at least 3"),
        ("ab", "at least 3"),
        ("x" * 41, "at most 40 characters; this has 41"),
        ("-abc", "begin and end"),
        ("abc-", "begin and end"),
        ("a_b", "small letters"),
        ("Abc", "small letters"),
        ("a.b", "small letters"),
        ("a b", "small letters"),
        ("bäume", "small letters"),
        ("abc\n", "small letters"),
        ("xn--80ak6aa92e", "one hyphen"),
        ("a--b", "one hyphen"),
    ],
)
def test_malformed_slugs_get_words_that_help(slug: str, words: str) -> None:
    assert words in slugs.problem(slug)


@pytest.mark.parametrize(
    "slug",
    RESERVED,
)
def test_reserved_slugs(slug: str) -> None:
    assert "reserved" in slugs.problem(slug)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Trees of Lisbon", "trees-of-lisbon"),
        ("  Ada's   data! ", "adas-data"),
        ("Café Ünïcode", "cafe-unicode"),
        ("API", "api-data"),
        ("A", "a-data"),
        ("日本語", "my-workspace"),
        ("", "my-workspace"),
        ("---", "my-workspace"),
        ("word " * 20, "word-word-word-word-word-word-word-word"),
    ],
)
def test_proposals_say_what_the_name_says(name: str, slug: str) -> None:
    assert slugs.propose(name) == slug


def test_every_proposal_is_a_slug_that_there_may_be() -> None:
    dice = random.Random(2026)
    for _ in range(3000):
        name = "".join(chr(dice.choice([dice.randrange(32, 127), dice.randrange(1, 0x2FFF)]))
                       for _ in range(dice.randrange(0, 90)))  # fmt: skip
        proposal = slugs.propose(name)
        assert slugs.problem(proposal) == "", (name, proposal)
        numbered = slugs.numbered(proposal, dice.randrange(2, 100_000))
        assert slugs.problem(numbered) == "", (name, numbered)
