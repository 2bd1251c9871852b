"""The command reference in docs/cloudctl.md, made from --help.

`python -m tests.cloudctl.reference` writes it; tests/test_docs.py fails when that was forgotten.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from typer.testing import CliRunner

from cloudctl.main import app

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "cloudctl.md"
BEGIN = "<!-- From --help: python -m tests.cloudctl.reference writes what follows. -->\n"
WIDTH = 80


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return every command that can be run, by its full name."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def reference() -> str:
    """Return the help of the program and of each command, as Markdown."""
    parts = [_section("cloudctl", [])]
    parts += [_section(f"cloudctl {name}", name.split()) for name, _ in commands()]
    return "\n".join(parts)


def _section(title: str, arguments: list[str]) -> str:
    shown = CliRunner().invoke(
        app, [*arguments, "--help"], prog_name="cloudctl", terminal_width=WIDTH
    )
    assert shown.exit_code == 0, shown.output
    return f"### {title}\n\n```\n{shown.output.rstrip()}\n```\n"


def whole() -> str:
    """Return the document with the reference as it should be."""
    head, begin, _ = DOCUMENT.read_text().partition(BEGIN)
    assert begin, f"{DOCUMENT} has no line {BEGIN!r}"
    return f"{head}{BEGIN}\n{reference()}"


if __name__ == "__main__":
    DOCUMENT.write_text(whole())
