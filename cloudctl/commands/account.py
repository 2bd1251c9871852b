"""Signing in and out, and who one is."""

import getpass
import sys
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from cloudctl import config
from cloudctl.commands.params import AsJson
from cloudctl.config import Account
from cloudctl.errors import WrongUsage
from cloudctl.output import when
from cloudctl.session import Session

Url = Annotated[
    str, typer.Option(metavar="URL", help="The cloud host, such as https://cloud.example.com")
]
Token = Annotated[
    str,
    typer.Option(
        metavar="TOKEN",
        help="An API token. Better left out: then it is asked for, or read from stdin.",
    ),
]


def login(url: Url = "", token: Token = "", as_json: AsJson = False) -> None:
    """Sign in with an API token, and keep it for the commands that follow."""
    here = Session(as_json)
    url = config.checked_url(url or _asked("Address of the cloud host: "))
    page = f"{url}/account/tokens/"
    if not token and sys.stdin.isatty():
        here.out.note(f"Make a token at {page}")
    account = Account(url, config.checked_token(token or secret("Token: ")))
    me = _me(here, account)
    where = config.save(account)
    if as_json:
        here.out.json({"url": url, **me})
        return
    token_name = me["token"]["name"]
    here.out.line(f"Signed in at {url} as {me['name']}, with the token “{token_name}”.")
    here.out.line(f"It is kept in {where}.")
    if url.startswith("http://") and not _is_local(url):
        here.out.note("Mind that http:// sends the token where others can read it.")


def _me(here: Session, account: Account) -> dict[str, Any]:
    """Return whose token it is, and what is known of it."""
    return dict(here.api_of(account).get("/me"))


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost")


def _asked(question: str) -> str:
    if not sys.stdin.isatty():
        raise WrongUsage("Say at which server: --url https://cloud.example.com")
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline()


def secret(question: str) -> str:
    """Return a secret that is typed unseen, or that stdin holds. Never from the command line."""
    if sys.stdin.isatty():
        return getpass.getpass(question, sys.stderr)
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")


def logout(as_json: AsJson = False) -> None:
    """Forget the token on this machine. It stays good: `tokens revoke` ends it."""
    here = Session(as_json)
    removed = config.forget()
    if as_json:
        here.out.json({"removed": removed})
    else:
        here.out.line("Signed out." if removed else "You were not signed in.")


def whoami(as_json: AsJson = False) -> None:
    """Show where you are signed in, as whom, and what the token may do."""
    here = Session(as_json)
    account = config.load()
    me = _me(here, account)
    if as_json:
        here.out.json({"url": account.url, **me})
        return
    this = me["token"]
    here.out.block(
        [
            ("server", account.url),
            ("you", f"{me['name']}" + (", an operator" if me["is_operator"] else "")),
            ("token", f"{this['name']} ({this['hint']}…)"),
            ("may", ", ".join(this["scopes"])),
            ("only", this["workspace"] or ""),
            ("expires", when(this["expires_at"]) or "never"),
        ]
    )
