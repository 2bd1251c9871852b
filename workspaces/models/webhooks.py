"""Who is told when something happens, and every message that was or is to be sent to them."""

import uuid
from datetime import timedelta
from typing import ClassVar
from urllib.parse import urlsplit

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from workspaces.models.customers import Workspace


class Webhook(models.Model):
    """An address that hears what happens in one workspace; without one, an operator's: in all."""

    workspace = models.ForeignKey(
        Workspace, null=True, blank=True, on_delete=models.CASCADE, related_name="webhooks"
    )
    name = models.CharField(max_length=80, blank=True)
    url = models.CharField("address", max_length=500)
    # The types of events that it wants; empty for all, also those that come with later versions.
    events = models.JSONField(default=list, blank=True)
    # Both sealed by deploy.vault. The old one signs too until its time is over.
    secret = models.TextField(editable=False)
    old_secret = models.TextField(blank=True, editable=False)
    old_secret_until = models.DateTimeField(null=True, blank=True, editable=False)
    active = models.BooleanField(default=True)
    # Why we switched it off, in words for its owner.
    disabled_reason = models.CharField(max_length=200, blank=True, editable=False)
    # Since when nothing has got through.
    failing_since = models.DateTimeField(null=True, blank=True, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["id"]

    def __str__(self) -> str:
        return self.name or self.host

    @property
    def host(self) -> str:
        """Where it goes, without what may be a secret in its path."""
        return urlsplit(self.url).netloc

    @property
    def silenced(self) -> str:
        """Why it may hear of nothing, in words: an operators' one hears what its maker may see."""
        if self.workspace_id is not None:
            return ""
        maker = self.created_by
        if maker and maker.is_staff and maker.has_perm("workspaces.view_workspace"):
            return ""
        return "Who made it may not see all workspaces any more."


class Delivery(models.Model):
    """One message for one webhook. Its id, `webhook-id`, is the same however often it is sent."""

    class State(models.TextChoices):
        """Failed ones are not tried again by themselves."""

        PENDING = "pending", "on its way"
        DELIVERED = "delivered", "delivered"
        FAILED = "failed", "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    type = models.CharField(max_length=40)
    # As it is sent, to the byte: the signature is over this.
    body = models.TextField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    # Since it was last asked for: by what happened, or by somebody who had it sent again.
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    # A worker is at it until then. Later nobody is: that worker died.
    claimed_until = models.DateTimeField(null=True, blank=True, editable=False)
    # What came of the last attempt.
    attempted_at = models.DateTimeField(null=True, blank=True)
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    error = models.CharField(max_length=300, blank=True)
    answer = models.TextField(blank=True)
    duration_ms = models.PositiveIntegerField(null=True, blank=True)
    delivered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at"]
        verbose_name_plural = "deliveries"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["webhook", "-created_at"], name="deliveries_of_webhook"),
            models.Index(
                fields=["next_attempt_at"], condition=Q(state="pending"), name="deliveries_due"
            ),
            models.Index(
                fields=["webhook"], condition=~Q(claimed_until=None), name="deliveries_claimed"
            ),
            models.Index(fields=["created_at"], name="deliveries_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.id}"

    @property
    def is_moving(self) -> bool:
        """Whether an attempt is under way, or as good as."""
        soon = timezone.now() + timedelta(seconds=10)
        return self.state == self.State.PENDING and self.next_attempt_at <= soon
