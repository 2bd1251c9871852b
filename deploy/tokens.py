"""Tokens that one instance accepts, and no other: the router's actor token and the probe's.

JWT, HS256, signed with the instance's own key; the audience is the instance. So a stale address
can never show one customer another's data: the wrong container refuses.
"""

import time
from collections.abc import Mapping
from typing import Any

import jwt

from deploy.models import Instance

HEADER = "X-Cloudapp-Actor"
# Longer than the router may serve a stale answer while the control plane is down.
ACTOR_SECONDS = 65 * 60
PROBE_SECONDS = 60


def _token(instance: Instance, purpose: str, seconds: int, **claims: Any) -> str:
    claims |= {"aud": str(instance.pk), "exp": int(time.time()) + seconds, "purpose": purpose}
    return jwt.encode(claims, instance.key, algorithm="HS256")


def actor_token(instance: Instance, actor: Mapping[str, str], workspace: Mapping[str, str]) -> str:
    """Return the token that tells an instance who asks: actor is id, name and role."""
    return _token(instance, "actor", ACTOR_SECONDS, actor=dict(actor), workspace=dict(workspace))


def probe_token(instance: Instance) -> str:
    """Return the token with which a worker asks an instance for its health."""
    return _token(instance, "probe", PROBE_SECONDS)
