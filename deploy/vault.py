"""Keep secrets so that a copy of the database does not give them away.

Fernet (AES-128-CBC with HMAC-SHA256), under keys that follow from ENCRYPTION_KEYS: the first one
encrypts, all decrypt, so keys are rotated by putting a new one in front, running
`manage.py rotate_secrets`, and taking the old one away.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class Unreadable(Exception):
    """A secret cannot be decrypted with any key that we have. The text says what to do."""


def seal(value: str) -> str:
    """Return a value encrypted, as text."""
    return _fernet(tuple(settings.ENCRYPTION_KEYS)).encrypt(value.encode()).decode()


def open_all(sealed: Mapping[str, str]) -> dict[str, str]:
    """Return the values of sealed secrets by name. Raises Unreadable, which names the secret."""
    fernet = _fernet(tuple(settings.ENCRYPTION_KEYS))
    values = {}
    for name, token in sealed.items():
        try:
            values[name] = fernet.decrypt(token.encode()).decode()
        except InvalidToken as error:
            raise Unreadable(
                f"The secret {name} was encrypted with a key that ENCRYPTION_KEYS does not hold: "
                "put that key back, or have the secret entered again."
            ) from error
    return values


def reseal(sealed: Mapping[str, str]) -> dict[str, str]:
    """Return the same secrets, encrypted with the first key. Raises Unreadable."""
    return {name: seal(value) for name, value in open_all(sealed).items()}


@lru_cache(maxsize=8)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(_derived(key)) for key in keys])


def _derived(key: str) -> bytes:
    """Any long random text will do as a key; Fernet wants 32 bytes in base64."""
    material = hashlib.sha256(key.encode()).digest()
    derivation = HKDF(hashes.SHA256(), length=32, salt=None, info=b"cloudapp secrets")
    return base64.urlsafe_b64encode(derivation.derive(material))
