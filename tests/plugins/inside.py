"""Programs that tests run inside a workspace's container, with its Python."""

WORKERS = """
import json, os
from pathlib import Path

def described(process):
    lines = (process / "status").read_text().splitlines()
    status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
    return {
        "environment": sorted(
            part.split("=")[0] for part in (process / "environ").read_text().split("\\0") if part
        ),
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "nice": int((process / "stat").read_text().rsplit(")")[1].split()[16]),
        "oom_score_adj": int((process / "oom_score_adj").read_text()),
        "files": [os.readlink(file) for file in (process / "fd").iterdir()],
    }

found = []
for process in Path("/proc").glob("[0-9]*"):
    try:
        if b"datasette_enrichments_python/worker.py" in (process / "cmdline").read_bytes():
            found.append(described(process))
    except OSError:
        pass
print(json.dumps(found))
"""

PLAIN = """
import asyncio, json
import datasette.app
from datasette_enrichments_python.limits import Limits
from datasette_enrichments_python.sandbox import Code, Sandbox

HARMLESS = [
    "def transform(v, r): return v + 1",
    "import re\\nP = re.compile('x')\\ndef transform(v, r): return P.sub('', v)",
    "import json\\ndef transform(v, r): return json.loads(v)['a'][0]",
    "from datetime import date\\ndef transform(v, r): return date.fromisoformat(v).year",
    "import urllib.parse as u\\ndef transform(v, r): return u.urlparse(v).netloc",
    "import math\\ntransform = lambda v, r: math.sqrt(v)",
    "def helper(x):\\n    return [y for y in x if y]\\n"
    "def transform(v, r):\\n    try:\\n        return helper(v)\\n    except ValueError as e:\\n"
    "        return str(e)",
    "def transform(v, r):\\n    match v:\\n        case {'a': x}: return x\\n"
    "        case _: return v",
    "def transform(v, r):\\n    r['x'] = v\\n    return sorted(r.items(), key=lambda p: p[0])",
]
NOT_HARMLESS = [
    "import sys\\ndef transform(v, r): return 1",
    "import random\\ndef transform(v, r): return random.random()",
    "def transform(v, r): return print.__self__",
    "def transform(v, r): return ().__class__.__base__.__subclasses__()",
    "def transform(v, r): return getattr(print, '__se' + 'lf__')",
    "def transform(v, r): return __builtins__",
    "def transform(v, r): return globals()",
    "def transform(v, r): return vars()",
    "def transform(v, r): return eval('1')",
    "def transform(v, r): return open('/data/x', 'w')",
    "import re\\ndef transform(v, r): re.seen = 1",
    "import re\\nx = re\\ndef transform(v, r): x.seen = 1",
    "import re as q\\ndef transform(v, r): return [q][0]",
    "import re\\ndef transform(v, r): return re._cache",
    "import re\\nfor re in [1]: pass\\ndef transform(v, r): return 1",
    "import html.entities\\ndef transform(v, r): return 1",
    "from html.entities import html5\\ndef transform(v, r): html5['x'] = 1",
    "import json\\ndef transform(v, r): return json.decoder.scanner",
    "import collections\\ndef transform(v, r): collections.Counter.seen = 1",
    "from collections import *\\ndef transform(v, r): return 1",
    "class A: pass\\ndef transform(v, r): A.seen = 1",
    "def transform(v, r): return (x for x in v).gi_frame.f_builtins",
    "def transform(v, r):\\n    try: 1/0\\n    except Exception as e:\\n"
    "        return e.__traceback__.tb_frame",
    "def g(): yield 1\\ndef transform(v, r): return g()",
    "async def transform(v, r): return 1",
    "from fractions import Fraction\\ndef transform(v, r): return Fraction.mro()[1].register(int)",
    "import decimal\\ndef transform(v, r): decimal.getcontext().prec = 3",
    "def transform(v, r):\\n    match v:\\n        case int(__class__=x): return x",
    "def transform(v, r): return type(v)",
    "import functools\\ndef transform(v, r): return functools.wraps",
    "def transform(v, r): del v.x",
    "def transform(v, r): return help",
    "from urllib.parse import urlsplit\\ndef transform(v, r): return urlsplit.cache_info()",
    "from . import re\\ndef transform(v, r): return 1",
]

async def main():
    sandbox, wrong = Sandbox(), {}
    async with sandbox.turn():
        for expected, codes in ((True, HARMLESS), (False, NOT_HARMLESS)):
            for code in codes:
                opened = await sandbox.open(1, Code(code), Limits())
                if opened.error or opened.plain is not expected:
                    wrong[code] = [opened.plain, opened.error]
    sandbox.kill()
    print(json.dumps(wrong))

asyncio.run(main())
"""

