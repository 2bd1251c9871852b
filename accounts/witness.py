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


def _actor(request: HttpRequest | None, user: User) -> User:
    """Return who did it: whoever is signed in, else the user whom it is about."""
    asking = getattr(request, "user", None)
    if isinstance(asking, User) and asking.pk != user.pk:
        return asking
    return user


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
def second_factor_failed(request: HttpRequest, user: User, **kwargs: Any) -> None:
    audit.note(_actor(request, user), "second_factor_failed", user)


@receiver(user_signed_up)
def signed_up(user: User, **kwargs: Any) -> None:
    audit.note(user, "signed_up", user)


# --- passwords, second factors -------------------------------------------------------------------


def _hear(signal: Signal, verb: str) -> None:
    """Have an entry about the user for each time that a signal is sent."""

    def heard(
        request: HttpRequest, user: User, authenticator: Authenticator | None = None, **kwargs: Any
    ) -> None:
        kind = {"type": str(authenticator.type)} if authenticator else {}
        audit.note(_actor(request, user), verb, user, detail=kind)

    signal.connect(heard, weak=False, dispatch_uid=f"audit: {verb}")


_hear(password_changed, "changed_password")
_hear(password_set, "set_password")
_hear(password_reset, "reset_password")
_hear(authenticator_added, "added_second_factor")
_hear(authenticator_removed, "removed_second_factor")
_hear(authenticator_reset, "renewed_second_factor")


# --- addresses and Google accounts ---------------------------------------------------------------


@receiver(email_added)
def added_email(
    request: HttpRequest, user: User, email_address: EmailAddress, **kwargs: Any
) -> None:
    audit.note(_actor(request, user), "added_email", email_address, label=email_address.email)


@receiver(email_removed)
def removed_email(
    request: HttpRequest, user: User, email_address: EmailAddress, **kwargs: Any
) -> None:
    audit.note(_actor(request, user), "removed_email", email_address, label=email_address.email)


@receiver(email_confirmed)
def verified_email(request: HttpRequest, email_address: EmailAddress, **kwargs: Any) -> None:
    user = User.objects.get(pk=email_address.user_id)
    audit.note(_actor(request, user), "verified_email", email_address, label=email_address.email)


@receiver(email_changed)
def changed_primary_email(
    request: HttpRequest, user: User, to_email_address: EmailAddress, **kwargs: Any
) -> None:
    actor, label = _actor(request, user), to_email_address.email
    audit.note(actor, "changed_primary_email", to_email_address, label=label)


@receiver(social_account_added)
def connected_google(request: HttpRequest, sociallogin: SocialLogin, **kwargs: Any) -> None:
    account = sociallogin.account
    actor = _actor(request, User.objects.get(pk=account.user_id))
    audit.note(actor, "connected_google", account, label=_address_of(account))


@receiver(social_account_removed)
def disconnected_google(request: HttpRequest, socialaccount: SocialAccount, **kwargs: Any) -> None:
    actor = _actor(request, User.objects.get(pk=socialaccount.user_id))
    audit.note(actor, "disconnected_google", socialaccount, label=_address_of(socialaccount))


def _address_of(account: SocialAccount) -> str:
    return str(account.extra_data.get("email", ""))
