"""Every endpoint of the API, as each kind of caller, from one table."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core.signals import request_finished
from django.db import close_old_connections, connection, transaction
from django.http import HttpResponse
from django.urls import URLPattern
from django.utils import timezone

from accounts import api_tokens
from accounts.api_tokens import Scope
from accounts.models import ApiToken, User
from deploy import vault
from deploy.models import Instance, LogTail
from deploy.states import Status
from tests import factories
from tests.workspaces import test_access as pages
from tests.workspaces.api.conftest import EVERYTHING, Api, code_of
from tests.workspaces.test_plugins_page import approve
from workspaces import access, catalogue
from workspaces.api.urls import api as the_api
from workspaces.models import Change, Grant, Release, Role, Rollout, Webhook, Workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ready")]

# What an endpoint is about, where it is not about a workspace.
ANYBODY, OPERATORS = "anybody", "operators"
READ, PLUGINS = (Scope.READ,), (Scope.READ, Scope.PLUGINS)
LIFECYCLE, SECRETS, MEMBERS = (Scope.LIFECYCLE,), (Scope.SECRETS,), (Scope.MEMBERS,)
OPERATOR = (Scope.OPERATOR,)
NEWCOMER = {"email": "newcomer@example.org", "role": "viewer"}
STREAM = {"Accept": "text/event-stream"}
AUDIT = {"accounts_auditentry": ""}
BUDGETS = {"accounts_apibudget", "accounts_apiuserbudget"}
W, P, HOOK = "/workspaces/{slug}", "/operator/plugins/{name}", "/{webhook_id}"
OPERATORS_WEBHOOK, OPERATORS_DELIVERY = pages.WEBHOOK + 1, uuid4()


@dataclass(frozen=True)
class Endpoint:
    """A method at an address, and what it takes.

    `scopes` are those of which a token needs one; without any, every good token will do. `ability`
    is one of access.NEEDS, ANYBODY, or OPERATORS. `values` stand in the address.
    """

    method: str
    path: str
    scopes: tuple[Scope, ...]
    ability: str
    allowed: int
    body: Any = None
    status: Status = Status.RUNNING
    values: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    # A token for one workspace only may not.
    everywhere: bool = False
    # Nor may an operator who is no owner.
    by_owners: bool = False

    @property
    def name(self) -> str:
        """What it is called in the tests."""
        return f"{self.method} {self.path}{' stream' if self.headers else ''}"


def _webhooks(method: str, path: str, allowed: int, body: Any = None) -> list[Endpoint]:
    """Return an endpoint that is there twice: of one workspace, and of all."""
    here, everywhere = f"{W}/webhooks{path}", f"/operator/webhooks{path}"
    theirs = {"webhook_id": OPERATORS_WEBHOOK, "delivery_id": OPERATORS_DELIVERY}
    return [
        Endpoint(method, here, LIFECYCLE, "manage_webhooks", allowed, body),
        Endpoint(method, everywhere, OPERATOR, OPERATORS, allowed, body, values=theirs),
    ]


def _for_operators(method: str, path: str, allowed: int, body: Any = None, **more: Any) -> Endpoint:
    values = {"name": "datasette-one"} | more.pop("values", {})
    return Endpoint(method, path, OPERATOR, OPERATORS, allowed, body, values=values, **more)


TABLE = [
    # --- workspaces
    Endpoint("GET", "/workspaces", READ, ANYBODY, 200),
    Endpoint("POST", "/workspaces", LIFECYCLE, ANYBODY, 202, {"name": "More"}, everywhere=True),
    Endpoint("GET", W, READ, "see", 200),
    Endpoint("PATCH", W, LIFECYCLE, "rename", 200, {"name": "Oaks", "metadata": {"a": "b"}}),
    Endpoint("DELETE", W, LIFECYCLE, "delete", 202),
    Endpoint("POST", f"{W}/undelete", LIFECYCLE, "undelete", 202, status=Status.DELETING),
    Endpoint("POST", f"{W}/start", LIFECYCLE, "start", 202, status=Status.STOPPED),
    Endpoint("POST", f"{W}/stop", LIFECYCLE, "stop", 202),
    Endpoint("POST", f"{W}/restart", LIFECYCLE, "restart", 202),
    Endpoint("POST", f"{W}/wake", LIFECYCLE, "wake", 202, status=Status.SLEEPING),
    Endpoint("GET", f"{W}/usage", READ, "see_usage", 200),
    # --- live
    Endpoint("GET", f"{W}/wait", READ, "see", 200, values={"query": "?status=running"}),
    Endpoint("GET", f"{W}/events", READ, "read_activity", 200),
    Endpoint("GET", f"{W}/events", READ, "read_activity", 200, headers=STREAM),
    Endpoint("GET", f"{W}/logs", READ, "read_logs", 200),
    Endpoint("GET", f"{W}/logs", READ, "read_logs", 200, headers=STREAM),
    Endpoint("GET", f"{W}/audit", READ, "read_audit", 200),
    _for_operators("GET", "/operator/audit", 200),
    # --- what it is made of
    Endpoint("GET", f"{W}/plugins", PLUGINS, "see", 200),
    Endpoint(
        "PUT",
        f"{W}/plugins",
        (Scope.PLUGINS,),
        "change_plugins",
        202,
        {"plugins": ["datasette-one"]},
    ),
    Endpoint("POST", f"{W}/plugins/roll-back", (Scope.PLUGINS,), "change_plugins", 202),
    Endpoint("GET", f"{W}/changes", PLUGINS, "see", 200),
    Endpoint("GET", f"{W}/changes/{{change_id}}", PLUGINS, "see", 200),
    Endpoint("GET", f"{W}/changes/{{change_id}}/wait", PLUGINS, "see", 200),
    Endpoint("GET", f"{W}/secrets", SECRETS, "change_secrets", 200),
    Endpoint(
        "PUT",
        f"{W}/secrets/{{name}}",
        SECRETS,
        "change_secrets",
        202,
        {"value": "s3cret"},
        values={"name": "OTHER_KEY"},
    ),
    Endpoint(
        "DELETE",
        f"{W}/secrets/{{name}}",
        SECRETS,
        "change_secrets",
        204,
        values={"name": "SOME_KEY"},
    ),
    Endpoint("GET", "/releases", READ, ANYBODY, 200),
    Endpoint("GET", "/images", READ, ANYBODY, 200),
    # --- people
    Endpoint("GET", f"{W}/members", (Scope.READ, Scope.MEMBERS), "see", 200),
    Endpoint(
        "PATCH",
        f"{W}/members/{{user_id}}",
        MEMBERS,
        "change_members",
        200,
        {"role": "owner"},
        by_owners=True,
    ),
    Endpoint("DELETE", f"{W}/members/{{user_id}}", MEMBERS, "change_members", 204),
    Endpoint(
        "POST",
        f"{W}/members/{{user_id}}/transfer",
        MEMBERS,
        "change_members",
        200,
        by_owners=True,
    ),
    Endpoint("GET", f"{W}/invitations", MEMBERS, "change_members", 200),
    Endpoint("POST", f"{W}/invitations", MEMBERS, "change_members", 201, NEWCOMER, by_owners=True),
    Endpoint(
        "POST",
        f"{W}/invitations/{{invitation_id}}/resend",
        MEMBERS,
        "change_members",
        200,
        by_owners=True,
    ),
    Endpoint("DELETE", f"{W}/invitations/{{invitation_id}}", MEMBERS, "change_members", 204),
    Endpoint("GET", "/me", (), ANYBODY, 200),
    Endpoint("GET", "/tokens", (), ANYBODY, 200),
    Endpoint("POST", "/tokens", (), ANYBODY, 201, {"name": "less", "scopes": ["read"]}),
    Endpoint("DELETE", "/tokens/{token_id}", (), ANYBODY, 204),
    # --- webhooks
    *_webhooks("GET", "", 200),
    *_webhooks("POST", "", 201, {"url": pages.PUBLIC}),
    *_webhooks("GET", HOOK, 200),
    *_webhooks("PATCH", HOOK, 200, {"name": "Other"}),
    *_webhooks("DELETE", HOOK, 204),
    *_webhooks("POST", f"{HOOK}/rotate", 200),
    *_webhooks("POST", f"{HOOK}/ping", 202),
    *_webhooks("GET", f"{HOOK}/deliveries", 200),
    *_webhooks("POST", f"{HOOK}/deliveries/{{delivery_id}}/redeliver", 202),
    # --- operators: workspaces, plans
    _for_operators("POST", f"{W}/suspend", 202, {"reason": "Unpaid."}),
    _for_operators("POST", f"{W}/resume", 202, status=Status.SUSPENDED),
    _for_operators("POST", f"{W}/release", 202, {"version": "1.0a41"}),
    _for_operators("GET", "/operator/fleet", 200),
    _for_operators("GET", "/operator/plans", 200),
    _for_operators("POST", "/operator/plans", 201, {"name": "Big"}),
    _for_operators("GET", "/operator/plans/{plan_id}", 200),
    _for_operators("PATCH", "/operator/plans/{plan_id}", 200, {"memory_mb": 1024}),
    # --- operators: releases
    _for_operators("GET", "/operator/releases", 200),
    _for_operators("POST", "/operator/releases/{version}/build", 202),
    _for_operators("POST", "/operator/releases/{version}/default", 202),
    _for_operators("POST", "/operator/releases/{version}/offer", 202, {"offered": False}),
    _for_operators("GET", "/operator/rollouts", 200),
    _for_operators("POST", "/operator/rollouts", 202, {"source": "1.0a41", "target": "0.65.5"}),
    _for_operators("GET", "/operator/rollouts/{rollout_id}", 200),
    _for_operators("POST", "/operator/rollouts/{rollout_id}/stop", 202),
    # --- operators: the catalogue
    _for_operators("GET", "/operator/plugins", 200),
    _for_operators("POST", "/operator/plugins", 202, {"name": "datasette-new"}),
    _for_operators("GET", f"{P}", 200),
    _for_operators("PATCH", f"{P}", 200, {"description": "Charts"}),
    _for_operators("POST", f"{P}/refresh", 202),
    _for_operators("GET", f"{P}/approvals", 200),
    _for_operators("POST", f"{P}/approvals", 202, {"version": "1.1"}),
    _for_operators("GET", "/operator/approvals/{approval_id}", 200),
    _for_operators("POST", "/operator/approvals/{approval_id}/renew", 200),
    _for_operators("POST", "/operator/approvals/{approval_id}/withdraw", 200, {"rebuild": True}),
    _for_operators("GET", f"{P}/grants", 200),
    _for_operators("PUT", f"{P}/grants/{{slug}}", 200, values={"name": "datasette-two"}),
    _for_operators("DELETE", f"{P}/grants/{{slug}}", 204),
]
every_endpoint = pytest.mark.parametrize("endpoint", TABLE, ids=[e.name for e in TABLE])


# --- the world that all of them act on -----------------------------------------------------------


@dataclass
class World:
    """A workspace with one of each thing, and the numbers and names of these things."""

    workspace: Workspace
    owner: User
    values: dict[str, Any]

    def ask(self, endpoint: Endpoint, caller: "Caller", **other: Any) -> HttpResponse:
        """Send the endpoint's request as somebody."""
        values = {**self.values, "token_id": caller.token_id, **endpoint.values, **other}
        path = endpoint.path.format(**values) + values.get("query", "")
        headers = {name.replace("-", "_"): value for name, value in endpoint.headers.items()}
        return Api(caller.text).ask(endpoint.method, path, endpoint.body, **headers)


