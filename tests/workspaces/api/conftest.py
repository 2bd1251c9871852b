"""What tests of the REST API share: clients with tokens."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from accounts import api_tokens
from accounts.api_tokens import Scope
from accounts.models import User

EVERYTHING = [scope.value for scope in Scope if scope is not Scope.OPERATOR]


class Api:
    """A client with a token. Paths begin behind /api/v1; answers are Django's, with `.json()`."""

    def __init__(self, token: str = "") -> None:
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = Client()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> HttpResponse:
        """Send a request; `headers` as `Idempotency_Key=…`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        more: dict[str, Any] = {}
        if body is not None:
            more = {"data": json.dumps(body), "content_type": "application/json"}
        response: HttpResponse = self.client.generic(
            method, f"/api/v1{path}", headers={**self.headers, **named}, **more
        )
        return response

    def get(self, path: str, **headers: str) -> HttpResponse:
        """Ask for something."""
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> HttpResponse:
        """Have something done."""
        return self.ask("POST", path, body, **headers)


ApiOf = Callable[..., Api]


def api_of(user: User, *scopes: str, **more: Any) -> Api:
    """Return a client of this user; with every scope but operator unless some are named."""
    _, text = api_tokens.create(user, "test", scopes or EVERYTHING, **more)
    return Api(text)


@pytest.fixture
def api(owner: User) -> Api:
    """The owner's client."""
    return api_of(owner)


def code_of(response: HttpResponse) -> str:
    """Return the code of a problem, which must look like one."""
    assert response["Content-Type"] == "application/problem+json", response.content
    body = json.loads(response.content)
    assert {"type", "title", "status", "detail", "instance", "code", "request_id"} <= set(body)
    if not response.has_header("Idempotent-Replayed"):  # else it names the first one
        assert body["request_id"] == response["X-Request-ID"]
    assert body["status"] == response.status_code
    assert body["detail"]
    return str(body["code"])
