"""What needs attention: each code is provoked with real rows, explained, and goes away again."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from accounts import api_tokens
from accounts.models import User
from deploy import hosts, lifecycle
from deploy.models import Heartbeat, HostFacts, Image, Instance, InstanceEvent, Orphan
from deploy.states import Observed, Status
from tests import factories
from workspaces import attention, changes, mailing
from workspaces.attention_codes import CODES, document
from workspaces.models import (
    Approval,
    Change,
    OutgoingMail,
    Plan,
    Plugin,
    Release,
    Rollout,
    Webhook,
    Workspace,
)

DOCUMENT = settings.BASE_DIR / "docs" / "attention.md"


@pytest.fixture
def workspace(db: None) -> Workspace:
    return factories.make_workspace(factories.make_user(), "trees")


@pytest.fixture
def well(workspace: Workspace) -> Workspace:
    """A workspace, in a fleet that needs no attention."""
    Plan.objects.update(spares=0)
    for queue in settings.CELERY_TASK_QUEUES:
        Heartbeat.objects.create(queue=queue.name)
    HostFacts.objects.create(name="host", cores=2, memory_mb=4096, disk_mb=1000, disk_free_mb=500)
    assert attention.find() == []
    return workspace


def ago(**span: float) -> Any:
    return timezone.now() - timedelta(**span)


def put(workspace: Workspace, **changed: Any) -> None:
    """Put an instance into a state in which nothing happens for long."""
    InstanceEvent.objects.filter(instance=workspace.instance_id).update(at=ago(hours=1))
    told = {"created_at": ago(hours=1), **changed}
    Instance.objects.filter(pk=workspace.instance_id).update(**told)


def approval(state: str, **fields: Any) -> Approval:
    plugin = Plugin.objects.create(name=f"datasette-{uuid4().hex[:6]}", state="known", newest="2.0")
    told = {"version": "2.0", "state": state, **fields}
    return Approval.objects.create(plugin=plugin, release=factories.make_release(), **told)


def withdrawn(workspace: Workspace) -> None:
    workspace.plugins.add(approval("withdrawn"))


def outdated(workspace: Workspace) -> None:
    approval("active", version="1.9")


def unreadable(workspace: Workspace) -> None:
    Plugin.objects.filter(pk=approval("active").plugin_id).update(error="The index is away.")


def change(workspace: Workspace) -> None:
    asked = changes.request(workspace, None, [])
    Change.objects.filter(pk=asked.pk).update(at=ago(minutes=20))


def rollout(workspace: Workspace) -> None:
    other = Release.objects.create(version="1.0a99", lock="")
    Rollout.objects.create(
        from_release=workspace.release,
        to_release=other,
        batch_size=1,
        state=Rollout.State.STOPPED,
        finished_at=timezone.now(),
        error="trees: it did not come up",
    )


def release(workspace: Workspace) -> None:
    Release.objects.create(version="1.0a98", lock="", error="pip said no\nmore")


def older_image(workspace: Workspace) -> None:
    Image.objects.update(inputs={"base": "1", "files": "1"})
    factories.make_image(inputs={"base": "1", "files": "2"})


def webhook(workspace: Workspace) -> None:
    workspace.webhooks.create(url="https://93.184.216.34/", failing_since=ago(hours=2))


def webhook_off(workspace: Workspace) -> None:
    Webhook.objects.create(url="https://93.184.216.34/", active=False, disabled_reason="Too long.")


def spares(workspace: Workspace) -> None:
    Plan.objects.filter(is_default=True).update(spares=2)


def failing_spare(workspace: Workspace) -> None:
    made = lifecycle.create(workspace.instance.image, spare=True)
    Instance.objects.filter(pk=made.pk).update(attempts=3, last_error="no")


def token(workspace: Workspace) -> None:
    staff = factories.make_user(is_staff=True)
    made, _ = api_tokens.create(staff, "robot", ["operator"], expires_at=ago(days=-3))
    assert made.expires_at


def ownerless(workspace: Workspace) -> None:
    User.objects.filter(memberships__workspace=workspace).update(is_active=False)


def one_queue(workspace: Workspace) -> None:
    Heartbeat.objects.filter(queue="outside").update(at=ago(hours=1))


def mail(state: str, **fields: Any) -> Callable[[Workspace], Any]:
    told = {"kind": "deletion", "to": "ada@example.org", "key": "deletion:1", "attempts": 1}
    return lambda workspace: OutgoingMail.objects.create(state=state, **told, **fields)


PROVOKED: list[tuple[str, Callable[[Workspace], Any]]] = [
    ("beat-silent", lambda w: Heartbeat.objects.update(at=ago(minutes=11))),
    ("worker-silent", one_queue),
    ("engine-silent", lambda w: put(w, observed=Observed.UNKNOWN)),
    ("engine-silent", lambda w: HostFacts.objects.update(at=ago(minutes=5))),
    ("engine-silent", lambda w: HostFacts.objects.update(at=ago(minutes=11))),
    ("host-disk-low", lambda w: HostFacts.objects.update(disk_free_mb=50)),
    ("host-unknown", lambda w: HostFacts.objects.all().delete()),
    ("instance-failing", lambda w: factories.set_status(w.instance, Status.FAILED)),
    ("instance-failing", failing_spare),
    ("instance-stuck", lambda w: put(w, ready=False, observed=Observed.ABSENT)),
    ("instance-stuck", lambda w: put(w, desired="absent", purge_at=ago(days=-1))),
    ("instance-stuck", lambda w: put(w, desired="stopped", stop_reason="owner")),
    ("change-stuck", change),
    ("rollout-stopped", rollout),
    ("release-failed", release),
    ("image-failed", lambda w: factories.make_image(state=Image.State.FAILED, error="no")),
    ("approval-withdrawn", withdrawn),
    ("approval-expiring", lambda w: approval("active", expires_at=ago(days=-29))),
    ("approval-expiring", lambda w: approval("active", expires_at=ago(days=1))),
    ("approval-failed", lambda w: approval("failed", error="No such file.")),
    ("plugin-outdated", outdated),
    ("plugin-unreadable", unreadable),
    ("image-outdated", older_image),
    ("webhook-failing", webhook),
    ("webhook-off", webhook_off),
    ("mail-failing", mail("pending", created_at=ago(hours=2))),
    ("mail-failing", mail("failed", created_at=ago(days=3), attempted_at=ago(hours=1))),
    ("mail-failing", mail("uncertain", created_at=ago(days=3), attempted_at=ago(hours=1))),
    ("workspace-ownerless", ownerless),
    ("spares-missing", spares),
    ("orphan-container", lambda w: Orphan.objects.create(name="c", kind="container")),
    ("orphan-volume", lambda w: Orphan.objects.create(name="v", kind="volume")),
    ("token-expiring", token),
]


@pytest.mark.parametrize(("code", "provoke"), PROVOKED)
def test_each_code_is_found(
    well: Workspace, code: str, provoke: Callable[[Workspace], Any]
) -> None:
    provoke(well)
    (found,) = attention.find()
    assert found.code == code
    assert found.count >= 1
    (item,) = found.items
    assert item.words.endswith((".", "!")) or ":" in item.words
    client = Client()
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    assert client.get(item.url).status_code == 200
    listed = client.get("/admin/attention/").content.decode()
    about = client.get(f"/admin/attention/{code}/").content.decode()
    front = client.get("/admin/").content.decode()
    assert item.url in listed
    assert item.url in about
    assert f"/admin/attention/{code}/" in front
    assert attention.counts() == {code: found.count}


def test_every_code_is_provoked_above() -> None:
    assert {code for code, _ in PROVOKED} == set(CODES) == set(attention.CHECKS)


@pytest.mark.parametrize("code", CODES)
def test_every_code_says_what_to_do(code: str) -> None:
    about = CODES[code]
    assert len(about.means) > 60
    assert about.do
    assert all(step[0].isupper() and step.endswith(".") for step in about.do)
    assert f"\n## {code}\n" in DOCUMENT.read_text()


def test_the_document_is_what_the_admin_says() -> None:
    words = "stale: run `manage.py attention_reference docs/attention.md`"
    assert DOCUMENT.read_text() == document(), words


def test_no_page_for_a_code_that_is_none(db: None) -> None:
    client = Client()
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    assert client.get("/admin/attention/no-such-code/").status_code == 404


def test_of_an_engine_that_nobody_asks_nothing_is_said(well: Workspace) -> None:
    """Its queue stands still: that is what is wrong."""
    HostFacts.objects.update(at=ago(minutes=11))
    Heartbeat.objects.filter(queue=hosts.ASKS).update(at=ago(minutes=11))
    assert {found.code for found in attention.find()} == {"worker-silent", "host-unknown"}


def test_what_is_under_way_needs_nobody(well: Workspace) -> None:
    lifecycle.change_spec(well.instance_id)
    changes.request(well, None, [])
    Heartbeat.objects.filter(queue="builds").update(at=ago(minutes=20))
    well.webhooks.create(url="https://93.184.216.34/", failing_since=ago(minutes=5))
    api_tokens.create(factories.make_user(is_staff=True), "robot", ["operator"])
    assert attention.find() == []


def test_a_newer_roll_out_takes_the_place_of_one_that_stopped(well: Workspace) -> None:
    rollout(well)
    stopped = Rollout.objects.get()
    Rollout.objects.create(from_release=well.release, to_release=stopped.to_release, batch_size=1)
    assert attention.counts() == {}


def test_urgent_ones_come_first_and_only_some_are_named(well: Workspace) -> None:
    for n in range(attention.NAMED + 5):
        Orphan.objects.create(name=f"v{n}", kind="volume")
    factories.set_status(well.instance, Status.FAILED)
    first, second = attention.find()
    assert (first.code, second.code) == ("instance-failing", "orphan-volume")
    assert (second.count, len(second.items)) == (attention.NAMED + 5, attention.NAMED)


def test_a_workspace_tells_its_own(well: Workspace) -> None:
    other = factories.make_workspace(factories.make_user(), status=Status.FAILED)
    webhook(well)
    change(well)
    assert [item.code for item in attention.of_workspace(well)] == [
        "change-stuck",
        "webhook-failing",
    ]
    assert [item.code for item in attention.of_workspace(other)] == ["instance-failing"]


def test_the_fleet_counts_them(well: Workspace) -> None:
    webhook(well)
    staff = factories.make_user(is_staff=True, is_superuser=True)
    _, text = api_tokens.create(staff, "robot", ["operator"])
    headers = {"Authorization": f"Bearer {text}"}
    told = Client().get("/api/v1/operator/fleet", headers=headers)
    assert told.json()["attention"] == {"webhook-failing": 1}


def test_mail_that_may_still_come_or_that_nobody_wants_any_more_is_fine(well: Workspace) -> None:
    fine = (
        {"state": "pending", "attempts": 1, "created_at": ago(minutes=50)},
        {"state": "pending", "attempts": 0, "created_at": ago(hours=2)},
        {"state": "failed", "attempts": 1, "attempted_at": ago(hours=25)},
        {"state": "uncertain", "attempts": 1, "attempted_at": ago(hours=25)},
        {"state": "sent", "attempts": 2, "attempted_at": ago(hours=2)},
    )
    for number, fields in enumerate(fine):
        OutgoingMail.objects.create(kind="invitation", key=str(number), **fields)
    late = {"created_at": ago(hours=2), "attempted_at": ago(hours=1)}
    OutgoingMail.objects.create(kind="invitation", key="late", attempts=3, **late)
    assert attention.counts() == {"mail-failing": 1}
    mailing.call_back("late", "It was withdrawn.")
    assert attention.counts() == {}


def test_what_is_suspended_or_deleted_needs_no_owner(well: Workspace) -> None:
    ownerless(well)
    factories.set_status(well.instance, Status.SUSPENDED)
    gone = factories.make_workspace(factories.make_user(), status=Status.DELETING)
    ownerless(gone)
    assert attention.counts() == {}
    factories.set_status(well.instance, Status.RUNNING)
    assert [item.code for item in attention.of_workspace(well)] == ["workspace-ownerless"]
