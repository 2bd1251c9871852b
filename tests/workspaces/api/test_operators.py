"""What operators do over the API: suspend, plans, releases, the fleet."""

import timeit
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.api_tokens import Scope
from accounts.models import User
from deploy.models import Image, Instance, Orphan
from deploy.states import Desired, Observed, Status, StopReason
from tests import factories
from tests.workspaces.api.conftest import EVERYTHING, Api, api_of, code_of
from workspaces import deeds, fleet, plans
from workspaces.models import Activity, Change, Plan, Release, Role, Rollout, Workspace

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ready")]


@pytest.fixture
def olga(db: None) -> User:
    return factories.make_user("olga@example.org", name="Olga", is_staff=True, is_superuser=True)


@pytest.fixture
def ops(olga: User) -> Api:
    return api_of(olga, Scope.OPERATOR)


def history(row: Any) -> list[str]:
    entries = LogEntry.objects.filter(object_id=str(row.pk)).order_by("pk")
    return [entry.get_change_message() for entry in entries]


def make_next() -> Release:
    """Another release that is built."""
    release = factories.make_release("1.0a41")
    image = Image.objects.create(digest="next", reference="next", state=Image.State.READY)
    Release.objects.filter(pk=release.pk).update(image=image)
    return Release.objects.get(pk=release.pk)


# --- suspending ----------------------------------------------------------------------------------


def test_suspending_tells_members_why(ops: Api, owner: User, client: Client) -> None:
    workspace = factories.make_workspace(owner, "trees")
    response = ops.post("/workspaces/trees/suspend", {"reason": " Unpaid  since <June>. "})
    assert response.status_code == 202
    assert response["Location"].endswith("/api/v1/workspaces/trees")
    assert response.json()["suspended_reason"] == "Unpaid since <June>."
    factories.set_status(Instance.objects.get(), Status.SUSPENDED)
    theirs = api_of(owner)
    assert theirs.get("/workspaces/trees").json()["suspended_reason"] == "Unpaid since <June>."
    assert code_of(theirs.post("/workspaces/trees/start")) == "suspended"
    client.force_login(owner)
    assert (
        "suspended it: “Unpaid since &lt;June&gt;.” Your data"
        in client.get("/workspaces/trees/").content.decode()
    )
    deed = Activity.objects.get()
    assert (deed.verb, deed.detail, str(deed.user)) == ("suspended", "Unpaid since <June>.", "Olga")
    # Twice is once.
    assert ops.post("/workspaces/trees/suspend", {"reason": "Other."}).status_code == 202
    assert theirs.get("/workspaces/trees").json()["suspended_reason"] == "Unpaid since <June>."

    assert ops.post("/workspaces/trees/resume").json()["suspended_reason"] is None
    workspace.instance.refresh_from_db()
    assert workspace.instance.desired == Desired.RUNNING
    assert [deed.verb for deed in Activity.objects.all()] == ["suspended", "resumed"]
    assert ops.post("/workspaces/trees/resume").status_code == 202
    assert Activity.objects.count() == 2


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201, "a\0b", 7, None])
def test_a_reason_is_needed(ops: Api, owner: User, reason: Any) -> None:
    factories.make_workspace(owner, "trees")
    response = ops.post("/workspaces/trees/suspend", {"reason": reason})
    assert code_of(response) == "invalid"
    assert response.json()["errors"][0]["field"] == "body.reason"
    assert not Activity.objects.exists()


def test_deleting_and_bringing_back_does_not_lift_a_suspension(ops: Api, owner: User) -> None:
    factories.make_workspace(owner, "trees")
    ops.post("/workspaces/trees/suspend", {"reason": "Abuse."})
    theirs = api_of(owner)
    assert theirs.ask("DELETE", "/workspaces/trees").status_code == 202
    back = theirs.post("/workspaces/trees/undelete")
    assert back.status_code == 202
    assert back.json()["suspended_reason"] == "Abuse."
    instance = Workspace.objects.get().instance
    assert (instance.desired, instance.stop_reason) == (Desired.STOPPED, StopReason.OPERATOR)
    assert code_of(theirs.post("/workspaces/trees/start")) == "suspended"
    assert ops.post("/workspaces/trees/resume").status_code == 202
    instance.refresh_from_db()
    assert instance.desired == Desired.RUNNING


