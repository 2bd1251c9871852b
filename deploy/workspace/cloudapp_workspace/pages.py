"""The few answers that we give ourselves, without Datasette and without any data."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]

NOT_HERE = (
    "This page is not open to you",
    "Open the workspace from your list of workspaces and sign in again. "
    "If somebody gave you this address, ask them to invite you.",
)
OTHER_SITE = (
    "This request came from another site",
    "For your safety nothing was changed. Go back to the workspace and try again there.",
)
MEMBERS_ONLY = (
    "This page is for members of the workspace",
    "Everybody may read the tables of this workspace. Sign in to see more, if you belong to it.",
)
LOOK_ONLY = (
    "You may look at this workspace, not change it",
    "Nothing was changed. Ask an owner of the workspace if you need to edit it.",
)

DISK_FULL = (
    "The disk of this workspace is full",
    "Nothing was changed. Everything can be read and downloaded as before. Make room on the page "
    "“Disk space” of this workspace, or ask its owner for a larger plan.",
)
NO_ROOM = (
    "There is no room for this upload",
    "Nothing was changed. The disk of this workspace has less room than that. Make room on its "
    "page “Disk space”, or ask its owner for a larger plan.",
)

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 32rem; margin: 18vh auto 0;
  padding: 0 1.5rem }}
h1 {{ font-size: 1.4rem; line-height: 1.3 }}
</style></head>
<body><main><h1>{title}</h1><p>{text}</p></main></body></html>
"""


async def send_json(send: Send, status: int, body: dict[str, Any]) -> None:
    """Answer with JSON that nobody may cache."""
    await _send(send, status, b"application/json; charset=utf-8", json.dumps(body))


async def refuse(
    scope: dict[str, Any], send: Send, reason: tuple[str, str], status: int = 403
) -> None:
    """Refuse, as a page or as JSON, whichever the client prefers; a WebSocket is closed."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    title, text = reason
    if _wants_html(scope):
        page = _PAGE.format(title=title, text=text)
        await _send(send, status, b"text/html; charset=utf-8", page)
    else:
        await send_json(send, status, {"ok": False, "error": title})


def _wants_html(scope: dict[str, Any]) -> bool:
    accept = b",".join(value for name, value in scope["headers"] if name.lower() == b"accept")
    return b"text/html" in accept


async def _send(send: Send, status: int, content_type: bytes, body: str) -> None:
    headers = [
        (b"content-type", content_type),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
