"""The gateway's answers: as owner, editor, viewer, other tenant, anonymous; in every state."""

import threading
import time
from datetime import timedelta

import jwt
import pytest
from django.conf import settings as project
from django.contrib.sessions.models import Session
from django.db import OperationalError, connection
from django.http import Http404
from django.test import Client, override_settings
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.models import User
from deploy import lifecycle, notify
from deploy.models import Instance
from deploy.states import Desired, Observed, Status, StopReason
from tests.factories import STATES, add_member, make_user, make_workspace, set_status
from tests.workspaces.gateway_support import ask, cloud_client, sign_in, verdict
from workspaces import gateway
from workspaces.breaker import Breaker
from workspaces.models import Member, Role, Workspace, WorkspaceSession

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def patience(patience: None, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are held for longer than any thread may be held up here."""
    settings.WAKE_HOLD_SECONDS = 120.0
    monkeypatch.setattr(gateway, "NOTICE_SECONDS", 60.0)


@pytest.fixture
def owner() -> User:
    return make_user(name="Ada Lovelace")


@pytest.fixture
def workspace(owner: User) -> Workspace:
    return make_workspace(owner)


@pytest.fixture
def cloud(owner: User) -> Client:
    return cloud_client(owner)


@pytest.fixture
def token(cloud: Client, workspace: Workspace) -> str:
    return sign_in(cloud, workspace)


# --- only the router is answered ---------------------------------------------------------------


@pytest.mark.parametrize("path", ["/_gateway/authorize", "/_gateway/unreachable"])
@pytest.mark.parametrize("secret", ["", "wrong", "é", "x" * 43])
def test_answers_nobody_but_the_router(
    path: str, secret: str, workspace: Workspace, token: str
) -> None:
    assert ask(workspace, token, path=path, secret=secret).status_code == 404


def test_without_a_secret_of_its_own_it_answers_nobody(workspace: Workspace, token: str) -> None:
    with override_settings(ROUTER_SECRET=""):
        assert ask(workspace, token, secret="").status_code == 404


# --- who may pass ------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
def test_members_pass_with_their_role(role: Role, workspace: Workspace) -> None:
    member = make_user(name="Grace Hopper")
    if role is Role.OWNER:
        Member.objects.all().delete()
    add_member(workspace, member, role)
    response = ask(workspace, sign_in(cloud_client(member), workspace))
    assert response.status_code == 200
    assert response["X-Cloudapp-Upstream"] == "unix:/nowhere/http.sock"
    assert response["X-Accel-Expires"] == "5"
    instance = workspace.instance
    claims = jwt.decode(
        response["X-Cloudapp-Token"], instance.key, ["HS256"], audience=str(instance.pk)
    )
    assert claims["purpose"] == "actor"
    assert claims["actor"] == {"id": str(member.pk), "name": "Grace Hopper", "role": role.value}
    assert claims["workspace"] == {
        "name": workspace.name,
        "url": f"{project.CLOUD_URL}/workspaces/{workspace.slug}/",
    }
    # It outlives the hour for which the router may show an old answer.
    assert 3600 < claims["exp"] - time.time() < 7200


def test_the_address_stands_in_for_a_missing_name(workspace: Workspace) -> None:
    member = make_user("grace@example.org")
    add_member(workspace, member, Role.VIEWER)
    response = ask(workspace, sign_in(cloud_client(member), workspace))
    claims = jwt.decode(response["X-Cloudapp-Token"], options={"verify_signature": False})
    assert claims["actor"]["name"] == "grace@example.org"


def test_anonymous_has_to_sign_in(workspace: Workspace) -> None:
    response = ask(workspace)
    assert (response.status_code, verdict(response)) == (401, "sign-in")
    assert ask(workspace, authorization="Bearer something").status_code == 401


def test_anonymous_cannot_tell_a_private_workspace_from_none(workspace: Workspace) -> None:
    there, nowhere = ask(workspace), ask("no-such-workspace")
    own = {"X-Request-ID": ""}
    assert dict(there.headers) | own == dict(nowhere.headers) | own
    assert there.status_code == nowhere.status_code == 401


def test_a_token_is_good_at_its_own_workspace_only(
    workspace: Workspace, token: str, owner: User
) -> None:
    other = make_workspace(owner)
    assert verdict(ask(other, token)) == "sign-in"
    assert verdict(ask(other, "A" * 43)) == "sign-in"


def _remove_member(session: WorkspaceSession) -> None:
    Member.objects.filter(workspace=session.workspace, user=session.user).delete()


def _end_cloud_session(session: WorkspaceSession) -> None:
    Session.objects.filter(session_key=session.session_key).delete()


def _expire_cloud_session(session: WorkspaceSession) -> None:
    Session.objects.filter(session_key=session.session_key).update(expire_date=timezone.now())


def _change_password(session: WorkspaceSession) -> None:
    session.user.set_password("another long enough password")
    session.user.save()


def _deactivate(session: WorkspaceSession) -> None:
    User.objects.filter(pk=session.user_id).update(is_active=False)


def _expire(session: WorkspaceSession) -> None:
    WorkspaceSession.objects.update(expires_at=timezone.now())


def _purge(session: WorkspaceSession) -> None:
    Workspace.objects.update(purged_at=timezone.now())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_remove_member, "not-found"),
        (_end_cloud_session, "sign-in"),
        (_expire_cloud_session, "sign-in"),
        (_change_password, "sign-in"),
        (_deactivate, "sign-in"),
        (_expire, "sign-in"),
        (_purge, "sign-in"),
    ],
)
def test_the_door_closes(change: object, expected: str, workspace: Workspace, token: str) -> None:
    assert verdict(ask(workspace, token)) == "pass"
    change(WorkspaceSession.objects.select_related("user", "workspace").get())  # type: ignore[operator]
    response = ask(workspace, token)
    assert verdict(response) == expected
    # Or else the router would fall back on the yes when the gateway is down.
    assert response["X-Accel-Expires"] == "1"


# --- the states of the instance ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.PROVISIONING, "waking"),
        (Status.RUNNING, "pass"),
        (Status.SLEEPING, "waking"),
        (Status.STOPPED, "stopped"),
        (Status.SUSPENDED, "suspended"),
        (Status.FAILED, "failed"),
        (Status.DELETING, "deleting"),
        (Status.DELETED, "not-found"),
    ],
)
def test_every_state_has_its_verdict(
    status: Status, expected: str, workspace: Workspace, token: str
) -> None:
    assert set(STATES) == set(Status), "a state is missing above"
    set_status(workspace.instance, status)
    with override_settings(WAKE_HOLD_SECONDS=0):
        response = ask(workspace, token)
    assert verdict(response) == expected
    if expected != "pass":
        assert response.status_code == 403
        assert ("X-Accel-Expires" in response) == (expected == "not-found")
        assert "X-Cloudapp-Token" not in response


def test_a_workspace_asked_to_stop_lets_nobody_in_though_it_still_runs(
    workspace: Workspace, token: str
) -> None:
    lifecycle.want_stopped(workspace.instance_id, StopReason.OWNER)
    assert verdict(ask(workspace, token)) == "stopped"


@pytest.mark.parametrize("status", [Status.STOPPED, Status.SUSPENDED, Status.DELETING])
def test_only_sleep_ends_on_a_request(status: Status, workspace: Workspace, token: str) -> None:
    before = set_status(workspace.instance, status)
    ask(workspace, token)
    after = Instance.objects.get(pk=before.pk)
    assert (after.desired, after.revision) == (before.desired, before.revision)


def test_a_stranger_wakes_nobody(workspace: Workspace) -> None:
    set_status(workspace.instance, Status.SLEEPING)
    ask(workspace, "A" * 43)
    assert Instance.objects.get().desired == Desired.STOPPED


def test_a_removed_member_wakes_nobody(workspace: Workspace, token: str) -> None:
    set_status(workspace.instance, Status.SLEEPING)
    Member.objects.all().delete()
    assert verdict(ask(workspace, token)) == "not-found"
    assert Instance.objects.get().desired == Desired.STOPPED


# --- what it costs -----------------------------------------------------------------------------


def test_a_yes_costs_one_query(
    workspace: Workspace, token: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(1):
        assert verdict(ask(workspace, token)) == "pass"


def test_use_is_noted(workspace: Workspace, token: str) -> None:
    long_ago = timezone.now() - timedelta(hours=1)
    Instance.objects.update(last_used_at=long_ago)
    ask(workspace, token)
    assert Instance.objects.get().last_used_at > long_ago + timedelta(minutes=59)


def test_a_database_that_is_down_is_not_waited_for_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workspaces.breaker.TRY_AGAIN_SECONDS", 3600.0)
    breaker = Breaker()
    with pytest.raises(OperationalError, match="gone"), breaker:
        raise OperationalError("gone")
    for _ in range(3):
        with pytest.raises(OperationalError, match="a moment ago"), breaker:
            raise AssertionError("nobody may try")
    breaker._closed_until = 0.0  # the moment is over: one may try, the others still wait
    with breaker, pytest.raises(OperationalError, match="a moment ago"), breaker:
        raise AssertionError("one at a time")
    with breaker, breaker:
        pass


def test_other_troubles_break_nothing() -> None:
    breaker = Breaker()
    with pytest.raises(Http404), breaker:
        raise Http404
    with breaker:
        pass


# --- waiting -----------------------------------------------------------------------------------


def _in_thread(work: object) -> threading.Thread:
    def run() -> None:
        try:
            work()  # type: ignore[operator]
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _once_woken(instance_id: object, then: dict[str, object]) -> None:
    """Play the worker: when the instance is wanted, write that it became so."""

    def wanted() -> bool:
        return Instance.objects.filter(pk=instance_id, desired=Desired.RUNNING).exists()

    assert notify.wait_until(str(instance_id), wanted, 60)
    Instance.objects.filter(pk=instance_id).update(**then)
    notify.send(str(instance_id))


UP = {
    "observed": Observed.RUNNING,
    "ready": True,
    "ready_at": timezone.now(),
    "endpoint": "unix:/run/up.sock",
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("status", [Status.SLEEPING, Status.PROVISIONING])
def test_a_request_waits_for_the_workspace(
    status: Status, workspace: Workspace, token: str
) -> None:
    set_status(workspace.instance, status)
    worker = _in_thread(lambda: _once_woken(workspace.instance_id, UP))
    response = ask(workspace, token)
    worker.join()
    assert verdict(response) == "pass"
    assert response["X-Cloudapp-Upstream"] == "unix:/run/up.sock"


@pytest.mark.django_db(transaction=True)
def test_waiting_ends_when_it_fails(workspace: Workspace, token: str) -> None:
    set_status(workspace.instance, Status.SLEEPING)
    failed = {"observed": Observed.EXITED, "attempts": 3, "last_error": "no memory"}
    worker = _in_thread(lambda: _once_woken(workspace.instance_id, failed))
    began = time.monotonic()
    assert verdict(ask(workspace, token)) == "failed"
    worker.join()
    assert time.monotonic() - began < project.WAKE_HOLD_SECONDS / 2


@pytest.mark.django_db(transaction=True)
def test_somebody_removed_while_waiting_does_not_get_in(workspace: Workspace, token: str) -> None:
    set_status(workspace.instance, Status.SLEEPING)

    def worker() -> None:
        Member.objects.all().delete()
        _once_woken(workspace.instance_id, UP)

    thread = _in_thread(worker)
    assert verdict(ask(workspace, token)) == "not-found"
    # The wake-up may not have come: the worker waits for it, so give it.
    Instance.objects.update(desired=Desired.RUNNING, stop_reason="")
    notify.send(workspace.instance_id)
    thread.join()


def test_only_so_many_wait(workspace: Workspace, token: str) -> None:
    set_status(workspace.instance, Status.PROVISIONING)
    taken = 0
    while gateway._holds.acquire(blocking=False):
        taken += 1
    try:
        began = time.monotonic()
        assert verdict(ask(workspace, token)) == "waking"
        assert time.monotonic() - began < project.WAKE_HOLD_SECONDS / 2
    finally:
        for _ in range(taken):
            gateway._holds.release()
    assert taken == project.WAKE_HOLDS, "somebody before kept a slot"


# --- nobody was there --------------------------------------------------------------------------


UNREACHABLE = "/_gateway/unreachable"


def _once_poked(instance_id: object, revision: int, then: dict[str, object]) -> None:
    def poked() -> bool:
        return Instance.objects.filter(pk=instance_id, revision__gt=revision).exists()

    deadline = time.monotonic() + 60
    while not poked() and time.monotonic() < deadline:
        connection.close()
        time.sleep(0.01)
    Instance.objects.filter(pk=instance_id).update(**then)
    notify.send(str(instance_id))


@pytest.mark.django_db(transaction=True)
def test_a_lost_container_is_looked_at_and_waited_for(workspace: Workspace, token: str) -> None:
    revision = workspace.instance.revision
    again = UP | {"ready_at": timezone.now() + timedelta(hours=1)}
    worker = _in_thread(lambda: _once_poked(workspace.instance_id, revision, again))
    response = ask(workspace, token, path=UNREACHABLE)
    worker.join()
    assert response["X-Cloudapp-Upstream"] == "unix:/run/up.sock"
    assert "X-Accel-Expires" not in response


def test_writing_is_not_tried_twice(workspace: Workspace, token: str) -> None:
    revision = workspace.instance.revision
    began = time.monotonic()
    response = ask(workspace, token, path=UNREACHABLE, method="POST")
    assert (response.status_code, verdict(response)) == (403, "unreachable")
    assert Instance.objects.get().revision > revision, "nobody was asked to look at it"
    assert time.monotonic() - began < project.WAKE_HOLD_SECONDS / 2


def test_writing_wakes_what_fell_asleep(workspace: Workspace, token: str) -> None:
    set_status(workspace.instance, Status.SLEEPING)
    assert verdict(ask(workspace, token, path=UNREACHABLE, method="POST")) == "unreachable"
    assert Instance.objects.get().desired == Desired.RUNNING


def test_what_was_stopped_meanwhile_is_called_so(workspace: Workspace, token: str) -> None:
    set_status(workspace.instance, Status.STOPPED)
    for method in ("GET", "POST"):
        response = ask(workspace, token, path=UNREACHABLE, method=method)
        assert verdict(response) == "stopped"
