"""What to call people, many at a time: User.display_name costs two queries for each of them."""

from collections.abc import Iterable

from allauth.account.models import EmailAddress
from django.db.models import OuterRef, Subquery

from accounts.models import Profile


def primary_email(user_field: str = "user_id") -> Subquery:
    """Return the primary address of the user whose id is in `user_field`, for .annotate()."""
    addresses = EmailAddress.objects.filter(user_id=OuterRef(user_field))
    return Subquery(addresses.order_by("-primary", "id").values("email")[:1])


def emails_of(user_ids: Iterable[int]) -> dict[int, str]:
    """Return the primary addresses by user id; who has none is left out."""
    rows = EmailAddress.objects.filter(user_id__in=set(user_ids)).order_by("primary", "-id")
    return dict(rows.values_list("user_id", "email"))


def names_of(user_ids: Iterable[int]) -> dict[int, str]:
    """Return what to call each user: the profile's name, else the address, else the number."""
    wanted = set(user_ids)
    if not wanted:
        return {}
    names = {user_id: f"user {user_id}" for user_id in wanted}
    names |= emails_of(wanted)
    profiles = Profile.objects.filter(user_id__in=wanted).exclude(display_name="")
    return names | dict(profiles.values_list("user_id", "display_name"))
