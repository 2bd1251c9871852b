"""A workspace's life at a terminal: made, watched, changed, stopped, deleted, brought back."""

import os
import re
import subprocess
import sys

import httpx
import pytest

from cloudapp.local.places import PROJECT
from cloudapp.local.product import Product
from tests.cloudctl.conftest import OTHER, OWNER, SECONDS, Ctl, add_member
from tests.deploy.workspace_support import one_builds

# Of no other test, so that its image is built here.
PLUGIN = "datasette-edit-schema"
MOVES = re.compile(r"\r\x1b\[K|\x1b\[\d*m")


def lines(shown: str) -> list[str]:
    """What stays on a terminal: the line that moves is overwritten."""
    kept = [line.rpartition("\r\x1b[K")[2] for line in shown.replace("\r\n", "\n").split("\n")]
    return [MOVES.sub("", line) for line in kept if line]


def test_create_and_watch(ctl: Ctl, slug: str, product: Product) -> None:
    code, shown = ctl.on_terminal("create", "Trees of Kyiv", "--slug", slug, "--wait")
    said = lines(shown)
    assert code == 0, shown
    assert f"✓ {OWNER} created the workspace" in said
    assert said[-1] == f"{slug} is running: http://{slug}.localhost:{product.port}/"

    # Stopped and started, whatever spares there are: each step with its duration, and a bar.
    said = lines(ctl.on_terminal("stop", slug, "--wait")[1])
    assert any(re.fullmatch(r"✓ Stopped the container.*  [\d.]+ m?s", line) for line in said), said
    _, shown = ctl.on_terminal("start", slug, "--wait")
    said = lines(shown)
    assert any(re.fullmatch(r"✓ Started the container  [\d.]+ m?s", line) for line in said), said
    assert any(re.fullmatch(r"✓ Ready: it answered  [\d.]+ m?s", line) for line in said), said
    assert {"█", "░"} & set(shown), (
        "a bar; how far it came in the meantime is a matter of the moment"
    )

    # It is there, at its address.
    url = ctl.ok("open", slug, "--print").out.strip()
    answer = httpx.get(
        f"http://127.0.0.1:{product.port}/",
        headers={"Host": httpx.URL(url).netloc.decode()},
        timeout=SECONDS,
    )
    assert answer.status_code in (302, 401)


def test_what_happened_is_seen_as_it_happens(ctl: Ctl, shared: str) -> None:
    following = ctl.start("events", shared, "-f", "--limit", "1")
    log = ctl.start("logs", shared, "-f", "--tail", "1")
    assert following.stdout
    assert log.stdout
    try:
        following.stdout.readline()
        assert "Datasette" in log.stdout.readline()
        ctl.ok("restart", shared, "--wait")
        while "Ready: it answered" not in (line := following.stdout.readline()):
            assert line
        while "Datasette" not in (line := log.stdout.readline()):
            assert line
    finally:
        for process in (following, log):
            process.kill()
            process.communicate()


def test_plugins_are_changed_and_watched(ctl: Ctl, slug: str) -> None:
    with one_builds():  # other tests remove what builds leave
        code, shown = ctl.on_terminal(
            "create", "With a plugin", "--slug", slug, "--plugin", PLUGIN, "--wait"
        )
    assert code == 0, shown
    said = lines(shown)
    for step in ("Put the set together", "Built the image", "Tried it out", "Switched over"):
        assert any(re.fullmatch(rf"✓ {step}  [\d.]+ m?s", line) for line in said), said
    assert re.search(rf"{PLUGIN} +on", ctl.ok("plugins", slug).out)

    assert "already" in ctl.ok("plugins", "add", slug, PLUGIN).out
    ran = ctl("plugins", "remove", slug, "datasette-nothing")
    assert ran.code == 2
    assert "datasette-nothing" in ran.err
    ran = ctl("plugins", "add", slug, "datasette-nothing")
    assert (ran.code, "datasette-nothing" in ran.err) == (1, True)
    assert ctl.ok("plugins", "set", slug, "--wait").out.endswith("has now: no plugins\n")


