"""What the gateway and the hand-off sign-in share: secrets, their digests, addresses."""

import hashlib
import secrets

from django.conf import settings

# Only secure hosts can have __Host- cookies, which no other host can set or read.
_PREFIX = "__Host-" if settings.SECURE else ""
SESSION_COOKIE = f"{_PREFIX}cloudapp_workspace"
STATE_COOKIE = f"{_PREFIX}cloudapp_state"

# Where signing in at a workspace's own host begins; the whole query is the path to come back to.
START = "/-/cloudapp/start"

# Quoted once more, an address must still fit into the web server's 4,094 characters.
_LONGEST_NEXT = 1200


def new_token() -> str:
    """Return a secret of 43 characters that are safe in addresses and cookies."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """Return what we keep of a secret: 64 hex digits. The secret itself is never stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def safe_next(address: str) -> str:
    """Return the address if it leads to a page of the same host, else "/".

    Browsers take backslashes for slashes and drop control characters, so neither may be there.
    """
    local = address.startswith("/") and not address.startswith(("//", "/-/cloudapp/"))
    plain = "\\" not in address and address.isprintable() and len(address) <= _LONGEST_NEXT
    return address if local and plain else "/"
