"""The router's configuration: one nginx file that knows no workspace by name, and its own pages.

Who may pass and where to, nginx asks the gateway for each request. Nothing here changes when a
workspace comes or goes.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path

from django.template import Context, Engine

TEMPLATES = Path(__file__).parent

# What clients must not tell a container, besides the headers that the router sets itself.
STRIPPED_HEADERS = (
    "X-Cloudapp-Slug",
    "X-Cloudapp-Session",
    "X-Cloudapp-Method",
    "X-Cloudapp-Upstream",
    "X-Cloudapp-Token",
    "X-Cloudapp-Verdict",
    "X-Router-Secret",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Scheme",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Original-Url",
    "X-Rewrite-Url",
    "X-Scheme",
    "X-Script-Name",
    "Forwarded",
    "Proxy",
)
# What a container must not tell browsers: it concerns more than its own pages.
HIDDEN_HEADERS = ("Strict-Transport-Security", "Alt-Svc", "X-Powered-By", "X-Request-ID")

# The one script of the router's own pages. It stands in them, for they are shown when nothing else
# is there; and the policy allows these words and no others.
LOOK_AGAIN = (TEMPLATES / "look-again.js").read_text()
_DIGEST = b64encode(sha256(LOOK_AGAIN.encode()).digest()).decode()
PAGES_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    f"script-src 'sha256-{_DIGEST}'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'"
)

# Everything that ends up in the file; none of these can end a quote or begin a variable.
_SAFE = re.compile(r"[A-Za-z0-9_\-.:/\[\]~+=@%, ]*")


class NotSafe(ValueError):
    """A value that could change what the configuration means. The text names it."""


@dataclass(frozen=True)
class Page:
    """What people see in place of a workspace.

    `name` is what the gateway calls it (X-Cloudapp-Verdict), `error` the words for programs.
    `retry_after` is in seconds; 0 means that it does not change by itself.
    """

    name: str
    status: int
    error: str
    retry_after: int = 0


@dataclass(frozen=True)
class RouterConfig:
    """What the template needs. Addresses are `host:port`, `port` or, for `web` and
    `waiting`, `unix:/path`.

    `directory` is the router's own: pid, cache, temporary files and pages. Without a certificate
    it speaks plain http; `scheme` is what the browser speaks. Whom the gateway tells
    `sign_in_verdict` is led to `sign_in_path`, with the path to come back to after a `?`. `modules`
    are those that bring Lua, where nginx has it not built in.
    """

    listen: Sequence[str]
    web: str
    waiting: str
    secret: str
    cloud_url: str
    cloud_netloc: str
    cloud_host: str
    apps_domain: str
    apps_host: str
    scheme: str
    directory: Path
    session_cookie: str
    state_cookie: str
    private_cookies: Sequence[str]
    handoff_paths: Sequence[str]
    sign_in_path: str
    sign_in_verdict: str
    pages: Sequence[Page]
    modules: Sequence[str] = ()
    user: str = ""
    group: str = ""
    local: bool = False
    redirect_listen: Sequence[str] = ()
    certificate: str = ""
    certificate_key: str = ""
    apps_certificate: str = ""
    apps_certificate_key: str = ""
    trusted_proxies: Sequence[str] = ()
    access_log: str = "/dev/stdout"
    error_log: str = "stderr"
    max_body: str = "1100m"
    hsts_seconds: int = 0
    gateway_seconds: int = 30
    stripped_headers: Sequence[str] = field(default=STRIPPED_HEADERS)
    hidden_headers: Sequence[str] = field(default=HIDDEN_HEADERS)
    pages_policy: str = PAGES_POLICY


def _check(config: RouterConfig) -> None:
    for name, value in vars(config).items():
        if name == "pages_policy":
            continue
        parts = [value] if isinstance(value, str | int | Path) else list(value)
        for part in parts:
            text = part.name if isinstance(part, Page) else str(part)
            if not _SAFE.fullmatch(text):
                raise NotSafe(
                    f"{name} holds a character that nginx would read as something else: use "
                    "letters, digits and - _ . : / ~ + = only"
                )
    if not config.secret:
        raise NotSafe("ROUTER_SECRET is missing")
    for prefix in ("", "apps_"):
        pair = vars(config)[f"{prefix}certificate"], vars(config)[f"{prefix}certificate_key"]
        if bool(config.certificate) != all(pair):
            name = f"ROUTER_{prefix.upper()}CERTIFICATE"
            raise NotSafe(f"set {name} and {name}_KEY, both or neither of them")


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:  # a name, or unix:
        return False
    return True


def render(config: RouterConfig) -> str:
    """Return the nginx configuration. Raises NotSafe."""
    _check(config)
    engine = Engine(dirs=[str(TEMPLATES)], autoescape=False)
    values = {
        **vars(config),
        "apps_host_regex": re.escape(config.apps_host),
        "trusted_networks": [proxy for proxy in config.trusted_proxies if _is_network(proxy)],
    }
    return engine.get_template("nginx.conf").render(Context(values, autoescape=False))