@dataclass(frozen=True)
class Caller:
    """Who asks: the text of a token, and its number."""

    text: str = ""
    token_id: int = 1


def make_world(status: Status) -> World:
    """A workspace in this status, with a plugin, a change, a secret and a member to take out."""
    owner, friend = factories.make_user(), factories.make_user()
    workspace = pages.make_trees(owner, status)
    hook = Webhook(pk=OPERATORS_WEBHOOK, url=pages.PUBLIC, secret=vault.seal("whsec_c2Vj"))
    hook.save(force_insert=True)
    hook.deliveries.create(pk=OPERATORS_DELIVERY, type="ping", body="{}", state="delivered")
    factories.add_member(workspace, friend, Role.VIEWER)
    Instance.objects.filter(pk=workspace.instance_id).update(
        secrets={"SOME_KEY": vault.seal("kept")}
    )
    # A worker's answer that is there already: nobody waits for one.
    soon = timezone.now() + timedelta(hours=1)
    LogTail.objects.create(instance=workspace.instance, text="2026 hello", fetched_at=soon)
    approval = approve("datasette-one", expires_at=timezone.now() + timedelta(days=9))
    approve("datasette-two")
    Grant.objects.create(plugin=approval.plugin, workspace=workspace)
    coming = factories.make_release("1.0a41")
    Release.objects.filter(pk=coming.pk).update(image=workspace.instance.image)
    rollout = Rollout.objects.create(
        from_release=workspace.release, to_release=coming, by=owner, batch_size=2
    )
    change = Change.objects.create(
        workspace=workspace,
        by=owner,
        state=Change.State.DONE,
        release=workspace.release,
        old_release=workspace.release,
        old_image=workspace.instance.image,
        finished_at=timezone.now(),
    )
    values = {
        "slug": "trees",
        "user_id": friend.pk,
        "change_id": change.pk,
        "plan_id": workspace.plan_id,
        "approval_id": approval.pk,
        "rollout_id": rollout.pk,
        "version": "1.0a41",
        "webhook_id": pages.WEBHOOK,
        "invitation_id": pages.WEBHOOK,
        "delivery_id": pages.DELIVERY,
    }
    return World(workspace, owner, values)


