"""The pages on which owners say who hears of their workspace, and see what was sent."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import OuterRef, Prefetch, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from accounts.models import User
from workspaces import access, history, outbox, shown_once, webhooks
from workspaces.forms import WebhookForm
from workspaces.models import Delivery, Member, Webhook
from workspaces.services import Refused
from workspaces.views import SignedInRequest, signed_in

PER_PAGE = 20


def _member(request: SignedInRequest, slug: str) -> Member:
    return access.get_member(request.user, slug, access.NEEDS["manage_webhooks"])


def _webhook(member: Member, pk: int) -> Webhook:
    found = webhooks.webhooks_of(member.workspace).select_related("workspace__instance")
    return get_object_or_404(found, pk=pk)


# --- what the pages show -------------------------------------------------------------------------


def _context(member: Member, form: WebhookForm) -> dict[str, Any]:
    return {
        "workspace": member.workspace,
        "can": access.abilities(member.role),
        "form": form,
        "types": outbox.TYPES.items(),
        "chosen": form["events"].value() or [],
    }


def _index(
    request: HttpRequest, member: Member, form: WebhookForm, status: int = 200
) -> HttpResponse:
    newest = Delivery.objects.filter(webhook=OuterRef("pk")).order_by("-created_at")
    found = webhooks.webhooks_of(member.workspace).annotate(
        last_state=Subquery(newest.values("state")[:1]),
        last_at=Subquery(newest.values("created_at")[:1]),
    )
    context = {"webhooks": list(found), "most": webhooks.MAX_WEBHOOKS}
    return render(
        request, "workspaces/webhooks.html", _context(member, form) | context, status=status
    )


def _detail(
    request: HttpRequest,
    member: Member,
    webhook: Webhook,
    form: WebhookForm | None = None,
    status: int = 200,
) -> HttpResponse:
    old = {"url": webhook.url, "name": webhook.name, "events": webhook.events}
    page = Paginator(webhook.deliveries.all(), PER_PAGE).get_page(request.GET.get("page"))
    named = Webhook.objects.prefetch_related(Prefetch("created_by", User.objects.with_names()))
    webhook = named.get(pk=webhook.pk)
    maker = webhook.created_by
    context = {
        "webhook": webhook,
        "maker": history.name_of(maker, member.workspace) if maker else "",
        "secret": shown_once.take(request, webhook),
        "page": page,
        "busy": any(one.is_moving for one in page),
    }
    context |= _context(member, form or WebhookForm(initial=old))
    response = render(request, "workspaces/webhook.html", context, status=status)
    if context["secret"]:
        response["Cache-Control"] = "no-store"
    return response


# --- the views -----------------------------------------------------------------------------------


@signed_in
@require_GET
def index(request: SignedInRequest, slug: str) -> HttpResponse:
    """List a workspace's webhooks, and ask for one more."""
    return _index(request, _member(request, slug), WebhookForm())


@signed_in
@require_POST
def add(request: SignedInRequest, slug: str) -> HttpResponse:
    """Make a webhook, and lead to its page, which shows the secret."""
    member = _member(request, slug)
    form = WebhookForm(request.POST)
    if form.is_valid():
        try:
            made, secret = webhooks.create(member.workspace, request.user, **form.cleaned_data)
        except Refused as refusal:
            form.add_error(refusal.field, str(refusal))
        else:
            shown_once.show_next(request, made, secret)
            return redirect("webhook", slug, made.pk)
    form.focus_first_error()
    return _index(request, member, form, status=422)


@signed_in
@require_GET
def detail(request: SignedInRequest, slug: str, pk: int) -> HttpResponse:
    """Show one webhook and what was sent to it."""
    member = _member(request, slug)
    return _detail(request, member, _webhook(member, pk))


@signed_in
@require_POST
def change(request: SignedInRequest, slug: str, pk: int) -> HttpResponse:
    """Change where it goes and what it hears of."""
    member = _member(request, slug)
    webhook = _webhook(member, pk)
    form = WebhookForm(request.POST)
    if form.is_valid():
        try:
            webhooks.update(webhook, request.user, **form.cleaned_data)
        except Refused as refusal:
            form.add_error(refusal.field, str(refusal))
        else:
            messages.success(request, "Saved.")
            return redirect("webhook", slug, pk)
    form.focus_first_error()
    return _detail(request, member, webhook, form, status=422)


def _deed(do: Callable[[SignedInRequest, Webhook], str]) -> Callable[..., HttpResponse]:
    """Make a view that does one thing to a webhook, says what was done, and returns to its page."""

    @signed_in
    @require_POST
    @wraps(do)
    def view(request: SignedInRequest, slug: str, pk: int) -> HttpResponse:
        webhook = _webhook(_member(request, slug), pk)
        try:
            if words := do(request, webhook):
                messages.success(request, words)
        except Refused as refusal:
            messages.error(request, str(refusal))
        return redirect("webhook", slug, pk)

    return view


@_deed
def switch(request: SignedInRequest, webhook: Webhook) -> str:
    """Switch it on or off."""
    on = request.POST.get("to") == "on"
    webhooks.update(webhook, request.user, active=on)
    return "It is on." if on else "It is off, and hears of nothing."


@_deed
def test(request: SignedInRequest, webhook: Webhook) -> str:
    """Send a test message; the log shows what comes of it."""
    webhooks.ping(webhook, request.user)
    return ""


@_deed
def rotate(request: SignedInRequest, webhook: Webhook) -> str:
    """Give it a new secret, and show that once."""
    shown_once.show_next(request, webhook, webhooks.rotate(webhook, request.user))
    return ""


@_deed
def redeliver(request: SignedInRequest, webhook: Webhook) -> str:
    """Send one of its messages again."""
    webhooks.redeliver(_delivery(webhook, request.POST.get("delivery", "")), request.user)
    return ""


def _delivery(webhook: Webhook, pk: str) -> Delivery:
    try:
        found = webhook.deliveries.filter(pk=pk).first()
    except ValidationError:  # it is no id at all
        found = None
    if found is None:
        raise Refused("This message is not kept any more.")
    return found


@signed_in
@require_POST
def remove(request: SignedInRequest, slug: str, pk: int) -> HttpResponse:
    """Remove it, and lead to the list."""
    webhook = _webhook(_member(request, slug), pk)
    try:
        webhooks.delete(webhook, request.user)
    except Refused as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, f"The webhook {webhook} is removed.")
    return redirect("workspace_webhooks", slug)
