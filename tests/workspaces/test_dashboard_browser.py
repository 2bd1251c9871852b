"""The operators' pages in a browser: a fleet of every status, light and dark, wide and narrow."""

import random
from datetime import timedelta

import pytest
from celery import current_app
from django.conf import settings as configured
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Page
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.models import User
from deploy import lifecycle
from deploy.models import Heartbeat, HostFacts, Image, Instance, InstanceEvent, Orphan
from deploy.states import MEBIBYTE, Status
from tests import factories
from tests.browser import PICTURES, NewPage, picture
from workspaces.models import Workspace

FLEET = {
    Status.RUNNING: 9,
    Status.SLEEPING: 24,
    Status.STOPPED: 3,
    Status.SUSPENDED: 2,
    Status.FAILED: 3,
    Status.PROVISIONING: 1,
    Status.DELETING: 2,
}
NAMES = ("trees", "ships", "owls", "budget", "census", "rivers", "recipes", "museums", "rainfall")

# Texts whose contrast with what is behind them is less than WCAG's AA asks for.
FAINT = """() => {
  const part = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 };
  const light = c => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const texts = [...element.childNodes].filter(n => n.nodeType === 3 && n.textContent.trim());
    if (!texts.length || !element.offsetParent) continue;
    const front = light(numbers(getComputedStyle(element).color)), back = light(behind(element));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} ${texts[0].textContent.trim()} ${ratio}`);
  }
  return found;
}"""


@pytest.fixture
def staff(transactional_db: None) -> User:
    return factories.make_user("olga@example.org", name="Olga", is_staff=True, is_superuser=True)


@pytest.fixture
def fleet(staff: User) -> Workspace:
    """A fleet of every status, with a past; return one that fails."""
    chance = random.Random(4)
    now = timezone.now()
    people = [factories.make_user(f"{n}@example.org") for n in ("ada", "grace", "alan", "tim")]
    for n, person in enumerate(User.objects.order_by("-pk"), start=1):
        User.objects.filter(pk=person.pk).update(created=now - timedelta(hours=n**3))
    statuses = [status for status, count in FLEET.items() for _ in range(count)]
    spaces = []
    for n, status in enumerate(statuses):
        slug = NAMES[n] if n < len(NAMES) else f"{NAMES[n % len(NAMES)]}-{n // len(NAMES) + 1}"
        spaces.append(factories.make_workspace(people[n % 4], slug, status=status))
        made = now - timedelta(hours=chance.randint(1, 320))
        Workspace.objects.filter(pk=spaces[-1].pk).update(created_at=made)
    InstanceEvent.objects.all().delete()
    _make_a_past(spaces, chance)
    _make_trouble(spaces)
    for queue in configured.CELERY_TASK_QUEUES:
        Heartbeat.objects.create(queue=queue.name, at=now - timedelta(seconds=12))
    HostFacts.objects.create(
        name="host-1", engine="Docker", cores=16, memory_mb=16_384,
        disk_mb=220_000, disk_free_mb=88_000,
    )  # fmt: skip
    for _ in range(2):
        spare = lifecycle.create(spaces[0].instance.image, spare=True)
        factories.set_status(spare, Status.RUNNING)
    for instance in Instance.objects.filter(ready=True):
        counters = {"memory_bytes": chance.randint(90, 400) * MEBIBYTE}
        Instance.objects.filter(pk=instance.pk).update(counters=counters)
    if PICTURES:
        current_app.control.purge()  # nobody works off what making these rows has asked for
    return next(space for space in spaces if space.instance.attempts)


def _make_a_past(spaces: list[Workspace], chance: random.Random) -> None:
    now = timezone.now()
    events = []
    for _ in range(700):
        instance = chance.choice(spaces).instance
        at = now - timedelta(hours=chance.triangular(0, 330, 10))
        up = at + timedelta(milliseconds=chance.triangular(340, 1500, 420))
        told = {"instance": instance, "history": instance.history, "generation": 1}
        events += [
            InstanceEvent(kind="wake", status="provisioning", at=at, **told),
            InstanceEvent(kind="await_ready", status="running", at=up, **told),
        ]
    for space in spaces[:20]:
        at = now - timedelta(hours=chance.uniform(0, 150))
        up = at + timedelta(milliseconds=chance.triangular(60, 700, 90))
        told = {"instance": space.instance, "history": space.instance.history, "generation": 1}
        events += [
            InstanceEvent(kind="create_requested", status="provisioning", at=at, **told),
            InstanceEvent(kind="await_ready", status="running", at=up, **told),
            InstanceEvent(kind="start", failed=True, at=at, message="No memory.", **told),
        ]
    InstanceEvent.objects.bulk_create(events)


def _make_trouble(spaces: list[Workspace]) -> None:
    now = timezone.now()
    failing = Instance.objects.filter(attempts__gt=0).order_by("pk").values("pk")[:1]
    Instance.objects.filter(pk__in=failing).update(last_error="Its image is gone.")
    Instance.objects.exclude(observed="absent").update(node="host-1")
    for n in range(5):
        factories.make_image(created_at=now - timedelta(hours=3 * n + 1))
    factories.make_image(
        state=Image.State.FAILED, error="datasette-owls needs Python 3.14",
        created_at=now - timedelta(hours=5),
    )  # fmt: skip
    Orphan.objects.create(name="cloudapp-6f1f-data", kind="volume")
    spaces[1].webhooks.create(
        url="https://hooks.example.org/", failing_since=now - timedelta(days=1)
    )


@pytest.fixture(autouse=True)
def reachable(live_server: LiveServer, settings: Settings) -> None:
    """The live server is asked at an address of its own."""
    settings.ALLOWED_HOSTS = ["*"]
    settings.CSRF_TRUSTED_ORIGINS = [live_server.url]


def signed_in(page: Page, user: User, live_server: LiveServer) -> Page:
    client = Client()
    client.force_login(user)
    name = configured.SESSION_COOKIE_NAME
    value = client.cookies[name].value
    page.context.add_cookies([{"name": name, "value": value, "url": live_server.url}])
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_operators_pages_can_be_read(
    live_server: LiveServer, new_page: NewPage, staff: User, fleet: Workspace, scheme: str
) -> None:
    listed = "/admin/workspaces/workspace/"
    addresses = [
        "/admin/",
        "/admin/attention/",
        "/admin/attention/instance-failing/",
        "/admin/queues/later/",
        listed,
        f"{listed}{fleet.pk}/change/",
        f"{listed}{fleet.pk}/suspend/",
    ]
    for width in (1280, 390):
        window = {"width": width, "height": 900}
        page = signed_in(new_page(viewport=window, color_scheme=scheme), staff, live_server)
        for address in addresses:
            page.goto(live_server.url + address)
            assert not page.evaluate(FAINT), (address, width)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (address, width)
            if address == "/admin/" and width == 1280:
                name = "fleet.png" if scheme == "light" else "fleet-dark.png"
                picture(page.locator(".front"), name)


def test_suspending_one_by_keyboard_only(
    live_server: LiveServer, new_page: NewPage, staff: User, fleet: Workspace
) -> None:
    page = signed_in(new_page(), staff, live_server)
    page.goto(f"{live_server.url}/admin/workspaces/workspace/{fleet.pk}/change/")
    page.get_by_role("link", name="Suspend…").press("Enter")
    page.get_by_label("Reason").fill("Unpaid since June.")
    page.get_by_label("Reason").press("Enter")
    page.get_by_text(f"{fleet.slug} suspended.").wait_for()
    assert Workspace.objects.get(pk=fleet.pk).suspended_reason == "Unpaid since June."