PARTS = [
    "the_run_limit_cancels",
    "a_row_limit_of_its_own",
    "wrong_settings_are_named",
    "a_missing_runtime_says_what_to_do",
    "a_worker_that_hangs_is_replaced",
]

CONFIGURED = '''
import asyncio, os, signal, sqlite3, sys, tempfile, time
from pathlib import Path
from datasette.app import Datasette
from datasette_enrichments_python.enrichment import PythonEnrichment, state
from datasette_enrichments_python.limits import Limits
from datasette_enrichments_python.sandbox import Code, Sandbox, SandboxError
from datasette_enrichments_python import sandbox as sandbox_module

PLUGIN = "datasette-enrichments-python"

async def server(**settings):
    path = tempfile.mkdtemp() + "/d.db"
    connection = sqlite3.connect(path)
    connection.execute("create table t (id integer primary key, name text)")
    connection.execute("insert into t (name) values ('a'), ('b'), ('c'), ('d')")
    connection.commit()
    datasette = Datasette([path], metadata={"plugins": {PLUGIN: settings}})
    await datasette.invoke_startup()
    return datasette, datasette.get_database("d")

async def ended(datasette, db, code):
    config = {"code": code, "column": "name", "output_column": "out"}
    job = await PythonEnrichment().enqueue(datasette, db, "t", "", config)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        row = (await db.execute("select * from _enrichment_jobs where id = ?", [job])).first()
        if row["status"] not in ("pending", "running"):
            state(datasette).sandbox.kill()
            return dict(row)
        await asyncio.sleep(0.01)
    raise AssertionError(f"still {row['status']}")

async def the_run_limit_cancels():
    datasette, db = await server(run_seconds=1, row_seconds=5)
    began = time.monotonic()
    row = await ended(datasette, db, "def transform(v, r):\\n    while True: pass")
    assert row["status"] == "cancelled", row
    assert row["cancel_reason"] == "the code ran for 1 s, the limit of a run", row
    assert 0.9 < time.monotonic() - began < 60

async def a_row_limit_of_its_own():
    datasette, db = await server(row_seconds=3, memory_mb=48)
    code = "def transform(v, r):\\n    while r['id'] == 2: pass\\n    return 1"
    row = await ended(datasette, db, code)
    found = (await db.execute("select row_pks, error from _enrichment_errors")).rows
    errors = [tuple(error) for error in found]
    assert errors == [("[2]", "Took longer than 3 s.")], errors
    assert row["status"] == "finished", row

async def wrong_settings_are_named():
    for settings, words in (
        ({"row_seconds": "1"}, "row_seconds must be a number"),
        ({"memory_mb": 1}, "memory_mb must be a number from 40"),
        ({"speed": 1}, "there is no setting 'speed'"),
    ):
        try:
            await server(**settings)
        except ValueError as error:
            assert words in str(error), error
        else:
            raise AssertionError(settings)

async def a_missing_runtime_says_what_to_do():
    sandbox_module.runtime.BESIDE = Path("/nowhere")
    sandbox = Sandbox(Path("/proc/nowhere"))
    try:
        async with sandbox.turn():
            await sandbox.open(1, Code("def transform(v, r): pass"), Limits())
    except SandboxError as error:
        assert "python -m datasette_enrichments_python.bake" in str(error), error
    else:
        raise AssertionError("it found one")

async def a_worker_that_hangs_is_replaced():
    """Should pyeryx's own clock fail: a worker that is stopped looks just like that."""
    sandbox_module.GRACE_SECONDS = 1
    sandbox, code = Sandbox(), Code("def transform(v, r): return v")
    limits = Limits(row_seconds=3)
    async with sandbox.turn():
        await sandbox.open(1, code, limits)
        os.kill(sandbox._process.pid, signal.SIGSTOP)
        lines = [line async for line in sandbox.run(1, code, limits, ["[1, {}]", "[2, {}]"])]
    sandbox.kill()
    assert lines[0] == '["error", "Took longer than 3 s."]', lines
    assert lines[1] == '["value", 2]', lines
'''
