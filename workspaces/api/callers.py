"""Who asks: the token of a request, what it may be used for, and how often."""

from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest
from ninja.security.base import AuthBase

from accounts import api_tokens, origin, rates
from accounts.api_tokens import Scope
from accounts.models import ApiToken, User
from accounts.rates import Budget
from workspaces import deeds
from workspaces.api.problems import Problem

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="cloudapp"'}


@dataclass(frozen=True)
class Caller:
    """The token of a request, its user, and what is left of its rate."""

    token: ApiToken
    user: User
    budget: Budget

    def has(self, scope: Scope) -> bool:
        """Whether the token may be used for this; an operator's may for everything."""
        return scope in self.token.scopes or self.is_operator

    @property
    def is_operator(self) -> bool:
        """Whether it acts for all customers."""
        return api_tokens.is_operators(self.token)

    def may(self, deed: str) -> bool:
        """Whether it is an operator with the permissions for a deed: one of deeds.NEEDS."""
        return self.is_operator and deeds.may(self.user, deed)

    def demand(self, deed: str) -> None:
        """Raise Problem unless an operator has the permissions for a deed."""
        if missing := deeds.lacking(self.user, deed):
            raise Problem("permission_missing", f"Your account lacks {', '.join(missing)}.")


class ApiRequest(HttpRequest):
    """A request with a caller, as every endpoint gets it."""

    caller: Caller


def identify(request: HttpRequest) -> Caller | None:
    """Return who asks, and count the request; None without a good token. Once per request."""
    known: Caller | None = getattr(request, "caller", None)
    if known is not None:
        return known
    kind, _, text = request.headers.get("Authorization", "").partition(" ")
    token = api_tokens.find(text.strip()) if kind.lower() == "bearer" else None
    if token is None:
        return None
    caller = Caller(token, token.user, rates.spend(token, settings.API_REQUESTS_PER_MINUTE))
    request.caller = caller  # type: ignore[attr-defined]
    origin.by_token(str(token))
    api_tokens.note_use(token)
    return caller


def again(caller: Caller) -> Caller:
    """Return a caller as token and user are now, for those who stay. Raises Problem."""
    token = api_tokens.find_again(caller.token)
    if token is None:
        raise Problem("not_signed_in", headers=CHALLENGE)
    return Caller(token, token.user, caller.budget)


class Needs(AuthBase):
    """An endpoint's demand: a good token that has this scope (any of these).

    With a `deed`, one of deeds.NEEDS, its user needs the permissions that the admin demands for it.
    """

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __init__(self, *scopes: Scope, deed: str = "") -> None:
        super().__init__()
        self.scopes = scopes
        self.deed = deed

    def __call__(self, request: HttpRequest) -> Any:
        """Return the caller. Raises Problem."""
        caller = identify(request)
        if caller is None:
            raise Problem("not_signed_in", headers=CHALLENGE)
        if self.scopes and not any(caller.has(scope) for scope in self.scopes):
            wanted = " or ".join(self.scopes)
            raise Problem("scope_missing", f"This needs a token with the scope {wanted}.")
        if Scope.OPERATOR in self.scopes and not caller.is_operator:
            words = "This needs the token of an operator, and not one for one workspace only."
            raise Problem("scope_missing", words)
        if self.deed:
            caller.demand(self.deed)
        return caller


def caller_of(request: HttpRequest) -> Caller:
    """Return who asks, in an endpoint that demanded it."""
    return cast("ApiRequest", request).caller
