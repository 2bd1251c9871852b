"""What every template may use."""

from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, object]:
    """Return the addresses that templates show.

    `cloud_url` is the cloud host's address without a slash at the end; `apps_domain` is what
    follows a workspace's slug, port included.
    """
    return {
        "cloud_url": settings.CLOUD_URL,
        "apps_domain": settings.APPS_DOMAIN,
        "scheme": settings.SCHEME,
        "google_enabled": bool(settings.GOOGLE_CLIENT_ID),
    }
