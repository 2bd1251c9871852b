"""Checking an ID token: who signed it, for whom, until when, and for which browser."""

import hmac
from typing import Any

import jwt
from allauth.socialaccount.providers.oauth2.client import OAuth2Error

from accounts.google.endpoints import Endpoints, fetch_json

# The only algorithm that Google signs with. Never the one that a token asks for.
ALGORITHMS = ["RS256"]
CLOCK_SKEW_SECONDS = 10
REQUIRED = ["iss", "aud", "exp", "iat", "sub", "nonce"]


def verify(token: str, *, endpoints: Endpoints, client_id: str, nonce: str) -> dict[str, Any]:
    """Return the claims of an ID token that is meant for this client and this browser.

    `nonce` is what this browser's session was given before it left for the provider. Raises
    OAuth2Error that says what is wrong, or requests.RequestException when the provider's keys
    cannot be fetched.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            _key(token, endpoints.keys),
            algorithms=ALGORITHMS,
            audience=client_id,
            issuer=endpoints.issuers,
            leeway=CLOCK_SKEW_SECONDS,
            options={"require": REQUIRED},
        )
    except jwt.PyJWTError as error:
        raise OAuth2Error(f"the ID token is not valid: {error}") from error
    if not nonce or not hmac.compare_digest(str(claims["nonce"]), nonce):
        raise OAuth2Error("the ID token is not for this browser: its nonce is another")
    _check_party(claims, client_id)
    return claims


def _check_party(claims: dict[str, Any], client_id: str) -> None:
    """A token for several audiences says whose it is; one that says so says us."""
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    party = claims.get("azp", None if several else client_id)
    if party != client_id:
        raise OAuth2Error("the ID token was issued to another client")


def _key(token: str, keys_url: str) -> jwt.PyJWK:
    """Return the provider's key that the token names. Asked for anew each time: keys rotate."""
    name = jwt.get_unverified_header(token).get("kid")
    for key in jwt.PyJWKSet.from_dict(fetch_json(keys_url)).keys:
        if key.key_id == name:
            return key
    raise OAuth2Error("the ID token is signed with a key that the provider does not publish")
