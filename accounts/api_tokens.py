"""API tokens: making, finding and revoking them.

    cloudapp_<40 letters and digits><6 that are their checksum>

The prefix is what leak scanners look for; the checksum tells them, without asking us, that it is
no chance. What is kept is a SHA-256: with 238 bits of chance in it there is nothing to guess, so a
slow hash would only slow the API down.
"""

import hashlib
import re
import secrets
import zlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from allauth.account.adapter import get_adapter
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts import audit, origin
from accounts.models import ApiToken, User
from accounts.origin import Via

PREFIX = "cloudapp_"
HINT = len(PREFIX) + 6
MAX_NAME = 80
MAX_TOKENS = 100
# What a leak scanner may look for.
PATTERN = r"cloudapp_[0-9A-Za-z]{46}"
_TEXT = re.compile(PATTERN)
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# How long tokens that have ended are still told of.
_ENDED_KEPT = timedelta(days=90)
_USE_NOTED_EVERY = timedelta(minutes=1)


class Scope(StrEnum):
    """What a token may be used for. Never more than its user may."""

    READ = "read"
    LIFECYCLE = "lifecycle"
    PLUGINS = "plugins"
    SECRETS = "secrets"
    MEMBERS = "members"
    DATA = "data"
    OPERATOR = "operator"


WORDS: dict[Scope, str] = {
    Scope.READ: "See workspaces, their history and logs; read their data",
    Scope.LIFECYCLE: "Create, change, start, stop and delete workspaces; webhooks",
    Scope.PLUGINS: "Change which plugins a workspace has",
    Scope.SECRETS: "Set and remove secrets (their values can never be read)",
    Scope.MEMBERS: "Change who belongs to a workspace, and make others its owners",
    Scope.DATA: "Change the data inside a workspace, as far as your role allows; "
    "with lifecycle, also who may read it",
    Scope.OPERATOR: "For operators: everything across all customers",
}


def words_of(token: ApiToken) -> list[str]:
    """Return what a token may do, in words."""
    return [WORDS[scope] for scope in Scope if scope in token.scopes]


class NotAllowed(Exception):
    """This token cannot be made. The text says why."""


# --- the text ------------------------------------------------------------------------------------


def new_text() -> str:
    """Return a new token's text."""
    chance = "".join(secrets.choice(_ALPHABET) for _ in range(40))
    return f"{PREFIX}{chance}{_checksum(chance)}"


