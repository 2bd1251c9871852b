"""Webhooks for operators: their own, which hear of all workspaces, and customers', to look at."""

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.admin import operator
from deploy.admin import ReadOnlyAdmin
from workspaces import deeds, shown_once, webhooks
from workspaces.admin.deeds import DeedsAdmin, back_to, demand, refuse
from workspaces.admin.forms import AddWebhookForm
from workspaces.models import Delivery, Webhook
from workspaces.services import Refused


class OwnerFilter(admin.SimpleListFilter):
    """Whose webhooks."""

    title = "whose"
    parameter_name = "whose"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer both."""
        return [("operators", "the operators'"), ("customers", "customers'")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> QuerySet[Webhook]:
        """Keep one kind."""
        wanted = {"operators": True, "customers": False}.get(self.value() or "")
        return queryset if wanted is None else queryset.filter(workspace__isnull=wanted)


@admin.register(Webhook)
class WebhookAdmin(DeedsAdmin, ReadOnlyAdmin):
    """Who hears what. The operators' own can be made here; customers make theirs themselves."""

    list_display = ("what", "host", "whose", "active", "failing_since", "created_at")
    list_filter = (OwnerFilter, "active", ("failing_since", admin.EmptyFieldListFilter))
    search_fields = ("name", "url", "workspace__slug")
    search_help_text = "A name, an address or a workspace"
    ordering = ("-pk",)
    list_select_related = ("workspace",)
    # The secrets are not among them: nobody reads these.
    fields = (
        "name",
        "whose",
        "url",
        "wants",
        "active",
        "silence",
        "failing_since",
        "old_secret_until",
        "created_at",
        "log",
    )
    deeds = {"ping": "ping", "rotate": "rotate", "switch": "switch", "remove": "remove"}
    change_form_template = "admin/workspaces/webhook.html"

    @admin.display(description="webhook")
    def what(self, webhook: Webhook) -> str:
        """Its name, or where it goes."""
        return str(webhook)

    @admin.display(description="whose", ordering="workspace__slug")
    def whose(self, webhook: Webhook) -> str:
        """The workspace that it hears of."""
        return webhook.workspace.slug if webhook.workspace else "the operators'"

    @admin.display(description="events")
    def wants(self, webhook: Webhook) -> str:
        """What it hears of."""
        return ", ".join(webhook.events) or "all"

    @admin.display(description="why it hears of nothing")
    def silence(self, webhook: Webhook) -> str:
        """Why we switched it off, or what keeps it from hearing."""
        return webhook.disabled_reason or webhook.silenced or "-"

    @admin.display(description="messages")
    def log(self, webhook: Webhook) -> SafeString:
        """Link to what was sent."""
        url = reverse("admin:workspaces_delivery_changelist")
        return format_html('<a href="{}?webhook={}">What was sent</a>', url, webhook.pk)

    # --- adding --------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whether this operator may make one."""
        return deeds.may(operator(request), "add_webhook")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Ask where an operator's webhook goes, and lead to its page, which shows the secret."""
        demand(request, "add_webhook")
        form = AddWebhookForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            try:
                made, secret = webhooks.create(None, operator(request), **form.cleaned_data)
            except Refused as refusal:
                refuse(form, refusal)
            else:
                shown_once.show_next(request, made, secret)
                return back_to(made)
        intro = "It hears what happens in all workspaces of all customers."
        return self.ask(
            request, "Add an operators' webhook", form, intro=intro, button="Add webhook"
        )

    # --- its page ------------------------------------------------------------------------------

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show a new secret once, and the buttons of a webhook that is the operators'."""
        webhook: Webhook = kwargs["obj"]
        ours = webhook.workspace_id is None
        may = partial(deeds.may, operator(request))
        context |= {
            "secret": shown_once.take(request, webhook),
            "may_change": ours and may("change_webhook"),
            "may_remove": ours and may("remove_webhook"),
        }
        return super().render_change_form(request, context, *args, **kwargs)

    # --- deeds ---------------------------------------------------------------------------------

    def ping(self, request: HttpRequest, webhook: Webhook) -> HttpResponse:
        """Send a test message."""
        self._demand(request, webhook, "change_webhook")

        def send() -> str:
            webhooks.ping(webhook, operator(request))
            return "A test message is on its way: see what was sent."

        return self.at_once(request, webhook, send)

    def rotate(self, request: HttpRequest, webhook: Webhook) -> HttpResponse:
        """Give it a new secret, and show that once."""
        self._demand(request, webhook, "change_webhook")

        def renew() -> str:
            secret = webhooks.rotate(webhook, operator(request))
            shown_once.show_next(request, webhook, secret)
            return "It has a new secret."

        return self.at_once(request, webhook, renew)

    def switch(self, request: HttpRequest, webhook: Webhook) -> HttpResponse:
        """Switch it on or off."""
        self._demand(request, webhook, "change_webhook")
        on = request.POST.get("to") == "on"

        def switch() -> str:
            webhooks.update(webhook, operator(request), active=on)
            return "It is on." if on else "It is off."

        return self.at_once(request, webhook, switch)

    def remove(self, request: HttpRequest, webhook: Webhook) -> HttpResponse:
        """Remove it, after asking."""
        self._demand(request, webhook, "remove_webhook")
        if request.method == "POST":
            webhooks.delete(webhook, operator(request))
            messages.success(request, f"The webhook {webhook} is removed.")
            return redirect("admin:workspaces_webhook_changelist")
        return self.ask(
            request,
            f"Remove {webhook}",
            Form(),
            original=webhook,
            intro="What is on its way is not sent any more, and its log is gone.",
            button="Remove it",
        )

    def _demand(self, request: HttpRequest, webhook: Webhook, deed: str) -> None:
        demand(request, deed)
        if webhook.workspace_id is not None:
            raise PermissionDenied  # a customer's: theirs to change


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """Every message of the last 30 days, and what came of it."""

    list_display = ("created_at", "type", "webhook", "state", "attempts", "status_code", "error")
    list_filter = ("state", "type", "created_at")
    search_fields = ("=id", "webhook__workspace__slug", "webhook__name", "error")
    search_help_text = "A message's id, a workspace, a webhook or words of an error"
    ordering = ("-created_at",)
    list_select_related = ("webhook",)
    actions = ("send_again",)
    fields = (
        "id",
        "webhook",
        "type",
        "state",
        "created_at",
        "attempts",
        "attempted_at",
        "next_attempt_at",
        "delivered_at",
        "status_code",
        "duration_ms",
        "error",
        "answer",
        "body",
    )

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Let a webhook's page link to its messages."""
        return lookup == "webhook" or super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    @admin.action(description="Send again")
    def send_again(self, request: HttpRequest, chosen: QuerySet[Delivery]) -> None:
        """Send messages again, with the same ids."""
        demand(request, "send_again")
        sent = 0
        for delivery in chosen:
            try:
                webhooks.redeliver(delivery, operator(request))
                sent += 1
            except Refused as refusal:
                messages.error(request, f"{delivery}: {refusal}")
        messages.success(request, f"{sent} on their way again.")
