"""Workspaces over the API: shapes, lists, changes, deeds."""

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from deploy.models import Instance
from deploy.states import Status
from tests import factories
from tests.bench.api import many_workspaces
from tests.workspaces.api.conftest import Api, api_of, code_of
from tests.workspaces.test_services import at_once
from workspaces import services
from workspaces.api import pages, workspace_routes
from workspaces.models import Activity, IdempotencyKey, Plan, Role, Workspace

PLUGINS = "/workspaces/trees/plugins"
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ready")]


def test_create_answers_with_the_workspace_and_its_address(api: Api, owner: User) -> None:
    response = api.post("/workspaces", {"name": "Trees of Kyiv", "metadata": {"customer": "4711"}})
    assert response.status_code == 202
    assert response["Location"].endswith("/api/v1/workspaces/trees-of-kyiv")
    made = response.json()
    assert made | {"created_at": "", "last_used_at": ""} == {
        "slug": "trees-of-kyiv",
        "name": "Trees of Kyiv",
        "status": "provisioning",
        "url": "http://trees-of-kyiv.localhost:8000/",
        "visibility": "private",
        "role": "owner",
        "plan": "Standard",
        "release": "0.65.5",
        "plugins": [],
        "disk": {
            "used_bytes": None,
            "limit_bytes": 10240 * 1024 * 1024,
            "level": "fine",
            "measured_at": None,
        },
        "metadata": {"customer": "4711"},
        "moving": True,
        "error": None,
        "suspended_reason": None,
        "created_at": "",
        "last_used_at": "",
        "deleted_at": None,
        "purge_at": None,
    }
    seen = api.get("/workspaces/trees-of-kyiv")
    assert seen.status_code == 200
    assert seen.json() == made
    assert seen["ETag"] == response["ETag"]
    assert Activity.objects.get().verb == "created"


def test_without_a_slug_it_gets_one_that_is_free(api: Api) -> None:
    slugs = [api.post("/workspaces", {"name": "Trees"}).json()["slug"] for _ in range(3)]
    assert slugs == ["trees", "trees-2", "trees-3"]
    assert code_of(api.post("/workspaces", {"name": "Trees", "slug": "trees"})) == "slug_taken"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body.name"),
        ({"name": ""}, "body.name"),
        ({"name": "  "}, "body.name"),
        ({"name": "x" * 81}, "body.name"),
        ({"name": 7}, "body.name"),
        ({"name": "Trees", "slug": "NO"}, "body.slug"),
        ({"name": "Trees", "slug": "admin"}, "body.slug"),
        ({"name": "Trees", "colour": "green"}, "body.colour"),
        ({"name": "Trees", "metadata": {"a b": "c"}}, "body.metadata.a b.[key]"),
        ({"name": "Trees", "metadata": {"a": "x" * 501}}, "body.metadata.a"),
        ({"name": "Trees", "metadata": {str(n): "" for n in range(21)}}, "body.metadata"),
    ],
)
def test_what_is_not_valid_is_named(api: Api, body: dict[str, Any], field: str) -> None:
    response = api.post("/workspaces", body)
    assert response.status_code == 422
    assert code_of(response) == "invalid"
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert not Workspace.objects.exists()


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[]", b'"text"', b"null", b""])
def test_what_cannot_be_read_is_no_traceback(api: Api, body: bytes) -> None:
    response = api.client.generic(
        "POST", "/api/v1/workspaces", body, "application/json", headers=api.headers
    )
    assert response.status_code in (400, 422)
    assert code_of(response) in ("bad_request", "invalid")


def test_nothing_is_html_at_addresses_and_with_methods_that_there_are_not(api: Api) -> None:
    assert code_of(api.get("/nothing")) == "not_found"
    assert code_of(api.get("/workspaces/")) == "not_found"
    assert code_of(Api().get("/nothing")) == "not_found"
    wrong = api.ask("PUT", "/workspaces", {})
    assert wrong.status_code == 405
    assert code_of(wrong) == "method_not_allowed"
    assert wrong["Allow"]


