"""The Python enrichment in a real workspace: what it does, and that code cannot get out of it."""

import html
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page

from tests.accessibility.axe import Findings
from tests.deploy.workspace_support import Workspace, fulfil_from, wait_until
from tests.plugins import inside

PYTHON = "/opt/workspace/bin/python"
# While code does its worst on the one core, the workspace answers: some fifty times in the second
# that a row may take, and a few times on a busy machine. If it waited for the code, it would answer
# once or twice before, and whoever asks then would wait for as long as the code takes.
ANSWERS, WAITED = 8, 0.8
# And never does anybody wait for long; the bound is for a busy machine.
ANSWER_SECONDS = 30.0
MEMORY = 512 * 2**20
UPPER = "def transform(value, row):\n    return value.strip().upper()\n"
FOREVER = "def transform(value, row):\n    while True:\n        pass\n"


@dataclass
class Cell:
    """What the preview shows of one row."""

    text: str
    failed: bool


def fields(code: str, output: str = "out", column: str = "name", **more: str) -> dict[str, str]:
    return {"code": code, "column": column, "output_column": output, **more}


def preview(client: httpx.Client, code: str, *where: str, **more: str) -> list[Cell]:
    """As `preview_once`, of code that needs no second; a busy machine may take one all the same."""
    cells: list[Cell] = []

    def in_time() -> bool:
        cells[:] = preview_once(client, code, *where, **more)
        return not any("Took longer than" in cell.text for cell in cells)

    wait_until(in_time, "an answer within the limit of a row")
    return cells


def preview_once(
    client: httpx.Client, code: str, table: str = "happy", where: str = "id=1", **more: str
) -> list[Cell]:
    """What code makes of the first rows, as the page shows it."""
    answer = client.post(
        f"/-/enrich/birds/{table}/python?{where}", data=fields(code, preview="1", **more)
    )
    assert answer.status_code == 200, answer.text
    cells = re.findall(r'<td data-label="out">(.*?)</td>', answer.text, re.DOTALL)
    assert cells, answer.text
    return [Cell(shown(cell), 'class="error"' in cell) for cell in cells]


def shown(cell: str) -> str:
    cell = re.sub(r'<span class="type">.*?</span>', "", cell)
    return html.unescape(re.sub(r"<[^>]+>", "", cell)).strip()


def run(
    client: httpx.Client, table: str, code: str, *, too_long: int = 0, **more: str
) -> dict[str, Any]:
    """Run code on a whole table; return the job when it is over.

    `too_long` of the rows need more than the second that each may take. When others did, as on a
    busy machine, it is run once more.
    """
    jobs: list[int] = []

    def in_time() -> bool:
        job = start(client, table, code, **more)
        jobs.append(job)
        wait_until(lambda: status(client, job) in ("finished", "cancelled"), "the end of the run")
        late = (
            f"select 1 from _enrichment_errors where job_id = {job} and error like 'Took longer%'"
        )
        return len(sql(client, late)) == too_long

    wait_until(in_time, "a run within the limits of its rows")
    return job_row(client, jobs[-1])


def start(client: httpx.Client, table: str, code: str, where: str = "", **more: str) -> int:
    answer = client.post(f"/-/enrich/birds/{table}/python?{where}", data=fields(code, **more))
    assert answer.status_code == 302, answer.text
    return int(answer.headers["location"].split("_enrichment_job=")[1])


def job_row(client: httpx.Client, job: int) -> dict[str, Any]:
    found: dict[str, Any] = sql(client, f"select * from _enrichment_jobs where id = {job}")[0]
    return found


def status(client: httpx.Client, job: int) -> str:
    return str(job_row(client, job)["status"])


