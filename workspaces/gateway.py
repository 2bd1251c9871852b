"""What the router asks before each request to a workspace: who may pass, and where to?

Who asks is said by a browser's workspace session, or by a program's API token in the Authorization
header. The router caches the answer by these and the workspace's slug, so it may depend on nothing
else. All but a yes and "sign in" is a 403 with the verdict in a
header, because nginx's auth_request understands only 2xx, 401 and 403; which status people get, the
router's table of pages says.
"""

import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import Exists, F, OuterRef, Q, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.http import require_safe

from accounts import api_tokens
from accounts.api_tokens import Scope
from accounts.models import ApiToken, User
from accounts.names import OPERATOR
from deploy import lifecycle, notify, tokens
from deploy.models import Instance
from deploy.states import FAILED_AFTER_ATTEMPTS, Desired, Status, StopReason
from workspaces import support
from workspaces.breaker import database_breaker
from workspaces.handoff_tokens import digest
from workspaces.models import Member, Role, Visibility, Workspace, WorkspaceSession
from workspaces.people import primary_email

logger = logging.getLogger(__name__)

# For how long the router acts on an answer without asking again.
YES_SECONDS = 5
# A no is remembered only to take the place of an earlier yes: when the gateway is down, the router
# falls back on what it remembers, and somebody who was turned away must not get in again then.
NO_SECONDS = 1
# A container that is gone for good is noticed by then; one that only hiccuped is not.
NOTICE_SECONDS = 2.0

_holds = threading.BoundedSemaphore(settings.WAKE_HOLDS)


class Verdict(StrEnum):
    """What the gateway says. The names are also those of the router's pages."""

    PASS = "pass"  # noqa: S105 - not a password
    SIGN_IN = "sign-in"
    NOT_FOUND = "not-found"
    WAKING = "waking"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    FAILED = "failed"
    DELETING = "deleting"
    UNREACHABLE = "unreachable"


_STOPPED: Final[Mapping[StopReason, Verdict]] = {
    StopReason.IDLE: Verdict.WAKING,
    StopReason.OWNER: Verdict.STOPPED,
    StopReason.OPERATOR: Verdict.SUSPENDED,
}


# Who is at a public workspace without being a member. It counts as a viewer, which instances that
# know nothing of visitors understand as well; those that do let it see less.
VISITOR: Final[Mapping[str, str]] = {"id": "visitor", "name": "Visitor", "role": Role.VIEWER.value}


@dataclass(frozen=True)
class Visit:
    """Somebody at a workspace, as the database has it now: a member, in person or by an API token,
    or a visitor of one that everybody may read. `actor` is id, name and role.
    """

    workspace: Workspace
    actor: Mapping[str, str]
    token: ApiToken | None = None

    @classmethod
    def of_member(
        cls, workspace: Workspace, user: User, role: str, name: str, token: ApiToken | None = None
    ) -> "Visit":
        return cls(workspace, {"id": str(user.pk), "name": name, "role": role}, token)

    @property
    def is_visitor(self) -> bool:
        return self.actor is VISITOR

    @property
    def instance(self) -> Instance:
        return self.workspace.instance


@dataclass(frozen=True)
class Decision:
    """A verdict, and the visit that it concerns, where there is one."""

    verdict: Verdict
    visit: Visit | None = None


# --- what the router tells -----------------------------------------------------------------------

_BEARER = re.compile(rf"bearer +({api_tokens.PREFIX}\S*)", re.IGNORECASE)


def _api_token_in(authorization: str) -> str:
    """Return the API token that a request brings along, good or not; empty when it has none.

    Whatever else stands in that header is not for us: then the session decides.
    """
    found = _BEARER.fullmatch(authorization.strip())
    return found[1] if found else ""


