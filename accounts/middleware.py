"""The list of places where somebody is signed in."""

from collections.abc import Callable
from datetime import timedelta

from allauth.usersessions.models import UserSession
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

FRESH = timedelta(minutes=1)


class SessionsMiddleware:
    """Note when and from where each session was last used, once a minute.

    allauth's own middleware writes a row on every request; pages here refresh themselves while
    something is in progress, and a list for people needs no more than minutes.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated and request.session.session_key:
            self._note(request, request.session.session_key)
        return self.get_response(request)

    def _note(self, request: HttpRequest, key: str) -> None:
        noted = UserSession.objects.filter(
            session_key=key, user_id=request.user.pk, last_seen_at__gt=timezone.now() - FRESH
        )
        if not noted.exists():
            UserSession.objects.create_from_request(request)