def made(user: User, *scopes: str, **more: Any) -> Caller:
    token, text = api_tokens.create(user, "test", scopes or EVERYTHING, **more)
    return Caller(text, token.pk)


# --- who asks ------------------------------------------------------------------------------------

ALL_SCOPES = [*EVERYTHING, Scope.OPERATOR.value]


def _operator(**more: Any) -> User:
    return factories.make_user(is_staff=True, is_superuser=True, **more)


def _member(role: Role) -> Callable[[World, Endpoint], Caller]:
    def member(world: World, endpoint: Endpoint) -> Caller:
        user = factories.make_user()
        factories.add_member(world.workspace, user, role)
        return made(user)

    return member


def _other_tenant(world: World, endpoint: Endpoint) -> Caller:
    user = factories.make_user()
    factories.make_workspace(user)
    return made(user)


def _expired(world: World, endpoint: Endpoint) -> Caller:
    caller = made(world.owner)
    past = timezone.now() - timedelta(seconds=1)
    ApiToken.objects.filter(pk=caller.token_id).update(expires_at=past)
    return caller


def _revoked(world: World, endpoint: Endpoint) -> Caller:
    caller = made(world.owner)
    api_tokens.revoke(ApiToken.objects.get(pk=caller.token_id))
    return caller


def _inactive(world: World, endpoint: Endpoint) -> Caller:
    user = factories.make_user()
    factories.add_member(world.workspace, user, Role.OWNER)
    caller = made(user)
    User.objects.filter(pk=user.pk).update(is_active=False)
    return caller


