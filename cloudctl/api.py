"""Requests to the API: one client, what may be tried again is, and errors come in words.

Every POST carries an Idempotency-Key, the same each time it is sent. So one whose answer got lost
can be sent again, and nothing is done twice.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from cloudctl.config import API, Account
from cloudctl.errors import Broken, NotSignedIn, Refused, TimedOut, Unreachable
from cloudctl.paths import Json
from cloudctl.patience import PATIENCE, Patience
from cloudctl.version import installed

AGAIN = (429, 502, 503, 504)
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
# Of a longer pause a person should know.
SAY_FROM = 1.0
MAX_LIMIT = 200


class Api:
    """The API of one server, for one token. `note` tells a person what takes long.

    Threads may share it. Every method raises Failure.
    """

    def __init__(self, account: Account, note: Callable[[str], None]) -> None:
        self.url = account.url
        self._note = note
        self._client = httpx.Client(
            base_url=f"{account.url}{API}",
            headers={
                "Authorization": f"Bearer {account.token}",
                "User-Agent": f"cloudctl/{installed()}",
            },
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            # A redirect may lead to another host, and the token would go with it.
            follow_redirects=False,
        )

    # --- questions -------------------------------------------------------------------------------

    def get(self, path: str, **params: Any) -> Json:
        """Return what is there."""
        return _body(self.send("GET", path, params=params))

    def pages(self, path: str, **params: Any) -> Iterator[Json]:
        """Return the items of a list, page by page as they are used."""
        cursor = None
        while True:
            part = self.get(path, **params, cursor=cursor, limit=MAX_LIMIT)
            yield from part["items"]
            cursor = part.get("next")
            if not cursor:
                return

    def post(self, path: str, body: Json | None = None) -> Json:
        """Have something done, once however often it must be sent."""
        return _body(self.send("POST", path, body))

    def send(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> httpx.Response:
        """Return the answer of a request, tried again while that may help: it does no harm."""
        more = dict(headers or {})
        if method == "POST":
            more["Idempotency-Key"] = uuid4().hex
        request = self._client.build_request(
            method, path, json=body, params=_given(params or {}), headers=more
        )
        return self._persist(request, Patience(patience))

    def _persist(self, request: httpx.Request, patience: Patience) -> httpx.Response:
        lost = False
        while True:
            try:
                response = self._client.send(request)
            except httpx.RequestError as error:
                arrived = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                lost = lost or arrived
                pause = patience.pause()
                if pause is None:
                    raise self._unreachable(error, lost) from error
            else:
                again = response.status_code in AGAIN
                pause = patience.pause(_asked_pause(response)) if again else None
                if lost and request.method == "DELETE" and response.status_code == 404:
                    return httpx.Response(204)  # the first one did it, and its answer got lost
                if pause is None:
                    return self._checked(response)
            if pause > SAY_FROM:
                self._note(f"{self.url} is busy or away; the next try is in {pause:.0f} s.")
            time.sleep(pause)

    # --- streams ---------------------------------------------------------------------------------

    @contextmanager
    def stream(
        self, path: str, params: Mapping[str, Any], headers: Mapping[str, str], silence: float
    ) -> Iterator[Iterator[bytes]]:
        """Give the bytes of a stream as they come. After so many seconds of silence it is broken.

        Raises Broken where it breaks: whoever reads it knows how to go on.
        """
        with _breaking(), self._opened(path, params, headers, silence) as response:
            if not response.is_success:
                response.read()
            self._checked(response)
            yield response.iter_bytes()

    def _opened(
        self, path: str, params: Mapping[str, Any], headers: Mapping[str, str], silence: float
    ) -> AbstractContextManager[httpx.Response]:
        return self._client.stream(
            "GET",
            path,
            params=_given(params),
            headers={**headers, "Accept": "text/event-stream"},
            timeout=httpx.Timeout(silence, connect=CONNECT_SECONDS),
        )

    # --- answers ---------------------------------------------------------------------------------

    def _checked(self, response: httpx.Response) -> httpx.Response:
        """Return a good answer. Raises the Failure that another one is."""
        if response.is_success:
            return response
        if response.is_redirect:
            elsewhere = urlsplit(response.headers.get("Location", ""))
            raise Unreachable(
                f"{self.url} sends us on to {elsewhere.scheme}://{elsewhere.hostname}, and a token "
                "goes nowhere by itself.",
                "If that is the right address: cloudctl login --url …",
            )
        problem = _problem(response)
        if problem is None:
            raise self._not_ours(response)
        if response.status_code == 401:
            raise NotSignedIn(f"{self.url} does not take this token (any more).")
        if response.status_code == 408:
            raise TimedOut(str(problem["detail"]))
        raise Refused(problem, _when(response))

    def _unreachable(self, error: httpx.RequestError, arrived: bool) -> Unreachable:
        if isinstance(error, httpx.TimeoutException):
            reason = "it does not answer in time"
        else:
            reason = str(error) or "the connection broke"
        if arrived:
            hint = "It may have been done all the same; look before you try again."
        else:
            hint = "Is the address right, and the network there?"
        return Unreachable(f"{self.url} cannot be reached: {reason}.", hint)

    def _not_ours(self, response: httpx.Response) -> Unreachable:
        status = f"{response.status_code} {response.reason_phrase}".strip()
        if response.status_code in AGAIN:
            return Unreachable(f"{self.url} is not up: it answers {status}.", "Try again soon.")
        return Unreachable(
            f"What answers at {self.url} is no cloudapp: {status}.", "Is the address right?"
        )


@contextmanager
def _breaking() -> Iterator[None]:
    try:
        yield
    except httpx.RequestError as error:
        raise Broken(str(error) or "the connection broke") from error


def _given(params: Mapping[str, Any]) -> Json:
    return {name: value for name, value in params.items() if value not in (None, [], ())}


def _body(response: httpx.Response) -> Json:
    try:
        found = response.json() if response.content else {}
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise Unreachable("What answers there is no cloudapp.", "Is the address right?")
    return found


def _problem(response: httpx.Response) -> Json | None:
    """Return the problem document of an answer; None when it comes from somebody else."""
    try:
        found = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) and {"code", "detail"} <= set(found) else None


def _asked_pause(response: httpx.Response) -> float | None:
    given = response.headers.get("Retry-After", "")
    return float(given) if re.fullmatch(r"\d{1,9}", given) else None


def _when(response: httpx.Response) -> str:
    """Return when to try again, where the server said so; empty otherwise."""
    seconds = _asked_pause(response)
    if seconds is None:
        return ""
    words = f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
    return f"Try again in {words}."
