"""What somebody came for who has to sign in first, where the address is a key: an invitation.

`?next=` would carry the key into other pages' addresses, from there into logs of errors, and into
the session's row. A cookie stays in the browser.
"""

from django.conf import settings
from django.http import HttpRequest, HttpResponse

COOKIE = "came_for"
# As long as it may take to make an account, and to find the mail that confirms it.
SECONDS = 86_400


def remember(response: HttpResponse, path: str) -> HttpResponse:
    """Lead there whoever signs in next in this browser."""
    response.set_cookie(
        COOKIE, path, max_age=SECONDS, secure=settings.SECURE, httponly=True, samesite="Lax"
    )
    return response


def forget(response: HttpResponse) -> HttpResponse:
    """They are there."""
    response.delete_cookie(COOKIE, samesite="Lax")
    return response


def path_in(request: HttpRequest) -> str:
    """Return what they came for; empty for nothing."""
    return request.COOKIES.get(COOKIE, "")
