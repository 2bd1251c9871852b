"""Writing results and errors, one transaction for each batch."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datasette_enrichments import JAN_1_2025_EPOCH

from datasette_enrichments_python.values import Result, Value, column_type

if TYPE_CHECKING:
    from datasette.database import Database

Row = dict[str, Any]


def quoted(name: str) -> str:
    """A name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def named(results: Sequence[Result], output: str) -> list[dict[str, Value]]:
    """The values of each row by the name of their column: the key's own, after the output's."""
    return [
        {
            output if key is None else f"{output}_{key}": value
            for key, value in result.values.items()
        }
        for result in results
    ]


async def write_values(
    db: Database, table: str, pks: list[str], rows: Sequence[Row], values: list[dict[str, Value]]
) -> list[str | None]:
    """Set these columns of these rows, making columns that are missing.

    A new column takes the type of the first values that are not None. Returns for each row why it
    was not written, such as a constraint of the table, or None. Raises sqlite3.Error.
    """

    def write(connection: sqlite3.Connection) -> list[str | None]:
        with connection:
            known = _columns(connection, table)
            for column, kind in _missing(values, known).items():
                connection.execute(
                    f"alter table {quoted(table)} add column {quoted(column)} {kind}"
                )
                known.add(column.lower())
            return [
                _update(connection, table, {pk: row[pk] for pk in pks}, found, known)
                for row, found in zip(rows, values, strict=True)
            ]

    written: list[str | None] = await db.execute_write_fn(write)
    return written


def _update(
    connection: sqlite3.Connection,
    table: str,
    key: dict[str, Any],
    values: dict[str, Value],
    known: set[str],
) -> str | None:
    """Write one row; return what SQLite has against it. The others go on."""
    if {pk.lower() for pk in key} & {name.lower() for name in values}:
        return "The primary key cannot be written."
    # A column of which nothing but None is known yet is not made for that.
    found = {name: value for name, value in values.items() if name.lower() in known}
    if not found:
        return None
    sets = ", ".join(f"{quoted(name)} = ?" for name in found)
    wheres = " and ".join(f"{quoted(pk)} = ?" for pk in key)
    statement = f"update {quoted(table)} set {sets} where {wheres}"  # noqa: S608
    try:
        connection.execute(statement, [*found.values(), *key.values()])
    except sqlite3.IntegrityError as error:
        return f"SQLite refused the result: {error}"
    return None


async def add_column(db: Database, table: str, column: str) -> None:
    """Make a text column, unless there is one of that name."""

    def write(connection: sqlite3.Connection) -> None:
        with connection:
            if column.lower() not in _columns(connection, table):
                connection.execute(f"alter table {quoted(table)} add column {quoted(column)} TEXT")

    await db.execute_write_fn(write)


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    found = connection.execute(f"pragma table_info({quoted(table)})").fetchall()
    return {row[1].lower() for row in found}


def _missing(values: list[dict[str, Value]], known: set[str]) -> dict[str, str]:
    """New columns and their types, in the order in which they appear."""
    new: dict[str, list[Value]] = {}
    for found in values:
        for name, value in found.items():
            if name.lower() not in known:
                new.setdefault(name, []).append(value)
    types = {name: column_type(seen) for name, seen in new.items()}
    return {name: kind for name, kind in types.items() if kind}


async def write_errors(db: Database, job_id: int, errors: Sequence[tuple[Any, str]]) -> None:
    """Keep an error for each of these rows (primary key, text).

    The same statements as Enrichment.log_error, but for all at once: three transactions for each
    row that fails would be slower than running it.
    """

    def write(connection: sqlite3.Connection) -> None:
        with connection:
            connection.executemany(
                "insert into _enrichment_errors (job_id, created_at, row_pks, error) "
                "values (?, datetime('now'), ?, ?)",
                [(job_id, json.dumps([pk]), text) for pk, text in errors],
            )
            connection.execute(
                "update _enrichment_jobs set error_count = error_count + ? where id = ?",
                (len(errors), job_id),
            )
            connection.execute(
                "insert into _enrichment_progress "
                "(job_id, timestamp_ms_2025, success_count, error_count) values (?, ?, 0, ?)",
                (job_id, int(time.time() * 1000) - JAN_1_2025_EPOCH, len(errors)),
            )

    await db.execute_write_fn(write)
