"""How a person who is signed in at the cloud host gets signed in at a workspace's own host.

    workspace host  /-/cloudapp/start     sets a state cookie, leads to the cloud host
    cloud host      /workspaces/…/enter/  checks membership, makes a code for that state
    workspace host  /-/cloudapp/sign-in   redeems the code once, sets the workspace session

The cloud session cookie never reaches a workspace. The state cookie ties a code to the browser
that asked for it, so nobody can sign somebody else in as themselves.
"""

from datetime import datetime, timedelta
from typing import cast
from urllib.parse import urlencode, urlsplit

from csp.decorators import csp_replace
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.decorators import login_required
from django.contrib.sessions.models import Session
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_safe

from accounts import audit
from accounts.models import User
from deploy.router import PAGES_POLICY
from workspaces import support
from workspaces.access import memberships
from workspaces.gateway import find_public, find_session, is_current
from workspaces.handoff_tokens import (
    SESSION_COOKIE,
    START,
    STATE_COOKIE,
    digest,
    new_token,
    safe_next,
)
from workspaces.models import Member, SignInCode, Workspace, WorkspaceSession

CODE_SECONDS = 30
# Signing up, reading a mail and coming back takes people a while.
STATE_SECONDS = 3600
SESSION_SECONDS = 14 * 86400

SIGN_IN = "/-/cloudapp/sign-in"
SIGN_OUT = "/-/cloudapp/sign-out"
# The router lets these, and no other path of a workspace's host, through to us.
PATHS = (START, SIGN_IN, SIGN_OUT)

_own_policy = csp_replace(
    {
        name: values.split()
        for name, _, values in (part.strip().partition(" ") for part in PAGES_POLICY.split(";"))
    }
)


def _slug(request: HttpRequest) -> str:
    """Return the slug of the workspace at whose host we are asked; Http404 at the cloud host."""
    host = urlsplit(f"//{request.get_host()}").hostname or ""
    slug, dot, rest = host.partition(".")
    if not dot or rest != settings.APPS_HOST:
        raise Http404
    return slug


def _set_cookie(response: HttpResponse, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name, value, max_age=seconds, httponly=True, samesite="Lax", secure=settings.SECURE
    )


def _redirect(address: str) -> HttpResponse:
    response = HttpResponseRedirect(address)
    # What is in our address is nobody else's business.
    response["Referrer-Policy"] = "no-referrer"
    return response


@require_safe
@never_cache
def start(request: HttpRequest) -> HttpResponse:
    """At a workspace's host: go and sign in. The whole query is the path to come back to.

    It stands there as it is, for the router cannot quote it.
    """
    slug = _slug(request)
    came_for = safe_next(request.META.get("QUERY_STRING", "") or "/")
    if find_session(slug, request.COOKIES.get(SESSION_COOKIE, "")):
        return _redirect(came_for)
    # Two tabs that start at the same time share one state; a new one would lock the first out.
    state = request.COOKIES.get(STATE_COOKIE) or new_token()
    query = urlencode({"state": digest(state), "next": came_for})
    enter_url = settings.CLOUD_URL + reverse("workspace_enter", args=[slug])
    response = _redirect(f"{enter_url}?{query}")
    _set_cookie(response, STATE_COOKIE, state, STATE_SECONDS)
    return response


@require_safe
@never_cache
@login_required
def enter(request: HttpRequest, slug: str) -> HttpResponse:
    """At the cloud host: give a member a code for the workspace's host. 404 for strangers.

    Operators too are strangers, unless an owner lets them look. Where everybody may read, strangers
    are led back: they see it as they are.
    """
    user = cast(User, request.user)  # login_required
    came_for = safe_next(request.GET.get("next", "/"))
    member = memberships(user).filter(workspace__slug=slug).first()
    workspace = member.workspace if member else support.find(user, slug)
    if workspace is None:
        if (public := find_public(slug)) is None:
            raise Http404("no such workspace")
        return _redirect(public.url.rstrip("/") + came_for)
    state = request.GET.get("state", "")
    if len(state) != 64 or not request.session.session_key:
        # Nobody asked at the workspace's host: begin there. A public one would not ask.
        begin = f"{START}?" if workspace.is_public else ""
        return _redirect(f"{workspace.url.rstrip('/')}{begin}{came_for}")
    code = new_token()
    SignInCode.objects.create(
        digest=digest(code),
        state_digest=state,
        workspace=workspace,
        user=user,
        session_key=request.session.session_key,
        expires_at=timezone.now() + timedelta(seconds=CODE_SECONDS),
    )
    query = urlencode({"code": code, "next": came_for})
    return _redirect(f"{workspace.url.rstrip('/')}{SIGN_IN}?{query}")


