"""Ending sessions. The rows go, so the doors of the workspaces close as well."""

from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.db import transaction

from accounts.models import User


@transaction.atomic
def end_sessions(user: User, *, keep: str | None = None) -> int:
    """End the user's sessions, but the one with the key `keep`; return how many ended."""
    rows = UserSession.objects.filter(user=user).exclude(session_key=keep or "")
    keys = list(rows.values_list("session_key", flat=True))
    ended, _ = Session.objects.filter(session_key__in=keys).delete()
    rows.delete()
    return ended
