"""What surrounds each request: its id, where it comes from, and a line in the log."""

import logging
import re
import time
from collections.abc import Callable
from uuid import uuid4

from allauth.account.adapter import get_adapter
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from accounts import origin
from accounts.origin import Origin, Via
from deploy import trace

HEADER = "X-Request-ID"
_QUIET = ("static", "healthz", "readyz", "metrics")
_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

logger = logging.getLogger("cloudapp.requests")


class RequestMiddleware:
    """The router names each request, and we go on with that name: in logs, tasks and answers."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        given = request.headers.get(HEADER, "")
        request_id = given if _ID.fullmatch(given) else uuid4().hex
        address = get_adapter(request).get_client_ip(request)
        here = Origin(Via.SESSION, address=address, request_id=request_id)
        begun = time.monotonic()
        with trace.within(request_id=request_id), origin.of(here):
            response = self.get_response(request)
            _log(request, response.status_code, time.monotonic() - begun)
        response[HEADER] = request_id
        return response

    def process_view(
        self, request: HttpRequest, view: object, args: object, kwargs: dict[str, object]
    ) -> None:
        """Note which workspace it is about; the router says it where the address does not."""
        by_router = request.path.startswith("/_gateway/")
        said = request.headers.get("X-Cloudapp-Slug") if by_router else None
        if slug := kwargs.get("slug") or said:
            trace.add(workspace=str(slug))


def _log(request: HttpRequest, status: int, seconds: float) -> None:
    """Write a line. It names the address's pattern: paths and queries hold keys and customers' SQL.

    Health checks come every second or so, and nobody reads of them or of style sheets.
    """
    match = request.resolver_match
    static = request.path.startswith(settings.STATIC_URL)
    route = match.route if match else "static" if static else "-"
    more = {"method": request.method, "route": route, "status": status, "ms": round(seconds * 1000)}
    level = logging.DEBUG if route in _QUIET else logging.INFO
    words = f"{request.method} {route} {status} in {round(seconds * 1000)} ms"
    logger.log(level, words, extra={"fields": more})