def _wrong_scope(world: World, endpoint: Endpoint) -> Caller:
    """Every scope but those that would do."""
    others = [scope for scope in EVERYTHING if scope not in endpoint.scopes]
    if endpoint.ability == OPERATORS:
        return made(_operator(), *others)
    return made(world.owner, *others)


def _this_one_only(world: World, endpoint: Endpoint) -> Caller:
    return made(world.owner, only=world.workspace.pk)


def _another_one_only(world: World, endpoint: Endpoint) -> Caller:
    return made(world.owner, only=factories.make_workspace(world.owner).pk)


def _operator_all(world: World, endpoint: Endpoint) -> Caller:
    return made(_operator(), Scope.OPERATOR)


def _powerless(world: World, endpoint: Endpoint) -> Caller:
    return made(factories.make_user(is_staff=True), *ALL_SCOPES)


def _operator_of_one(world: World, endpoint: Endpoint) -> Caller:
    return made(_operator(), *ALL_SCOPES, only=world.workspace.pk)


def _no_operator_any_more(world: World, endpoint: Endpoint) -> Caller:
    user = _operator()
    caller = made(user, *ALL_SCOPES)
    User.objects.filter(pk=user.pk).update(is_staff=False)
    return caller


def _operator_without_the_scope(world: World, endpoint: Endpoint) -> Caller:
    return made(_operator())


