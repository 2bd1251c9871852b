"""Addresses of people, for queries that start at another table than the users'."""

from allauth.account.models import EmailAddress
from django.db.models import OuterRef, Subquery


def primary_email(user_field: str = "user_id") -> Subquery:
    """Return the primary address of the user whose id is in `user_field`, for .annotate()."""
    addresses = EmailAddress.objects.filter(user_id=OuterRef(user_field))
    return Subquery(addresses.order_by("-primary", "-verified", "pk").values("email")[:1])
