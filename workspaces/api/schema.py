"""The OpenAPI document: what ninja finds out by itself, and what every answer of ours may be."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Annotated, Any

from django.conf import settings
from ninja import NinjaAPI, Path
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation

from workspaces.api import examples
from workspaces.api.callers import Needs
from workspaces.api.examples import NoExample
from workspaces.api.problems import CODES, CONTENT_TYPE, Problem
from workspaces.api.shapes import REQUEST_ID, ProblemOut

SLUG = Annotated[
    str,
    Path(
        description="The workspace's slug.",
        max_length=60,
        pattern=r"^[a-z0-9-]+$",
        examples=["trees"],
    ),
]

# What the operations are about, in the order in which people read of them.
TAGS: Mapping[str, str] = {
    "workspaces": "List, create, look at, change, delete; start, stop, restart, wake.",
    "live": "Wait for a status; history and logs, as lists or as live streams.",
    "setup": "Plugins and their changes, secrets, releases, images.",
    "people": "Who belongs to a workspace, and the tokens with which programs act for people.",
    "operators": "For operators: all customers' workspaces, plans, releases and the catalogue.",
    "audit": "Who did what to what, from where, and when.",
    "webhooks": "Addresses that hear what happens, and what was sent to them.",
}

# How an answer leads on to other operations: OpenAPI's links, by operation and status.
_SLUG_OF_ONE = {"slug": "$response.body#/slug"}
_AFTER_ONE = (
    *("get_workspace", "wait_for_status", "list_events", "update_workspace"),
    *("start_workspace", "stop_workspace", "delete_workspace"),
)
_ONE_OF_LIST = "$response.body#/items/0/"
LINKS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "create_workspace": dict.fromkeys(_AFTER_ONE, _SLUG_OF_ONE),
    "delete_workspace": {"undelete_workspace": _SLUG_OF_ONE},
    "stop_workspace": {"start_workspace": _SLUG_OF_ONE},
    "list_workspaces": {
        "list_workspaces": {"cursor": "$response.body#/next"},
        "get_workspace": {"slug": f"{_ONE_OF_LIST}slug"},
    },
    "list_events": {
        "list_events": {"slug": "$request.path.slug", "cursor": "$response.body#/next"}
    },
    "list_changes": {
        "get_change": {"slug": "$request.path.slug", "change_id": f"{_ONE_OF_LIST}id"},
        "wait_for_change": {"slug": "$request.path.slug", "change_id": f"{_ONE_OF_LIST}id"},
    },
    "list_members": {
        "change_role": {"slug": "$request.path.slug", "user_id": f"{_ONE_OF_LIST}id"},
    },
    "create_invitation": {
        "withdraw_invitation": {
            "slug": "$request.path.slug",
            "invitation_id": "$response.body#/id",
        },
    },
    "create_token": {"revoke_token": {"token_id": "$response.body#/id"}},
}

_WORDS_OF_STATUS: Mapping[int, str] = {
    200: "Here it is.",
    201: "It was made.",
    202: "Accepted. What is left to do goes on by itself; wait for it if you need to.",
    204: "Done. There is nothing more to say, so the answer has no body.",
}
# Where an answer's example would not be that of its shape.
_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "create_workspace": {"status": "provisioning", "moving": True, "plugins": []},
    "undelete_workspace": {"status": "provisioning", "moving": True},
    "start_workspace": {"status": "provisioning", "moving": True},
    "restart_workspace": {"status": "provisioning", "moving": True},
    "wake_workspace": {"status": "provisioning", "moving": True},
    "stop_workspace": {"moving": True},
    "delete_workspace": {
        "status": "deleting",
        "moving": True,
        "deleted_at": "2026-11-27T17:00:00Z",
        "purge_at": "2026-12-04T17:00:00Z",
    },
    "update_workspace": {"name": "Trees of Lisbon"},
    "set_plugins": {"plugins": []},  # it takes a moment until they are on
    "list_secrets": {"next": None},
    "list_releases": {"next": None},
}
_BODIES: Mapping[str, Mapping[str, Any]] = {
    "update_workspace": {"name": "Trees of Lisbon", "metadata": {"customer": "4711", "old": None}},
}
_STREAMS: Mapping[str, str] = {
    "list_events": "retry: 2000\n\n"
    'id: 1204\ndata: {"id": 1204, "kind": "await_ready", "status": "running", …}\n\n'
    ": nothing new\n\n",
    "get_logs": 'retry: 2000\n\ndata: "2026-11-27T17:00:00.123456789Z Started"\n\n'
    ": nothing new\n\n",
}
# ninja takes the words of an enumeration's class for those of the parameter.
_PARAMETERS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("wait_for_status", "status"): ("What to wait for.", "running"),
}

_ALWAYS = (
    *("bad_request", "invalid", "not_signed_in", "scope_missing", "too_many_requests"),
    "unavailable",
)

_HEADERS: dict[str, dict[str, Any]] = {
    "Location": {
        "description": "Where it can be looked at.",
        "schema": {"type": "string"},
        "example": "https://cloud.example.org/api/v1/workspaces/trees",
    },
    "ETag": {
        "description": "The version of what can be set about it, for `If-Match`.",
        "schema": {"type": "string"},
        "example": '"5f1c0e7a9b3d48c2a6e4d0b7f8c1a2e3"',
    },
    "Retry-After": {
        "description": "After how many seconds it is worth to ask again.",
        "schema": {"type": "integer"},
        "example": 2,
    },
    "Idempotent-Replayed": {
        "description": "There only when this is the answer to an earlier request with this key.",
        "schema": {"const": "true"},
        "example": "true",
    },
    "WWW-Authenticate": {
        "description": "How to say who you are.",
        "schema": {"type": "string"},
        "example": 'Bearer realm="cloudapp"',
    },
    "RateLimit": {
        "description": 'What is left: `"requests";r=<how many>;t=<seconds until all are back>`.',
        "schema": {"type": "string"},
        "example": '"requests";r=598;t=1',
    },
    "RateLimit-Policy": {
        "description": 'The rate: `"requests";q=<how many>;w=<in how many seconds>`.',
        "schema": {"type": "string"},
        "example": '"requests";q=600;w=60',
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
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        "pattern": "^[!-~]([ -~]*[!-~])?$",
    },
    "example": "2f1b7c1e-6a0d-4c0e-9b1f-5d3e8a7c6b21",
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "An `ETag` that you have seen: only if nothing was changed since.",
    "schema": {"type": "string", "pattern": "^[!-~]+$"},
    "example": '"5f1c0e7a9b3d48c2a6e4d0b7f8c1a2e3"',
}

_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "With a stream of events: the last one that you have seen.",
    "schema": {"type": "string", "pattern": "^[0-9]{0,18}$"},
    "example": "1204",
}


def may_refuse(
    *codes: str,
    once: bool = False,
    if_match: bool = False,
    headers: Iterable[str] = (),
    stream: Mapping[str, Any] | None = None,
    resumes: bool = False,
) -> dict[str, Any]:
    """Return what an operation's description needs: the problems that may come, and headers.

    With `once` it takes an Idempotency-Key, with `if_match` an If-Match; `stream` is the schema of
    what an event carries when it answers with a stream; it `resumes` where a Last-Event-ID says.
    """
    known = ((once, _IDEMPOTENCY_KEY), (if_match, _IF_MATCH), (resumes, _LAST_EVENT_ID))
    parameters = [parameter for wanted, parameter in known if wanted]
    more = ("key_reused",) if once else ()
    found: dict[str, Any] = {
        "responses": _problems([*_ALWAYS, *codes, *more]),
        "x-headers": [*headers, *(["Idempotent-Replayed"] if once else [])],
    }
    if parameters:
        found["parameters"] = parameters
    if stream:
        found["responses"][200] = {"content": {STREAM: {"schema": _event_with(stream)}}}
    return found


def _event_with(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of each event of a stream; OpenAPI has no word for the stream itself."""
    carried = [data, {"$ref": "#/components/schemas/ProblemOut"}]
    return {
        "type": "object",
        "description": "One event of the stream. The last one is called `end` and says why.",
        "properties": {
            "id": {"type": "string"},
            "event": {"enum": ["message", "end"]},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"anyOf": carried},
            },
        },
        "required": ["data"],
    }


