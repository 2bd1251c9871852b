"""What goes in and comes out of the API about webhooks."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self, cast
from uuid import UUID

from ninja import Schema
from pydantic import Field, StringConstraints

from workspaces import outbox, outside, webhooks
from workspaces.api.shapes import In, Text
from workspaces.models import Delivery, Webhook

EventType = Annotated[str, Field(json_schema_extra={"enum": [*outbox.TYPES]})]
Url = Annotated[
    Text,
    StringConstraints(max_length=outside.MAX_LENGTH),
    Field(
        description="An https address on the public internet; messages are POSTed to it.",
        examples=["https://hooks.example.org/cloudapp"],
    ),
]
Label = Annotated[
    Text,
    StringConstraints(max_length=webhooks.MAX_NAME),
    Field(description="What it is for.", examples=["Chat room"]),
]
_EVENTS = "The types of events that it hears of; empty for all, also for those that come later."


class WebhookOut(Schema):
    """Somebody's address that hears what happens. Its secret cannot be read."""

    id: int = Field(description="The webhook's number.", examples=[12])
    name: str = Field(description="What it is for; may be empty.", examples=["Chat room"])
    url: str = Field(
        description="Where messages go.", examples=["https://hooks.example.org/cloudapp"]
    )
    events: list[str] = Field(description=_EVENTS, examples=[["workspace.failed"]])
    active: bool = Field(description="Whether it hears of anything.")
    disabled_reason: str | None = Field(
        description="Why we switched it off, or tell an operators' one nothing, if we do.",
        examples=["Nothing got through for 5 days."],
    )
    failing_since: datetime | None = Field(description="Since when nothing has got through.")
    created_at: datetime = Field(description="When it was made.")

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        """Show one."""
        return cls(**cls._facts(webhook))

    @classmethod
    def _facts(cls, webhook: Webhook) -> dict[str, Any]:
        return {
            "id": webhook.pk,
            "name": webhook.name,
            "url": webhook.url,
            "events": webhook.events,
            "active": webhook.active,
            "disabled_reason": webhook.disabled_reason or webhook.silenced or None,
            "failing_since": webhook.failing_since,
            "created_at": webhook.created_at,
        }


class NewWebhookOut(WebhookOut):
    """A webhook with a secret that was just made."""

    secret: str = Field(
        description="What signs every message. Keep it: nobody can show it again.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )

    @classmethod
    def made(cls, webhook: Webhook, secret: str) -> Self:
        """Show one with its secret."""
        return cls(**cls._facts(webhook), secret=secret)


class WebhookIn(In):
    """A webhook to be made."""

    url: Url
    name: Label = ""
    events: list[EventType] = Field(
        [], max_length=100, description=_EVENTS, examples=[["workspace.failed"]]
    )


class WebhookChanges(In):
    """What is to be another way; what is left out stays."""

    url: Url | None = Field(
        None, description="Where messages go.", examples=["https://hooks.example.org/cloudapp"]
    )
    name: Label | None = Field(None, description="What it is for.", examples=["Chat room"])
    events: list[EventType] | None = Field(
        None, max_length=100, description=_EVENTS, examples=[["workspace.failed"]]
    )
    active: bool | None = Field(
        None, description="Switch it on or off. On forgives what failed before.", examples=[True]
    )


class DeliveryOut(Schema):
    """One message, and what came of it."""

    id: UUID = Field(
        description="`webhook-id`: the same however often it is sent.",
        examples=["7d1f1a4e-6f0c-4f3a-9a51-0f3a5f7f2b11"],
    )
    type: str = Field(description="What it tells of.", examples=["workspace.failed"])
    state: Literal["pending", "delivered", "failed"] = Field(
        description="`pending` until it got through or was given up.", examples=["delivered"]
    )
    created_at: datetime = Field(description="When it happened.")
    attempts: int = Field(
        description="How often it was tried since it was last asked for.", examples=[1]
    )
    next_attempt_at: datetime | None = Field(description="Of a pending one: when it is tried.")
    attempted_at: datetime | None = Field(description="When it was last tried.")
    status_code: int | None = Field(description="What the receiver answered.", examples=[204])
    error: str | None = Field(
        description="What went wrong, in words.", examples=["It answered 500."]
    )
    answer: str = Field(description="How the receiver's answer begins.", examples=["ok"])
    duration_ms: int | None = Field(description="How long the last try took.", examples=[87])
    delivered_at: datetime | None = Field(description="When it got through.")
    body: str = Field(
        description="What is sent, to the byte.", examples=['{"type":"workspace.failed",…}']
    )

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        """Show one."""
        pending = delivery.state == Delivery.State.PENDING
        return cls(
            id=delivery.pk,
            type=delivery.type,
            state=cast("Any", delivery.state),
            created_at=delivery.created_at,
            attempts=delivery.attempts,
            next_attempt_at=delivery.next_attempt_at if pending else None,
            attempted_at=delivery.attempted_at,
            status_code=delivery.status_code,
            error=delivery.error or None,
            answer=delivery.answer,
            duration_ms=delivery.duration_ms,
            delivered_at=delivery.delivered_at,
            body=delivery.body,
        )
