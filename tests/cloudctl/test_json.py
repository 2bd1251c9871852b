"""Every command with --json: one document on stdout, and a problem document when it fails.

In this process: there are many of them, and starting Python is most of what each one takes.
"""

import io
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from cloudapp.local.product import Product
from cloudctl.main import main
from tests.cloudctl.conftest import OTHER, OWNER, add_member
from tests.cloudctl.reference import commands
from tests.deploy.workspace_support import one_builds

SECRET = "OPENCAGE_KEY"
Run = Callable[..., tuple[int, str, str]]

# The command line of each command, and what must be done before.
CASES: dict[str, tuple[list[str], list[list[str]]]] = {
    "login": (["login", "--url", "URL"], []),
    "logout": (["logout"], []),
    "whoami": (["whoami"], []),
    "list": (["list", "--status", "running", "--status", "stopped"], []),
    "create": (["create", "In JSON", "--metadata", "customer=4711", "--wait"], []),
    "show": (["show", "SLUG"], []),
    "open": (["open", "SLUG", "--print"], []),
    "start": (["start", "SLUG", "--wait"], [["stop", "SLUG", "--wait"]]),
    "stop": (["stop", "SLUG", "--wait"], []),
    "restart": (["restart", "SLUG", "--wait"], [["start", "SLUG", "--wait"]]),
    "wake": (["wake", "SLUG", "--wait"], [["start", "SLUG", "--wait"]]),
    "wait": (["wait", "SLUG", "--status", "running"], [["start", "SLUG"]]),
    "events": (["events", "SLUG"], []),
    "logs": (["logs", "SLUG", "--tail", "3"], []),
    "rename": (["rename", "SLUG", "Better"], []),
    "delete": (["delete", "SLUG", "--yes"], []),
    "undelete": (["undelete", "SLUG", "--wait"], [["delete", "SLUG", "--yes"]]),
    "plugins list": (["plugins", "SLUG"], []),
    "plugins set": (["plugins", "set", "SLUG"], []),
    "plugins add": (["plugins", "add", "SLUG", "datasette-vega", "--wait"], []),
    "plugins remove": (
        ["plugins", "remove", "SLUG", "datasette-vega", "--wait"],
        [["plugins", "add", "SLUG", "datasette-vega", "--wait"]],
    ),
    "secrets list": (["secrets", "list", "SLUG"], []),
    "secrets set": (["secrets", "set", "SLUG", SECRET], []),
    "secrets remove": (["secrets", "remove", "SLUG", SECRET], [["secrets", "set", "SLUG", SECRET]]),
    "members list": (["members", "list", "SLUG"], []),
    "members role": (["members", "role", "SLUG", OWNER, "owner"], []),
    "members remove": (["members", "remove", "SLUG", OTHER], []),
    "tokens list": (["tokens", "list"], []),
    "tokens create": (["tokens", "create", "another", "--scope", "read", "--days", "1"], []),
    "tokens revoke": (["tokens", "revoke", "NEW TOKEN"], []),
}


COMMANDS = dict(commands())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command line here; return exit code, stdout and stderr."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("CLOUDCTL_URL", "CLOUDCTL_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cloudctl", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def signed_in(run: Run, monkeypatch: pytest.MonkeyPatch, product: Product, token: str) -> Run:
    monkeypatch.setenv("CLOUDCTL_URL", product.base_url)
    monkeypatch.setenv("CLOUDCTL_TOKEN", token)
    return run


@pytest.fixture
def jsonable(signed_in: Run) -> str:
    """A running workspace for these tests; whoever comes first makes it."""
    if signed_in("show", "in-json")[0]:
        assert signed_in("create", "JSON", "--slug", "in-json", "--wait")[0] == 0
    return "in-json"


def test_every_command_has_json_and_is_tested_with_it() -> None:
    assert set(CASES) == set(COMMANDS)
    without = [
        name
        for name, command in COMMANDS.items()
        if not any("--json" in getattr(parameter, "opts", ()) for parameter in command.params)
    ]
    assert not without


@pytest.mark.parametrize("name", CASES)
def test_json_is_all_that_is_printed(
    signed_in: Run, name: str, product: Product, token: str, jsonable: str
) -> None:
    wanted, before = CASES[name]
    if name == "members remove":
        add_member(product, jsonable, OTHER)
    if name == "tokens revoke":
        made = signed_in("tokens", "create", "short", "--scope", "read", "--json")[1]
        wanted = ["tokens", "revoke", str(json.loads(made)["id"])]
    stdin = token if name == "login" else "s3cret\n"
    with one_builds() if name.startswith("plugins") else nullcontext():
        for arguments in before:
            assert signed_in(*filled(arguments, product, jsonable), stdin="s3cret")[0] == 0
        code, out, err = signed_in(*filled(wanted, product, jsonable), "--json", stdin=stdin)
    assert (code, err) == (0, "")
    json.loads(out)
    assert "s3cret" not in out
    assert name == "tokens create" or token not in out


def filled(arguments: list[str], product: Product, slug: str) -> list[str]:
    known = {"SLUG": slug, "URL": product.base_url}
    return [known.get(argument, argument) for argument in arguments]


@pytest.mark.parametrize("name", sorted(set(CASES) - {"login", "logout"}))
def test_a_problem_is_all_that_is_said(run: Run, name: str) -> None:
    arguments = ["trees" if text == "SLUG" else text for text in CASES[name][0]]
    code, out, err = run(*["7" if text == "NEW TOKEN" else text for text in arguments], "--json")
    assert (code, out) == (3, "")
    assert json.loads(err)["code"] == "not_signed_in"


def test_wrong_usage_is_a_problem_too(run: Run) -> None:
    for arguments in (["list", "--nothing"], ["nothing"], ["show"], ["show", "../tokens"], []):
        code, out, err = run(*arguments, "--json")
        assert (code, out) == (2, ""), arguments
        assert json.loads(err)["code"] == "usage"