def test_an_operators_own_workspaces_do_not_keep_others_from_coming_back(
    ops: Api, owner: User, olga: User
) -> None:
    Plan.objects.update(max_workspaces=1)
    factories.make_workspace(olga, "mine")
    factories.make_workspace(owner, "trees", status=Status.DELETING)
    assert ops.post("/workspaces/trees/undelete").status_code == 202
    factories.make_workspace(olga, "mine-too", status=Status.DELETING)
    assert code_of(ops.post("/workspaces/mine-too/undelete")) == "quota_reached"


def test_deleted_ones_are_not_suspended(ops: Api, owner: User) -> None:
    factories.make_workspace(owner, "trees", status=Status.DELETING)
    for deed, body in (("suspend", {"reason": "Abuse."}), ("resume", None)):
        assert code_of(ops.post(f"/workspaces/trees/{deed}", body)) == "deleted"


def test_the_same_key_suspends_once(ops: Api, owner: User) -> None:
    factories.make_workspace(owner, "trees")
    body = {"reason": "Abuse."}
    first = ops.post("/workspaces/trees/suspend", body, Idempotency_Key="k")
    ops.post("/workspaces/trees/resume")
    again = ops.post("/workspaces/trees/suspend", body, Idempotency_Key="k")
    assert again.content == first.content
    assert again["Idempotent-Replayed"] == "true"
    assert Workspace.objects.get().suspended_reason == ""


# --- permissions ---------------------------------------------------------------------------------