def test_a_token_is_needed(owner: User) -> None:
    for authorization in ("", "Bearer nonsense", "Basic YTpi", "Bearer cloudapp_" + "x" * 46):
        response = Api().get("/workspaces", Authorization=authorization)
        assert response.status_code == 401
        assert code_of(response) == "not_signed_in"
        assert response["WWW-Authenticate"].startswith("Bearer")


def test_the_list_has_parts_and_filters(api: Api, owner: User) -> None:
    for number, status in enumerate(Status):
        factories.make_workspace(owner, f"space-{status}", status=status)
        Workspace.objects.filter(slug=f"space-{status}").update(
            created_at=timezone.now() + timedelta(seconds=number)
        )
    factories.make_workspace(factories.make_user(), "not-mine")
    first = api.get("/workspaces?limit=4").json()
    second = api.get(f"/workspaces?limit=4&cursor={first['next']}").json()
    slugs = [item["slug"] for item in first["items"] + second["items"]]
    live = [s for s in Status if s not in (Status.DELETING, Status.DELETED)]
    assert slugs == [f"space-{status}" for status in reversed(live)]
    assert second["next"] is None
    for status in Status:
        found = api.get(f"/workspaces?status={status}").json()["items"]
        expected = [] if status is Status.DELETED else [f"space-{status}"]
        assert [item["slug"] for item in found] == expected
        assert all(item["status"] == status for item in found)
    both = api.get("/workspaces?status=running&status=failed").json()["items"]
    assert {item["status"] for item in both} == {"running", "failed"}
    assert [i["slug"] for i in api.get("/workspaces?q=SLEEP").json()["items"]] == ["space-sleeping"]
    assert code_of(api.get("/workspaces?cursor=abc")) == "invalid"
    assert code_of(api.get("/workspaces?status=asleep")) == "invalid"
    assert code_of(api.get("/workspaces?limit=0")) == "invalid"
    assert code_of(api.get("/workspaces?q=%00")) == "invalid"


@pytest.mark.parametrize(
    ("moment", "status"),
    [
        ("2026-11-27T17:00:00+23:59", 200),  # Postgres knows no such zone
        ("2026-11-27T17:00:00-23:59", 200),
        ("0001-01-01T00:00:00+23:59", 422),
        ("9999-12-31T23:59:59-23:59", 422),
        ("2026-11-27T17:00:00", 422),
    ],
)
def test_a_made_up_cursor_is_no_accident(api: Api, moment: str, status: int) -> None:
    cursor = pages.cursor_of(moment, UUID(int=1))
    assert api.get(f"/workspaces?cursor={cursor}").status_code == status


def test_update_keeps_what_somebody_else_changed(api: Api, owner: User) -> None:
    factories.make_workspace(owner, "trees", name="Trees")
    seen = api.get("/workspaces/trees")["ETag"]
    changed = api.ask("PATCH", "/workspaces/trees", {"name": "Oaks"}, If_Match=seen)
    assert changed.status_code == 200
    assert changed.json()["name"] == "Oaks"
    again = api.ask("PATCH", "/workspaces/trees", {"name": "Elms"}, If_Match=seen)
    assert again.status_code == 412
    assert code_of(again) == "changed_meanwhile"
    body = {"metadata": {"a": "1", "b": "2"}}
    new = api.ask("PATCH", "/workspaces/trees", body, If_Match=changed["ETag"])
    assert new.json()["metadata"] == {"a": "1", "b": "2"}
    assert new.json()["name"] == "Oaks"
    less = api.ask("PATCH", "/workspaces/trees", {"metadata": {"a": None, "c": "3"}})
    assert less.json()["metadata"] == {"b": "2", "c": "3"}
    verbs = Activity.objects.order_by("id").values_list("verb", flat=True)
    assert list(verbs) == ["renamed", "changed_metadata", "changed_metadata"]


