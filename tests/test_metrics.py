"""/metrics and /readyz: what they say, to whom, and at what cost."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from cloudapp import health
from deploy import hosts
from deploy.models import Heartbeat, HostFacts, Image, Instance, InstanceEvent
from deploy.states import Status
from tests import factories
from workspaces import queues
from workspaces.models import Member, OutgoingMail, Workspace

pytestmark = pytest.mark.django_db

TOKEN = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"
SHOWN = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def token(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN


def numbers(client: Client) -> dict[tuple[str, str], float]:
    """Return each number by its name and its labels' values, as Prometheus reads them."""
    response = client.get("/metrics", headers=SHOWN)
    assert response.status_code == 200
    assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(response.text)
    return {
        (sample.name.removeprefix("cloudapp_"), ",".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_without_a_token_in_the_settings_there_are_no_metrics(client: Client) -> None:
    assert client.get("/metrics").status_code == 404
    # An empty token is no key.
    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("given", ["", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer ä"])
def test_only_the_token_opens_them(client: Client, given: str) -> None:
    response = client.get("/metrics", headers={"Authorization": given} if given else {})
    assert response.status_code == 401
    assert "cloudapp_" not in response.text


@pytest.mark.usefixtures("token")
def test_what_they_say(client: Client) -> None:
    owner = factories.make_user()
    for status in (Status.RUNNING, Status.RUNNING, Status.FAILED, Status.SLEEPING):
        workspace = factories.make_workspace(owner, status=status)
    for ms in (100, 200, 300):
        factories.add_event(workspace.instance, "start", duration_ms=ms)
    factories.add_event(workspace.instance, "start", duration_ms=50, failed=True)
    for number, state in enumerate(("sent", "uncertain", "uncertain")):
        OutgoingMail.objects.create(kind="resumed", key=str(number), state=state)
    OutgoingMail.objects.create(
        kind="resumed", key="old", state="sent", created_at=timezone.now() - timedelta(days=2)
    )
    found = numbers(client)
    mails = {label: value for (name, label), value in found.items() if name == "mails"}
    assert mails == {"pending": 0, "sending": 0, "sent": 1, "uncertain": 2, "failed": 0}
    assert found["workspaces", "running"] == 2
    assert found["workspaces", "failed"] == 1
    assert found["workspaces", "sleeping"] == 1
    assert found["failing_instances", ""] == 1
    assert found["steps", "start,false"] == 3
    assert found["steps", "start,true"] == 1
    assert found["step_seconds", "start,0.5"] == 0.2
    assert found["redis_up", ""] == 1
    queued = {label for name, label in found if name == "queue_tasks"}
    assert queued == {"now", "later", "builds", "outside"}
    assert found["users", ""] == 1


@pytest.mark.usefixtures("token")
def test_they_cost_the_same_among_ten_thousand(client: Client) -> None:
    owner = factories.make_user()
    first = factories.make_workspace(owner)
    numbers(client)
    with CaptureQueriesContext(connection) as few:
        numbers(client)
    image = first.instance.image
    instances = Instance.objects.bulk_create(
        Instance(image=image, memory_mb=512, cpus=1, pids=128) for _ in range(10_000)
    )
    many = Workspace.objects.bulk_create(
        Workspace(
            name="x", slug=f"x-{number}", plan=first.plan, release=first.release, instance=instance
        )
        for number, instance in enumerate(instances)
    )
    Member.objects.bulk_create(
        Member(workspace=workspace, user=owner, role="owner") for workspace in many
    )
    InstanceEvent.objects.bulk_create(
        InstanceEvent(instance=instance, generation=1, kind="start", duration_ms=100)
        for instance in instances
    )
    with CaptureQueriesContext(connection) as queries:
        found = numbers(client)
    assert found["workspaces", "provisioning"] == 10_000
    assert len(queries) == len(few)
    seconds = sum(float(query["time"]) for query in queries)
    print(f"{len(queries)} queries in {seconds * 1000:.0f} ms")


# --- readiness -----------------------------------------------------------------------------------


@pytest.fixture
def usable(db: None) -> None:
    """Everything is as it should be."""
    factories.make_image()
    for queue in queues.MINUTES:
        hosts.note_beat(queue)


@pytest.mark.usefixtures("token", "usable")
def test_ready(client: Client) -> None:
    response = client.get("/readyz", headers=SHOWN)
    assert response.status_code == 200, response.text
    told = response.json()
    assert told["status"] == "ok"
    assert set(told["checks"]) == set(health.CHECKS)
    assert {check["code"] for check in told["checks"].values()} == {"ok"}


@pytest.mark.usefixtures("token", "usable")
def test_what_is_missing_has_a_code(client: Client) -> None:
    Heartbeat.objects.filter(queue="later").update(at=timezone.now() - timedelta(minutes=11))
    Heartbeat.objects.filter(queue="now").delete()
    Image.objects.update(state=Image.State.FAILED)
    response = client.get("/readyz", headers=SHOWN)
    assert response.status_code == 503
    codes = {name: check["code"] for name, check in response.json()["checks"].items()}
    assert codes["image"] == "image_missing"
    assert codes["worker_now"] == "worker_now_silent"
    assert codes["worker_later"] == "worker_later_silent"
    assert codes["database"] == "ok"


@pytest.mark.usefixtures("token", "usable")
def test_the_engine_is_silent(client: Client) -> None:
    told = HostFacts.objects.create(name="h", cores=2, memory_mb=1, at=timezone.now())
    assert client.get("/readyz").status_code == 200
    HostFacts.objects.filter(pk=told.pk).update(at=timezone.now() - timedelta(minutes=5))
    checks = client.get("/readyz", headers=SHOWN).json()["checks"]
    assert checks["engine"]["code"] == "engine_silent"


@pytest.mark.usefixtures("token", "usable")
def test_a_missing_migration(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_migrated", False)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE name = '0005_audit_search'")
    checks = client.get("/readyz", headers=SHOWN).json()["checks"]
    assert checks["migrations"]["code"] == "migrations_missing"


@pytest.mark.usefixtures("token", "usable")
def test_strangers_hear_whether_and_not_why(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    Heartbeat.objects.filter(queue="now").delete()
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"status": "failing"}
    assert "not ready: worker_now_silent" in caplog.text


@pytest.mark.usefixtures("token", "usable")
def test_redis_is_down(client: Client, without_redis: None) -> None:
    checks = client.get("/readyz", headers=SHOWN).json()["checks"]
    assert checks["redis"]["code"] == "redis_down"
    assert numbers(client)["redis_up", ""] == 0
