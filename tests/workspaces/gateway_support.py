"""Go through the hand-off sign-in and ask the gateway, as browsers and the router do."""

from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.http import HttpResponse
from django.test import Client

from accounts.models import User
from workspaces.handoff_tokens import SESSION_COOKIE
from workspaces.models import Workspace


def host_of(workspace: Workspace) -> dict[str, str]:
    """The Host header of a workspace's own address."""
    return {"host": f"{workspace.slug}.{settings.APPS_DOMAIN}"}


def cloud_client(user: User) -> Client:
    """A browser that is signed in at the cloud host."""
    client = Client(headers={"host": settings.CLOUD_HOST})
    client.force_login(user)
    return client


def path_of(response: HttpResponse) -> str:
    """Where a redirect leads, without the host."""
    parts = urlsplit(response["Location"])
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def query_of(response: HttpResponse) -> dict[str, str]:
    """The query of the address where a redirect leads."""
    return {k: v[0] for k, v in parse_qs(urlsplit(response["Location"]).query).items()}


def begin(there: Client, workspace: Workspace, came_for: str = "/") -> HttpResponse:
    """Begin to sign in, as the router leads browsers to."""
    return there.get("/-/cloudapp/start", headers=host_of(workspace), QUERY_STRING=came_for)


def get_code(cloud: Client, workspace: Workspace, there: Client, came_for: str = "/") -> str:
    """Begin at the workspace's host, go through the cloud host, return the address to redeem."""
    begun = begin(there, workspace, came_for)
    assert begun.status_code == 302, begun
    entered = cloud.get(path_of(begun))
    assert entered.status_code == 302, entered
    return path_of(entered)


def sign_in(cloud: Client, workspace: Workspace) -> str:
    """Sign somebody in at a workspace; return the workspace session's token."""
    there = Client()
    address = get_code(cloud, workspace, there)
    redeemed = there.get(address, headers=host_of(workspace))
    assert redeemed.status_code == 302, redeemed
    return there.cookies[SESSION_COOKIE].value


def ask(
    workspace: Workspace | str,
    token: str = "",
    *,
    path: str = "/_gateway/authorize",
    method: str = "GET",
    secret: str | None = None,
    **headers: str,
) -> HttpResponse:
    """Ask the gateway as the router does."""
    slug = workspace if isinstance(workspace, str) else workspace.slug
    return Client().get(
        path,
        headers={
            "host": settings.CLOUD_HOST,
            "x-router-secret": settings.ROUTER_SECRET if secret is None else secret,
            "x-cloudapp-slug": slug,
            "x-cloudapp-session": token,
            "x-cloudapp-method": method,
            **headers,
        },
    )


def verdict(response: HttpResponse) -> str:
    """What the gateway said: "pass", or its verdict."""
    return "pass" if response.status_code == 200 else response["X-Cloudapp-Verdict"]


def without_id(response: HttpResponse) -> dict[str, str]:
    """What an answer says in its headers; each has a name of its own in the logs."""
    return {name: value for name, value in response.headers.items() if name != "X-Request-ID"}