def test_delete_asks_for_the_slug(ctl: Ctl, slug: str) -> None:
    ctl.ok("create", "Short-lived", "--slug", slug)
    code, shown = ctl.on_terminal("delete", slug, typed=["trees"])
    assert (code, "Nothing was deleted" in shown) == (2, True)
    assert ctl("delete", slug).code == 2
    assert ctl("delete", slug, "--json").problem["code"] == "usage"
    code, shown = ctl.on_terminal("delete", slug, typed=[slug])
    assert (code, f"{slug} is deleted" in shown) == (0, True)
    assert slug not in ctl.ok("list").out
    assert slug in ctl.ok("list", "--status", "deleting").out
    assert f"{slug} is running" in ctl.ok("undelete", slug, "--wait").out


def test_people_tokens_and_secrets(ctl: Ctl, product: Product, shared: str) -> None:
    add_member(product, shared, OTHER)
    assert re.search(rf"viewer .*{OTHER}", ctl.ok("members", shared).out)
    assert "is editor of" in ctl.ok("members", "role", shared, OTHER, "editor").out
    ctl.ok("members", "remove", shared, OTHER)
    assert OTHER not in ctl.ok("members", shared).out
    assert ctl("members", "remove", shared, OTHER).code == 2
    ran = ctl("members", "remove", shared, OWNER)
    assert (ran.code, "owner" in ran.err) == (1, True)

    made = ctl.ok("tokens", "create", "for this only", "--scope", "read", "--workspace", shared)
    narrow = Ctl(ctl.config.parent, **{**ctl.environment, "CLOUDCTL_TOKEN": made.out.strip()})
    assert narrow.ok("show", shared)
    ran = narrow("stop", shared)
    assert (ran.code, "scope lifecycle" in ran.err) == (1, True)

    ctl.ok("secrets", "set", shared, "OPENCAGE_KEY", stdin="s3cret\n")
    assert "OPENCAGE_KEY" in ctl.ok("secrets", shared).out
    ctl.ok("secrets", "remove", shared, "OPENCAGE_KEY")
    assert ctl("secrets", "set", shared, "../x", stdin="v").code == 1


# --- how it ends ---------------------------------------------------------------------------------


def test_errors_are_a_sentence_and_what_to_do(ctl: Ctl, slug: str, shared: str) -> None:
    ran = ctl("show", "nobody-has-this")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        "cloudctl: There is no such workspace, or this token may not see it.",
        "What there is: cloudctl list",
    ]
    assert ctl("show", "nobody-has-this", "--json").problem["code"] == "not_found"
    assert ctl("create", "Again", "--slug", shared, "--json").problem["code"] == "slug_taken"
    assert ctl("create", "Bad", "--metadata", "nothing").code == 2


def test_waiting_has_an_end(ctl: Ctl, slug: str, shared: str) -> None:
    ran = ctl("wait", shared, "--status", "sleeping", "--timeout", "0.2")
    assert ran.code == 5
    assert "is not sleeping after 0.2 s" in ran.err
    ran = ctl("wait", shared, "--status", "deleted", "--json")
    assert (ran.code, ran.problem["code"]) == (1, "never")


@pytest.mark.parametrize("exit_code", ["0", "1"])
def test_open_starts_the_browser(ctl: Ctl, shared: str, exit_code: str) -> None:
    """BROWSER names the program; webbrowser says whether it could be started."""
    ctl.environment["BROWSER"] = f"sh -c 'exit {exit_code}' %s"
    found = ctl.ok("open", shared, "--json").json
    assert found["opened"] is (exit_code == "0")


def test_help_is_quick_because_it_loads_little() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, cloudctl.main; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"]},
    ).stdout.split()
    assert not {"httpx", "rich", "django", "importlib.metadata"} & set(loaded)
