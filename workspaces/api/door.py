"""What every request to the API passes: who asks, how often, and whether it was asked before.

`Idempotency-Key`: the key is written in the transaction of what it stands for. So of two that come
at once the second waits for the first one's end and gets its answer; what fails on our side, or is
interrupted, leaves no key behind and can be asked again.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError, transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from deploy import vault
from workspaces import services
from workspaces.api.callers import Caller, identify
from workspaces.api.problems import CONTENT_TYPE, Problem, invalid
from workspaces.models import IdempotencyKey

logger = logging.getLogger(__name__)

MAX_KEY = 255
MAX_BODY = 256 * 1024
RETRY = {"Retry-After": "5"}
# Nothing was done, and it may be another answer next time; or what is said of an invalid request,
# which may be as large as that was, can be said again.
_NOT_KEPT = (400, 401, 403, 404, 422, 429)
_KEPT_HEADERS = ("Location", "ETag", "Retry-After")
View = Callable[..., HttpResponseBase]


def door(view: View) -> View:
    """Wrap one of ninja's views."""

    @csrf_exempt  # no cookie signs anybody in here
    @wraps(view)
    def through(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response = _answer(view, request, args, kwargs)
        except Problem as problem:
            response = problem.response(request.path)
        except (OperationalError, InterfaceError):
            logger.exception("the database does not answer")
            response = Problem("unavailable", headers=RETRY).response(request.path)
        except RequestDataTooBig:
            response = Problem("too_large").response(request.path)
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            response = Problem("broken").response(request.path)
        _say_rate(request, response)
        if not response.has_header("Cache-Control"):
            response["Cache-Control"] = "no-store"
        return response

    return through


def _answer(view: View, request: HttpRequest, args: Any, kwargs: Any) -> HttpResponseBase:
    caller = identify(request)
    if caller is not None and not caller.budget.allowed:
        raise Problem("too_many_requests", headers={"Retry-After": str(caller.budget.retry_after)})
    if caller is not None and len(request.body) > MAX_BODY:
        raise Problem("too_large")
    key = request.headers.get("Idempotency-Key")

    def answer() -> HttpResponseBase:
        return _as_problem(request, view(request, *args, **kwargs))

    if request.method == "POST" and key is not None and caller is not None:
        return _once(caller, _checked(key), request, answer)
    return answer()


def _as_problem(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """ninja says by itself when a method is none of an address's, but not in our form."""
    if response.status_code != 405 or response.get("Content-Type", "") == CONTENT_TYPE:
        return response
    allowed = response.get("Allow", "")
    problem = Problem("method_not_allowed", f"Use {allowed}.", headers={"Allow": allowed})
    return problem.response(request.path)


def _say_rate(request: HttpRequest, response: HttpResponseBase) -> None:
    caller: Caller | None = getattr(request, "caller", None)
    if caller is None:
        return
    budget = caller.budget
    response["RateLimit-Policy"] = f'"requests";q={budget.limit};w={budget.window}'
    response["RateLimit"] = f'"requests";r={budget.remaining};t={budget.reset}'


# --- idempotency keys ----------------------------------------------------------------------------


def _checked(key: str) -> str:
    if not key or len(key) > MAX_KEY or not key.isascii() or not key.isprintable():
        raise invalid("header.Idempotency-Key", f"Use 1 to {MAX_KEY} printable ASCII characters.")
    return key


def _fingerprint(request: HttpRequest) -> str:
    """Return what tells one request from another: method, address and body."""
    parts = (request.method or "", request.get_full_path(), request.headers.get("If-Match", ""))
    head = "\n".join(parts).encode()
    return hashlib.sha256(head + b"\n" + _meaning(request.body)).hexdigest()


def _meaning(body: bytes) -> bytes:
    """Return JSON in one spelling: spaces and the order of names are no difference."""
    try:
        return json.dumps(json.loads(body), sort_keys=True).encode()
    except (ValueError, RecursionError):
        return body


def _once(
    caller: Caller, key: str, request: HttpRequest, answer: Callable[[], HttpResponseBase]
) -> HttpResponseBase:
    fingerprint = _fingerprint(request)
    with transaction.atomic():
        # The task that removes them comes once an hour only.
        services.old_keys().filter(token=caller.token, key=key).delete()
        # Another one with this key that is under way: this waits until it has ended.
        row, new = IdempotencyKey.objects.get_or_create(
            token=caller.token, key=key, defaults={"fingerprint": fingerprint}
        )
        if not new:
            return _again(row, fingerprint)
        response = answer()
        if response.status_code >= 500 or response.status_code in _NOT_KEPT:
            transaction.set_rollback(True)
        elif isinstance(response, HttpResponse):
            _keep(row, response)
    return response


def _keep(row: IdempotencyKey, response: HttpResponse) -> None:
    """Write an answer down, sealed: some hold a secret that is shown once."""
    row.status = response.status_code
    row.body = vault.seal(response.content.decode())
    row.headers = {
        "Content-Type": response["Content-Type"],
        **{name: response[name] for name in _KEPT_HEADERS if response.has_header(name)},
    }
    row.save(update_fields=["status", "body", "headers"])


def _again(row: IdempotencyKey, fingerprint: str) -> HttpResponse:
    if row.fingerprint != fingerprint:
        raise Problem("key_reused")
    try:
        body = vault.open_all({"answer": row.body})["answer"]
    except vault.Unreadable as error:
        words = "It was done, but its answer cannot be read any more. Use a new key."
        raise Problem("refused", words) from error
    return HttpResponse(
        body,
        status=row.status,
        headers={**row.headers, "Idempotent-Replayed": "true"},
    )