@dataclass(frozen=True)
class Question:
    """What the router tells of a request. Raises Http404 for anybody who is not the router."""

    slug: str
    session: str = field(repr=False)
    api_token: str = field(repr=False)
    method: str

    @classmethod
    def of(cls, request: HttpRequest) -> "Question":
        said, secret = request.headers.get("X-Router-Secret", ""), settings.ROUTER_SECRET
        if not secret or not constant_time_compare(said, secret):
            raise Http404
        headers = request.headers
        return cls(
            slug=headers.get("X-Cloudapp-Slug", ""),
            session=headers.get("X-Cloudapp-Session", ""),
            api_token=_api_token_in(headers.get("Authorization", "")),
            method=headers.get("X-Cloudapp-Method", "GET"),
        )

    @property
    def is_safe(self) -> bool:
        """Whether it may be asked twice."""
        return self.method in ("GET", "HEAD")


# --- who is it? --------------------------------------------------------------------------------


def is_current(user: User, auth_hash: str) -> bool:
    """Whether the user's password is still the one that this hash was made with."""
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return any(constant_time_compare(known, auth_hash) for known in hashes)


def find_session(slug: str, token: str) -> WorkspaceSession | None:
    """Return the workspace session of this token if it is good; None otherwise. One query.

    It carries three more attributes: `role` (None for somebody who is no member any more), `email`,
    and `supports`: whether an operator came in to look at the data, and an owner lets them now.
    """
    now = timezone.now()
    cloud_session = Session.objects.filter(session_key=OuterRef("session_key"), expire_date__gt=now)
    member = Member.objects.filter(workspace=OuterRef("workspace"), user=OuterRef("user"))
    found = (
        WorkspaceSession.objects.filter(
            Exists(cloud_session),
            digest=digest(token),
            workspace__slug=slug,
            workspace__purged_at=None,
            user__is_active=True,
            expires_at__gt=now,
        )
        .annotate(
            role=Subquery(member.values("role")[:1]),
            email=primary_email(),
            supports=Q(for_support=True, workspace__support_until__gt=now),
        )
        .select_related("workspace__instance", "user__profile")
    )
    # Not first(): to put one row into an order takes Django longer than all the rest.
    session = next(iter(found[:1]), None)
    return session if session and is_current(session.user, session.auth_hash) else None


# What a place that a token opens tells of the token.
_OF_TOKEN = ("id", "name", "scopes", "last_used_at")


def find_place(slug: str, api_token: str) -> Member | None:
    """Return the place in a workspace whose data this token opens; None otherwise. One query.

    It carries `email`, and of the token what _OF_TOKEN names, as `token_…`.
    """
    for_data = Q(scopes__contains=[Scope.READ]) | Q(scopes__contains=[Scope.DATA])
    here = Q(only=None) | Q(only=OuterRef("workspace"))
    opening = api_tokens.matching(api_token).filter(for_data, here)
    found = (
        Member.objects.filter(
            workspace__slug=slug, workspace__purged_at=None, user__api_tokens__in=opening
        )
        .annotate(
            email=primary_email(),
            **{f"token_{name}": F(f"user__api_tokens__{name}") for name in _OF_TOKEN},
        )
        .select_related("workspace__instance", "user__profile")
    )
    return next(iter(found[:1]), None)


def find_public(slug: str) -> Workspace | None:
    """Return the workspace of this slug if everybody may read it. One query, and the same answer
    for a private one, a deleted one and none.
    """
    found = Workspace.objects.filter(
        slug=slug,
        visibility=Visibility.PUBLIC,
        deleted_at=None,
        purged_at=None,
        instance__purged_at=None,
    )
    return next(iter(found.select_related("instance")[:1]), None)


def _name(user: User, email: str | None) -> str:
    profile = getattr(user, "profile", None)
    return (profile.display_name if profile else "") or email or f"user {user.pk}"


# --- what about the instance? ------------------------------------------------------------------


