"""The page of one's own API tokens.

It lies among the pages of the account, and here because a token may be for one workspace only:
accounts know none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from accounts import api_tokens
from accounts.models import ApiToken, User
from workspaces import access
from workspaces.forms import NewTokenForm
from workspaces.views import SignedInRequest, signed_in

# So many that opened something once are shown, the newest.
ENDED_SHOWN = 50


@dataclass(frozen=True)
class Line:
    """One token as its user sees it. `takes_along` counts those that go when it is revoked."""

    token: ApiToken
    words: list[str]
    where: str
    takes_along: int = 0


def _lines(user: User, tokens: list[ApiToken]) -> list[Line]:
    names = {member.workspace_id: member.workspace.name for member in access.memberships(user)}
    return [
        Line(
            token,
            api_tokens.words_of(token),
            _where(token.only, names),
            len(_made_with(token, tokens)) if token.is_good else 0,
        )
        for token in tokens
    ]


def _where(only: UUID | None, names: dict[UUID, str]) -> str:
    if only is None:
        return "All your workspaces"
    return f"Only {names[only]}" if only in names else "A workspace that you are not in any more"


def _made_with(token: ApiToken, tokens: Iterable[ApiToken]) -> list[ApiToken]:
    """Return those of the tokens that were made with this one, and with those, and so on."""
    found: list[ApiToken] = []
    for child in tokens:
        if child.parent_id == token.pk:
            found += [child, *_made_with(child, tokens)]
    return found


@sensitive_variables("text")
def _page(
    request: SignedInRequest, form: NewTokenForm, *, text: str = "", status: int = 200
) -> HttpResponse:
    """Render the page; with the `text` of a token that was just made, for this once."""
    user = request.user
    good = list(api_tokens.good(user).select_related("parent"))
    ended = ApiToken.objects.filter(user=user).exclude(pk__in=[token.pk for token in good])
    context = {
        "form": form,
        "text": text,
        "good": _lines(user, good),
        "ended": _lines(user, list(ended.select_related("parent")[:ENDED_SHOWN])),
        "older": max(0, ended.count() - ENDED_SHOWN),
    }
    response = render(request, "workspaces/tokens.html", context, status=status)
    response["Cache-Control"] = "no-store"
    return response


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def tokens(request: SignedInRequest) -> HttpResponse:
    """Show one's tokens, and make one."""
    if request.method != "POST":
        return _page(request, NewTokenForm(user=request.user))
    form = NewTokenForm(request.POST, user=request.user)
    if form.is_valid():
        made: HttpResponse = _make(request, form)
        return made
    form.focus_first_error()
    return _page(request, form, status=422)


@reauthentication_required  # type: ignore[untyped-decorator]
@sensitive_variables("text")
def _make(request: SignedInRequest, form: NewTokenForm) -> HttpResponse:
    """Make the token and show it, after asking once more who this is."""
    workspace = form.cleaned_data["workspace"]
    try:
        token, text = api_tokens.create(
            request.user,
            form.cleaned_data["name"],
            form.cleaned_data["scopes"],
            only=workspace.pk if workspace else None,
            expires_at=form.expires_at(timezone.now()),
        )
    except api_tokens.NotAllowed as refusal:
        form.add_error(None, str(refusal))
        return _page(request, form, status=422)
    api_tokens.tell_its_user(token)
    # In this answer and nowhere else: neither a session nor an address ever holds it.
    return _page(request, NewTokenForm(user=request.user), text=text)


@signed_in
@require_POST
def revoke(request: SignedInRequest, token_id: int) -> HttpResponse:
    """End a token at once, and all that were made with it."""
    token = get_object_or_404(ApiToken, pk=token_id, user=request.user)
    along = api_tokens.revoke(token, by=request.user) - 1
    messages.success(request, f"“{token.name}” is revoked{_along(along)}.")
    return redirect("account_tokens")


def _along(number: int) -> str:
    if number <= 0:
        return ""
    if number == 1:
        return ", and so is the one made with it"
    return f", and so are the {number} made with it"
