"""Whose is an email address? Whoever verified it, and nobody before that.

Anybody can type an address that is not theirs, at sign-up or into their settings. Such a claim
must neither keep the real owner out nor let the claimant in later, so it counts for nothing: a
new sign-up with the same address starts afresh, and the first to verify it gets it.
"""

from allauth.account.models import EmailAddress
from django.db import transaction

from accounts.models import User


def is_taken(email: str) -> bool:
    """Whether somebody has verified this address."""
    return bool(EmailAddress.objects.is_verified(email))


def is_claimed(email: str) -> bool:
    """Whether somebody says that this address is theirs, verified or not."""
    return bool(EmailAddress.objects.lookup([email]).exists())


@transaction.atomic
def release_claims(email: str, *, keep: User | None = None) -> None:
    """Forget everybody's unverified claims to this address, but those of the user `keep`.

    A sign-up that was never finished ends with its claim: without an address nobody could ever
    sign in to it, but its password would still lie around.
    """
    claims = EmailAddress.objects.lookup([email]).filter(verified=False)
    if keep is not None:
        claims = claims.exclude(user=keep)
    users = list(claims.values_list("user_id", flat=True))
    claims.delete()
    User.objects.filter(
        pk__in=users, last_login=None, is_staff=False, emailaddress__isnull=True
    ).delete()