def sql(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    answer = client.get("/birds.json", params={"sql": query, "_shape": "array"})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


@dataclass
class Watch:
    """How long the workspace took to answer while something went on."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def answering(instance: Workspace) -> Iterator[Watch]:
    """Ask for the health and for a page all the time; fail if that waits for what goes on."""
    watch, over = Watch(), threading.Event()
    thread = threading.Thread(target=_ask, args=(instance, watch, over))
    thread.start()
    began = time.monotonic()
    try:
        yield watch
    finally:
        took, meanwhile = time.monotonic() - began, len(watch.seconds)
        over.set()
        thread.join()
    assert not watch.wrong
    assert watch.seconds
    slowest = max(watch.seconds)
    told = f"{meanwhile} answers in {took:.1f} s, the slowest in {slowest:.1f} s"
    assert took < 1 or meanwhile >= ANSWERS or slowest < WAITED * took, told
    assert slowest < ANSWER_SECONDS, told


def _ask(instance: Workspace, watch: Watch, over: threading.Event) -> None:
    with instance.as_role("viewer") as viewer, instance.client(instance.token()) as probe:
        while True:
            for client, path in ((probe, "/-/instance/health"), (viewer, "/birds/happy")):
                began = time.monotonic()
                code = client.get(path).status_code
                watch.seconds.append(time.monotonic() - began)
                if code != 200:
                    watch.wrong.append(f"{path}: {code}")
            if over.is_set():
                return
            over.wait(0.02)


def unharmed(instance: Workspace) -> None:
    """The container was never out of memory, and the very same server is there."""
    instance.container.reload()
    state = instance.container.attrs["State"]
    assert (state["OOMKilled"], state["Running"]) == (False, True)
    stats = instance.container.client.api.stats(instance.container.id, stream=False, one_shot=True)
    assert stats["memory_stats"].get("failcnt", 0) == 0


# --- what it does ------------------------------------------------------------------------------


def test_a_preview_shows_five_rows_and_writes_nothing(enriched: Workspace) -> None:
    with enriched.as_role("editor") as client:
        before = sql(client, "select * from happy")
        assert [cell.text for cell in preview(client, UPPER, where="")] == [
            f"BIRD {i}" for i in range(1, 6)
        ]
        assert [c.text for c in preview(client, UPPER, where="id__gt=18")] == ["BIRD 19", "BIRD 20"]
        assert sql(client, "select * from happy") == before


def test_the_page_keeps_what_was_written_and_names_the_line_of_a_mistake(
    enriched: Workspace,
) -> None:
    code = "def transform(value, row):\n    a = 1\n    return value.nothing\n"
    with enriched.as_role("editor") as client:
        (cell,) = preview(client, code)
        page = client.post("/-/enrich/birds/happy/python", data=fields("x = (", preview="1")).text
        none = client.post("/-/enrich/birds/happy/python", data=fields("x = 1")).text
    assert (cell.failed, cell.text) == (
        True,
        "Line 3: AttributeError: 'str' object has no attribute 'nothing'",
    )
    assert "Line 1: SyntaxError: '(' was never closed" in html.unescape(page)
    assert "x = (" in page
    assert "There is no function transform" in none


def test_axe_finds_nothing_wrong_with_the_page(enriched: Workspace, page: Page) -> None:
    findings = Findings()
    with enriched.as_role("editor", Accept="text/html") as client:
        page.route("**/*", fulfil_from(client))
        page.goto("http://birds.test/-/enrich/birds/happy/python")
        findings.look_at(page, "empty")
        for code in (UPPER, "x = ("):
            page.locator("[name=code]").fill(code)
            page.locator("[name=column]").select_option("name")
            page.locator("[name=output_column]").fill("out")
            with page.expect_navigation():
                page.get_by_role("button", name="Preview").click()
            findings.look_at(page, code)
        page.unroute("**/*")
    assert not findings.found, f"\n{findings}"


def test_a_run_writes_every_row(enriched: Workspace) -> None:
    with enriched.as_role("editor") as client:
        job = run(client, "happy", UPPER, output="loud")
        assert (job["status"], job["done_count"], job["error_count"]) == ("finished", 20, 0)
        rows = sql(client, "select id, name, loud from happy order by id")
        progress = client.get(f"/-/enrichment-jobs/birds/{job['id']}").json()
        assert client.get(f"/-/enrich/birds/-/jobs/{job['id']}").status_code == 200
    assert [row["loud"] for row in rows] == [f"BIRD {i}" for i in range(1, 21)]
    assert rows[0]["name"] == " bird 1 "
    assert progress["is_complete"]
    assert progress["sections"] == [{"type": "success", "count": 20}]


def test_a_run_may_change_the_column_that_it_reads_and_needs_no_primary_key(
    enriched: Workspace,
) -> None:
    with enriched.as_role("editor") as client:
        run(
            client, "nokey", "def transform(value, row):\n    return value[:1] * 2\n", output="name"
        )
        assert sql(client, "select * from nokey") == [{"name": "aa"}, {"name": "bb"}]
        answer = client.post("/-/enrich/birds/happy/python", data=fields(UPPER, output="id"))
    assert "The primary key cannot be written" in answer.text


def test_errors_are_kept_for_each_row_and_the_run_goes_on(enriched: Workspace) -> None:
    code = "def transform(value, row):\n    return 100 // (row['n'] % 2)\n"
    with enriched.as_role("editor") as client:
        job = run(client, "errors", code)
        kept = sql(
            client, f"select row_pks, error from _enrichment_errors where job_id = {job['id']}"
        )
        rows = sql(client, "select id, out from errors order by id")
    assert (job["status"], job["done_count"], job["error_count"]) == ("finished", 20, 10)
    even = [i for i in range(1, 21) if i % 2 == 0]
    assert [json.loads(row["row_pks"]) for row in kept] == [[i] for i in even]
    assert {row["error"] for row in kept} == {"Line 2: ZeroDivisionError: division by zero"}
    assert [row["out"] for row in rows] == [None if i in even else 100 for i in range(1, 21)]


@pytest.mark.parametrize(
    ("returned", "kind", "stored"),
    [
        ("row['n']", "INTEGER", 1),
        ("row['n'] / 2", "FLOAT", 0.5),
        ("row['n'] > 0", "INTEGER", 1),
        ("[value.strip(), None]", "TEXT", '["bird 1", null]'),
        ("{'ä': 1}", "TEXT", '{"ä": 1}'),
        ("bytes([255, 0])", "BLOB", {"$base64": True, "encoded": "/wA="}),
        ("None", "TEXT", None),
    ],
)
def test_a_new_column_has_the_type_of_what_comes(
    enriched: Workspace, returned: str, kind: str, stored: object
) -> None:
    output = f"made_{returned.encode().hex()}"
    with enriched.as_role("editor") as client:
        run(client, "types", f"def transform(value, row):\n    return {returned}\n", output=output)
        (column,) = [
            found
            for found in sql(client, "select * from pragma_table_info('types')")
            if found["name"] == output
        ]
        assert column["type"] == kind
        assert sql(client, f"select {output} from types where id = 1") == [{output: stored}]


def test_what_a_table_refuses_is_an_error_of_that_row(enriched: Workspace) -> None:
    same = "def transform(value, row):\n    return 'same'\n"
    key = "def transform(value, row):\n    return {'n': 'other'}\n"
    with enriched.as_role("editor") as client:
        job = run(client, "strict", same, column="c", output="c")
        keys = run(client, "strict", key, column="c", output="b", columns="y")
        rows = sql(client, "select * from strict order by a")
        errors = sql(client, "select job_id, row_pks, error from _enrichment_errors order by id")
    assert (job["status"], job["error_count"]) == ("finished", 1)
    assert rows == [{"a": "1", "b_n": "x", "c": "same"}, {"a": "2", "b_n": "x", "c": "l"}]
    assert (keys["status"], keys["error_count"]) == ("finished", 2)
    assert [json.loads(e["row_pks"]) for e in errors if e["job_id"] == job["id"]] == [[["2", "x"]]]
    assert "UNIQUE constraint failed" in errors[-3]["error"]
    assert errors[-1]["error"] == "The primary key cannot be written."


def test_a_dictionary_can_go_into_several_columns(enriched: Workspace) -> None:
    code = "def transform(value, row):\n    return {'first': value[1], 'n': row['n']}\n"
    with enriched.as_role("editor") as client:
        run(client, "types", code, output="part", columns="y")
        assert sql(client, "select part_first, part_n from types where id = 7") == [
            {"part_first": "b", "part_n": 7}
        ]


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        ("10 ** 30", "The number is too large for SQLite; return it as a text."),
        ("'\\ud800'", "The text has half a character (a lone surrogate) in it."),
        ("object()", "TypeError: transform returned a object"),
        ("{1, 2}", "TypeError: transform returned a set"),
        ("[float('nan')]", "ValueError: Out of range float values are not JSON compliant"),
        ("'x' * 2_000_000", "ValueError: The result is larger than 1,000,000 characters."),
    ],
)
def test_what_sqlite_cannot_hold_is_an_error_of_that_row(
    enriched: Workspace, returned: str, error: str
) -> None:
    with enriched.as_role("editor") as client:
        (cell,) = preview(client, f"def transform(value, row):\n    return {returned}\n")
    assert cell.failed
    assert cell.text.startswith(error)


# --- what rows see of one another ----------------------------------------------------------------

COUNTS = "seen = []\ndef transform(value, row):\n    seen.append(1)\n    return len(seen)\n"
# Left in the interpreter itself, where a new module would find it again.
HIDES = (
    "import sys, builtins, re\n"
    "def transform(value, row):\n"
    "    for place in (sys, builtins, re):\n"
    "        place.seen = getattr(place, 'seen', 0) + 1\n"
    "    return sys.seen + builtins.seen + re.seen\n"
)
# No import at all, and yet it gets at what all modules share.
CLIMBS = (
    "def transform(value, row):\n"
    "    shared = print.__self__.__dict__\n"
    "    shared['seen'] = shared.get('seen', 0) + 1\n"
    "    return shared['seen']\n"
)


@pytest.mark.parametrize(("code", "first"), [(COUNTS, 1), (HIDES, 3), (CLIMBS, 1)])
def test_no_row_sees_what_another_one_left(enriched: Workspace, code: str, first: int) -> None:
    with enriched.as_role("editor") as client:
        job = run(client, "state", code, output="alone")
        assert job["error_count"] == 0
        assert sql(client, "select distinct alone from state") == [{"alone": first}]


def test_rows_share_state_when_asked(enriched: Workspace) -> None:
    with enriched.as_role("editor") as client:
        run(client, "state", COUNTS, output="kept", keep_state="y")
        rows = sql(client, "select kept from state order by id")
    assert [row["kept"] for row in rows] == list(range(1, 21))


def test_only_harmless_code_shares_an_interpreter(enriched: Workspace) -> None:
    """The proof itself, on code that is harmless and on code that only looks so."""
    done = enriched.execute(PYTHON, "-IBc", inside.PLAIN)
    assert done.code == 0, done.output.decode()
    assert json.loads(done.output) == {}


# --- who may -----------------------------------------------------------------------------------


def test_viewers_neither_run_nor_preview_nor_stop(enriched: Workspace) -> None:
    with enriched.as_role("editor") as editor:
        job = start(editor, "busy", "import time\ndef transform(v, r):\n    time.sleep(0.4)\n")
        page = "/-/enrich/birds/busy/python"
        with enriched.as_role("viewer") as viewer:
            assert viewer.get(page).status_code == 403
            assert viewer.post(page, data=fields(UPPER)).status_code == 403
            assert viewer.post(page, data=fields(UPPER, preview="1")).status_code == 403
            for action in ("pause", "resume", "cancel"):
                address = f"/-/enrich/birds/-/jobs/{job}/{action}"
                assert viewer.post(address).status_code == 403
        assert status(editor, job) == "running"
        with enriched.as_role("owner") as owner, enriched.client() as nobody:
            assert nobody.post(page, data=fields(UPPER)).status_code == 403
            assert owner.get(page).status_code == 200
            assert owner.post(f"/-/enrich/birds/-/jobs/{job}/cancel").status_code == 302
            assert editor.get("/-/enrich/birds/nothing/python").status_code == 404
            assert editor.get("/-/enrich/nothing/busy/python").status_code == 404


# --- pause, resume, stop -------------------------------------------------------------------------


def test_a_run_pauses_at_the_end_of_a_batch_and_resumes(enriched: Workspace) -> None:
    # Seven slow batches, so that a busy machine pauses it at the end of one of them.
    slow = (
        "import time\ndef transform(value, row):\n"
        "    time.sleep(0.3 if row['n'] <= 35 else 0)\n    return 1\n"
    )
    with enriched.as_role("editor") as client:
        job = start(client, "paused", slow)
        wait_until(lambda: status(client, job) == "running", "the run")
        assert client.post(f"/-/enrich/birds/-/jobs/{job}/pause").status_code == 302
        wait_until(lambda: not enriched.health()["busy"], "the end of the batch")
        row = job_row(client, job)
        assert row["status"] == "paused"
        assert row["done_count"] in range(5, 40, 5)
        assert client.post(f"/-/enrich/birds/-/jobs/{job}/resume").status_code == 302
        wait_until(lambda: status(client, job) == "finished", "the end")
        assert sql(client, "select count(*) as n from paused where out = 1") == [{"n": 40}]


def test_a_run_keeps_the_workspace_awake_and_the_sandbox_goes_afterwards(
    enriched: Workspace,
) -> None:
    with enriched.as_role("editor") as client:
        job = start(client, "busy", "import time\ndef transform(v, r):\n    time.sleep(0.4)\n")
        wait_until(lambda: status(client, job) == "running", "the run")
        assert enriched.health()["busy"]
        client.post(f"/-/enrich/birds/-/jobs/{job}/cancel")
    wait_until(lambda: not enriched.health()["busy"], "the end of the work")
    wait_until(lambda: workers(enriched) == [], "the end of the sandbox's process")


# --- breaking out --------------------------------------------------------------------------------


def attempt(code: str) -> str:
    """Code that returns what it got hold of, or how it was refused."""
    body = "\n".join(f"        {line}" for line in code.strip().splitlines())
    return (
        "def transform(value, row):\n    try:\n"
        f"{body}\n"
        "    except Exception as error:\n"
        "        return f'refused: {type(error).__name__}: {error}'\n"
    )


REFUSALS = {
    "tcp": (
        "import socket\ns = socket.socket()\ns.connect(('127.0.0.1', 80))\nreturn 'connected'",
        "networking not enabled",
    ),
    "dns": (
        # pyeryx gives the name back as if it were an address, and looks nothing up.
        "import socket\nfound = socket.getaddrinfo('localhost', 80)[0][4][0]\n"
        "return found if found != 'localhost' else 'refused: nothing was looked up'",
        "nothing was looked up",
    ),
    "http": (
        "import urllib.request\nreturn urllib.request.urlopen('http://169.254.169.254/').read()",
        "networking not enabled",
    ),
    "unix socket": (
        "import socket\ns = socket.socket(socket.AF_UNIX)\n"
        "s.connect('/run/instance/http.sock')\nreturn 'connected'",
        "refused: ",
    ),
    "listen": (
        "import socket\ns = socket.socket()\ns.bind(('0.0.0.0', 8000))\ns.listen()\n"
        "s.accept()\nreturn 'listening'",
        "refused: ",
    ),
    "passwd": ("return open('/etc/passwd').read()", "No such file or directory"),
    "databases": ("return open('/data/birds.db', 'rb').read(16)", "No such file or directory"),
    "dot dot": (
        "return open('/python-stdlib/../../../../etc/passwd').read()",
        "No such file or directory",
    ),
    "proc": ("return open('/proc/self/environ').read()", "No such file or directory"),
    "root": ("import os\nreturn os.listdir('/')", "No such file or directory"),
    "write to the library": (
        "open('/python-stdlib/os.py', 'w').write('x')\nreturn 'written'",
        "refused: ",
    ),
    "link": (
        "import os\nos.symlink('/etc/passwd', '/data/link')\nreturn open('/data/link').read()",
        "refused: ",
    ),
    "system": ("import os\nreturn os.system('id')", "no attribute 'system'"),
    "exec": ("import os\nos.execv('/bin/sh', ['sh'])\nreturn 'ran'", "refused: "),
    "fork": ("import os\nreturn os.fork()", "no attribute 'fork'"),
    "kill": ("import os\nos.kill(1, 9)\nreturn 'killed'", "refused: "),
    "subprocess": (
        "import subprocess\nreturn subprocess.run(['id'], capture_output=True).stdout",
        "does not support processes",
    ),
    "multiprocessing": (
        "import multiprocessing\np = multiprocessing.Process(target=print)\np.start()\n"
        "return 'started'",
        "refused: ",
    ),
    "ctypes": ("import ctypes\nreturn 'imported'", "No module named '_ctypes'"),
    "threads": (
        "import threading\nthreading.Thread(target=print).start()\nreturn 'started'",
        "can't start new thread",
    ),
    "mmap": ("import mmap\nreturn 'imported'", "refused: "),
    "host callback": ("import builtins\nreturn builtins.invoke('x', '{}')", "refused: "),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_code_is_refused(enriched: Workspace, name: str) -> None:
    code, refusal = REFUSALS[name]
    with enriched.as_role("editor") as client, answering(enriched):
        (cell,) = preview(client, attempt(code))
    assert not cell.failed
    assert cell.text.startswith("refused: "), cell.text
    assert refusal in cell.text


def test_code_sees_no_environment_and_nothing_of_the_machine(enriched: Workspace) -> None:
    code = (
        "import os, sys\ndef transform(value, row):\n"
        "    return [sorted(os.environ), sys.platform, sorted(row), sys.argv]\n"
    )
    with enriched.as_role("editor") as client:
        (cell,) = preview(client, code)
    environment, platform, columns, arguments = json.loads(cell.text)
    assert set(environment) <= {"PYTHONHOME", "PYTHONPATH", "PYTHONUNBUFFERED"}
    assert platform == "wasi"
    assert {"id", "name", "n"} <= set(columns)
    assert enriched.key not in cell.text
    assert not any(enriched.id in argument for argument in arguments)


def test_files_in_memory_are_small_and_gone_with_the_row(enriched: Workspace) -> None:
    fills = attempt(
        "with open('/data/x', 'wb') as file:\n"
        "    for _ in range(1000):\n"
        "        file.write(b'x' * 1_000_000)\nreturn 'stored a gigabyte'"
    )
    leaves = attempt(
        "import os\nfound = os.listdir('/data')\nopen('/data/y', 'w').close()\nreturn found"
    )
    with enriched.as_role("editor") as client:
        (cell,) = preview(client, fills)
        assert cell.text.startswith("refused: OSError")
        assert {found.text for found in preview(client, leaves, where="")} == {"[]"}


def test_code_cannot_answer_for_another_row(enriched: Workspace) -> None:
    """What it writes to its standard output is not where the worker's answers come from."""
    forged = json.dumps(["value", "forged"])
    code = (
        "import os\ndef transform(value, row):\n"
        f"    data = {forged.encode()!r}\n"
        "    for fd in range(20):\n"
        "        try:\n            os.write(fd, len(data).to_bytes(4) + data)\n"
        "        except OSError:\n            pass\n"
        "    return row['n']\n"
    )
    with enriched.as_role("editor") as client:
        cells = preview(client, code, where="")
    assert [cell.text for cell in cells] == ["1", "2", "3", "4", "5"]


BOMBS: dict[str, tuple[str, str]] = {
    "endless loop": (FOREVER, "Took longer than 1 s."),
    "endless loop that catches everything": (
        "def transform(value, row):\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass\n",
        "Took longer than 1 s.",
    ),
    "sleep": (
        "import time\ndef transform(value, row):\n    time.sleep(3600)\n",
        "Took longer than 1 s.",
    ),
    "a number without end": (
        "def transform(value, row):\n    return 10 ** 10 ** 9\n",
        "Took longer than 1 s.",
    ),
    "a regular expression": (
        "import re\ndef transform(value, row):\n    re.match('(a*)*b', 'a' * 60)\n",
        "Took longer than 1 s.",
    ),
    "memory": (
        "def transform(value, row):\n    x = []\n    while True: x.append(bytearray(1_000_000))\n",
        "MemoryError",
    ),
    "memory that nobody lets go": (
        "kept = []\ndef transform(value, row):\n    while True:\n"
        "        try: kept.append(bytearray(100_000))\n        except MemoryError: pass\n",
        "",
    ),
    "one large text": ("def transform(value, row):\n    return 'x' * 10 ** 9\n", "MemoryError"),
    "recursion": (
        "def transform(value, row):\n    return transform(value, row)\n",
        "RecursionError",
    ),
    "recursion without the limit": (
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef transform(value, row):\n"
        "    return transform(value, row)\n",
        "broke the interpreter",
    ),
    "brackets in brackets": (
        "def transform(value, row):\n    return eval('(' * 100_000)\n",
        "broke the interpreter",
    ),
    "output": (
        "import sys\ndef transform(value, row):\n    while True: print('x' * 1_000_000)\n",
        "Took longer than 1 s.",
    ),
    "output past print": (
        "import os\ndef transform(value, row):\n    while True: os.write(1, b'x' * 1_000_000)\n",
        "Took longer than 1 s.",
    ),
    "result": ("def transform(value, row):\n    return ['x' * 900] * 10_000\n", "larger than"),
    "result in results": (
        "def transform(value, row):\n    x = []\n    for _ in range(100_000): x = [x]\n"
        "    return x\n",
        "",
    ),
    "exit": ("import os\ndef transform(value, row):\n    os._exit(0)\n", "ended the interpreter"),
    "abort": ("import os\ndef transform(value, row):\n    os.abort()\n", ""),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_hurts_its_own_row_only(enriched: Workspace, name: str) -> None:
    code, outcome = BOMBS[name]
    with enriched.as_role("editor") as client:
        with answering(enriched):
            began = time.monotonic()
            by_time = not outcome or "longer than" in outcome
            (cell,) = preview_once(client, code) if by_time else preview(client, code)
            assert time.monotonic() - began < 60
        assert cell.failed, cell.text
        assert outcome in cell.text
        assert [found.text for found in preview(client, UPPER)] == ["BIRD 1"]
    unharmed(enriched)


def test_code_that_does_not_even_compile_in_peace(enriched: Workspace) -> None:
    code = "def transform(value, row):\n    return " + "(" * 50_000
    with enriched.as_role("editor") as client, answering(enriched):
        page = client.post("/-/enrich/birds/happy/python", data=fields(code, preview="1"))
        assert "broke the interpreter" in page.text
        assert [found.text for found in preview(client, UPPER)] == ["BIRD 1"]


def test_a_whole_run_of_bombs_ends_and_leaves_the_good_rows(enriched: Workspace) -> None:
    code = (
        "import sys\ndef transform(value, row):\n"
        "    if row['n'] == 3:\n        while True: pass\n"
        "    if row['n'] == 5:\n        x = [0]\n        while True: x += x\n"
        "    if row['n'] == 7:\n        sys.setrecursionlimit(10 ** 9)\n"
        "        return transform(value, row)\n"
        "    return row['n']\n"
    )
    with enriched.as_role("editor") as client:
        with answering(enriched):
            job = run(client, "sums", code, too_long=1)
        assert (job["status"], job["error_count"]) == ("finished", 3)
        rows = sql(client, "select out from sums order by id")
    assert [row["out"] for row in rows] == [None if i in (3, 5, 7) else i for i in range(1, 21)]
    unharmed(enriched)


def test_the_process_that_runs_code_has_nothing_to_give_away(enriched: Workspace) -> None:
    with enriched.as_role("editor") as client:
        job = start(client, "busy", FOREVER)
        wait_until(lambda: len(workers(enriched)) == 1, "the sandbox's process")
        wait_until(lambda: workers(enriched)[0]["oom_score_adj"] == 1000, "its settings")
        (worker,) = workers(enriched)
        client.post(f"/-/enrich/birds/-/jobs/{job}/cancel")
    assert worker["environment"] <= ["ERYX_CPU_FEATURES", "PATH", "TMPDIR"]
    assert worker["no_new_privileges"] == "1"
    assert worker["nice"] > 0
    # Three pipes of its own, and pyeryx's: no database, no socket of the server.
    assert not [target for target in worker["files"] if target.startswith(("/data", "/run"))]
    wait_until(lambda: not enriched.health()["busy"], "the end of the batch")


def workers(instance: Workspace) -> list[dict[str, Any]]:
    """What /proc says of the processes that run user code."""
    done = instance.execute(PYTHON, "-IBc", inside.WORKERS)
    assert done.code == 0, done.output.decode()
    # Once in some hundred times, on a busy machine, the engine ends before it has passed it on.
    found: list[dict[str, Any]] = json.loads(done.output) if done.output else workers(instance)
    return found


# --- with other limits, and at other moments -----------------------------------------------------


@pytest.mark.parametrize("part", inside.PARTS)
def test_configuration(enriched: Workspace, part: str) -> None:
    """In a Datasette of its own inside the container, with settings that a workspace lacks."""
    done = enriched.execute(PYTHON, "-IBc", inside.CONFIGURED + f"\nasyncio.run({part}())\n")
    assert done.code == 0, done.output.decode()


def test_a_start_loads_nothing_of_the_runtime(enriched: Workspace) -> None:
    code = "import sys, datasette.app, datasette_enrichments_python; print('eryx' in sys.modules)"
    assert enriched.execute(PYTHON, "-IBc", code).output.strip() == b"False"


def test_a_run_that_a_stop_interrupted_can_be_resumed(enriched: Workspace) -> None:
    slow = "import time\ndef transform(value, row):\n    time.sleep(0.5)\n    return 1\n"
    with enriched.as_role("editor") as client:
        job = start(client, "busy", slow, output="late")
        wait_until(lambda: status(client, job) == "running", "the run")
        enriched.container.kill()
        enriched.container.wait()
        enriched.start()
        assert status(client, job) == "paused"
        assert "the server was stopped" in client.get(f"/-/enrich/birds/-/jobs/{job}").text
        client.post(f"/-/enrich/birds/-/jobs/{job}/cancel")
