"""The tour in docs/api.md: every command is run against the product, and answers as it is shown."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudapp.local.product import Product

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SECONDS = 900
# For so long the page has a reader listen, and a busy machine.
WHILE, LONGER = "--max-time 2 ", "--max-time 15 "
# Said by the page, and another one for everybody.
CLOUD, ADDRESS = "https://cloud.example.org", "https://trees.example-apps.net/"
MAKE_TOKEN = """
from accounts import api_tokens
from accounts.models import User
from allauth.account.models import EmailAddress
user = User.objects.create_user(None)
EmailAddress.objects.create(user=user, email="tour@example.org", primary=True, verified=True)
print(api_tokens.create(user, "tour", ["read", "lifecycle", "plugins", "secrets"])[1])
"""


@dataclass
class Step:
    """Commands of the tour, and what the page shows as their answer."""

    commands: str
    kind: str = ""
    shown: str = ""


def steps() -> list[Step]:
    """Return the tour, without the lines in which readers put their own values."""
    tour = DOCUMENT.read_text().partition("\n## A tour\n")[2].partition("\n## ")[0]
    found: list[Step] = []
    for kind, text in BLOCK.findall(tour):
        if kind == "sh":
            found.append(Step(text))
        else:
            found[-1].kind, found[-1].shown = kind, text
    first, *rest = found
    assert first.commands.startswith(f"CLOUD={CLOUD}\nTOKEN=cloudapp_")
    return rest


def answers(tour: list[Step], cloud: str, token: str) -> list[str]:
    """Run the commands of all steps in one shell; return what each step printed."""
    mark = "=== the next step ==="
    commands = f"\necho; echo '{mark}'\n".join(step.commands for step in tour)
    assert WHILE in commands
    commands = commands.replace(WHILE, LONGER)
    done = subprocess.run(
        ["bash", "-u"],
        input=f"CLOUD={cloud}\nTOKEN={token}\n{commands}",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    # curl says so when it was told to listen for a while only.
    said = [line for line in done.stderr.splitlines() if "(28)" not in line]
    assert not said, said
    return done.stdout.split(f"{mark}\n")


def is_as_shown(shown: Any, answered: Any) -> bool:
    """Whether all that the page shows is in the answer; of lists, each shown item somewhere."""
    if isinstance(shown, dict) and isinstance(answered, dict):
        return all(
            name in answered and is_as_shown(value, answered[name]) for name, value in shown.items()
        )
    if isinstance(shown, list) and isinstance(answered, list):
        return all(any(is_as_shown(one, other) for other in answered) for one in shown) and (
            bool(shown) or not answered
        )
    return bool(shown == answered)


def text_is_as_shown(shown: str, answered: str) -> bool:
    """Whether the lines that the page shows come in this order; `…` stands for anything."""
    lines = iter(answered.splitlines())
    patterns = [re.escape(line).replace("…", ".*") for line in shown.splitlines()]
    return all(any(re.fullmatch(pattern, line) for line in lines) for pattern in patterns)


def test_the_tour_is_as_the_page_tells_it(product: Product) -> None:
    token = product.manage("shell", "--no-imports", "-c", MAKE_TOKEN).strip().splitlines()[-1]
    tour = steps()
    assert len(tour) >= 12
    answered = answers(tour, product.base_url, token)
    assert len(answered) == len(tour)
    here = f"http://trees.localhost:{product.port}/"
    wrong = []
    for step, answer in zip(tour, answered, strict=True):
        shown = step.shown.replace(CLOUD, product.base_url).replace(ADDRESS, here)
        if step.kind == "json":
            is_right = is_as_shown(json.loads(shown), json.loads(answer))
        else:
            is_right = text_is_as_shown(shown, answer)
        if not is_right:
            wrong.append(f"{step.commands}\nshown:    {shown}\nanswered: {answer}")
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize(
    ("shown", "answered", "fits"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": []}, {"a": [1]}, False),
        ({"items": [{"n": 2}]}, {"items": [{"n": 1}, {"n": 2}]}, True),
    ],
)
def test_what_counts_as_shown(shown: Any, answered: Any, fits: bool) -> None:
    assert is_as_shown(shown, answered) is fits
