"""Customers' logs, for operators: whoever reads one is in the customer's audit log."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from accounts import audit
from accounts.admin import operator
from deploy.admin import LogTailAdmin
from deploy.models import LogTail
from workspaces.models import Workspace

admin.site.unregister(LogTail)


@admin.register(LogTail)
class AuditedLogTailAdmin(LogTailAdmin):
    """As deploy has it, which knows no customers."""

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show one, and write down who looks."""
        response = super().change_view(request, object_id, form_url, extra_context)
        tail = self.get_object(request, object_id)
        workspace = tail and Workspace.objects.filter(instance=tail.instance_id).first()
        if workspace and response.status_code == 200:
            audit.note(operator(request), "read_log", workspace, workspace=workspace.pk)
        return response
