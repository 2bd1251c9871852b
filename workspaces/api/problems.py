"""Errors of the API: RFC 9457 problem documents with a code that scripts can rely on.

`CODES` is all of them. A code never changes its meaning; `detail` is for people and may.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.http import HttpResponse

from deploy import trace
from workspaces.services import Refused

CONTENT_TYPE = "application/problem+json"
# Of an invalid request; the answer should not be larger than what was sent.
MAX_ERRORS = 20


@dataclass(frozen=True)
class Code:
    """What a code means: its HTTP status, a title, and what to do."""

    status: int
    title: str
    help: str


CODES: Mapping[str, Code] = {
    "bad_request": Code(400, "The request cannot be read", "Send valid JSON, encoded as UTF-8."),
    "invalid": Code(422, "A value is not valid", "See `errors`: each names a field and says why."),
    "not_signed_in": Code(
        401,
        "A token is needed",
        "Send `Authorization: Bearer cloudapp_…` with a token that is good: made at "
        "/account/tokens/, not expired, not revoked.",
    ),
    "scope_missing": Code(
        403, "The token may not do this", "Make a token with the scope that `detail` names."
    ),
    "role_too_low": Code(
        403,
        "Your role may not do this",
        "Ask an owner of the workspace; `detail` names the role that may.",
    ),
    "permission_missing": Code(
        403,
        "Your account lacks a permission of operators",
        "Ask an operator who may do everything to give it to you; `detail` names it.",
    ),
    "not_found": Code(
        404,
        "There is no such thing",
        "It does not exist, or this token may not see it; the answer does not tell which.",
    ),
    "method_not_allowed": Code(
        405, "This address does not know that method", "See the header `Allow`."
    ),
    "timeout": Code(408, "It did not come true in time", "Ask again; asking longer is fine too."),
    "refused": Code(409, "It cannot be done as things are", "`detail` says why."),
    "never": Code(
        409,
        "It will not come true by itself",
        "`detail` says why, and what would make it come true.",
    ),
    "suspended": Code(409, "The operators suspended this workspace", "Only they can start it."),
    "deleted": Code(409, "The workspace is deleted", "`POST …/undelete` brings it back in time."),
    "too_late": Code(409, "The data has been removed", "It cannot be brought back any more."),
    "slug_taken": Code(
        409, "Somebody has this slug", "Choose another one, or leave it out and get one."
    ),
    "exists": Code(409, "There is one of this name already", "Use that one, or another name."),
    "quota_reached": Code(
        409,
        "The plan allows no more workspaces",
        "Delete one that is not needed, or ask the operators for more.",
    ),
    "member_limit": Code(
        409,
        "The plan allows no more members",
        "Remove a member who is not needed, or ask the operators for another plan.",
    ),
    "change_under_way": Code(
        409, "Another change of the plugins is under way", "Wait for its end, then ask again."
    ),
    "last_owner": Code(409, "A workspace needs an owner", "Make somebody else an owner first."),
    "key_reused": Code(
        409,
        "This Idempotency-Key belongs to another request",
        "Use a new key for a new request; the same key only to send the very same one again.",
    ),
    "changed_meanwhile": Code(
        412,
        "It was changed meanwhile",
        "Get it again, decide anew, and send the new `ETag` in `If-Match`.",
    ),
    "too_many_requests": Code(
        429, "Too many requests", "Wait for as many seconds as `Retry-After` says."
    ),
    "too_many_creations": Code(
        429,
        "Too many new workspaces in an hour",
        "Wait for as many seconds as `Retry-After` says.",
    ),
    "too_many_changes": Code(
        429,
        "Too many changes of the plugins in an hour",
        "Ask for all that you want at once, and wait for as many seconds as `Retry-After` says.",
    ),
    "too_many_waiting": Code(
        503, "Too many requests wait here", "Ask again after `Retry-After` seconds."
    ),
    "not_ready_yet": Code(
        503,
        "The service is still being prepared",
        "Ask again after `Retry-After` seconds; this passes by itself.",
    ),
    "unavailable": Code(
        503, "The service is not available just now", "Ask again after `Retry-After` seconds."
    ),
    "too_large": Code(413, "The request is too large", "Send at most 256 KB."),
    "broken": Code(
        500,
        "Something went wrong on our side",
        "Nothing was changed. Ask again; if it stays, tell the operators the request id.",
    ),
}


class Problem(Exception):
    """An answer that is an error. `errors` are `{"field", "message"}` of an invalid request."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.code = code
        self.detail = detail or CODES[code].help
        super().__init__(f"{code}: {self.detail}")
        self.errors = errors
        self.headers = dict(headers or {})

    def body(self, instance: str = "") -> dict[str, Any]:
        """Return the document; `instance` is the path that was asked for."""
        code = CODES[self.code]
        found: dict[str, Any] = {
            "type": f"{settings.CLOUD_URL}/api/v1/docs#problem-{self.code}",
            "title": code.title,
            "status": code.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "request_id": trace.request_id(),
        }
        if self.errors:
            found["errors"] = [dict(error) for error in self.errors]
        return found

    def response(self, instance: str = "") -> HttpResponse:
        """Return the answer."""
        return HttpResponse(
            json.dumps(self.body(instance), ensure_ascii=False),
            status=CODES[self.code].status,
            content_type=CONTENT_TYPE,
            headers=self.headers,
        )


def of_refusal(refusal: Refused) -> Problem:
    """Return the problem that a refusal of the services is."""
    if refusal.code == "invalid":
        field = {"field": f"body.{refusal.field}" if refusal.field else "", "message": str(refusal)}
        return Problem("invalid", str(refusal), errors=[field])
    retry = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
    return Problem(refusal.code, str(refusal), headers=retry)


def invalid(field: str, message: str) -> Problem:
    """Return the problem of one field, such as `query.status` or `body.name`."""
    return Problem("invalid", message, errors=[{"field": field, "message": message}])


def of_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Return the problem that pydantic found, with paths as people write them: `body.name`."""
    told = errors[:MAX_ERRORS]
    found = [{"field": _path(error["loc"]), "message": _words(error)} for error in told]
    first = found[0] if found else {"field": "", "message": "not valid"}
    return Problem("invalid", f"{first['field']}: {first['message']}", errors=found)


def _words(error: Mapping[str, Any]) -> str:
    return str(error.get("msg", "not valid")).removeprefix("Value error, ")


def _path(loc: Sequence[Any]) -> str:
    """ninja puts the parameter's name behind the source where there is one model: body, payload."""
    source, *rest = (str(part) for part in loc)
    if source == "body" and rest[:1] == ["payload"]:
        rest = rest[1:]
    return ".".join([source, *rest])


def title_of(status: int) -> str:
    """Return what HTTP calls a status."""
    return HTTPStatus(status).phrase
