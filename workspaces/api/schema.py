"""The OpenAPI document: what ninja finds out by itself, and what every answer of ours may be."""

from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any

from django.conf import settings
from ninja import NinjaAPI, Path
from ninja.openapi.schema import OpenAPISchema

from workspaces.api.problems import CODES, CONTENT_TYPE, Problem
from workspaces.api.shapes import ProblemOut

SLUG = Annotated[
    str,
    Path(description="The workspace's slug.", max_length=60, pattern=r"^[a-z0-9-]+$"),
]

_ALWAYS = ("bad_request", "invalid", "not_signed_in", "scope_missing", "too_many_requests")

_HEADERS: dict[str, dict[str, Any]] = {
    "Location": {
        "description": "Where it can be looked at.",
        "schema": {"type": "string"},
    },
    "ETag": {
        "description": "The version of what can be set about it, for `If-Match`.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}},
    "RateLimit": {
        "description": 'What is left: `"requests";r=<how many>;t=<seconds until all are back>`.',
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": 'The rate: `"requests";q=<how many>;w=<in how many seconds>`.',
        "schema": {"type": "string"},
    },
}
HEADERS_OF_ONE = ("Location", "ETag")
STREAM = "text/event-stream"

_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Any text of your own, once per request. Sent again within 24 hours, the same "
    "request gets the first answer, and nothing is done twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "example": "create-trees-2026-11-27",
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "An `ETag` that you have seen: only if nothing was changed since.",
    "schema": {"type": "string", "pattern": "^[!-~]+$"},
}

_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "With a stream of events: the last one that you have seen.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
}


def may_refuse(
    *codes: str,
    once: bool = False,
    if_match: bool = False,
    headers: Iterable[str] = (),
    stream: str = "",
) -> dict[str, Any]:
    """Return what an operation's description needs: the problems that may come, and headers.

    With `once` it takes an Idempotency-Key, with `if_match` an If-Match; `stream` is the media type
    in which it can also answer.
    """
    parameters = ([_IDEMPOTENCY_KEY] if once else []) + ([_IF_MATCH] if if_match else [])
    more = ("key_reused",) if once else ()
    found: dict[str, Any] = {
        "responses": _problems([*_ALWAYS, *codes, *more]),
        "x-headers": list(headers),
    }
    if parameters:
        found["parameters"] = parameters
    if stream:
        found["responses"][200] = {"content": {stream: {"schema": {"type": "string"}}}}
        found.setdefault("parameters", []).append(_LAST_EVENT_ID)
    return found


def _problems(codes: Iterable[str]) -> dict[int, Any]:
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(CODES[code].status, []).append(code)
    return {status: _problem(found) for status, found in sorted(by_status.items())}


def _problem(codes: list[str]) -> dict[str, Any]:
    titles = "; ".join(f"`{code}`: {CODES[code].title}" for code in codes)
    examples = {code: {"value": Problem(code).body("/api/v1/…")} for code in codes}
    return {
        "description": titles,
        "content": {
            CONTENT_TYPE: {
                "schema": {"$ref": "#/components/schemas/ProblemOut"},
                "examples": examples,
            }
        },
    }


class Api(NinjaAPI):
    """ninja's API with our errors in its document."""

    def get_openapi_schema(self, *args: Any, **kwargs: Any) -> OpenAPISchema:
        """Return the document; made once per process."""
        return self._document

    @cached_property
    def _document(self) -> OpenAPISchema:
        document = super().get_openapi_schema(path_prefix="/api/v1/")
        document["servers"] = [{"url": settings.CLOUD_URL}]
        problem = ProblemOut.model_json_schema(ref_template="#/components/schemas/{model}")
        components = document["components"]["schemas"]
        components.update(problem.pop("$defs", {}))
        components["ProblemOut"] = problem
        for operations in document["paths"].values():
            for operation in operations.values():
                _complete(operation)
        return document


def _complete(operation: dict[str, Any]) -> None:
    """Write the headers of the answers down."""
    own = operation.pop("x-headers", ())
    for status, response in operation["responses"].items():
        names = ["RateLimit", "RateLimit-Policy"]
        if int(status) < 300:
            names += own
        if int(status) in (429, 503):
            names.append("Retry-After")
        response["headers"] = {name: _HEADERS[name] for name in names}