def _problems(codes: Iterable[str]) -> dict[int, Any]:
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(CODES[code].status, []).append(code)
    return {status: _problem(found) for status, found in sorted(by_status.items())}


def _problem(codes: list[str]) -> dict[str, Any]:
    titles = "; ".join(f"`{code}`: {CODES[code].title}" for code in codes)
    own = {"request_id": REQUEST_ID}  # not that of whoever asks for this document first
    examples = {code: {"value": Problem(code).body("/api/v1/…") | own} for code in codes}
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
    """ninja's API with our errors, examples and links in its document."""

    def get_openapi_schema(self, *args: Any, **kwargs: Any) -> OpenAPISchema:
        """Return the document; made once per process."""
        return self._document

    @cached_property
    def _document(self) -> OpenAPISchema:
        document = super().get_openapi_schema(path_prefix="/api/v1/")
        document["servers"] = [{"url": settings.CLOUD_URL}]
        document["tags"] = [{"name": tag, "description": words} for tag, words in TAGS.items()]
        components = document["components"]
        components["securitySchemes"] = {TOKEN: _TOKEN_SCHEME}
        problem = ProblemOut.model_json_schema(ref_template="#/components/schemas/{model}")
        components["schemas"].update(problem.pop("$defs", {}))
        components["schemas"]["ProblemOut"] = problem
        security = dict(self._security())
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["security"] = security[operation["operationId"]]
                _complete(operation, components["schemas"])
        return document

    def _security(self) -> Iterator[tuple[str, list[dict[str, list[str]]]]]:
        """Yield what each operation demands: one of these, each the scopes of a token."""
        for bound in self._get_bound_routers():
            for view in bound.path_operations.values():
                for operation in view.operations:
                    name = operation.operation_id or self.get_openapi_operation_id(operation)
                    yield name, [{TOKEN: scopes} for scopes in _scopes_of(operation)]