@dataclass(frozen=True)
class Kind:
    """A kind of caller, and what it is to a workspace."""

    caller: Callable[[World, Endpoint], Caller]
    # A role; "operator"; "powerless" for one without permissions; "stranger"; "nobody" without a
    # good token; "scope" for the wrong one.
    counts_as: str
    only_one: bool = False


KINDS = {
    "owner": Kind(_member(Role.OWNER), "owner"),
    "editor": Kind(_member(Role.EDITOR), "editor"),
    "viewer": Kind(_member(Role.VIEWER), "viewer"),
    "member of another workspace": Kind(_other_tenant, "stranger"),
    "anonymous": Kind(lambda world, endpoint: Caller(), "nobody"),
    "nonsense": Kind(lambda world, endpoint: Caller("cloudapp_" + "x" * 46), "nobody"),
    "expired": Kind(_expired, "nobody"),
    "revoked": Kind(_revoked, "nobody"),
    "inactive user": Kind(_inactive, "nobody"),
    "wrong scope": Kind(_wrong_scope, "scope"),
    "this workspace only": Kind(_this_one_only, "owner", only_one=True),
    "another workspace only": Kind(_another_one_only, "stranger", only_one=True),
    "operator": Kind(_operator_all, "operator"),
    "operator without permissions": Kind(_powerless, "powerless"),
    "operator, this workspace only": Kind(_operator_of_one, "stranger", only_one=True),
    "no operator any more": Kind(_no_operator_any_more, "stranger"),
    "operator without the scope": Kind(_operator_without_the_scope, "stranger"),
}


def expected(endpoint: Endpoint, kind: Kind) -> tuple[int, str]:
    """Return the status, and the code of the problem where it is one."""
    who = kind.counts_as
    allowed = (endpoint.allowed, "")
    if who == "nobody":
        return 401, "not_signed_in"
    if who == "scope":
        return (403, "scope_missing") if endpoint.scopes else allowed
    if endpoint.ability == OPERATORS and who != "operator":
        return 403, "permission_missing" if who == "powerless" else "scope_missing"
    if endpoint.everywhere and kind.only_one:
        return 403, "scope_missing"
    if who == "operator" or endpoint.ability == ANYBODY:
        return (403, "role_too_low") if endpoint.by_owners else allowed
    return (404, "not_found") if who in ("stranger", "powerless") else _by_role(endpoint, who)


def _by_role(endpoint: Endpoint, who: str) -> tuple[int, str]:
    allowed = (endpoint.allowed, "")
    may = access.is_at_least(who, access.NEEDS[endpoint.ability])
    return allowed if may else (403, "role_too_low")


def everything() -> dict[str, str]:
    """A hash of each table's rows, but for what every request notes: in one query."""
    tables = set(connection.introspection.table_names()) - BUDGETS
    parts = [
        f"SELECT '{table}', md5(string_agg(row, '' ORDER BY row)) FROM "  # noqa: S608 - our own names
        f"(SELECT (to_jsonb(t) - 'last_used_at')::text AS row FROM \"{table}\" t) AS {table}"
        for table in sorted(tables)
    ]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts))
        return dict(cursor.fetchall())


