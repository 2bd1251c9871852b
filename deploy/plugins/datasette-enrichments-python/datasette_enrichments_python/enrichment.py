"""The enrichment: its form, and what happens to each batch of rows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from datasette_enrichments import Enrichment
from datasette_enrichments.utils import pks_for_rows
from wtforms import BooleanField, Form, SelectField, StringField, TextAreaField
from wtforms.validators import DataRequired, Length, ValidationError

from datasette_enrichments_python import storage
from datasette_enrichments_python.limits import PLUGIN, Limits, read_limits, runtime_directory
from datasette_enrichments_python.sandbox import Code, Opened, Sandbox, SandboxError
from datasette_enrichments_python.values import Result, read_result

if TYPE_CHECKING:
    from datasette.app import Datasette
    from datasette.database import Database

SLUG = "python"
PREVIEW_ROWS = 5
EXAMPLE = """def transform(value, row):
    # value: what the column holds. row: the whole row, such as row["name"].
    return str(value).strip().title()
"""
# A batch should take this long, so that a pause or a cancel is heeded soon.
BATCH_SECONDS = 1.0
FIRST_BATCH = 5
LARGEST_BATCH = 1000
# Results are written when this many characters of them have come together.
WRITE_CHARACTERS = 4_000_000


class PythonEnrichment(Enrichment):
    """Run a Python function on every row. datasette-enrichments asks for a new one for each run."""

    name = "Python: transform a column with a function"
    slug = SLUG
    description = (
        "Write a Python function and see what it does to five rows before it runs on all of them. "
        "It runs in a sandbox without files and network."
    )

    def __init__(self) -> None:
        self._size = FIRST_BATCH
        self._most = LARGEST_BATCH

    @property
    def batch_size(self) -> int:
        """Rows of the next batch: as many as probably take BATCH_SECONDS."""
        return min(self._size, self._most)

    async def get_config_form(self, db: Database, table: str) -> type[Form]:
        """The form; code and columns are checked further by views.py, which may wait."""
        columns = await db.table_columns(table)
        pks = await db.primary_keys(table)
        return config_form(columns, [*pks, "rowid"])

    async def enrich_batch(
        self,
        datasette: Datasette,
        db: Database,
        table: str,
        rows: list[dict[str, Any]],
        pks: list[str],
        config: dict[str, Any],
        job_id: int,
    ) -> int:
        """Run the code on these rows; keep what comes out of each; return how many went well."""
        plugin = state(datasette)
        job = plugin.job(db.name, job_id)
        began = time.monotonic()
        done = failed = 0
        try:
            async with (
                asyncio.timeout(max(0, plugin.limits.run_seconds - job.seconds)),
                contextlib.aclosing(plugin.results(job.number, config, rows)) as parts,
            ):
                async for part in parts:
                    some = rows[done : done + len(part)]
                    done += len(part)
                    failed += await _keep(db, table, some, pks, config, job_id, part)
        except SandboxError as error:
            raise self.Pause(str(error)) from error
        except TimeoutError as error:
            limit = f"{plugin.limits.run_seconds:g} s"
            raise self.Cancel(f"the code ran for {limit}, the limit of a run") from error
        seconds = time.monotonic() - began
        job.seconds += seconds
        self._most = min(LARGEST_BATCH, datasette.setting("max_returned_rows"))
        self._size = next_size(len(rows), seconds)
        return len(rows) - failed

    async def finalize(
        self, datasette: Datasette, db: Database, table: str, config: dict[str, Any]
    ) -> None:
        """Whoever asked for a column gets it, though all that came out was None."""
        if not config.get("columns"):
            await storage.add_column(db, table, config["output_column"])


def next_size(rows: int, seconds: float) -> int:
    """How many rows take about BATCH_SECONDS, growing at most eightfold at a time."""
    fitting = int(rows * BATCH_SECONDS / max(seconds, 0.001))
    return max(1, min(fitting, 8 * rows, LARGEST_BATCH))


async def _keep(
    db: Database,
    table: str,
    rows: list[dict[str, Any]],
    pks: list[str],
    config: dict[str, Any],
    job_id: int,
    results: list[Result],
) -> int:
    """Write values and errors of some rows; return how many failed."""
    errors = [result.error for result in results]
    good = [index for index, error in enumerate(errors) if not error]
    if good:
        values = storage.named([results[index] for index in good], config["output_column"])
        refused = await storage.write_values(db, table, pks, [rows[i] for i in good], values)
        for index, error in zip(good, refused, strict=True):
            errors[index] = error
    keys = pks_for_rows(rows, pks)
    bad = [(key, error) for key, error in zip(keys, errors, strict=True) if error]
    if bad:
        await storage.write_errors(db, job_id, bad)
    return len(bad)


# --- the form -------------------------------------------------------------------------------------


def config_form(names: list[str], pks: list[str]) -> type[Form]:
    """The form of one table with these columns."""
    first = next((name for name in names if name not in pks), names[0])

    class ConfigForm(Form):  # type: ignore[misc]
        """Its field names are the keys of a run's config."""

        code = TextAreaField(
            "Python code",
            description="A function transform(value, row). It returns a text, a number, True, "
            "False, None or bytes; a list or a dictionary is stored as JSON.",
            default=EXAMPLE,
            validators=[DataRequired("Write a function."), Length(max=100_000)],
            render_kw={"rows": 12, "spellcheck": "false", "autocapitalize": "off"},
        )
        column = SelectField(
            "Column to read",
            description="What value is. The other columns are in row.",
            choices=[(name, name) for name in names],
            default=first,
        )
        output_column = StringField(
            "Column to write",
            description="Made if it does not exist. Name the column above to change it in place.",
            default=f"{first}_python",
            validators=[DataRequired("Name a column."), Length(max=100)],
        )
        columns = BooleanField(
            "One column for each key",
            description='If the function returns a dictionary, {"a": 1} goes into a column with '
            "the name above, an underline and a.",
        )
        keep_state = BooleanField(
            "Keep state between rows",
            description="Rows run in order in one module, so a global variable lasts, until a row "
            "hits a limit. Otherwise no row sees anything of another one.",
        )

        def validate_output_column(self, field: StringField) -> None:
            name = field.data.strip()
            if name.lower() in {pk.lower() for pk in pks}:
                raise ValidationError("The primary key cannot be written.")
            if not name.isprintable() or name.startswith("_enrichment"):
                raise ValidationError("This cannot be the name of a column.")
            field.data = name

    return ConfigForm