def verdict_of(instance: Instance) -> Verdict:
    """Return what those who may pass get to hear of an instance in this state."""
    desired = Desired(instance.desired)
    if desired is Desired.ABSENT:
        return Verdict.DELETING
    if desired is Desired.STOPPED:
        return _STOPPED[StopReason(instance.stop_reason)]
    if desired is Desired.RUNNING and instance.ready and instance.endpoint:
        return Verdict.PASS
    return Verdict.FAILED if instance.status is Status.FAILED else Verdict.WAKING


def _decide_by_session(slug: str, session_token: str) -> Decision:
    session = find_session(slug, session_token) if session_token else None
    if session is None:
        return _decide_for_visitor(slug, Verdict.SIGN_IN)
    role: str | None = getattr(session, "role", None)
    name = _name(session.user, getattr(session, "email", None))
    if role is None and getattr(session, "supports", False) and support.may_look(session.user):
        role, name = Role.VIEWER.value, OPERATOR
    if role is None:
        return _decide_for_visitor(slug, Verdict.NOT_FOUND)
    return _decide_for(Visit.of_member(session.workspace, session.user, role, name))


def _decide_for_visitor(slug: str, otherwise: Verdict) -> Decision:
    """Let whoever is no member read what is public."""
    workspace = find_public(slug)
    return _decide_for(Visit(workspace, VISITOR)) if workspace else Decision(otherwise)


def _decide_by_token(slug: str, text: str) -> Decision:
    """The token decides alone, and opens what its user may see: also operators' no more than that.

    All that it does not open costs the same two queries and has the same words, so that nobody
    learns of what. What is public needs no token, and a wrong one is no way in.
    """
    place = find_place(slug, text)
    if place is None:
        return Decision(Verdict.NOT_FOUND if api_tokens.find(text) else Verdict.SIGN_IN)
    told = [getattr(place, f"token_{name}") for name in _OF_TOKEN]
    token = ApiToken.from_db(place._state.db, _OF_TOKEN, told)
    role = place.role if Scope.DATA in token.scopes else Role.VIEWER.value
    # Whoever reads logs inside the workspace wants to know that it was a program, and which.
    name = f"{_name(place.user, getattr(place, 'email', None))} (token {token.name})"
    return _decide_for(Visit.of_member(place.workspace, place.user, role, name, token))


def _decide_for(visit: Visit) -> Decision:
    if visit.instance.purged_at:
        return Decision(Verdict.NOT_FOUND)
    if visit.workspace.deleted_at:
        return Decision(Verdict.DELETING, visit)
    return Decision(verdict_of(visit.instance), visit)


def decide(question: Question) -> Decision:
    """Return what is to be said to whoever asks, now.

    One query for a yes. With an API token the session does not count: a token that is no good is
    said to be so, and one that may only read does not write because a browser came along.
    """
    if question.api_token:
        return _decide_by_token(question.slug, question.api_token)
    return _decide_by_session(question.slug, question.session)


# --- waiting for it ----------------------------------------------------------------------------


def _wake(instance: Instance) -> None:
    if instance.desired != Desired.RUNNING:
        lifecycle.wake(instance.pk)


def _await_settled(question: Question, instance_id: UUID) -> Decision:
    """Return the decision once it is another one than "waking", or is it still, later."""
    # Only its own row is looked at, until there is more to say.
    starting = Instance.objects.filter(
        pk=instance_id,
        desired=Desired.RUNNING,
        ready=False,
        attempts__lt=FAILED_AFTER_ATTEMPTS,
    )

    def settled() -> Decision | None:
        if starting.exists():
            return None
        decision = decide(question)
        if decision.verdict is Verdict.WAKING and decision.visit:
            _wake(decision.visit.instance)  # a stop may have come in between
            return None
        return decision

    decision = notify.wait_until(instance_id, settled, settings.WAKE_HOLD_SECONDS, steps=False)
    return decision or decide(question)