def test_deeds_answer_202_and_do_what_they_say(api: Api, owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    for deed, desired in (("stop", "stopped"), ("start", "running"), ("restart", "running")):
        response = api.post(f"/workspaces/trees/{deed}")
        assert response.status_code == 202
        assert response["Location"].endswith("/api/v1/workspaces/trees")
        workspace.instance.refresh_from_db()
        assert workspace.instance.desired == desired
    assert api.ask("DELETE", "/workspaces/trees").json()["status"] == "deleting"
    assert code_of(api.post("/workspaces/trees/start")) == "deleted"
    back = api.post("/workspaces/trees/undelete")
    assert back.status_code == 202
    assert back.json()["deleted_at"] is None


def test_waking(api: Api, owner: User) -> None:
    factories.make_workspace(owner, "asleep", status=Status.SLEEPING)
    assert api.post("/workspaces/asleep/wake").json()["status"] == "provisioning"
    assert api.post("/workspaces/asleep/wake").status_code == 202
    factories.make_workspace(owner, "off", status=Status.STOPPED)
    assert code_of(api.post("/workspaces/off/wake")) == "refused"
    factories.make_workspace(owner, "shut", status=Status.SUSPENDED)
    assert code_of(api.post("/workspaces/shut/wake")) == "suspended"
    assert code_of(api.post("/workspaces/shut/start")) == "suspended"


# --- idempotency keys ----------------------------------------------------------------------------


def test_the_same_key_and_body_gets_the_first_answer(api: Api, owner: User) -> None:
    body = {"name": "Trees"}
    first = api.post("/workspaces", body, Idempotency_Key="k1")
    factories.set_status(Workspace.objects.get().instance, Status.RUNNING)
    again = api.post("/workspaces", body, Idempotency_Key="k1")
    assert (again.status_code, again.content) == (202, first.content)
    assert again["Location"] == first["Location"]
    assert again["ETag"] == first["ETag"]
    assert again["Idempotent-Replayed"] == "true"
    assert Workspace.objects.count() == 1
    other = api.post("/workspaces", {"name": "Oaks"}, Idempotency_Key="k1")
    assert other.status_code == 409
    assert code_of(other) == "key_reused"
    assert code_of(api.post("/workspaces/trees/stop", Idempotency_Key="k1")) == "key_reused"
    # Somebody else's keys are their own.
    assert (
        api_of(factories.make_user()).post("/workspaces", body, Idempotency_Key="k1").json()["slug"]
        == "trees-2"
    )


def test_a_refusal_is_an_answer_too_but_not_one_that_may_change(api: Api, owner: User) -> None:
    Plan.objects.update(max_workspaces=0)
    full = api.post("/workspaces", {"name": "Trees"}, Idempotency_Key="k1")
    assert code_of(full) == "quota_reached"
    Plan.objects.update(max_workspaces=1)
    assert code_of(api.post("/workspaces", {"name": "Trees"}, Idempotency_Key="k1")) == (
        "quota_reached"
    )
    assert code_of(api.post("/workspaces/oaks/stop", Idempotency_Key="k2")) == "not_found"
    factories.make_workspace(owner, "oaks")
    assert api.post("/workspaces/oaks/stop", Idempotency_Key="k2").status_code == 202


@pytest.mark.django_db(transaction=True)
def test_twenty_creations_at_once_against_a_limit_of_three_make_three(owner: User) -> None:
    Plan.objects.update(max_workspaces=3)
    api = api_of(owner)
    answers: list[HttpResponse] = []
    at_once(20, lambda n: answers.append(api.post("/workspaces", {"name": f"Space {n}"})))
    codes = Counter("" if one.status_code == 202 else code_of(one) for one in answers)
    assert codes == {"": 3, "quota_reached": 17}
    assert Workspace.objects.count() == Instance.objects.count() == 3


def test_keys_are_kept_for_a_day(api: Api) -> None:
    api.post("/workspaces", {"name": "Trees"}, Idempotency_Key="k1")
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    services.forget_old_keys()
    assert not IdempotencyKey.objects.exists()


def test_a_key_of_yesterday_is_a_new_one(api: Api) -> None:
    api.post("/workspaces", {"name": "Trees"}, Idempotency_Key="k1")
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=24, seconds=1))
    for replayed in (False, True):
        other = api.post("/workspaces", {"name": "Oaks"}, Idempotency_Key="k1")
        assert (other.status_code, other.json()["slug"]) == (202, "oaks")
        assert ("Idempotent-Replayed" in other) == replayed


