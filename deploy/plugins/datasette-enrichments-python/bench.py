"""How many rows a second: a run of the enrichment from beginning to end, on one core.

    python bench.py [ROWS]

Needs this package installed, with its runtime prepared. Prints one line of JSON: rows a second for
code whose rows may share an interpreter, for code that gets one for each, and with shared state.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import datasette.app
from datasette_enrichments.utils import wait_for_job
from datasette_enrichments_python.enrichment import PythonEnrichment, state

SIMPLE = "def transform(value, row):\n    return value.strip().title()\n"
IMPORTS = "import random\ndef transform(value, row):\n    return random.choice(value)\n"
COUNTS = "n = 0\ndef transform(value, row):\n    global n\n    n += 1\n    return n\n"


async def main(rows: int) -> None:
    """Raises TimeoutError when a run takes too long."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "bench.db")
        connection = sqlite3.connect(path)
        connection.execute("create table t (id integer primary key, name text, n integer)")
        values = [(f"  the bird number {i} ", i) for i in range(rows)]
        connection.executemany("insert into t (name, n) values (?, ?)", values)
        connection.commit()
        connection.close()
        server = datasette.app.Datasette([str(path)])
        await server.invoke_startup()
        await _rate(server, SIMPLE, "warm_up", rows)
        found = {
            "simple": await _rate(server, SIMPLE, "a", rows),
            "own interpreter": await _rate(server, IMPORTS, "b", rows, "n__lt=3000"),
            "shared state": await _rate(server, COUNTS, "c", rows, keep_state=True),
        }
        state(server).sandbox.kill()
    print(json.dumps({"rows": rows, **found}))


async def _rate(
    server: datasette.app.Datasette,
    code: str,
    output: str,
    rows: int,
    where: str = "",
    keep_state: bool = False,
) -> int:
    config = {"code": code, "column": "name", "output_column": output, "keep_state": keep_state}
    began = time.monotonic()
    job = await PythonEnrichment().enqueue(server, server.get_database("bench"), "t", where, config)
    await wait_for_job(server, job, "bench", timeout=300)
    return round((min(rows, 3000) if where else rows) / (time.monotonic() - began))


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
