"""Make an API token from a shell, for scripts and first steps."""

import argparse
from datetime import datetime, timedelta
from typing import Any

from allauth.account.models import EmailAddress
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from accounts import api_tokens
from accounts.api_tokens import Scope


class Command(BaseCommand):
    """`manage.py create_token EMAIL --name N --scope S…` prints the token, and nothing else."""

    help = "Make an API token for the user with this verified address, and print it."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare them."""
        parser.add_argument("email")
        parser.add_argument("--name", required=True, help="what it is for")
        parser.add_argument(
            "--scope",
            required=True,
            nargs="+",
            action="extend",
            choices=[scope.value for scope in Scope],
            help="what it may be used for; several may follow",
        )
        parser.add_argument("--days", type=int, help="expires after so many days (default: never)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make it."""
        address = (
            EmailAddress.objects.filter(email__iexact=options["email"], verified=True)
            .select_related("user")
            .first()
        )
        if address is None:
            raise CommandError(f"nobody has verified the address {options['email']}")
        expires_at: datetime | None = None
        if options["days"] is not None:
            expires_at = timezone.now() + timedelta(days=options["days"])
        try:
            _, text = api_tokens.create(
                address.user, options["name"], options["scope"], expires_at=expires_at
            )
        except api_tokens.NotAllowed as refusal:
            raise CommandError(str(refusal)) from refusal
        self.stdout.write(text)