def _checksum(chance: str) -> str:
    """Return the CRC-32 of the random part, as six letters and digits."""
    number, text = zlib.crc32(chance.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text


def is_wellformed(text: str) -> bool:
    """Whether this can be a token at all; nobody has to be asked for that."""
    return bool(_TEXT.fullmatch(text)) and _checksum(text[len(PREFIX) : -6]) == text[-6:]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- making, finding, revoking -------------------------------------------------------------------


def create(
    user: User,
    name: str,
    scopes: Iterable[str],
    *,
    only: UUID | None = None,
    expires_at: datetime | None = None,
    parent: ApiToken | None = None,
) -> tuple[ApiToken, str]:
    """Make a token; return it and its text, which nobody can read again. Raises NotAllowed.

    With a `parent` it can do no more, and live no longer, than that one.
    """
    name = " ".join(name.split())
    wanted = _checked_scopes(user, scopes)
    if not name or len(name) > MAX_NAME:
        raise NotAllowed(f"Give it a name of at most {MAX_NAME} characters.")
    if expires_at is not None and expires_at <= timezone.now():
        raise NotAllowed("It would have expired already: choose a later time.")
    if parent is not None:
        _hold_to(parent, wanted, only, expires_at)
    text = new_text()
    with transaction.atomic():
        _lock_tokens_of(user.pk)
        # Found good when the request came in; it may have been revoked since.
        if parent is not None and not find_again(parent):
            raise NotAllowed("The token that makes it is not good any more.")
        if good(user).count() >= MAX_TOKENS:
            raise NotAllowed(f"You have {MAX_TOKENS} tokens. Revoke one that nobody uses.")
        token = ApiToken.objects.create(
            user=user,
            name=name,
            digest=_digest(text),
            hint=text[:HINT],
            scopes=wanted,
            only=only,
            expires_at=expires_at,
            parent=parent,
        )
        audit.note(_by_hand(user), "made_token", token, workspace=only, detail=_told(token))
    return token, text


def _told(token: ApiToken) -> dict[str, object]:
    """Return what the audit log keeps of a token."""
    expires = token.expires_at.isoformat() if token.expires_at else None
    return {"of_user": token.user_id, "scopes": token.scopes, "expires_at": expires}


def _by_hand(user: User | None) -> User | None:
    """Return who does it: nobody that we know, at a shell."""
    return None if origin.current().via is Via.COMMAND else user


def _lock_tokens_of(user_id: int) -> None:
    """Wait until nobody else makes or revokes tokens of this user, until the transaction ends."""
    User.objects.select_for_update(no_key=True).get(pk=user_id)


def tell_its_user(token: ApiToken) -> None:
    """Mail to a user's primary address that a token was made, from where, and what it may."""
    get_adapter().send_notification_mail(
        "account/email/token_made", token.user, {"token": token, "words": words_of(token)}
    )


def _checked_scopes(user: User, scopes: Iterable[str]) -> list[str]:
    named = set(scopes)
    if unknown := sorted(named - set(Scope)):
        raise NotAllowed(f"There is no scope {unknown[0]!r}. There are: {', '.join(Scope)}.")
    if not named:
        raise NotAllowed(f"Choose at least one scope: {', '.join(Scope)}.")
    if Scope.OPERATOR in named and not user.is_staff:
        raise NotAllowed("The scope operator is for operators.")
    return [scope.value for scope in Scope if scope in named]


def is_operators(token: ApiToken) -> bool:
    """Whether it acts for all customers: the scope alone does not do, nor does the user."""
    return Scope.OPERATOR in token.scopes and token.user.is_staff and token.only is None


def implied(token: ApiToken) -> set[str]:
    """Return the scopes of a token with those that they bring along: an operator's has all."""
    return set(Scope) if is_operators(token) else set(token.scopes)


def _hold_to(
    parent: ApiToken, scopes: list[str], only: UUID | None, expires_at: datetime | None
) -> None:
    if more := [scope for scope in scopes if scope not in implied(parent)]:
        raise NotAllowed(f"This token cannot hand on what it has not got: {', '.join(more)}.")
    if parent.only is not None and only != parent.only:
        raise NotAllowed("This token is for one workspace, so it makes tokens for that one only.")
    if parent.expires_at and (expires_at is None or expires_at > parent.expires_at):
        raise NotAllowed(
            f"This token expires at {parent.expires_at:%Y-%m-%dT%H:%M:%SZ}; "
            "what it makes cannot live longer."
        )


def _good() -> QuerySet[ApiToken]:
    """Return the tokens that open something still."""
    not_expired = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    return ApiToken.objects.filter(not_expired, revoked_at=None)


def good(user: User) -> QuerySet[ApiToken]:
    """Return the tokens of a user that open something still, newest first."""
    return _good().filter(user=user)


def matching(text: str) -> QuerySet[ApiToken]:
    """Return the good token of this text, with its user, as a query: one row or none.

    For whoever wants to know more of it in the same query; the others take `find`.
    """
    if not is_wellformed(text):
        return ApiToken.objects.none()
    found = _good().filter(digest=_digest(text), user__is_active=True)
    return found.select_related("user")


def find(text: str) -> ApiToken | None:
    """Return the token of this text if it is good, with its user; None otherwise. One query."""
    return next(iter(matching(text)[:1]), None)


def find_again(token: ApiToken) -> ApiToken | None:
    """Return a token that was found earlier as it is now, with its user; None if it is not good."""
    found = _good().filter(pk=token.pk, user__is_active=True).select_related("user")
    return next(iter(found[:1]), None)


def note_use(token: ApiToken) -> None:
    """Note that it was used now; once a minute is enough for people."""
    now = timezone.now()
    if token.last_used_at is None or token.last_used_at < now - _USE_NOTED_EVERY:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)


@transaction.atomic
def revoke(token: ApiToken, by: User | None = None) -> int:
    """End a token at once, and all that were made with it. Return how many that are.

    One that is being made with it is waited for, and ends as well. `by` is who does it, by default
    its user.
    """
    _lock_tokens_of(token.user_id)
    found, generation = [token.pk], [token.pk]
    while generation:
        children = ApiToken.objects.filter(parent__in=generation)
        generation = list(children.values_list("pk", flat=True))
        found += generation
    live = ApiToken.objects.filter(pk__in=found, revoked_at=None)
    ended = live.update(revoked_at=timezone.now())
    if ended:
        told = {**_told(token), "ended": ended}
        audit.note(
            by or _by_hand(token.user), "revoked_token", token, workspace=token.only, detail=told
        )
    return ended


def prune() -> None:
    """Remove the tokens that ended long ago. What was made with them has ended as well."""
    long_ago = timezone.now() - _ENDED_KEPT
    ApiToken.objects.filter(Q(revoked_at__lt=long_ago) | Q(expires_at__lt=long_ago)).delete()
