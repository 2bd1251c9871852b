"""The page for what nobody expected."""

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from deploy import trace


def broken(request: HttpRequest) -> HttpResponse:
    """Say that it is our fault, and what the logs call this request. Needs nothing but itself."""
    page = render_to_string("500.html", {"request_id": trace.request_id()})
    return HttpResponse(page, status=500)