TOKEN = "token"  # noqa: S105 - the name of how to sign in
_TOKEN_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "`Authorization: Bearer cloudapp_…`, a token made at /account/tokens/. "
    "Each operation lists the scopes of which a token needs one.",
}


def _scopes_of(operation: Operation) -> Iterator[list[str]]:
    for demand in operation.auth_callbacks:
        if isinstance(demand, Needs):
            yield from ([scope.value] for scope in demand.scopes)
            if not demand.scopes:
                yield []  # any good token will do


# --- completing what ninja knows ------------------------------------------------------------------


def _complete(operation: dict[str, Any], components: Mapping[str, Any]) -> None:
    """Write down the headers of the answers, the links between operations, and examples."""
    name, own = operation["operationId"], operation.pop("x-headers", ())
    # ninja shares the dictionaries of `openapi_extra` between operations.
    operation["parameters"] = [
        _parameter(name, given, components) for given in operation["parameters"]
    ]
    if "requestBody" in operation:
        operation["responses"].setdefault(413, _problem(["too_large"]))
    for media in operation.get("requestBody", {}).get("content", {}).values():
        with suppress(NoExample):  # a test demands that there is one
            media["example"] = _BODIES.get(name) or examples.of(media["schema"], components)
    for status, response in operation["responses"].items():
        response["headers"] = {title: _HEADERS[title] for title in _headers_of(int(status), own)}
        if int(status) < 300:
            response["description"] = _WORDS_OF_STATUS[int(status)]
            _complete_answer(name, response, components)


def _headers_of(status: int, own: Iterable[str]) -> Iterator[str]:
    if status == 401:
        yield "WWW-Authenticate"
        return  # of nobody's rate
    yield from ("RateLimit", "RateLimit-Policy")
    if status < 300:
        yield from own
    if status in (429, 503):
        yield "Retry-After"


def _parameter(
    operation: str, given: Mapping[str, Any], components: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a parameter as OpenAPI wants it; pydantic speaks of fields."""
    schema = {key: value for key, value in given["schema"].items() if key != "examples"}
    # There is no null in an address: what may be null may be left out.
    may_be = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    schema |= may_be[0] if len(may_be) == 1 else {"anyOf": may_be} if may_be else {}
    found = {**given, "schema": schema}
    if listed := found.pop("examples", None):
        found["example"] = listed[0]
    if words := _PARAMETERS.get((operation, given["name"])):
        found["description"], found["example"] = words
    if "example" not in found:
        with suppress(NoExample):
            found["example"] = examples.of(schema, components)
    return found


def _complete_answer(name: str, response: dict[str, Any], components: Mapping[str, Any]) -> None:
    for kind, media in response.get("content", {}).items():
        with suppress(NoExample, KeyError):
            if kind == STREAM:
                media["example"] = _STREAMS[name]
            else:
                value = examples.of(media["schema"], components)
                media["example"] = value | _EXAMPLES.get(name, {})
    if followers := LINKS.get(name):
        response["links"] = {
            follower: {"operationId": follower, "parameters": dict(values)}
            for follower, values in followers.items()
        }
