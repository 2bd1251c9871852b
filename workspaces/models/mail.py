"""Every mail that was or is to be sent about workspaces."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from workspaces.models.customers import Workspace


class OutgoingMail(models.Model):
    """One mail to one address. Its key says what it is about: no two mails have the same."""

    class State(models.TextChoices):
        """Nothing leads from sending back to pending but the word of the mail server: see mailing.

        Uncertain: it was handed over, and nobody could say any more whether it was taken.
        """

        PENDING = "pending", "waits"
        SENDING = "sending", "being sent"
        SENT = "sent", "sent"
        UNCERTAIN = "uncertain", "sent, as far as we know"
        FAILED = "failed", "not sent"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    key = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=30)
    to = models.EmailField()
    subject = models.CharField(max_length=200)
    # Sealed by deploy.vault, for it may hold a link that is a key; empty once it is sent.
    body = models.TextField(blank=True, editable=False)
    workspace = models.ForeignKey(
        Workspace, null=True, on_delete=models.SET_NULL, related_name="mails"
    )
    # The person who had it sent; None for what we tell by ourselves.
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    attempted_at = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at"]
        verbose_name = "mail"
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["next_attempt_at"],
                condition=Q(state__in=["pending", "sending"]),
                name="mails_due",
            ),
            models.Index(fields=["workspace", "kind", "created_at"], name="mails_of_workspace"),
            models.Index(fields=["by", "created_at"], condition=~Q(by=None), name="mails_by"),
            models.Index(fields=["to", "created_at"], name="mails_to"),
            models.Index(fields=["created_at"], name="mails_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} to {self.to}"
