"""The outermost ASGI layer: nothing reaches Datasette without a token for this very instance.

It wraps the finished application instead of using Datasette's asgi_wrapper hook. So no plugin can
stand outside of it, and requests that plugins make internally (datasette.client) need no token.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from datasette.app import Datasette

from cloudapp_workspace import storage
from cloudapp_workspace.activity import Activity, busy
from cloudapp_workspace.body import Body, swallow
from cloudapp_workspace.disk import Disk
from cloudapp_workspace.environment import Environment
from cloudapp_workspace.pages import (
    DISK_FULL,
    LOOK_ONLY,
    MEMBERS_ONLY,
    NO_ROOM,
    NOT_HERE,
    OTHER_SITE,
    Send,
    refuse,
    send_json,
)
from cloudapp_workspace.tokens import Claims, Refused, verify
from cloudapp_workspace.usage import Usage

HEALTH = "/-/instance/health"
SCOPE_KEY = "cloudapp"
# Requests in flight may take as long as the engine allows. An import that outlives its request
# gets this long; then it is marked as interrupted, and the stop stays orderly.
IMPORT_GRACE_SECONDS = 20.0

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ENRICHMENT_JOBS = "/-/enrichment-jobs/"
# Of what is about the whole instance, visitors need these to read and search. The rest says how it
# is set up (settings, plugins, versions, what goes on in it), and whatever a plugin adds.
_FOR_VISITORS = ("/-/static/", "/-/static-plugins/", "/-/search", "/-/tables", "/-/jump")
# What may be asked for although the disk is full: our own page, Datasette 1.0's deletions and its
# SQL, which may delete. SQLite lets none of them make a file larger.
_MAKES_ROOM = re.compile(r"/-/(space|drop|delete|execute-write(/analyze)?)$")


class Guard:
    """Checks the token of every request, answers the probe, and counts what is in flight."""

    def __init__(
        self,
        app: App,
        datasette: Datasette,
        environment: Environment,
        activity: Activity,
        disk: Disk,
    ) -> None:
        self._app = app
        self._disk = disk
        self._usage = Usage(activity, disk)
        self._datasette = datasette
        self._environment = environment
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, self._finishing_first(receive), send)
            return
        try:
            claims = verify(scope["headers"], self._environment)
        except Refused:
            await refuse(scope, send, NOT_HERE)
            return
        if claims.purpose == "probe" or scope["path"].startswith("/-/instance/"):
            await self._probe(claims, scope, send)
        elif _from_another_site(scope):
            await refuse(scope, send, OTHER_SITE)
        elif _not_for_visitors(claims, scope):
            await refuse(scope, send, MEMBERS_ONLY)
        elif _not_for_viewers(claims, scope):
            await refuse(scope, send, LOOK_ONLY)
        else:
            with self._activity.request():
                await self._answer(_with_actor(scope, claims), receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have Datasette answer, if there is room for what it is asked to take."""
        if scope["type"] != "http" or scope["method"] in _SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        self._disk.forget()  # what was written just now counts
        if self._disk.full and not _MAKES_ROOM.search(scope["path"]):
            await swallow(receive)
            await refuse(scope, send, DISK_FULL, HTTPStatus.INSUFFICIENT_STORAGE)
            return
        with Body(self._disk, scope, receive, send) as body:
            if body.fits():
                await self._app(scope, body.receive, body.send)
            else:
                await swallow(receive)
                await refuse(scope, send, NO_ROOM, HTTPStatus.INSUFFICIENT_STORAGE)

    def _finishing_first(self, receive: Receive) -> Receive:
        """Imports first: Datasette 1.0 closes its databases when it hears of the stop."""

        async def next_event() -> dict[str, Any]:
            event = await receive()
            if event["type"] == "lifespan.shutdown":
                await self._activity.finish(IMPORT_GRACE_SECONDS)
            return event

        return next_event

    async def _probe(self, claims: Claims, scope: Scope, send: Send) -> None:
        """A probe may see the health and no data; a person may see data and no health."""
        if claims.purpose != "probe" or scope["type"] != "http" or scope["path"] != HEALTH:
            await refuse(scope, send, NOT_HERE)
        elif scope["method"] != "GET":
            await send_json(send, 405, {"ok": False, "error": "GET only"})
        else:
            if claims.disk is not None:
                self._disk.limit = claims.disk
            self._disk.forget()
            if self._disk.nearly_full and not busy(self._activity, self._datasette):
                await asyncio.to_thread(self._disk.shrink_logs)
            await send_json(send, 200, self.health())

    def health(self) -> dict[str, Any]:
        """Who this is and how busy; the shape is part of the contract (README.md)."""
        return {
            "instance": self._environment.instance,
            "generation": self._environment.generation,
            "in_flight": self._activity.in_flight,
            "idle_seconds": round(self._activity.idle_seconds(), 3),
            "busy": busy(self._activity, self._datasette),
            "pristine": storage.is_pristine(self._environment.data),
            "usage": self._usage.told(),
        }


def _with_actor(scope: Scope, claims: Claims) -> Scope:
    """The scope that Datasette and plugins see: who asks, but no token they could replay."""
    headers = [(name, value) for name, value in scope["headers"] if not _ours(name)]
    return {
        **scope,
        "headers": headers,
        "actor": claims.actor,
        SCOPE_KEY: {
            "actor": claims.actor,
            "workspace": claims.workspace,
            "public": claims.public,
            "visitor": claims.visitor,
        },
    }


def _ours(header: bytes) -> bool:
    return header.lower().startswith(b"x-cloudapp-")


def _not_for_visitors(claims: Claims, scope: Scope) -> bool:
    """Visitors of a public workspace get tables and queries, but no page about the instance."""
    if not claims.visitor:
        return False
    path: str = scope["path"]
    inside = path.startswith("/-/") or path == "/-"
    return scope["type"] != "http" or (inside and not _is_one_of(path, _FOR_VISITORS))


def _is_one_of(path: str, known: tuple[str, ...]) -> bool:
    """Whether a path is one of these, in any format, or below one that ends with a slash."""
    return any(
        path.startswith(one) if one.endswith("/") else path in (one, f"{one}.json") for one in known
    )


def _not_for_viewers(claims: Claims, scope: Scope) -> bool:
    """Viewers send no writes at all, for the plugins that forget to ask.

    datasette-enrichments, up to 0.6a0 at least, lets anybody pause, resume and cancel a job, and
    makes its tables in any database when anybody asks for the progress of one.
    """
    if (claims.actor or {}).get("role") != "viewer" or scope["type"] != "http":
        return False
    return scope["method"] not in _SAFE_METHODS or scope["path"].startswith(_ENRICHMENT_JOBS)


def _from_another_site(scope: Scope) -> bool:
    """Did a page of another address make the browser send this write or open this WebSocket?

    This is all the protection against forged requests, in place of asgi-csrf's tokens. Neighbouring
    workspaces are the same site to a browser, so SameSite cookies do not stop one workspace's page
    from posting to another. Every browser since 2020 sends one of the two headers with a write, and
    no page can change them; clients that are no browsers send neither, and pass.
    """
    if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
        return False
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    if scope["type"] == "http" and b"sec-fetch-site" in headers:
        return headers[b"sec-fetch-site"] not in ("same-origin", "none")
    origin = headers.get(b"origin")
    if origin is None:
        return False
    here = _host("//" + headers.get(b"host", ""))
    return here is None or _host(origin) != here


def _host(address: str) -> str | None:
    """Host name without port: proxies in front may change ports, and cookies ignore them too."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