def staff(*permissions: str) -> Api:
    user = factories.make_user(is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return api_of(user, *EVERYTHING, Scope.OPERATOR)


def test_without_permissions_operators_are_nobody_special(owner: User) -> None:
    factories.make_workspace(owner, "trees")
    nobody = staff()
    assert code_of(nobody.get("/workspaces/trees")) == "not_found"
    assert nobody.get("/workspaces").json()["items"] == []
    assert nobody.get("/images").json()["items"] == []
    refused = nobody.get("/operator/fleet")
    assert code_of(refused) == "permission_missing"
    assert "view_workspace" in refused.json()["detail"]


def test_who_may_only_look_changes_nothing(owner: User) -> None:
    factories.make_workspace(owner, "trees")
    looking = staff("view_workspace")
    assert looking.get("/workspaces/trees").json()["role"] is None
    assert looking.get("/workspaces/trees/events").status_code == 200
    assert looking.get("/operator/fleet").status_code == 200
    for method, path, body in (
        ("DELETE", "/workspaces/trees", None),
        ("POST", "/workspaces/trees/stop", None),
        ("POST", "/workspaces/trees/suspend", {"reason": "x"}),
        ("PATCH", "/workspaces/trees", {"name": "x"}),
        ("PUT", "/workspaces/trees/secrets/A_KEY", {"value": "x"}),
    ):
        assert code_of(looking.ask(method, path, body)) == "permission_missing", path
    changing = staff("view_workspace", "change_workspace")
    assert changing.post("/workspaces/trees/stop").status_code == 202


def test_operators_do_not_make_themselves_owners(ops: Api, owner: User, olga: User) -> None:
    trees = factories.make_workspace(owner, "trees")
    member = factories.add_member(trees, olga, Role.VIEWER)
    path = f"/workspaces/trees/members/{olga.pk}"
    assert code_of(ops.ask("PATCH", path, {"role": "owner"})) == "role_too_low"
    member.refresh_from_db()
    assert member.role == Role.VIEWER
    assert api_of(owner).ask("PATCH", path, {"role": "owner"}).status_code == 200
    assert ops.ask("PATCH", path, {"role": "viewer"}).status_code == 200


def test_operators_own_workspaces_are_theirs_by_role() -> None:
    user = factories.make_user(is_staff=True)
    factories.make_workspace(user, "mine")
    assert api_of(user, Scope.OPERATOR).post("/workspaces/mine/stop").status_code == 202


@pytest.mark.parametrize(
    ("deed", "method", "path", "body"),
    [
        ("add_plan", "POST", "/operator/plans", {"name": "Big"}),
        ("see_plans", "GET", "/operator/plans", None),
        ("change_release", "POST", "/operator/releases/0.65.5/build", None),
        ("try_release", "POST", "/workspaces/trees/release", {"version": "1.0a41"}),
        ("roll_out", "POST", "/operator/rollouts", {"source": "0.65.5", "target": "1.0a41"}),
    ],
)
def test_just_the_permissions_of_a_deed_suffice(
    owner: User, deed: str, method: str, path: str, body: Any
) -> None:
    factories.make_workspace(owner, "trees")
    make_next()
    needed = deeds.NEEDS[deed]
    more = ("view_workspace",) if "{slug}" in path or "/workspaces/" in path else ()
    for left_out in needed:
        others = [name for name in needed if name != left_out]
        refused = staff(*others, *more).ask(method, path, body)
        assert code_of(refused) == "permission_missing"
        assert left_out in refused.json()["detail"]
    assert staff(*needed, *more).ask(method, path, body).status_code < 300


# --- plans ---------------------------------------------------------------------------------------


def test_plans_are_made_and_changed(ops: Api, owner: User) -> None:
    before = factories.make_workspace(owner, "before")
    made = ops.post("/operator/plans", {"name": "Big", "memory_mb": 2048, "cpus": 2})
    assert made.status_code == 201
    plan = Plan.objects.get(name="Big")
    assert made["Location"].endswith(f"/api/v1/operator/plans/{plan.pk}")
    assert made.json() == {
        "id": plan.pk,
        "name": "Big",
        "is_default": False,
        "memory_mb": 2048,
        "cpus": 2.0,
        "pids": 128,
        "idle_seconds": 900,
        "internet": False,
        "disk_mb": 10240,
        "max_workspaces": 10,
        "max_members": 25,
        "spares": 2,
        "workspaces": 0,
        "following": 0,
        "failing": 0,
    }
    path = f"/operator/plans/{plan.pk}"
    seen = ops.get(path)["ETag"]
    assert seen == made["ETag"]
    changed = ops.ask("PATCH", path, {"memory_mb": 4096, "is_default": True}, If_Match=seen)
    assert changed.status_code == 200
    assert code_of(ops.ask("PATCH", path, {"pids": 64}, If_Match=seen)) == "changed_meanwhile"
    assert Plan.objects.get(is_default=True) == plan
    assert history(plan) == ["Added.", "Changed Is default and Memory (MiB)."]
    # It counts for those who come; those who are there have theirs.
    new = api_of(owner).post("/workspaces", {"name": "After"}).json()
    assert new["plan"] == "Big"
    assert Workspace.objects.get(slug="after").instance.memory_mb == 4096
    before.instance.refresh_from_db()
    assert before.instance.memory_mb == 512
    listed = {
        item["name"]: item["workspaces"] for item in ops.get("/operator/plans").json()["items"]
    }
    assert listed == {"Standard": 1, "Big": 1}


def test_a_changed_plan_tells_how_many_follow_it(ops: Api, owner: User) -> None:
    for slug in ("oaks", "trees"):
        factories.make_workspace(owner, slug)
    path = f"/operator/plans/{factories.make_plan().pk}"
    changed = ops.ask("PATCH", path, {"memory_mb": 1024, "max_members": 3}).json()
    assert (changed["workspaces"], changed["following"], changed["failing"]) == (2, 0, 0)
    plans.follow_all()
    assert ops.get(path).json()["following"] == 2
    assert {i.memory_mb for i in Instance.objects.all()} == {1024}


def test_a_plan_that_stays_as_it_is_leaves_no_trace(ops: Api) -> None:
    plan = factories.make_plan()
    assert ops.ask("PATCH", f"/operator/plans/{plan.pk}", {"memory_mb": 512}).status_code == 200
    assert history(plan) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "body.name"),
        ({"name": "x" * 51}, "body.name"),
        ({"name": "a\0b"}, "body.name"),
        ({"name": "Big", "memory_mb": 2**31}, "body.memory_mb"),
        ({"name": "Big", "memory_mb": -1}, "body.memory_mb"),
        ({"name": "Big", "cpus": 0}, "body.cpus"),
        ({"name": "Big", "cpus": float("nan")}, "body.cpus"),
        ({"name": "Big", "cpus": float("inf")}, "body.cpus"),
        ({"name": "Big", "spares": 10**9}, "body.spares"),
        ({"name": "Big", "disk_mb": 0}, "body.disk_mb"),
        ({"name": "Big", "max_members": 0}, "body.max_members"),
        ({"name": "Big", "colour": "green"}, "body.colour"),
    ],
)
def test_what_no_plan_can_be_is_named(ops: Api, body: Any, field: str) -> None:
    response = ops.post("/operator/plans", body)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert Plan.objects.count() == 1
    assert not LogEntry.objects.exists()


