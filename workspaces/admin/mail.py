"""Mail that was or is to be sent about workspaces, to look at. Nobody reads what is in it."""

from django.contrib import admin

from deploy.admin import ReadOnlyAdmin
from workspaces.models import OutgoingMail


@admin.register(OutgoingMail)
class OutgoingMailAdmin(ReadOnlyAdmin):
    """Every mail of the last 30 days, and what came of it. The body is not among it."""

    list_display = ("created_at", "kind", "to", "workspace", "state", "attempts", "error")
    list_filter = ("state", "kind", "created_at")
    search_fields = ("to", "workspace__slug", "error")
    search_help_text = "An address, a workspace or words of an error"
    ordering = ("-created_at",)
    list_select_related = ("workspace",)
    fields = (
        "key",
        "kind",
        "to",
        "subject",
        "workspace",
        "by",
        "state",
        "created_at",
        "attempts",
        "attempted_at",
        "next_attempt_at",
        "sent_at",
        "error",
    )
