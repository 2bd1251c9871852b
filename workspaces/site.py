"""The operators' site: Django's admin with a front page, and what needs attention."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path

from workspaces import attention, dashboard, queues
from workspaces.attention_codes import CODES

# So many of the tasks that wait in a queue are named; the number tells all.
WAITING = 100


class OperatorsSite(admin.AdminSite):
    """What operators open in the morning."""

    site_header = "cloudapp operators"
    site_title = "cloudapp operators"
    index_title = "Fleet"
    index_template = "admin/fleet.html"

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Show how all of it is, and below every list."""
        front = dashboard.front_page(request.user)
        return super().index(request, {**(extra_context or {}), "front": front})

    def get_urls(self) -> list[URLPattern | URLResolver]:
        """Add our pages before the one that catches all."""
        view = self.admin_view
        return [
            path("attention/", view(self.attention), name="attention"),
            path("attention/<slug:code>/", view(self.attention_code), name="attention_code"),
            path("queues/<slug:name>/", view(self.queue), name="queue"),
            *super().get_urls(),
        ]

    def attention(self, request: HttpRequest) -> HttpResponse:
        """List what needs attention, the urgent codes first."""
        _demand(request)
        found = attention.find()
        context = {
            **self.each_context(request),
            "title": "Needs attention",
            "found": found,
            "count": sum(one.count for one in found),
        }
        return TemplateResponse(request, "admin/attention.html", context)

    def attention_code(self, request: HttpRequest, code: str) -> HttpResponse:
        """Say what a code means and what to do, and what there is of it now."""
        _demand(request)
        if code not in CODES:
            raise Http404
        count, items = attention.CHECKS[code](attention.NAMED)
        context = {
            **self.each_context(request),
            "title": CODES[code].title,
            "code": code,
            "about": CODES[code],
            "count": count,
            "items": list(items)[: attention.NAMED],
        }
        return TemplateResponse(request, "admin/attention_code.html", context)

    def queue(self, request: HttpRequest, name: str) -> HttpResponse:
        """List what waits in a queue, the next first."""
        _demand(request)
        if name not in queues.MINUTES:
            raise Http404
        depths = queues.depths()
        context = {
            **self.each_context(request),
            "title": f"The queue {name}",
            "name": name,
            "count": depths[name] if depths else None,
            "waiting": queues.waiting(name, WAITING),
        }
        return TemplateResponse(request, "admin/queue.html", context)


def _demand(request: HttpRequest) -> None:
    if not dashboard.may_see(request.user):
        raise PermissionDenied