def test_there_is_always_a_default_plan(ops: Api) -> None:
    plan = factories.make_plan()
    refused = ops.ask("PATCH", f"/operator/plans/{plan.pk}", {"is_default": False})
    assert code_of(refused) == "invalid"
    assert Plan.objects.get().is_default


def test_customers_see_names_of_plans_only(owner: User) -> None:
    factories.make_workspace(owner, "trees")
    theirs = api_of(owner)
    assert theirs.get("/workspaces/trees").json()["plan"] == "Standard"
    assert code_of(theirs.get("/operator/plans")) == "scope_missing"
    body = {"plan": "Standard"}
    assert code_of(theirs.ask("PATCH", "/workspaces/trees", body)) == "scope_missing"


def test_a_workspace_gets_another_plan(ops: Api, owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    Plan.objects.create(name="Big", memory_mb=2048)
    assert ops.ask("PATCH", "/workspaces/trees", {"plan": "Big"}).json()["plan"] == "Big"
    workspace.instance.refresh_from_db()
    assert workspace.instance.memory_mb == 2048
    assert [str(deed) for deed in Activity.objects.all()] == ["changed_plan Standard → Big"]
    assert code_of(ops.ask("PATCH", "/workspaces/trees", {"plan": "No"})) == "invalid"


# --- releases ------------------------------------------------------------------------------------


def test_a_workspace_is_moved_to_another_release(ops: Api, owner: User, olga: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    coming = make_next()
    response = ops.post("/workspaces/trees/release", {"version": "1.0a41"})
    assert response.status_code == 202
    change = Change.objects.get()
    assert (change.release, change.by) == (coming, olga)
    assert response["Location"].endswith(f"/api/v1/workspaces/trees/changes/{change.pk}")
    assert ops.get(f"/workspaces/trees/changes/{change.pk}").json()["release"] == "1.0a41"
    assert history(coming) == ["Changes over to Datasette 1.0a41: trees."]
    again = ops.post("/workspaces/trees/release", {"version": "1.0a41"})
    assert code_of(again) == "change_under_way"
    same = ops.post("/workspaces/trees/release", {"version": workspace.release.version})
    assert code_of(same) == "refused"
    assert code_of(ops.post("/workspaces/trees/release", {"version": "2"})) == "invalid"
    assert len(history(coming)) == 1


def test_releases_are_offered_built_and_made_the_default(ops: Api) -> None:
    release = factories.make_release("1.0a41")
    path = "/operator/releases/1.0a41"
    assert code_of(ops.post(f"{path}/default")) == "refused"
    assert ops.post(f"{path}/build").status_code == 202
    make_next()
    assert ops.post(f"{path}/offer", {"offered": False}).json()["offered"] is False
    answer = ops.post(f"{path}/default").json()
    assert answer == {
        "version": "1.0a41",
        "prerelease": False,
        "offered": True,
        "is_default": True,
        "image": "ready",
        "error": None,
        "workspaces": 0,
    }
    assert code_of(ops.post(f"{path}/offer", {"offered": False})) == "refused"
    assert history(release) == [
        "A worker builds the image of Datasette 1.0a41. Look here again in a minute.",
        "Datasette 1.0a41 is not offered any more.",
        "New workspaces get Datasette 1.0a41.",
    ]
    versions = [item["version"] for item in ops.get("/operator/releases").json()["items"]]
    assert versions == ["1.0a41", "0.65.5"]


def test_a_release_is_rolled_out_and_stopped(ops: Api, owner: User) -> None:
    for slug in ("trees", "oaks"):
        factories.make_workspace(owner, slug)
    coming = make_next()
    body = {"source": "0.65.5", "target": "1.0a41", "batch_size": 1, "leave_out": ["oaks"]}
    response = ops.post("/operator/rollouts", body)
    assert response.status_code == 202
    rollout = Rollout.objects.get()
    assert response["Location"].endswith(f"/api/v1/operator/rollouts/{rollout.pk}")
    told = response.json()
    assert (told["state"], told["to_move"], told["moved"]) == ("running", 1, 0)
    assert told["skipped"] == {"oaks": "Left out by the operator."}
    assert history(coming) == [f"Began to roll it out: {rollout}."]
    assert code_of(ops.post("/operator/rollouts", body)) == "invalid"
    assert len(history(coming)) == 1
    stopped = ops.post(f"/operator/rollouts/{rollout.pk}/stop").json()
    assert (stopped["state"], stopped["error"]) == ("stopped", "Stopped by Olga.")
    assert history(rollout) == ["Stopped by Olga."]
    assert code_of(ops.post(f"/operator/rollouts/{rollout.pk}/stop")) == "refused"
    (listed,) = ops.get("/operator/rollouts").json()["items"]
    assert listed | {"to_move": 1} == ops.get(f"/operator/rollouts/{rollout.pk}").json()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"source": "9"}, "body.source"),
        ({"target": "9"}, "body.target"),
        ({"target": "0.65.5"}, "body.source"),
        ({"leave_out": ["nobody"]}, "body.leave_out"),
        ({"leave_out": ["a\0b"]}, "body.leave_out.0"),
        ({"batch_size": 0}, "body.batch_size"),
        ({"batch_size": 10**6}, "body.batch_size"),
    ],
)
def test_what_cannot_be_rolled_out_is_named(ops: Api, changes: Any, field: str) -> None:
    make_next()
    response = ops.post("/operator/rollouts", {"source": "0.65.5", "target": "1.0a41"} | changes)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert not Rollout.objects.exists()


