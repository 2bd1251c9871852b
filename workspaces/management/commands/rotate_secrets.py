"""`manage.py rotate_secrets`: encrypt every customer secret with the first of ENCRYPTION_KEYS."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from accounts import audit
from deploy import vault
from workspaces import changes, mailing, webhooks


class Command(BaseCommand):
    """Run it after a new key was put in front; then the old one may be taken away."""

    help = "Encrypt all customers' secrets with the first of ENCRYPTION_KEYS."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with transaction.atomic():
                done, hooks = changes.reseal_secrets(), webhooks.reseal_secrets()
                mailing.reseal()
                sealed = {"instances": done, "webhooks": hooks}
                audit.note(None, "rotated_secrets", detail=sealed)
        except vault.Unreadable as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"The secrets of {done} instances and {hooks} webhooks are encrypted with the first key"
        )
