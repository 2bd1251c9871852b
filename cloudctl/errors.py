"""What can go wrong: each says what happened, what to do about it, and the exit code."""

import re
from collections.abc import Mapping
from typing import Any


class Failure(Exception):
    """The command cannot do what was asked. `hint` says what to do; it may be empty."""

    exit_code = 1
    code = "failed"
    title = "It did not work"
    # The path in the API of what it is about, where that is known.
    instance = ""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint

    def document(self) -> dict[str, Any]:
        """Return it as a problem document, like those of the API."""
        words = f"{self.detail} {self.hint}".strip()
        found = {"type": "about:blank", "title": self.title, "detail": words, "code": self.code}
        return found | ({"instance": self.instance} if self.instance else {})


class WrongUsage(Failure):
    """The command line makes no sense."""

    exit_code = 2
    code = "usage"
    title = "The command cannot be understood"


class NotSignedIn(Failure):
    """There is no token, or no good one."""

    exit_code = 3
    code = "not_signed_in"
    title = "A token is needed"

    def __init__(self, detail: str, hint: str = "Sign in: cloudctl login") -> None:
        super().__init__(detail, hint)


class Unreachable(Failure):
    """No cloudapp answers at the address."""

    exit_code = 4
    code = "unreachable"
    title = "The server cannot be reached"


class Broken(Unreachable):
    """A stream that was there ended in the middle, or was silent for too long."""


class TimedOut(Failure):
    """It did not come true in the time that was given."""

    exit_code = 5
    code = "timeout"
    title = "It did not come true in time"


class Interrupted(Failure):
    """Somebody pressed Ctrl-C while the server was at work."""

    exit_code = 130
    code = "interrupted"
    title = "Interrupted"


class Refused(Failure):
    """The API said no. `code` is its word for why."""

    def __init__(self, problem: Mapping[str, Any], hint: str = "") -> None:
        self.problem = dict(problem)
        self.code = str(problem.get("code", "refused"))
        detail = str(problem.get("detail") or problem.get("title") or "The server refused.")
        # For people: the API's words name its addresses.
        words = re.sub(r"POST …/([a-z]+)", r"cloudctl \1", detail)
        super().__init__(words, hint or HINTS.get(self.code, ""))

    def document(self) -> dict[str, Any]:
        """Return the problem document just as it came."""
        return self.problem


# What a person at a shell can do about it, where the API's own words speak to programs.
HINTS: Mapping[str, str] = {
    "scope_missing": "Make a token that may do it on the page “API tokens”, then: cloudctl login",
    "not_found": "What there is: cloudctl list",
    "too_late": "Its data is gone for good.",
    "quota_reached": "What there is: cloudctl list",
    "deleted": "Bring it back: cloudctl undelete SLUG",
    "change_under_way": "How far it is: cloudctl plugins list SLUG",
    "changed_meanwhile": "Look at it, then try again: cloudctl show SLUG",
    "last_owner": "Make somebody else an owner first: cloudctl members role SLUG WHO owner",
    "slug_taken": "Choose another with --slug, or leave it out and get one.",
    "broken": "Nothing was changed. Try again; if it stays, tell the operators.",
}
