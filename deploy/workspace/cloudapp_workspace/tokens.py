"""The signed word of the control plane about who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jwt

from cloudapp_workspace.environment import Environment

HEADER = b"x-cloudapp-actor"
ROLES = frozenset({"viewer", "editor", "owner"})


class Refused(Exception):
    """No valid token. The text is for the log, never for the page: a stranger learns nothing."""


@dataclass(frozen=True)
class Claims:
    """A verified token: what it is for.

    With the purpose "actor" also who asks, of which workspace: one that is `public` everybody may
    read, and a `visitor` does so without being a member. With "probe" how many bytes the data
    directory may hold, None when it does not say.
    """

    purpose: str
    actor: dict[str, str] | None = None
    workspace: dict[str, str] | None = None
    public: bool = False
    visitor: bool = False
    disk: int | None = None


def verify(headers: list[tuple[bytes, bytes]], environment: Environment) -> Claims:
    """Check the one token in these ASGI headers against this instance's own key. Raises Refused."""
    tokens = [value for name, value in headers if name.lower() == HEADER]
    if len(tokens) != 1:
        raise Refused(f"{len(tokens)} tokens")
    try:
        payload = jwt.decode(
            tokens[0],
            environment.key,
            algorithms=["HS256"],
            audience=environment.instance,
            options={"require": ["aud", "exp", "purpose"], "strict_aud": True},
        )
    except (jwt.InvalidTokenError, UnicodeDecodeError) as error:
        raise Refused(str(error)) from error
    return _claims(payload)


def _claims(payload: dict[str, Any]) -> Claims:
    if payload["purpose"] == "probe":
        return Claims("probe", disk=_bytes(payload.get("disk")))
    if payload["purpose"] != "actor":
        raise Refused("unknown purpose")
    return Claims(
        "actor",
        actor=_texts(payload.get("actor"), ("id", "name", "role")),
        workspace=_texts(payload.get("workspace"), ("name", "url")),
        public=payload.get("public") is True,
        visitor=payload.get("visitor") is True,
    )


def _bytes(claim: Any) -> int | None:
    if claim is not None and (not isinstance(claim, int) or isinstance(claim, bool) or claim < 0):
        raise Refused("disk is no number of bytes")
    return claim


def _texts(claim: Any, names: tuple[str, ...]) -> dict[str, str]:
    """Exactly these names, each a text; anything else a token might carry goes no further."""
    if not isinstance(claim, dict) or not all(isinstance(claim.get(name), str) for name in names):
        raise Refused(f"claim without {', '.join(names)}")
    texts = {name: claim[name] for name in names}
    if "role" in texts and texts["role"] not in ROLES:
        raise Refused("unknown role")
    if "url" in texts and not texts["url"].startswith(("https://", "http://")):
        raise Refused("workspace address is not http(s)")
    return texts
