"""Where the provider is: Google, or whatever speaks OpenID Connect at GOOGLE_ISSUER_URL."""

from dataclasses import dataclass
from typing import Any

from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from django.conf import settings
from django.core.cache import cache

KEEP_SECONDS = 600


@dataclass(frozen=True)
class Endpoints:
    """The provider's addresses, and the names by which its ID tokens may call it."""

    issuers: tuple[str, ...]
    authorize: str
    token: str
    keys: str


GOOGLE = Endpoints(
    # Google documents both forms.
    issuers=("https://accounts.google.com", "accounts.google.com"),
    authorize="https://accounts.google.com/o/oauth2/v2/auth",
    token="https://oauth2.googleapis.com/token",  # noqa: S106
    keys="https://www.googleapis.com/oauth2/v3/certs",
)


def is_google() -> bool:
    """Whether the provider is Google itself and not a stand-in."""
    return settings.GOOGLE_ISSUER_URL in GOOGLE.issuers


def endpoints() -> Endpoints:
    """Return the provider's addresses, from its discovery document unless it is Google.

    Raises OAuth2Error or requests.RequestException when a stand-in cannot be asked.
    """
    if is_google():
        return GOOGLE
    issuer: str = settings.GOOGLE_ISSUER_URL
    name = f"openid-configuration:{issuer}"
    found = cache.get(name)
    if found is None:
        found = fetch_json(f"{issuer}/.well-known/openid-configuration")
        cache.set(name, found, KEEP_SECONDS)
    try:
        if found["issuer"] != issuer:
            raise OAuth2Error(f"{issuer} calls itself {found['issuer']}")
        return Endpoints(
            issuers=(issuer,),
            authorize=found["authorization_endpoint"],
            token=found["token_endpoint"],
            keys=found["jwks_uri"],
        )
    except KeyError as error:
        raise OAuth2Error(f"{issuer} names no {error}") from error


def fetch_json(url: str) -> dict[str, Any]:
    """Return the JSON object at `url`; raises requests.RequestException or OAuth2Error."""
    with get_adapter().get_requests_session() as session:
        response = session.get(url)
        response.raise_for_status()
        found = response.json()
    if not isinstance(found, dict):
        raise OAuth2Error(f"{url} is not a JSON object")
    return found
