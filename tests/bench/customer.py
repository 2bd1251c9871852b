"""A customer who does it all over HTTP, through the router, as a browser would."""

import re
import socket
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
from allauth.account.models import EmailAddress
from django.conf import settings
from django.test import Client

from accounts.models import User
from deploy import lifecycle, notify
from deploy.states import Status, StopReason
from workspaces.models import Workspace

CSRF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
WAIT_SECONDS = 60.0

_getaddrinfo = socket.getaddrinfo


def resolve_localhost() -> None:
    """Have *.localhost mean this machine, as it does in browsers (RFC 6761)."""

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        local = isinstance(host, str) and host.endswith(".localhost")
        return _getaddrinfo("127.0.0.1" if local else host, *args, **kwargs)

    socket.getaddrinfo = resolve


def make_user() -> User:
    """Make somebody with a verified address."""
    user = User.objects.create_user(uuid4().hex)
    EmailAddress.objects.create(
        user=user, email=f"{uuid4().hex}@bench.example", primary=True, verified=True
    )
    return user


class Customer:
    """One browser of a signed-in user, at the product's address `url`."""

    def __init__(self, user: User, url: str) -> None:
        self.url = url
        self.http = httpx.Client(
            timeout=WAIT_SECONDS, follow_redirects=True, headers={"Accept": "text/html"}
        )
        signed_in = Client()
        signed_in.force_login(user)
        name = settings.SESSION_COOKIE_NAME
        self.http.cookies.set(name, signed_in.cookies[name].value, domain="localhost.local")
        page = self.http.get(f"{url}/workspaces/new/")
        page.raise_for_status()
        token = CSRF.search(page.text)
        if token is None:
            raise RuntimeError(f"no form on {page.url}")
        self._csrf = token[1]

    def create(self, slug: str) -> float:
        """Create a workspace and open it. Return the seconds until its first page was there."""
        form = {"name": slug, "slug": slug, "csrfmiddlewaretoken": self._csrf}
        started = time.monotonic()
        answer = self.http.post(f"{self.url}/workspaces/new/", data=form, follow_redirects=False)
        if answer.status_code != 302:
            raise RuntimeError(f"not created: {answer.status_code}\n{answer.text[:2000]}")
        self.open(slug)
        return time.monotonic() - started

    def open(self, slug: str) -> None:
        """Get the workspace's first page; raise unless Datasette made it."""
        page = self.http.get(self.address(slug))
        if page.status_code != 200 or "datasette" not in page.text.lower():
            raise RuntimeError(f"not a page: {page.url} {page.status_code}\n{page.text[:2000]}")

    def wake(self, slug: str) -> float:
        """Open a sleeping workspace. Return the seconds until its first page was there."""
        started = time.monotonic()
        self.open(slug)
        return time.monotonic() - started

    def address(self, slug: str) -> str:
        """The workspace's own address."""
        scheme, _, host = self.url.partition("://")
        return f"{scheme}://{slug}.{host}/"

    def cookies_of(self, slug: str) -> str:
        """The Cookie header that this browser sends to the workspace."""
        request = self.http.build_request("GET", self.address(slug))
        return request.headers.get("cookie", "")


def wait_for(true: Callable[[], bool]) -> None:
    """Return once `true()` is; raise RuntimeError when it is not after a minute."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError("waited in vain: is the worker of the queue `later` running?")
        time.sleep(0.05)


def put_to_sleep(slug: str) -> None:
    """Have the workspace sleep, and wait until it does."""
    workspace = Workspace.objects.get(slug=slug, purged_at=None)
    lifecycle.want_stopped(workspace.instance_id, StopReason.IDLE)
    _wait_for(workspace, Status.SLEEPING)


def _wait_for(workspace: Workspace, status: Status) -> None:
    def there() -> bool:
        workspace.instance.refresh_from_db()
        return workspace.instance.status == status

    if not notify.wait_until(workspace.instance_id, there, WAIT_SECONDS):
        raise RuntimeError(f"{workspace.slug} is {workspace.instance.status}, not {status}")


def wait_for_purge(workspace: Workspace) -> None:
    """Wait until nothing is left of a deleted workspace."""
    _wait_for(workspace, Status.DELETED)