def test_of_one_persons_keys_the_newest_are_kept(
    api: Api, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "KEYS_KEPT_PER_USER", 3)
    factories.make_workspace(owner, "trees")
    another = api_of(owner)
    for number in range(4):
        for client in (api, another):
            client.post("/workspaces/trees/stop", Idempotency_Key=f"k{number}")
    stranger = factories.make_user()
    factories.make_workspace(stranger, "theirs")
    api_of(stranger).post("/workspaces/theirs/stop", Idempotency_Key="old")
    services.forget_old_keys()
    kept = IdempotencyKey.objects.order_by("id").values_list("key", flat=True)
    assert list(kept) == ["k2", "k3", "k3", "old"]


def test_what_is_said_of_an_invalid_request_is_not_kept(api: Api) -> None:
    refused = api.post("/workspaces", {"name": "Trees", "x" * 200_000: 1}, Idempotency_Key="k1")
    assert code_of(refused) == "invalid"
    assert code_of(api.post("/workspaces", {}, Idempotency_Key="k1")) == "invalid"
    assert not IdempotencyKey.objects.exists()
    # So what was wrong can be sent again as it should be.
    assert api.post("/workspaces", {"name": "Trees"}, Idempotency_Key="k1").status_code == 202


def test_a_key_must_be_a_key(api: Api) -> None:
    for key in ("x" * 256, "ключ"):
        response = api.post("/workspaces", {"name": "Trees"}, Idempotency_Key=key)
        assert code_of(response) == "invalid"


# --- rates ---------------------------------------------------------------------------------------


def test_rates_are_told_and_kept(owner: User, settings: Settings) -> None:
    settings.API_REQUESTS_PER_MINUTE = 2
    api = api_of(owner)
    first, second, third = (api.get("/workspaces") for _ in range(3))
    assert first["RateLimit-Policy"] == '"requests";q=2;w=60'
    assert first["RateLimit"].startswith('"requests";r=1;t=')
    assert second["RateLimit"].startswith('"requests";r=0;t=')
    assert third.status_code == 429
    assert code_of(third) == "too_many_requests"
    assert 1 <= int(third["Retry-After"]) <= 31


def test_creation_has_a_rate_of_its_own(api: Api, owner: User, settings: Settings) -> None:
    settings.CREATIONS_PER_HOUR = 2
    for number in range(2):
        assert api.post("/workspaces", {"name": f"Trees {number}"}).status_code == 202
    refused = api.post("/workspaces", {"name": "One more"})
    assert refused.status_code == 429
    assert code_of(refused) == "too_many_creations"
    assert 3500 < int(refused["Retry-After"]) <= 3600
    Activity.objects.update(at=timezone.now() - timedelta(hours=1, seconds=1))
    assert api.post("/workspaces", {"name": "One more"}).status_code == 202


# --- what a token may not see --------------------------------------------------------------------


def test_what_a_token_may_not_see_does_not_exist(api: Api, owner: User) -> None:
    """Same answer, same questions to the database: there is no time to tell them apart by."""
    api.get("/workspaces")  # notes the token's first use
    factories.make_workspace(factories.make_user(), "not-mine")
    answers, queries = [], []
    for slug in ("not-mine", "no-such-one"):
        with CaptureQueriesContext(connection) as seen:
            answers.append(api.get(f"/workspaces/{slug}"))
        queries.append([query["sql"].replace(slug, "") for query in seen])
    assert {answer.status_code for answer in answers} == {404}
    own = {"instance": "", "request_id": ""}
    assert answers[0].json() | own == answers[1].json() | own
    assert len(queries[0]) == len(queries[1])
    assert [q.split("WHERE")[0] for q in queries[0]] == [q.split("WHERE")[0] for q in queries[1]]


