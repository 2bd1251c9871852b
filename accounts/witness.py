"""What people do to their accounts is written down: it hears allauth's signals and Django's."""

from typing import Any

from allauth.account.authentication import get_authentication_records
from allauth.account.models import EmailAddress
from allauth.account.signals import (
    email_added,
    email_changed,
    email_confirmed,
    email_removed,
    password_changed,
    password_reset,
    password_set,
    user_signed_up,
)
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import (
    authentication_failed,
    authenticator_added,
    authenticator_removed,
    authenticator_reset,
)
from allauth.socialaccount.models import SocialAccount, SocialLogin
from allauth.socialaccount.signals import social_account_added, social_account_removed
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.dispatch import Signal, receiver
from django.http import HttpRequest

from accounts import audit
from accounts.models import User

# --- signing in and out --------------------------------------------------------------------------


@receiver(user_logged_in)
def signed_in(request: HttpRequest, user: User, **kwargs: Any) -> None:
    methods = [record.get("method", "") for record in get_authentication_records(request, user)]
    audit.note(user, "signed_in", user, detail={"methods": methods})


@receiver(user_logged_out)
def signed_out(request: HttpRequest, user: User | None, **kwargs: Any) -> None:
    if user is not None and user.pk:
        audit.note(user, "signed_out", user)


@receiver(user_login_failed)
def sign_in_failed(credentials: dict[str, Any], **kwargs: Any) -> None:
    """How often it may be tried is limited before: ACCOUNT_RATE_LIMITS."""
    audit.note_failed_sign_in(str(credentials.get("email") or ""))


@receiver(authentication_failed)
def second_factor_failed(user: User, **kwargs: Any) -> None:
    audit.note(user, "second_factor_failed", user)


@receiver(user_signed_up)
def signed_up(user: User, **kwargs: Any) -> None:
    audit.note(user, "signed_up", user)


# --- passwords, second factors -------------------------------------------------------------------


def _hear(signal: Signal, verb: str) -> None:
    """Have an entry, of the user about themselves, for each time that a signal is sent."""

    def heard(user: User, authenticator: Authenticator | None = None, **kwargs: Any) -> None:
        kind = {"type": str(authenticator.type)} if authenticator else {}
        audit.note(user, verb, user, detail=kind)

    signal.connect(heard, weak=False, dispatch_uid=f"audit: {verb}")


_hear(password_changed, "changed_password")
_hear(password_set, "set_password")
_hear(password_reset, "reset_password")
_hear(authenticator_added, "added_second_factor")
_hear(authenticator_removed, "removed_second_factor")
_hear(authenticator_reset, "renewed_second_factor")


# --- addresses and Google accounts ---------------------------------------------------------------


@receiver(email_added)
def added_email(user: User, email_address: EmailAddress, **kwargs: Any) -> None:
    audit.note(user, "added_email", email_address, label=email_address.email)


@receiver(email_removed)
def removed_email(user: User, email_address: EmailAddress, **kwargs: Any) -> None:
    audit.note(user, "removed_email", email_address, label=email_address.email)


@receiver(email_confirmed)
def verified_email(email_address: EmailAddress, **kwargs: Any) -> None:
    user = User.objects.get(pk=email_address.user_id)
    audit.note(user, "verified_email", email_address, label=email_address.email)


@receiver(email_changed)
def changed_primary_email(user: User, to_email_address: EmailAddress, **kwargs: Any) -> None:
    audit.note(user, "changed_primary_email", to_email_address, label=to_email_address.email)


@receiver(social_account_added)
def connected_google(sociallogin: SocialLogin, **kwargs: Any) -> None:
    account = sociallogin.account
    user = User.objects.get(pk=account.user_id)
    audit.note(user, "connected_google", account, label=_address_of(account))


@receiver(social_account_removed)
def disconnected_google(socialaccount: SocialAccount, **kwargs: Any) -> None:
    user = User.objects.get(pk=socialaccount.user_id)
    audit.note(user, "disconnected_google", socialaccount, label=_address_of(socialaccount))


def _address_of(account: SocialAccount) -> str:
    return str(account.extra_data.get("email", ""))
