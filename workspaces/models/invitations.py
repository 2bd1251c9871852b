"""Who was asked to come into a workspace."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from workspaces.models.customers import Role, Workspace


class Invitation(models.Model):
    """A place in a workspace for whoever proves to have an address. Its link opens it once."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="invitations")
    # In small letters, as allauth keeps addresses.
    email = models.EmailField()
    role = models.CharField(max_length=10, choices=Role.choices)
    # Of the token in the link, which stands in the mail and nowhere else.
    digest = models.CharField(max_length=64, unique=True, editable=False)
    invited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    # When the link that is good now was made.
    sent_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(db_index=True)
    accepted_at = models.DateTimeField(null=True, blank=True, editable=False)
    accepted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    withdrawn_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["workspace", "email"],
                condition=Q(accepted_at=None, withdrawn_at=None),
                name="one_open_invitation",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["email"],
                condition=Q(accepted_at=None, withdrawn_at=None),
                name="invitations_to",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.email} as {self.role}"

    @property
    def is_expired(self) -> bool:
        """Whether its link is too old; it can be sent anew."""
        return self.expires_at <= timezone.now()