@require_safe
@never_cache
@_own_policy
def sign_in(request: HttpRequest) -> HttpResponse:
    """At a workspace's host: trade the code for a session of this host."""
    slug = _slug(request)
    came_for = safe_next(request.GET.get("next", "/"))
    code, state = request.GET.get("code", ""), request.COOKIES.get(STATE_COOKIE, "")
    redeemed = _redeem(slug, code, state)
    token = _open_session(redeemed) if redeemed else None
    if token is None:
        if find_session(slug, request.COOKIES.get(SESSION_COOKIE, "")):
            return _redirect(came_for)  # somebody went back, or another tab was faster
        context = {"start": f"{START}?{came_for}"}
        return render(request, "gateway/sign-in-failed.html", context, status=403)
    response = _redirect(came_for)
    _set_cookie(response, SESSION_COOKIE, token, SESSION_SECONDS)
    return response


def _redeem(slug: str, code: str, state: str) -> SignInCode | None:
    """Use a code up, if it is one for this workspace and this browser."""
    workspace = Workspace.objects.filter(slug=slug, purged_at=None).first()
    if workspace is None or not code or not state:
        return None
    now = timezone.now()
    # No joins: of two that come at once, the second must see the first one's used_at.
    codes = SignInCode.objects.filter(
        digest=digest(code), state_digest=digest(state), workspace_id=workspace.pk
    )
    if codes.filter(used_at=None, expires_at__gt=now).update(used_at=now) != 1:
        return None
    return codes.select_related("user", "workspace").get()


def _cloud_session(code: SignInCode) -> tuple[str, datetime] | None:
    """Return the auth hash and the end of the cloud session that a code was made in, if good."""
    now = timezone.now()
    row = Session.objects.filter(session_key=code.session_key, expire_date__gt=now).first()
    data = row.get_decoded() if row else {}
    auth_hash = str(data.get(HASH_SESSION_KEY, ""))
    same_user = str(data.get(SESSION_KEY, "")) == str(code.user_id)
    if row is None or not same_user or not is_current(code.user, auth_hash):
        return None
    return auth_hash, row.expire_date


def _open_session(code: SignInCode) -> str | None:
    """Make the session that a redeemed code stands for; return its token, None if it no longer may.

    Between the code and now somebody may have signed out, or have been removed.
    """
    cloud_session = _cloud_session(code)
    if cloud_session is None or not code.user.is_active:
        return None
    auth_hash, ends = cloud_session
    members = Member.objects.filter(workspace=code.workspace)
    for_support = not members.filter(user=code.user).exists()
    if for_support:
        workspace = support.find(code.user, code.workspace.slug)
        if workspace is None or workspace.support_until is None:
            return None
        ends = min(ends, workspace.support_until)
        support.note_entry(workspace, code.user)
    token = new_token()
    WorkspaceSession.objects.create(
        digest=digest(token),
        workspace=code.workspace,
        user=code.user,
        session_key=code.session_key,
        auth_hash=auth_hash,
        for_support=for_support,
        expires_at=min(ends, timezone.now() + timedelta(seconds=SESSION_SECONDS)),
    )
    audit.note(code.user, "signed_in_at_workspace", code.workspace, workspace=code.workspace_id)
    return token


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@csrf_exempt  # a token would need a cookie, which the workspace's code could read
@_own_policy
def sign_out(request: HttpRequest) -> HttpResponse:
    """At a workspace's host: end the session there. GET asks first."""
    slug = _slug(request)
    if request.method != "POST":
        return render(request, "gateway/sign-out.html")
    origin = request.headers.get("Origin")
    if origin and origin != f"{settings.SCHEME}://{request.get_host()}":
        raise Http404
    token = request.COOKIES.get(SESSION_COOKIE, "")
    WorkspaceSession.objects.filter(digest=digest(token), workspace__slug=slug).delete()
    response = render(request, "gateway/signed-out.html")
    for name in (SESSION_COOKIE, STATE_COOKIE):
        response.delete_cookie(name, samesite="Lax")
    return response
