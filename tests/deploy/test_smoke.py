"""The smoke test: what a plugin may do to it, and what it then says. On the real engine."""

from typing import Protocol

import pytest

from deploy import images
from deploy.builder import Builder
from deploy.engines import get_builder
from deploy.images import ImageError

# Runs instead of the smoke test: the same one, with one more plugin and less patience. The plugin
# is a package of its own that the real server finds by its entry point, like any other. A hang
# counts from when it begins: how long a start takes until there is the machine's business.
HARNESS = """
import contextlib, os, pathlib, signal, sys, threading
from cloudapp_workspace import smoke
real_alarm = smoke._alarm

@contextlib.contextmanager
def alarm(seconds):
    over = threading.Event()
    def look():
        while not over.wait(0.01):
            if os.path.exists("/data/hangs"):
                signal.setitimer(signal.ITIMER_REAL, seconds)
                return
    with real_alarm({long}):
        threading.Thread(target=look, daemon=True).start()
        try:
            yield
        finally:
            over.set()

smoke._alarm = alarm
site = pathlib.Path("/data/site")
metadata = site / "bad-1.0.dist-info"
metadata.mkdir(parents=True)
(metadata / "METADATA").write_text("Metadata-Version: 2.1\\nName: bad\\nVersion: 1.0\\n")
(metadata / "entry_points.txt").write_text("[datasette]\\nbad = bad\\n")
(site / "bad.py").write_text({plugin!r})
server = "import sys; sys.path.append('/data/site')\\n"
server += "from cloudapp_workspace.__main__ import main; main()"
smoke.COMMAND = [sys.executable, "-IBc", server]
smoke.STOP_SECONDS = {patience}
smoke.main({patience})
"""
HOOK = """
import asyncio, time
from datasette import hookimpl
@hookimpl
def {hook}({arguments}):
    {body}
"""
LONG, SHORT = 120.0, 1.0
HANGS = "open('/data/hangs', 'w').close(); time.sleep(600)"


def startup(body: str) -> str:
    return HOOK.format(hook="startup", arguments="datasette", body=body)


def on_tables(body: str) -> str:
    return HOOK.format(hook="extra_body_script", arguments="table", body=body)


@pytest.fixture(scope="module")
def builder() -> Builder:
    return get_builder()


class Words(Protocol):
    """What the smoke test of an image says when it has this plugin, too."""

    def __call__(self, plugin: str, patience: float, image: str | None = None) -> str: ...


@pytest.fixture
def words(builder: Builder, monkeypatch: pytest.MonkeyPatch, workspace_image: str) -> Words:
    def words_about(plugin: str, patience: float, image: str | None = None) -> str:
        harness = HARNESS.format(plugin=plugin, patience=patience, long=LONG)
        command = (images.SMOKE_COMMAND[0], "-IBc", harness)
        monkeypatch.setattr(images, "SMOKE_COMMAND", command)
        monkeypatch.setattr(images, "SMOKE_SECONDS", 4 * LONG)
        with pytest.raises(ImageError) as refused:
            images.smoke_test(builder, image or workspace_image, [])
        return str(refused.value)

    return words_about


@pytest.mark.parametrize("image", ["workspace_image", "alpha_image"])
@pytest.mark.parametrize(
    ("plugin", "cause"),
    [
        ("raise OSError('no birds')", "the server ended by itself, with exit code 1\n"),
        (startup("raise OSError('no birds')"), "the server ended by itself, with exit code 3\n"),
        (on_tables("if table: raise OSError('no birds')"), "/smoke/birds answered 500"),
    ],
    ids=["import", "startup", "tables"],
)
def test_a_crash_is_shown_by_the_end_of_the_log(
    words: Words, request: pytest.FixtureRequest, image: str, plugin: str, cause: str
) -> None:
    said = words(f"print('noise')\n{plugin}", LONG, request.getfixturevalue(image))
    assert cause in said
    assert "no birds" in said
    assert "noise" not in said


@pytest.mark.parametrize(
    ("plugin", "asked_for"),
    [
        (f"import time; {HANGS}", "/-/instance/health"),
        (startup(HANGS), "/-/instance/health"),
        (
            startup(HANGS.replace("time.sleep", "return lambda: asyncio.sleep")),
            "/-/instance/health",
        ),
        (on_tables(f"if table: {HANGS}"), "/smoke/birds"),
    ],
    ids=["import", "startup", "startup-async", "tables"],
)
def test_a_hang_is_named_as_such(words: Words, plugin: str, asked_for: str) -> None:
    said = words(plugin, SHORT)
    assert f"the server did not answer in 1 s, asked for {asked_for}\n" in said + "\n"


def test_a_stop_that_hangs_is_named_as_such(words: Words) -> None:
    said = words("import atexit, time; atexit.register(time.sleep, 600)", SHORT)
    assert "the server did not stop in 1 s\n" in said


def test_what_a_plugin_prints_does_not_spoil_the_report(words: Words) -> None:
    """The report is read, because it names the plugin that is in no lock."""
    noise = "print({}); atexit.register(print, '{', end='')"
    plugin = f"import atexit; {noise}\nimport sys; print('{{', file=sys.stderr)"
    assert "not expected: bad, " in words(plugin, LONG)


def test_a_test_without_a_report_is_a_failed_one(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, workspace_image: str
) -> None:
    python = images.SMOKE_COMMAND[0]
    monkeypatch.setattr(images, "SMOKE_COMMAND", (python, "-Ic", "print('fine')"))
    with pytest.raises(ImageError, match="ended without a report"):
        images.smoke_test(builder, workspace_image, [])


def test_the_longest_smoke_test_ends_before_the_engine_ends_it() -> None:
    """Read from the source: it imports what only the image has."""
    source = (images.SOURCE / "cloudapp_workspace/smoke.py").read_text()
    lines = [line for line in source.splitlines() if line.partition(" =")[0].endswith("_SECONDS")]
    seconds = {name: float(value) for name, value in (line.split(" = ") for line in lines)}
    assert images.ANSWER_SECONDS <= 20
    assert images.ANSWER_SECONDS + sum(seconds.values()) < images.SMOKE_SECONDS - 10