def decide_patiently(question: Question) -> Decision:
    """Decide; a sleeping workspace is woken, and the answer waits until it is up.

    Only so many requests wait in one process, so that some are always free to answer others.
    """
    decision = decide(question)
    if decision.verdict is not Verdict.WAKING or decision.visit is None:
        return decision
    _wake(decision.visit.instance)
    if not _holds.acquire(blocking=False):
        return decision
    try:
        return _await_settled(question, decision.visit.instance.pk)
    finally:
        _holds.release()


def _await_noticed(instance: Instance) -> None:
    """Return when a worker saw that an instance is not what we thought, or saw nothing so far."""
    unchanged = Instance.objects.filter(
        pk=instance.pk, ready=True, ready_at=instance.ready_at, desired=Desired.RUNNING
    )
    if _holds.acquire(blocking=False):
        try:
            notify.wait_until(instance.pk, lambda: not unchanged.exists(), NOTICE_SECONDS)
        finally:
            _holds.release()


# --- what the router asks ----------------------------------------------------------------------


def _note_use(decision: Decision) -> None:
    """Note that a token was used. Answers that the router remembers are not seen here."""
    if decision.visit and decision.visit.token:
        api_tokens.note_use(decision.visit.token)


def _pass(visit: Visit) -> HttpResponse:
    instance, workspace = visit.instance, visit.workspace
    if instance.last_used_at < timezone.now() - timedelta(seconds=lifecycle.TOUCH_SECONDS):
        lifecycle.touch(instance.pk)
    response = HttpResponse()
    response["X-Cloudapp-Upstream"] = instance.endpoint
    response["X-Cloudapp-Token"] = tokens.actor_token(
        instance,
        visit.actor,
        {"name": workspace.name, "url": settings.CLOUD_URL + workspace.get_absolute_url()},
        public=workspace.is_public,
        visitor=visit.is_visitor,
    )
    return response


def _answer(decision: Decision) -> HttpResponse:
    if decision.verdict is Verdict.PASS and decision.visit:
        return _pass(decision.visit)
    status = 401 if decision.verdict is Verdict.SIGN_IN else 403
    response = HttpResponse(status=status)
    response["X-Cloudapp-Verdict"] = decision.verdict
    return response


def _seconds(decision: Decision) -> int:
    """Return for how long the router may remember this answer; 0: not at all."""
    if decision.verdict is Verdict.PASS:
        return YES_SECONDS
    # Nobody's too, whose yes was for a workspace that was public until now.
    turned_away = decision.verdict in (Verdict.SIGN_IN, Verdict.NOT_FOUND)
    return NO_SECONDS if turned_away else 0


@require_safe
def authorize(request: HttpRequest) -> HttpResponse:
    """Say who may pass, and where to. Asked before each request to a workspace."""
    question = Question.of(request)
    with database_breaker:
        decision = decide_patiently(question)
        _note_use(decision)
    response = _answer(decision)
    if seconds := _seconds(decision):
        response["X-Accel-Expires"] = str(seconds)
    return response


@require_safe
def unreachable(request: HttpRequest) -> HttpResponse:
    """Say what to do when nobody was there although we had said yes.

    Reading may be tried once more, when the workspace is back. Writing may not: part of the body
    is gone, and the container may have got some of it.
    """
    question = Question.of(request)
    with database_breaker:
        return _answer(_decide_after_trouble(question))


def _decide_after_trouble(question: Question) -> Decision:
    decision = decide(question)
    if decision.verdict is Verdict.PASS and decision.visit:
        logger.warning("instance %s did not answer the router", decision.visit.instance.pk)
        lifecycle.poke(decision.visit.instance.pk)
        if question.is_safe:
            _await_noticed(decision.visit.instance)
    if question.is_safe:
        return decide_patiently(question)
    if decision.verdict in (Verdict.PASS, Verdict.WAKING) and decision.visit:
        _wake(decision.visit.instance)
        return Decision(Verdict.UNREACHABLE, decision.visit)
    return decision
