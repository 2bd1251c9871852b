"""Signed words from the control plane to one container, which accepts nobody else's.

Each is signed with the instance's own key and names the instance as its audience. So a stale
address can never show one customer another's data: the wrong container refuses.
"""

import time
from collections.abc import Mapping
from typing import Any

import jwt

from deploy.models import Instance

HEADER = "X-Cloudapp-Actor"
# The router may show an hour-old answer while the gateway is down; its token must outlive that.
ACTOR_SECONDS = 65 * 60
PROBE_SECONDS = 60


def _sign(instance: Instance, purpose: str, seconds: int, **claims: Any) -> str:
    payload = {
        "aud": str(instance.pk),
        "exp": int(time.time()) + seconds,
        "purpose": purpose,
        **claims,
    }
    return jwt.encode(payload, instance.key, algorithm="HS256")


def actor_token(
    instance: Instance, actor: Mapping[str, str], workspace: Mapping[str, str], **more: bool
) -> str:
    """Return who is asking, for the instance to believe.

    `actor` has id, name and role; `workspace` has name and url, its page on the cloud host. `more`
    is `public`, for a workspace that everybody may read, and `visitor`, for one who is no member.
    """
    claims = {"actor": dict(actor), "workspace": dict(workspace), **more}
    return _sign(instance, "actor", ACTOR_SECONDS, **claims)


def probe_token(instance: Instance) -> str:
    """Return the right to ask the instance for its health, and for nothing else.

    It also says how much its volume may hold: so each probe tells the limit as it is now, the one
    before anybody is let in too, and no container is replaced when the limit changes.
    """
    return _sign(instance, "probe", PROBE_SECONDS, disk=instance.disk_limit)
