"""The page of this enrichment: the form, a preview on five rows, and the start of a run.

datasette-enrichments shows the form and starts runs; this stands in front of it, because a preview
and a check of the code must happen in between. Works without JavaScript: two submit buttons.
"""

from __future__ import annotations

import contextlib
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

from datasette import Forbidden, NotFound, Request, Response
from datasette.utils import MultiParams, tilde_decode
from datasette_enrichments import views
from datasette_enrichments.utils import get_with_auth

from datasette_enrichments_python.enrichment import (
    PREVIEW_ROWS,
    SLUG,
    PythonEnrichment,
    state,
)
from datasette_enrichments_python.sandbox import SandboxError

if TYPE_CHECKING:
    from datasette.app import Datasette

TEMPLATES = [f"enrichment-{SLUG}.html", "enrichment.html"]
_SHOWN_CHARACTERS = 300


async def enrichment_page(datasette: Datasette, request: Request) -> Response:
    """GET: the form. POST: a preview, or after a check of the code, the run."""
    database, table = await _checked(datasette, request)
    if request.method != "POST":
        return await views.enrichment_view(datasette, _named(request))
    body = await request.post_body()
    posted = MultiParams(urllib.parse.parse_qs(body.decode("utf-8", "replace")))
    db = datasette.get_database(database)
    form = (await PythonEnrichment().get_config_form(db, table))(posted)
    if not form.validate():
        return await _page(datasette, request, database, table, form)
    config = {field.name: field.data for field in form}
    try:
        opened = await state(datasette).check(config)
        if opened.error:
            form.code.errors = [*form.code.errors, opened.error]
            return await _page(datasette, request, database, table, form)
        if posted.get("preview"):
            preview = await _preview(datasette, request, database, table, config, opened.plain)
            return await _page(datasette, request, database, table, form, preview)
    except SandboxError as error:
        form.code.errors = [*form.code.errors, str(error)]
        return await _page(datasette, request, database, table, form)
    return await views.enrichment_view(datasette, _again(request, body))


async def guarded_job_action(datasette: Datasette, request: Request) -> Response:
    """Pause, resume, cancel: datasette-enrichments 0.5 does not ask who may, so this does."""
    await views.check_permissions(datasette, request, request.url_vars["database"])
    if request.method != "POST":
        return Response("POST required", status=400)
    return await views.update_job_status_view(datasette, request, request.url_vars["action"])


async def _checked(datasette: Datasette, request: Request) -> tuple[str, str]:
    """The database and the table, for whoever may enrich it. Raises Forbidden or NotFound."""
    database = request.url_vars["database"]
    table = tilde_decode(request.url_vars["table"])
    await views.check_permissions(datasette, request, database)
    if database not in datasette.databases:
        raise NotFound("Database not found")
    db = datasette.get_database(database)
    if not await db.table_exists(table):
        raise NotFound("Table not found")
    visible, _ = await datasette.check_visibility(
        request.actor, permissions=[("view-table", (database, table)), ("view-database", database)]
    )
    if not visible:
        raise Forbidden("This table is not open to you")
    if not db.is_mutable:
        raise Forbidden("This database cannot be written to")
    return database, table


def _named(request: Request) -> Request:
    """As datasette-enrichments' own route would have it."""
    request.scope["url_route"]["kwargs"]["enrichment"] = SLUG
    return request


def _again(request: Request, body: bytes) -> Request:
    """The same request, with its body to be read once more."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return _named(Request(request.scope, receive))


# --- the preview ----------------------------------------------------------------------------------


async def _preview(
    datasette: Datasette,
    request: Request,
    database: str,
    table: str,
    config: dict[str, Any],
    plain: bool,
) -> dict[str, Any]:
    """What the code makes of the first rows: {"rows": [{"pk", "value", "result", "error"}], …}."""
    db = datasette.get_database(database)
    pks = await db.primary_keys(table) or ["rowid"]
    rows = (await _table(datasette, request, database, table, PREVIEW_ROWS))["rows"]
    plugin = state(datasette)
    began = time.monotonic()
    async with contextlib.aclosing(plugin.results(0, config, rows)) as parts:
        results = [result async for part in parts for result in part]
    seconds = time.monotonic() - began
    return {
        "rows": [
            {
                "pk": ", ".join(str(row[pk]) for pk in pks),
                "value": _shown(row.get(config["column"])),
                "results": [
                    {"name": name, "value": _shown(value), "type": _type(value)}
                    for name, value in result.values.items()
                ],
                "error": result.error,
            }
            for row, result in zip(rows, results, strict=True)
        ],
        "failed": sum(1 for result in results if result.error),
        "seconds": seconds,
        "output": config["output_column"],
        "alone": not plain and not config.get("keep_state"),
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict | bytes):
        return "(binary)"
    text = "None" if value is None else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _type(value: Any) -> str:
    names = {str: "text", int: "integer", float: "float", bytes: "binary"}
    return names.get(type(value), "")


async def _table(
    datasette: Datasette, request: Request, database: str, table: str, size: int
) -> dict[str, Any]:
    """Some of the selected rows and how many there are, as datasette-enrichments asks for them."""
    bits = [bit for bit in urllib.parse.parse_qsl(request.query_string) if bit[0] != "_sort"]
    bits = [bit for bit in bits if bit[0] not in ("_size", "_shape", "_next")]
    extras = ["human_description_en", "count", "columns"]
    bits += [("_extra", extra) for extra in extras] + [("_shape", "objects"), ("_size", str(size))]
    address = datasette.urls.table(database, table, "json") + "?" + urllib.parse.urlencode(bits)
    response = await get_with_auth(datasette, address)
    if response.status_code != 200:
        raise NotFound("These rows cannot be had: the address asks for something else than rows.")
    found: dict[str, Any] = response.json()
    found.setdefault("count", found.get("filtered_table_rows_count"))
    return found


async def _page(
    datasette: Datasette,
    request: Request,
    database: str,
    table: str,
    form: Any,
    preview: dict[str, Any] | None = None,
) -> Response:
    context = {
        "database": database,
        "table": table,
        "filtered_data": await _table(datasette, request, database, table, 0),
        "enrichment": PythonEnrichment(),
        "enrichment_form": form,
        "preview": preview,
    }
    return Response.html(await datasette.render_template(TEMPLATES, context, request))
