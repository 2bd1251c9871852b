"""Changes of workspaces' plugins and releases, for operators to read."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from deploy.admin import ReadOnlyAdmin
from workspaces.admin.deeds import named_by
from workspaces.models import Change, Step


@admin.register(Change)
class ChangeAdmin(ReadOnlyAdmin):
    """Every change: what was wanted, how far it came, how long that took, and what went wrong."""

    list_display = ("at", "workspace", "state", "at_step", "took", "by", "release", "error_begins")
    list_filter = ("state", "step", "release", "at")
    search_fields = ("workspace__slug", "workspace__name", "error", "detail")
    search_help_text = "A workspace or words of an error"
    ordering = ("-pk",)
    list_select_related = ("workspace", "release")
    fields = (
        "workspace",
        "by",
        "at",
        "state",
        "error",
        "detail",
        "step",
        "steps",
        "finished_at",
        "release",
        "wants",
        "image",
        "old_release",
        "had",
        "old_image",
        "rollout",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Change]:
        """Changes with the names of who asked, in one more query."""
        found: QuerySet[Change] = super().get_queryset(request)
        return found.prefetch_related(named_by)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Let a roll-out's page link to its changes."""
        return lookup == "rollout" or super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    @admin.display(description="step", ordering="step")
    def at_step(self, change: Change) -> str:
        """The step that it has come to, in one word."""
        return change.step

    @admin.display(description="took")
    def took(self, change: Change) -> str:
        """How long its steps took, together."""
        return f"{sum(change.durations.values()) / 1000:.1f} s" if change.durations else ""

    @admin.display(description="error")
    def error_begins(self, change: Change) -> str:
        """The first words of what went wrong."""
        return change.error[:120]

    @admin.display(description="durations")
    def steps(self, change: Change) -> SafeString:
        """How long each step took."""
        done = (
            (step.label, f"{change.durations[step]} ms")
            for step in Step
            if step in change.durations
        )
        return _lines(done)

    @admin.display(description="wanted plugins")
    def wants(self, change: Change) -> SafeString:
        """The set that was asked for."""
        return _approvals(change.wanted)

    @admin.display(description="plugins before")
    def had(self, change: Change) -> SafeString:
        """The set that there was."""
        return _approvals(change.old_plugins)


def _approvals(found: Any) -> SafeString:
    rows = found.select_related("plugin").order_by("plugin__name")
    return _lines((approval.plugin.name, approval.version) for approval in rows)


def _lines(rows: Any) -> SafeString:
    return format_html_join("", "<div>{} {}</div>", rows) or SafeString("none")
