"""At which server one is signed in, and with which token: a file that only its owner can read.

CLOUDCTL_URL and CLOUDCTL_TOKEN win over it.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cloudctl.errors import Failure, NotSignedIn, WrongUsage

API = "/api/v1"


@dataclass(frozen=True)
class Account:
    """A server and a token for it. The token is in no `repr`, so that none is ever printed."""

    url: str
    token: str

    def __repr__(self) -> str:
        return f"Account({self.url!r})"


def path() -> Path:
    """Return where the file is."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "cloudctl" / "config.json"


def load() -> Account:
    """Return what to use. Raises NotSignedIn, or WrongUsage for an address that is none."""
    stored = _stored()
    given_url, given_token = os.environ.get("CLOUDCTL_URL"), os.environ.get("CLOUDCTL_TOKEN")
    url = checked_url(given_url) if given_url else stored.url if stored else ""
    if not url:
        raise NotSignedIn("You are not signed in anywhere.")
    if given_token:
        return Account(url, checked_token(given_token))
    # A stored token is for the server that it was stored with, and goes to no other.
    if stored is None or stored.url != url:
        raise NotSignedIn(
            f"There is no token for {url}.", f"Set CLOUDCTL_TOKEN, or: cloudctl login --url {url}"
        )
    return stored


def _stored() -> Account | None:
    try:
        found = json.loads(path().read_text())
        return Account(checked_url(found["url"]), checked_token(found["token"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, Failure):
        raise NotSignedIn(f"{path()} cannot be read.", "Write it anew: cloudctl login") from None


def save(account: Account) -> Path:
    """Keep it, readable by nobody else at any moment; return where. Raises Failure."""
    target = path()
    new = target.with_suffix(f".{os.getpid()}.new")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"url": account.url, "token": account.token}, file, indent=2)
            file.write("\n")
        new.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise Failure(f"{target} cannot be written: {error.strerror}.") from error
    return target


def forget() -> bool:
    """Remove the file; return whether there was one. Raises Failure."""
    try:
        path().unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Failure(f"{path()} cannot be removed: {error.strerror}.") from error
    return True


def checked_url(text: str) -> str:
    """Return a server's address as `https://host[:port]`. Raises WrongUsage."""
    text = text.strip()
    try:
        parts = urlsplit(text)
        port = f":{parts.port}" if parts.port else ""
        (parts.hostname or "").encode("idna")
    except ValueError:  # also what no name server can be asked for
        raise WrongUsage(f"{text!r} is no address.") from None
    if parts.username is not None or parts.password is not None:
        raise WrongUsage("Leave name and password out of the address.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongUsage(
            f"{text!r} is no address of a server.", "It looks like https://cloud.example.com"
        )
    if parts.path.rstrip("/") not in ("", API) or parts.query or parts.fragment:
        raise WrongUsage(f"Leave out what follows the host in {text!r}.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def checked_token(text: str) -> str:
    """Return a token that can be sent. Raises NotSignedIn, without the text in it."""
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise NotSignedIn("This is no token: it looks like cloudapp_ and 46 letters and digits.")
    return text