def test_a_token_for_one_workspace_opens_no_other(owner: User) -> None:
    here = factories.make_workspace(owner, "here")
    factories.make_workspace(owner, "there")
    api = api_of(owner, only=here.pk)
    assert api.get("/workspaces/here").status_code == 200
    assert code_of(api.get("/workspaces/there")) == "not_found"
    assert [item["slug"] for item in api.get("/workspaces").json()["items"]] == ["here"]
    assert code_of(api.post("/workspaces", {"name": "More"})) == "scope_missing"


def test_operators_see_all_with_the_scope_only() -> None:
    operator = factories.make_user(is_staff=True, is_superuser=True)
    factories.make_workspace(factories.make_user(), "trees")
    plain, mighty = api_of(operator), api_of(operator, "operator", "read", "lifecycle")
    assert code_of(plain.get("/workspaces/trees")) == "not_found"
    assert plain.get("/workspaces").json()["items"] == []
    seen = mighty.get("/workspaces/trees").json()
    assert seen["role"] is None
    assert mighty.post("/workspaces/trees/stop").status_code == 202
    operator.is_staff = False
    operator.save()
    assert code_of(mighty.get("/workspaces/trees")) == "not_found"


def test_roles_and_scopes(owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    viewer = factories.make_user()
    factories.add_member(workspace, viewer, Role.VIEWER)
    assert code_of(api_of(viewer).post("/workspaces/trees/stop")) == "role_too_low"
    assert code_of(api_of(owner, "read").post("/workspaces/trees/stop")) == "scope_missing"
    assert code_of(api_of(owner, "lifecycle").get("/workspaces/trees")) == "scope_missing"


# --- constant cost -------------------------------------------------------------------------------


def queries_of(api: Api, path: str) -> int:
    api.get(path)
    with CaptureQueriesContext(connection) as seen:
        assert api.get(path).status_code == 200
    return len(seen)


@pytest.mark.parametrize("path", ["/workspaces?limit=200", "/workspaces/space-0"])
def test_reading_costs_the_same_however_many_there_are(api: Api, owner: User, path: str) -> None:
    factories.make_workspace(owner, "space-0")
    few = queries_of(api, path)
    for number in range(1, 40):
        factories.make_workspace(owner, f"space-{number}")
    assert queries_of(api, path) == few <= 6


# --- accidents -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accident", "answer"),
    [
        (RuntimeError("a bug with a secret in it"), (500, "broken")),
        (OperationalError("server closed the connection"), (503, "unavailable")),
    ],
)
def test_an_accident_is_no_traceback_and_takes_everything_back(
    api: Api,
    owner: User,
    monkeypatch: pytest.MonkeyPatch,
    accident: Exception,
    answer: tuple[int, str],
) -> None:
    workspace = factories.make_workspace(owner, "trees")

    def shown(*args: object) -> None:
        raise accident

    with monkeypatch.context() as broken:
        broken.setattr(workspace_routes, "shown", shown)
        response = api.post("/workspaces/trees/stop", Idempotency_Key="k1")
        assert (response.status_code, code_of(response)) == answer
        assert b"secret" not in response.content
    workspace.instance.refresh_from_db()
    assert workspace.instance.desired == "running"
    assert api.post("/workspaces/trees/stop", Idempotency_Key="k1").status_code == 202


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    for headers in ({}, {"Idempotency_Key": "k1"}):
        for size in (300_000, 3_000_000):
            response = api.post("/workspaces", {"name": "x" * size}, **headers)
            assert (response.status_code, code_of(response)) == (413, "too_large")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/workspaces", {"name": "T", "metadata": {f"{n} ": "" for n in range(9000)}}),
        ("PATCH", "/workspaces/trees", {"metadata": {f"{n} ": None for n in range(9000)}}),
        ("PUT", PLUGINS, {"plugins": [], "secrets": {f"a{n}": "" for n in range(9000)}}),
        ("PUT", PLUGINS, {"plugins": list(range(9000))}),
        ("POST", "/workspaces", {"name": "T", **{f"unknown{n}": 1 for n in range(9000)}}),
    ],
)
def test_much_that_is_wrong_makes_no_large_answer(
    api: Api, owner: User, method: str, path: str, body: dict[str, Any]
) -> None:
    factories.make_workspace(owner, "trees")
    response = api.ask(method, path, body)
    assert code_of(response) == "invalid"
    assert 1 <= len(response.json()["errors"]) <= 20
    assert len(response.content) < 4_000