# --- what one Datasette shares --------------------------------------------------------------------


class Job:
    """What is remembered of a run between its batches; forgotten when the server stops."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.seconds = 0.0


class State:
    """The sandbox and the limits of one Datasette."""

    _numbers: ClassVar[itertools.count[int]] = itertools.count(1)

    def __init__(self, config: dict[str, Any] | None) -> None:
        self.limits: Limits = read_limits(config)
        self.sandbox = Sandbox(runtime_directory(config))
        self._jobs: dict[tuple[str, int], Job] = {}

    def job(self, database: str, job_id: int) -> Job:
        return self._jobs.setdefault((database, job_id), Job(next(self._numbers)))

    async def check(self, config: dict[str, Any]) -> Opened:
        """Whether the code compiles. Raises SandboxError."""
        async with self.sandbox.turn():
            return await self.sandbox.open(0, code_of(config), self.limits)

    async def results(self, number: int, config: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
        """Yield lists of results, in the order of the rows. Raises SandboxError."""
        payloads = [json.dumps([row.get(config["column"]), row]) for row in rows]
        part: list[Result] = []
        characters = 0
        async with self.sandbox.turn():
            lines = self.sandbox.run(number, code_of(config), self.limits, payloads)
            async for line in lines:
                part.append(read_result(line, self.limits))
                characters += len(line)
                if characters > WRITE_CHARACTERS:
                    yield part
                    part, characters = [], 0
        if part:
            yield part


def code_of(config: dict[str, Any]) -> Code:
    """The part of a run's config that the sandbox needs."""
    return Code(config["code"], bool(config.get("keep_state")), bool(config.get("columns")))


_states: WeakKeyDictionary[Datasette, State] = WeakKeyDictionary()


def state(datasette: Datasette) -> State:
    """What this Datasette shares. Raises ValueError when its configuration is wrong."""
    if datasette not in _states:
        _states[datasette] = State(datasette.plugin_config(PLUGIN))
    return _states[datasette]