# --- the fleet -----------------------------------------------------------------------------------


def test_the_fleet_in_numbers(ops: Api, owner: User) -> None:
    found = {
        status: factories.make_workspace(owner, f"w-{status}", status=status) for status in Status
    }
    also = factories.make_workspace(owner, "another", status=Status.FAILED)
    Instance.objects.filter(pk=found[Status.STOPPED].instance_id).update(
        attempts=1, last_error="It hangs."
    )
    Change.objects.create(
        workspace=also,
        release=also.release,
        old_release=also.release,
        old_image=also.instance.image,
        step="build",
    )
    for kind in ("container", "volume"):
        Orphan.objects.create(name=kind, kind=kind)
    factories.make_image(state=Image.State.FAILED)
    User.objects.filter(pk=owner.pk).update(created=timezone.now() - timedelta(hours=25))
    spare = Instance.objects.get(pk=found[Status.RUNNING].instance_id)
    spare.pk, spare.spare, spare.volume = uuid4(), True, "other"
    spare.save(force_insert=True)
    there = [status for status in Status if status is not Status.DELETED]
    assert ops.get("/operator/fleet").json() == {
        "workspaces": 8,
        "by_status": {status: 2 if status is Status.FAILED else 1 for status in there},
        "spares": {"ready": 1, "coming": 0, "wanted": 2},
        "failing": [
            {
                "cause": "It ran out of memory while it started.",
                "count": 2,
                "example": "another",
            },
            {"cause": "It hangs.", "count": 1, "example": "w-stopped"},
        ],
        "open_changes": {"build": 1},
        "rollouts": 0,
        "images": {"failed": 1, "ready": 1},
        "orphans": {"container": 1, "volume": 1},
        "users": 2,
        "new_users": 1,
        "attention": {
            "beat-silent": 1,
            "host-unknown": 1,
            "image-failed": 1,
            "instance-failing": 2,
            "orphan-container": 1,
            "orphan-volume": 1,
        },
    }