def test_metadata_and_secrets_may_be_so_many(api: Api, owner: User) -> None:
    factories.make_workspace(owner, "trees")
    many = {"metadata": {f"a{n}": "x" for n in range(20)}}
    assert api.ask("PATCH", "/workspaces/trees", many).status_code == 200
    others: dict[str, str | None] = {f"b{n}": "y" for n in range(20)}
    others |= dict.fromkeys(many["metadata"])
    assert api.ask("PATCH", "/workspaces/trees", {"metadata": others}).status_code == 200
    too_many = {"metadata": dict.fromkeys(f"c{n}" for n in range(41))}
    refused = api.ask("PATCH", "/workspaces/trees", too_many)
    assert [error["field"] for error in refused.json()["errors"]] == ["body.metadata"]
    secrets = {"plugins": [], "secrets": {f"A{n}": "x" for n in range(51)}}
    refused = api.ask("PUT", PLUGINS, secrets)
    assert [error["field"] for error in refused.json()["errors"]] == ["body.secrets"]


# --- what Schemathesis found, in plain words -----------------------------------------------------


def test_a_header_without_a_value_is_a_mistake_and_not_as_if_left_out(
    api: Api, owner: User
) -> None:
    factories.make_workspace(owner, "trees")
    changed = api.ask("PATCH", "/workspaces/trees", {"name": "Oaks"}, If_Match="")
    assert code_of(changed) == "invalid"
    assert code_of(api.post("/workspaces", {"name": "Trees"}, Idempotency_Key="")) == "invalid"
    assert Workspace.objects.get().name == "Trees"


@pytest.mark.parametrize(
    ("moment", "status"),
    [
        ("5749-08-09T21:11:43+22:17", 201),  # Postgres knows no such zone
        ("9999-12-31T23:59:59-01:00", 422),
        ("2999-01-01T00:00:00", 422),  # where?
        (32503680000, 422),
    ],
)
def test_times_may_be_of_any_zone_but_must_have_one(
    api: Api, moment: str | int, status: int
) -> None:
    body = {"name": "nightly", "scopes": ["read"], "expires_at": moment}
    assert api.post("/tokens", body).status_code == status


@pytest.mark.parametrize("value", ["5", True, 1.5, [5]])
def test_a_number_is_a_number(value: object) -> None:
    operator = factories.make_user(is_staff=True, is_superuser=True)
    api = api_of(operator, "operator")
    response = api.post("/operator/plans", {"name": "Large", "spares": value})
    assert code_of(response) == "invalid"
    assert response.json()["errors"][0]["field"] == "body.spares"
    assert code_of(api.post("/operator/plans", {"name": "Large", "internet": 1})) == "invalid"
    assert api.post("/operator/plans", {"name": "Large", "spares": 5}).status_code == 201
    assert code_of(api.post("/operator/plans", {"name": "Large"})) == "exists"


READS = (
    "/workspaces",
    "/workspaces?status=stopped&q=many&limit=200",
    "/workspaces/space-0",
    "/workspaces/space-0/events",
    "/workspaces/space-0/members",
    "/workspaces/space-0/plugins",
)


@pytest.mark.parametrize("role", ["customer", "operator"])
def test_reading_costs_the_same_among_ten_and_among_ten_thousand(role: str) -> None:
    reader = factories.make_user(is_staff=role == "operator", is_superuser=role == "operator")
    api = api_of(reader, "operator" if role == "operator" else "read")
    for number in range(10):
        name = f"Many {number}"
        factories.make_workspace(reader, f"space-{number}", name=name, status=Status.STOPPED)
    few = {path: queries_of(api, path) for path in READS}
    with many_workspaces(reader):
        many = {path: queries_of(api, path) for path in READS}
    assert many == few
    assert max(few.values()) <= 8
