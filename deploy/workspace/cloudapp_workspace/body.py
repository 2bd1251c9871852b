"""The body of a request that may be an upload: it ends where the room on the disk does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from cloudapp_workspace.disk import Disk
from cloudapp_workspace.pages import NO_ROOM, Send, refuse

# Smaller ones are not looked at: a form, a few rows. Of larger ones, every so much of it.
STEP = 4 << 20

MOST_SWALLOWED = 4 << 30

Receive = Callable[[], Awaitable[dict[str, Any]]]


async def swallow(receive: Receive) -> None:
    """Read what comes and keep nothing of it: whoever hangs up on an upload, is not heard.

    Of one that does not end, so much, and no more.
    """
    left = MOST_SWALLOWED
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return


class Body:
    """Stands between the server and Datasette while a request comes in."""

    def __init__(self, disk: Disk, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self._disk = disk
        self._scope = scope
        self._receive = receive
        self._send = send
        self._since_last_look = 0
        self._received = 0
        self._refused = False

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.coming -= self._received

    def fits(self) -> bool:
        """Whether there is room for as much as it says it is."""
        lengths = [value for name, value in self._scope["headers"] if name == b"content-length"]
        said = int(lengths[0]) if lengths and lengths[0].isdigit() else 0
        room = self._disk.room(fresh=True) if said > STEP else None
        return room is None or said <= room

    async def receive(self) -> dict[str, Any]:
        """Pass the body on. Once there is no room for more, the client seems to have gone."""
        if self._refused:
            return {"type": "http.disconnect"}
        message = await self._receive()
        size = len(message.get("body", b""))
        self._received += size
        self._disk.coming += size
        self._since_last_look += size
        if self._since_last_look >= STEP:
            self._since_last_look = 0
            room = self._disk.room(fresh=True)
            if room is not None and room <= 0:
                await self._refuse()
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: dict[str, Any]) -> None:
        """Pass the answer on, unless we have given ours."""
        if not self._refused:
            await self._send(message)

    async def _refuse(self) -> None:
        """Answer for Datasette, which has not: it waits for the rest of the body."""
        self._refused = True
        await swallow(self._receive)
        await refuse(self._scope, self._send, NO_ROOM, HTTPStatus.INSUFFICIENT_STORAGE)