def close(response: HttpResponse) -> None:
    """Leave a stream. As Django's client does, which keeps the test's own connection open."""
    if response.streaming:
        request_finished.disconnect(close_old_connections)
        response.close()
        request_finished.connect(close_old_connections)


# --- the tests -----------------------------------------------------------------------------------


@every_endpoint
def test_who_may(endpoint: Endpoint) -> None:
    world = make_world(endpoint.status)
    callers = {name: kind.caller(world, endpoint) for name, kind in KINDS.items()}
    before = everything()
    for name, kind in KINDS.items():
        place = transaction.savepoint()
        response = world.ask(endpoint, callers[name])
        told = (name, "" if response.streaming else response.content)
        status, code = expected(endpoint, kind)
        assert response.status_code == status, told
        close(response)
        if code:
            assert code_of(response) == code, told
        changes_nothing = code or endpoint.method == "GET"
        # What is the customer's, or of all: that an operator read it is written down.
        read = endpoint.ability in ("read_logs", "read_audit") or endpoint.path == "/operator/audit"
        noted = AUDIT if name.startswith("operator") and read else {}
        same = everything() | noted == before | noted
        assert same == bool(changes_nothing), told
        if code == "not_found":
            _same_as_for_nothing(response, world.ask(endpoint, callers[name], slug="no-such-one"))
        transaction.savepoint_rollback(place)


def _same_as_for_nothing(response: HttpResponse, nothing: HttpResponse) -> None:
    assert nothing.status_code == 404
    own = {"instance": "", "request_id": ""}
    assert nothing.json() | own == response.json() | own
    assert set(nothing.headers) == set(response.headers)


@pytest.mark.parametrize(
    ("endpoint", "scope"),
    [
        pytest.param(endpoint, scope, id=f"{endpoint.name}, {scope}")
        for endpoint in TABLE
        for scope in endpoint.scopes or [Scope.DATA]
    ],
)
def test_each_of_its_scopes_is_enough(endpoint: Endpoint, scope: Scope) -> None:
    world = make_world(endpoint.status)
    user = _operator() if scope is Scope.OPERATOR else world.owner
    body = endpoint.body
    if endpoint.path == "/tokens" and body:
        body = {**body, "scopes": [scope]}  # no token hands on what it has not got
    response = world.ask(Endpoint(**{**vars(endpoint), "body": body}), made(user, scope))
    assert response.status_code == endpoint.allowed
    close(response)


def _addresses() -> set[str]:
    patterns = [pattern for pattern in the_api.urls[0] if isinstance(pattern, URLPattern)]
    routes = [str(pattern.pattern) for pattern in patterns if pattern.name != "api-root"]
    return {"/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route) for route in routes}


def test_the_table_knows_every_endpoint() -> None:
    paths = the_api.get_openapi_schema()["paths"]
    described = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, operations in paths.items()
        for method in operations
    }
    known = {(endpoint.method, endpoint.path) for endpoint in TABLE}
    assert known == described
    # Also what the document leaves out.
    assert {path for _, path in known} == _addresses()


def test_every_ability_is_asked_for_somewhere() -> None:
    here = {endpoint.ability for endpoint in TABLE} - {ANYBODY, OPERATORS}
    assert here | {address.ability for address in pages.TABLE} == set(access.NEEDS)


def test_the_world_has_what_is_asked_for() -> None:
    """A refusal proves nothing where there is nothing to be had."""
    world = make_world(Status.RUNNING)
    for endpoint in TABLE:
        if endpoint.method == "GET" and not endpoint.headers:
            caller = made(_operator(), Scope.OPERATOR)
            found = world.ask(endpoint, caller).json()
            assert found.get("items", found), endpoint.name
    assert catalogue.default_release()