def test_the_fleet_is_told_fast_however_big_it_is(ops: Api, owner: User) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert ops.get("/operator/fleet").status_code == 200
        return len(captured)

    first = factories.make_workspace(owner, "first")
    queries()
    few = queries()
    states = [(Observed.RUNNING, True, 0), (Observed.ABSENT, False, 0), (Observed.EXITED, False, 5)]
    instances = [
        Instance(
            image=first.instance.image,
            observed=observed,
            ready=ready,
            attempts=attempts,
            last_error=f"Cause {number % 40}." if attempts else "",
        )
        for number in range(10_000)
        for observed, ready, attempts in [states[number % 3]]
    ]
    Instance.objects.bulk_create(instances)
    Workspace.objects.bulk_create(
        Workspace(
            name="One of many",
            slug=f"many-{number}",
            plan=first.plan,
            release=first.release,
            instance=instance,
        )
        for number, instance in enumerate(instances)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")  # as Postgres does by itself, but not within a transaction
    queries()  # notes the token's use, if making them took longer than a minute
    assert queries() == few <= 40
    told = fleet.summary()
    assert told.workspaces == 10_001
    assert len(told.failing) == fleet.CAUSES
    # What a busy machine adds, it does not add each time.
    assert min(timeit.repeat(fleet.summary, number=1, repeat=5)) < 1.0


# --- numbers and names that nothing has ----------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/operator/plans/{}",
        "/operator/rollouts/{}",
        "/operator/approvals/{}",
    ],
)
def test_numbers_that_nothing_has(ops: Api, path: str) -> None:
    assert code_of(ops.get(path.format(4711_000))) == "not_found"
    assert code_of(ops.get(path.format(2**63 - 1))) == "not_found"
    for number in (0, -1, 2**63, 10**30, "x", "%00"):
        assert code_of(ops.get(path.format(number))) in ("invalid", "not_found")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/operator/releases/9.9/build", None),
        ("POST", "/operator/releases/9%00/build", None),
        ("POST", "/operator/releases/{}/build", None),
        ("GET", "/operator/plugins/nothing", None),
        ("GET", "/operator/plugins/a%00b", None),
        ("GET", "/operator/plugins/{}", None),
        ("POST", "/workspaces/nothing/suspend", {"reason": "x"}),
        ("PUT", "/operator/plugins/nothing/grants/trees", None),
    ],
)
def test_names_that_nothing_has(ops: Api, method: str, path: str, body: Any) -> None:
    response = ops.ask(method, path.format("x" * 5000), body)
    assert code_of(response) in ("invalid", "not_found")


def test_members_see_what_operators_did(ops: Api, owner: User) -> None:
    workspace = factories.make_workspace(owner, "trees")
    viewer = factories.make_user()
    factories.add_member(workspace, viewer, Role.VIEWER)
    ops.post("/workspaces/trees/suspend", {"reason": "Abuse."})
    told = api_of(viewer).get("/workspaces/trees/events").json()["items"]
    deed = next(event for event in told if event["kind"] == "suspended")
    assert (deed["who"], deed["detail"]) == ("an operator", "Abuse.")


def test_operators_webhooks_leave_lines_in_the_history(ops: Api, olga: User) -> None:
    """They hear of all customers: who makes one must be known, and allowed to."""
    body = {"url": "https://93.184.216.34/"}
    assert code_of(staff("view_workspace").post("/operator/webhooks", body)) == "permission_missing"
    number = ops.post("/operator/webhooks", body).json()["id"]
    here = f"/operator/webhooks/{number}"
    ops.ask("PATCH", here, {"name": "All"})
    ops.post(f"{here}/rotate")
    assert code_of(staff("view_webhook").ask("DELETE", here)) == "permission_missing"
    ops.ask("DELETE", here)
    told = LogEntry.objects.filter(object_id=str(number)).order_by("pk")
    lines = [(entry.user, entry.get_change_message()) for entry in told]
    words = ["Added.", "Changed.", "It has a new secret.", "Removed."]
    assert lines == [(olga, line) for line in words]
