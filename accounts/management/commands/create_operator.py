"""Make the first operator, who can sign in at once."""

import os
import secrets
from typing import Any

from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.validators import validate_email
from django.db import transaction

from accounts import audit
from accounts.models import User

DEFAULT_EMAIL = "operator@localhost"


class Command(BaseCommand):
    """May be run as often as you like; a second time it changes nothing."""

    help = (
        "Make an operator from CLOUDAPP_OPERATOR_EMAIL and CLOUDAPP_OPERATOR_PASSWORD. Without a "
        "password a random one is made and printed, once. Without an address, operator@localhost "
        "is made, unless there is an operator already."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--email", default=os.environ.get("CLOUDAPP_OPERATOR_EMAIL", ""))
        parser.add_argument(
            "--reset-password",
            action="store_true",
            help="give an operator who is there already a new password",
        )

    def handle(self, *, email: str, reset_password: bool = False, **options: Any) -> None:
        """Make the operator; CommandError says what is wrong with the input."""
        email = email.strip().lower()
        if not email and not reset_password and self._somebody_is_operator():
            self.stdout.write("There is an operator already.")
            return
        email = email or DEFAULT_EMAIL
        try:
            validate_email(email)
        except ValidationError:
            raise CommandError(f"{email!r} is not an email address.") from None
        with transaction.atomic():
            self._make(email, reset_password)

    def _somebody_is_operator(self) -> bool:
        return User.objects.filter(is_active=True, is_staff=True, is_superuser=True).exists()

    def _make(self, email: str, reset_password: bool) -> None:
        # Only a verified address tells whose it is: anybody can sign up with an address that is
        # not theirs, and must not become operator by it.
        address = EmailAddress.objects.filter(email__iexact=email, verified=True).first()
        if address is None:
            user = User.objects.create_superuser()
            audit.note(None, "made_operator", user, label=email)
            EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
            self._set_password(user, email)
            return
        user = User.objects.get(pk=address.user_id)
        if not (user.is_active and user.is_staff and user.is_superuser):
            user.is_active = user.is_staff = user.is_superuser = True
            user.save(update_fields=["is_active", "is_staff", "is_superuser"])
            audit.note(None, "made_operator", user, label=email)
            self.stdout.write(f"{email} had an account and is an operator now.")
        if reset_password or not user.has_usable_password():
            self._set_password(user, email)
            return
        given = os.environ.get("CLOUDAPP_OPERATOR_PASSWORD", "")
        if given and not user.check_password(given):
            self.stderr.write(
                f"CLOUDAPP_OPERATOR_PASSWORD is not the password of {email}; the one in use stays. "
                "To set it: manage.py create_operator --reset-password"
            )
        self.stdout.write(f"Operator {email} is there already, with the password as it was.")

    def _set_password(self, user: User, email: str) -> None:
        given = os.environ.get("CLOUDAPP_OPERATOR_PASSWORD", "")
        if given:
            self._check(given, user)
        password = given or secrets.token_urlsafe(15)
        user.set_password(password)
        user.save(update_fields=["password"])
        audit.note(None, "set_password", user, label=email)
        shown = "the one in CLOUDAPP_OPERATOR_PASSWORD" if given else f"{password} (shown once)"
        self.stdout.write(f"Operator: {email}, password: {shown}")

    def _check(self, password: str, user: User) -> None:
        """Warn of a weak password on a person's own machine, refuse it anywhere else."""
        try:
            validate_password(password, user)
        except ValidationError as error:
            words = "CLOUDAPP_OPERATOR_PASSWORD is weak: " + " ".join(error.messages)
            if not settings.LOCAL:
                raise CommandError(words) from None
            self.stderr.write(words)
