"""The REST API: how soon a wait returns, and what reading costs among ten thousand workspaces."""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx
from django.db import connection

from accounts import api_tokens
from accounts.models import User
from deploy.models import Image, Instance, InstanceEvent
from deploy.states import Desired, Status, StopReason
from workspaces.models import Member, Plan, Release, Role, Workspace

MANY = 10_000
OF_ONE = 200
OWNERS = 1_000
READS = 150
SCOPES = ("read", "lifecycle")


class ApiClient:
    """A program with a token of this user's."""

    def __init__(self, user: User, url: str, *more_scopes: str) -> None:
        _, text = api_tokens.create(user, "bench", [*SCOPES, *more_scopes])
        headers = {"Authorization": f"Bearer {text}"}
        self.http = httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=90)

    def post(self, path: str, body: object = None) -> None:
        """Have something done."""
        self.http.post(path, json=body).raise_for_status()

    def wait(self, slug: str, status: Status) -> float:
        """Wait for a status; return when the answer was there, in seconds since 1970."""
        path = f"/workspaces/{slug}/wait"
        self.http.get(path, params={"status": status, "timeout": 60}).raise_for_status()
        return time.time()


def wait_latencies(client: ApiClient, slug: str, rounds: int) -> list[float]:
    """Return how long after each change of status a wait for it returned, in ms."""
    client.post("/workspaces", {"name": slug, "slug": slug})
    client.wait(slug, Status.RUNNING)
    found = []
    for _ in range(rounds):
        for deed, status in (("stop", Status.STOPPED), ("start", Status.RUNNING)):
            found.append(_latency(client, slug, deed, status))
    return found


def _latency(client: ApiClient, slug: str, deed: str, status: Status) -> float:
    """Wait from the moment it is asked for; the event of the change says when it came true."""
    returned: list[float] = []
    client.post(f"/workspaces/{slug}/{deed}")
    waiting = threading.Thread(target=lambda: returned.append(client.wait(slug, status)))
    waiting.start()
    waiting.join()
    instance = Workspace.objects.get(slug=slug, purged_at=None).instance_id
    event = InstanceEvent.objects.filter(instance=instance, status=status).latest("id")
    return (returned[0] - event.at.timestamp()) * 1000


@contextmanager
def many_workspaces(user: User) -> Iterator[list[str]]:
    """Have ten thousand workspaces that are stopped, some of this user's; yield their slugs."""
    image = Image.objects.filter(state=Image.State.READY).latest("built_at")
    plan = Plan.objects.get(is_default=True)
    release = Release.objects.get(is_default=True)
    owners = User.objects.bulk_create(User(password="!") for _ in range(OWNERS))
    instances = Instance.objects.bulk_create(
        Instance(
            key=uuid4().hex * 2,
            volume="",
            image=image,
            desired=Desired.STOPPED,
            stop_reason=StopReason.OWNER,
        )
        for _ in range(MANY)
    )
    rows = Workspace.objects.bulk_create(
        Workspace(
            name=f"Many {number}",
            slug=f"many-{number}-{uuid4().hex[:6]}",
            plan=plan,
            release=release,
            instance=instance,
        )
        for number, instance in enumerate(instances)
    )
    Member.objects.bulk_create(
        Member(
            workspace=row,
            user=user if number < OF_ONE else owners[number % OWNERS],
            role=Role.OWNER,
        )
        for number, row in enumerate(rows)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")  # as autovacuum would, a minute later
    try:
        yield [row.slug for row in rows[:OF_ONE]]
    finally:
        Workspace.objects.filter(pk__in=[row.pk for row in rows]).delete()
        Instance.objects.filter(pk__in=[row.pk for row in instances]).delete()
        User.objects.filter(pk__in=[row.pk for row in owners]).delete()


def p95_of(client: ApiClient, paths: list[str]) -> float:
    """Return the 95th percentile of reading these, in ms."""
    times = []
    for path in paths:
        started = time.monotonic()
        client.http.get(path).raise_for_status()
        times.append((time.monotonic() - started) * 1000)
    return statistics.quantiles(times, n=20)[-1]
