"""Webhooks: of one workspace, and the operators', which hear of all.

Each endpoint is there twice, under a workspace and under /operator, where there is no slug.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Path, Router
from ninja import Status as Answer

from accounts.api_tokens import Scope
from workspaces import webhooks
from workspaces.api import pages, reach
from workspaces.api.callers import Needs, caller_of
from workspaces.api.problems import Problem
from workspaces.api.schema import SLUG, may_refuse
from workspaces.api.shapes import Page, location
from workspaces.api.webhook_shapes import (
    DeliveryOut,
    NewWebhookOut,
    WebhookChanges,
    WebhookIn,
    WebhookOut,
)
from workspaces.api.workspace_routes import Cursor, Limit
from workspaces.models import Delivery, Webhook, Workspace

router = Router(tags=["webhooks"])
View = Callable[..., Any]

Id = Annotated[int, Path(description="The webhook's number.", ge=1, lt=2**63, examples=[12])]
DeliveryId = Annotated[
    UUID,
    Path(
        description="The message's id: its `webhook-id`.",
        examples=["7d1f1a4e-6f0c-4f3a-9a51-0f3a5f7f2b11"],
    ),
]


# What an operator needs for the methods; one endpoint or another says something else.
_DEEDS = {
    "GET": "see_webhooks",
    "POST": "change_webhook",
    "PATCH": "change_webhook",
    "DELETE": "remove_webhook",
}


def _endpoint(
    method: str,
    path: str,
    name: str,
    summary: str,
    response: Any,
    *codes: str,
    deed: str = "",
    **about: Any,
) -> Callable[[View], View]:
    """Register a view for a workspace's webhooks, and the same view for the operators'."""

    def register(view: View) -> View:
        router.api_operation(
            [method],
            f"/workspaces/{{slug}}/webhooks{path}",
            response=response,
            auth=Needs(Scope.LIFECYCLE),
            operation_id=name,
            summary=summary,
            openapi_extra=may_refuse("not_found", "role_too_low", *codes, **about),
        )(view)
        router.api_operation(
            [method],
            f"/operator/webhooks{path}",
            response=response,
            auth=Needs(Scope.OPERATOR, deed=deed or _DEEDS[method]),
            operation_id=f"operator_{name}",
            summary=f"{summary}, of all workspaces",
            openapi_extra=may_refuse(
                "not_found", "permission_missing", *(set(codes) - {"deleted"}), **about
            ),
        )(_of_operators(view))
        return view

    return register


def _of_operators(view: View) -> View:
    """Return a view that takes no slug: there is no workspace."""

    @wraps(view)
    def of_all(request: HttpRequest, **more: Any) -> Any:
        return view(request, slug=None, **more)

    takes = inspect.signature(view)
    rest = [parameter for name, parameter in takes.parameters.items() if name != "slug"]
    of_all.__signature__ = takes.replace(parameters=rest)  # type: ignore[attr-defined]
    return of_all


def _place(request: HttpRequest, slug: str | None) -> Workspace | None:
    """Return the workspace, if the caller may; None for the operators' place, which auth guards."""
    if slug is None:
        return None
    return reach.get(caller_of(request), slug, "manage_webhooks").workspace


def _webhook(request: HttpRequest, slug: str | None, webhook_id: int) -> Webhook:
    rows = webhooks.webhooks_of(_place(request, slug)).select_related("workspace")
    found = rows.filter(pk=webhook_id).first()
    if found is None:
        raise Problem("not_found", "There is no such webhook here.")
    return found


# --- webhooks ------------------------------------------------------------------------------------


@_endpoint("GET", "", "list_webhooks", "List webhooks", Page[WebhookOut])
def list_webhooks(
    request: HttpRequest, slug: SLUG, cursor: Cursor = None, limit: Limit = pages.LIMIT
) -> Page[WebhookOut]:
    """Who hears what happens, newest first."""
    rows = webhooks.webhooks_of(_place(request, slug))
    found, after = pages.by_id(rows, cursor, limit)
    return Page(items=[WebhookOut.of(webhook) for webhook in found], next=after)


