"""What the REST API remembers: the answers to requests that may be sent again."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from accounts.models import ApiToken


class IdempotencyKey(models.Model):
    """A request that a token sent under a key, and its answer. Removed after a day."""

    token = models.ForeignKey(ApiToken, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    # A hash of method, address and body.
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(default=0)
    headers = models.JSONField(default=dict)
    body = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True, editable=False)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["token", "key"], name="one_answer_per_key"),
        ]

    def __str__(self) -> str:
        return f"{self.key} of token {self.token_id}"
