"""Keep secrets so that a copy of the database does not give them away.

Fernet (AES-128-CBC with HMAC-SHA256), under keys that follow from ENCRYPTION_KEYS: the first one
encrypts, all decrypt, so keys are rotated by putting a new one in front, running
`manage.py rotate_secrets`, and taking the old one away.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

MAX_LENGTH = 16_000
# Characters; anything shorter may stand in a text by chance.
SHORTEST_REDACTED = 4
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
# What the system, Python, TLS and we ourselves go by: a secret of that name would change how the
# container works.
_OURS = re.compile(
    r"(INSTANCE|LD|MALLOC|SSL|OPENSSL|LC|GCONV)_.*|PYTHON.*"
    r"|DATASETTE_(SECRET|LOAD_PLUGINS|TRACE_PLUGINS|ENRICHMENTS_PYTHON_.*)"
    r"|PATH|HOME|USER|SHELL|IFS|ENV|BASH_ENV|TMPDIR|TEMP|TMP|TZ|TZDIR|LANG|LANGUAGE|LOCPATH|NLSPATH"
    r"|HOSTNAME|HOSTALIASES|RES_OPTIONS|WEB_CONCURRENCY|FORWARDED_ALLOW_IPS"
    r"|(HTTPS?|ALL|NO|FTP)_PROXY|(REQUESTS|CURL)_CA_BUNDLE"
)


class Unreadable(Exception):
    """A secret cannot be decrypted with any key that we have. The text says what to do."""


def may_be_named(name: str) -> bool:
    """Whether a container's secret may have this name."""
    return bool(_NAME.fullmatch(name)) and not _OURS.fullmatch(name)


def problem(name: str, value: str) -> str:
    """Return what speaks against a secret, in words that do not hold its value; else nothing."""
    if not may_be_named(name):
        return (
            f"A secret cannot be named {name[:70]!r}: capital letters, digits and _ only, and no "
            "name that the container itself goes by."
        )
    if "\0" in value or len(value) > MAX_LENGTH:
        return f"The value of {name} is longer than {MAX_LENGTH} characters, or holds a NUL."
    return ""


def redacted(text: str, sealed: Mapping[str, str]) -> str:
    """Return a text without the values of these secrets, in case somebody wrote them into it."""
    fernet = _fernet(tuple(settings.ENCRYPTION_KEYS))
    parts: set[str] = set()
    for token in sealed.values():
        with suppress(InvalidToken):  # one that we cannot read, no container has been given
            value = fernet.decrypt(token.encode()).decode()
            parts |= {value, *value.split()}
    # The longest first: one that holds another one would not be found any more.
    for part in sorted(parts, key=len, reverse=True):
        if len(part) >= SHORTEST_REDACTED:
            text = text.replace(part, "•••")
    return text


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


def is_same(one: str, other: str) -> bool:
    """Whether two sealed values are one: sealed anew, the same value looks different."""
    if one == other:
        return True
    try:
        return len(set(open_all({"one": one, "other": other}).values())) == 1
    except Unreadable:
        return False


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