@_endpoint(
    "POST",
    "",
    "create_webhook",
    "Add a webhook",
    {201: NewWebhookOut},
    "refused",
    "deleted",
    "too_many_waiting",
    deed="add_webhook",
    once=True,
    headers=("Location",),
)
def create_webhook(
    request: HttpRequest, response: HttpResponse, slug: SLUG, payload: WebhookIn
) -> Answer[NewWebhookOut]:
    """Have somebody hear what happens. The secret is shown once."""
    place = _place(request, slug)
    made, secret = webhooks.create(
        place, caller_of(request).user, url=payload.url, name=payload.name, events=payload.events
    )
    where = f"/workspaces/{slug}" if place else "/operator"
    response["Location"] = location(f"{where}/webhooks/{made.pk}")
    return Answer(201, NewWebhookOut.made(made, secret))


@_endpoint("GET", "/{webhook_id}", "get_webhook", "Get a webhook", WebhookOut)
def get_webhook(request: HttpRequest, slug: SLUG, webhook_id: Id) -> WebhookOut:
    """Where it goes, what it hears of, and how it does."""
    return WebhookOut.of(_webhook(request, slug, webhook_id))


@_endpoint(
    "PATCH",
    "/{webhook_id}",
    "update_webhook",
    "Change a webhook",
    WebhookOut,
    "deleted",
    "too_many_waiting",
)
def update_webhook(
    request: HttpRequest, slug: SLUG, webhook_id: Id, payload: WebhookChanges
) -> WebhookOut:
    """Change what is given."""
    webhook = _webhook(request, slug, webhook_id)
    changes = payload.model_dump(exclude_none=True)
    return WebhookOut.of(webhooks.update(webhook, caller_of(request).user, **changes))


@_endpoint("DELETE", "/{webhook_id}", "delete_webhook", "Remove a webhook", {204: None}, "deleted")
def delete_webhook(request: HttpRequest, slug: SLUG, webhook_id: Id) -> Answer[None]:
    """Remove it, with its log. What is on its way is not sent any more."""
    webhooks.delete(_webhook(request, slug, webhook_id), caller_of(request).user)
    return Answer(204, None)


@_endpoint(
    "POST",
    "/{webhook_id}/rotate",
    "rotate_webhook",
    "Give a webhook a new secret",
    NewWebhookOut,
    "deleted",
    once=True,
)
def rotate_webhook(request: HttpRequest, slug: SLUG, webhook_id: Id) -> NewWebhookOut:
    """Make a new secret, shown once. For 24 hours the old one signs every message as well."""
    webhook = _webhook(request, slug, webhook_id)
    secret = webhooks.rotate(webhook, caller_of(request).user)
    return NewWebhookOut.made(webhook, secret)


@_endpoint(
    "POST",
    "/{webhook_id}/ping",
    "ping_webhook",
    "Send a test message",
    {202: DeliveryOut},
    "refused",
    once=True,
)
def ping_webhook(request: HttpRequest, slug: SLUG, webhook_id: Id) -> Answer[DeliveryOut]:
    """Send a message of the type `ping`, once; five a minute at most. The log says how it went."""
    webhook = _webhook(request, slug, webhook_id)
    return Answer(202, DeliveryOut.of(webhooks.ping(webhook, caller_of(request).user)))


# --- deliveries ----------------------------------------------------------------------------------


@_endpoint(
    "GET",
    "/{webhook_id}/deliveries",
    "list_deliveries",
    "Log of a webhook",
    Page[DeliveryOut],
)
def list_deliveries(
    request: HttpRequest,
    slug: SLUG,
    webhook_id: Id,
    cursor: Cursor = None,
    limit: Limit = pages.LIMIT,
) -> Page[DeliveryOut]:
    """Every message of the last 30 days, newest first."""
    rows = Delivery.objects.filter(webhook=_webhook(request, slug, webhook_id))
    found, after = pages.newest_first(rows, cursor, limit, key=UUID)
    return Page(items=[DeliveryOut.of(delivery) for delivery in found], next=after)


@_endpoint(
    "POST",
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    "redeliver",
    "Send a message again",
    {202: DeliveryOut},
    "refused",
    deed="send_again",
    once=True,
)
def redeliver(
    request: HttpRequest, slug: SLUG, webhook_id: Id, delivery_id: DeliveryId
) -> Answer[DeliveryOut]:
    """Send it again, with the same id and body; one that waits for its next try, now."""
    webhook = _webhook(request, slug, webhook_id)
    delivery = webhook.deliveries.filter(pk=delivery_id).first()
    if delivery is None:
        raise Problem("not_found", "This message is not kept any more.")
    again = webhooks.redeliver(delivery, caller_of(request).user)
    return Answer(202, DeliveryOut.of(again))
