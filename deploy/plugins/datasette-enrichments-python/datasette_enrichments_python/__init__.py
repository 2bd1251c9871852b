"""A Datasette enrichment that runs a user's Python in WebAssembly. README.md says what it may do.

Nothing heavy is imported here: the runtime lives in a process of its own, on first use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from datasette import hookimpl
from datasette_enrichments import set_job_status

from datasette_enrichments_python import views
from datasette_enrichments_python.enrichment import SLUG, PythonEnrichment, state

if TYPE_CHECKING:
    from datasette.app import Datasette

_JOB_ACTION = (
    r"^/-/enrich/(?P<database>[^/]+)/-/jobs/(?P<job_id>[0-9]+)/(?P<action>pause|resume|cancel)$"
)
_PAGE = rf"^/-/enrich/(?P<database>[^/]+)/(?P<table>[^/]+)/{SLUG}$"


@hookimpl
def register_enrichments() -> list[PythonEnrichment]:
    """A new one each time: it adapts to the run that it is asked for."""
    return [PythonEnrichment()]


@hookimpl(tryfirst=True)
def register_routes() -> list[tuple[str, Callable[..., Awaitable[Any]]]]:
    """Before datasette-enrichments' own, which they pass requests on to."""
    return [(_PAGE, views.enrichment_page), (_JOB_ACTION, views.guarded_job_action)]


@hookimpl
def startup(datasette: Datasette) -> Callable[[], Awaitable[None]]:
    """Refuse a wrong configuration, and let people resume what a stop interrupted."""
    state(datasette)

    async def pause_interrupted() -> None:
        for db in list(datasette.databases.values()):
            if not db.is_mutable or not await db.table_exists("_enrichment_jobs"):
                continue
            found = await db.execute(
                "select id from _enrichment_jobs "
                "where enrichment = ? and status in ('pending', 'running')",
                (SLUG,),
            )
            for row in found.rows:
                await set_job_status(db, row["id"], "paused", message="the server was stopped")

    return pause_interrupted
