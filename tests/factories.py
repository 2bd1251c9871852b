"""Make rows for tests. Instances come from deploy.lifecycle, then are put into a state."""

from datetime import timedelta
from itertools import count
from typing import Any
from uuid import uuid4

from allauth.account.models import EmailAddress
from django.utils import timezone

from accounts.models import Profile, User
from deploy import lifecycle
from deploy.images import release_lock
from deploy.models import Image, Instance, InstanceEvent
from deploy.states import Desired, Observed, Status, StopReason
from workspaces.models import Member, Plan, Release, Role, Workspace

_numbers = count(1)

FRESH: dict[str, Any] = {
    "desired": Desired.RUNNING,
    "stop_reason": StopReason.NONE,
    "observed": Observed.ABSENT,
    "observed_generation": None,
    "ready": False,
    "endpoint": "",
    "attempts": 0,
    "last_error": "",
}

# What an instance's row says when people see each status, beside what a fresh one does.
STATES: dict[Status, dict[str, Any]] = {
    Status.PROVISIONING: {},
    Status.RUNNING: {"observed": Observed.RUNNING, "ready": True},
    Status.SLEEPING: {
        "desired": Desired.STOPPED,
        "stop_reason": StopReason.IDLE,
        "observed": Observed.EXITED,
    },
    Status.STOPPED: {
        "desired": Desired.STOPPED,
        "stop_reason": StopReason.OWNER,
        "observed": Observed.EXITED,
    },
    Status.SUSPENDED: {
        "desired": Desired.STOPPED,
        "stop_reason": StopReason.OPERATOR,
        "observed": Observed.EXITED,
    },
    Status.FAILED: {
        "observed": Observed.EXITED,
        "attempts": 3,
        "last_error": "It ran out of memory while it started.",
    },
    Status.DELETING: {"desired": Desired.ABSENT},
    Status.DELETED: {"desired": Desired.ABSENT},
}


def make_user(
    email: str = "", *, name: str = "", password: str | None = None, **fields: Any
) -> User:
    """Make a user with a verified primary address (made up when empty).

    Without a password there is no slow hash to make; `client.force_login` works all the same.
    """
    user = User.objects.create_user(password, **fields)
    email = email or f"person{next(_numbers)}@example.org"
    EmailAddress.objects.create(user=user, email=email, primary=True, verified=True)
    if name:
        Profile.objects.create(user=user, display_name=name)
    return user


def make_plan() -> Plan:
    """Return the default plan. A migration makes it, but tests with real transactions empty it."""
    plan, _ = Plan.objects.get_or_create(is_default=True, defaults={"name": "Standard"})
    return plan


def make_release(version: str = "0.65.5") -> Release:
    """Return a release; the first one that is made is the default."""
    first = not Release.objects.filter(is_default=True).exists()
    release, _ = Release.objects.get_or_create(
        version=version, defaults={"lock": release_lock(version), "is_default": first}
    )
    return release


def make_image(**fields: Any) -> Image:
    """Make the row of an image that is ready; no engine has it. New workspaces get it."""
    digest = uuid4().hex
    defaults = {
        "digest": digest,
        "reference": f"cloudapp-test:{digest}",
        "state": Image.State.READY,
        "built_at": timezone.now(),
    }
    image = Image.objects.create(**defaults | fields)
    if image.state == Image.State.READY:
        make_release()
        Release.objects.filter(is_default=True).update(image=image)
    return image


def set_status(instance: Instance, status: Status) -> Instance:
    """Put an instance into the state in which people see `status`; return it anew."""
    now = timezone.now()
    changes = FRESH | STATES[status]
    if changes["observed"] != Observed.ABSENT:
        changes |= {"observed_generation": instance.generation, "started_at": now}
    if status is Status.RUNNING:
        changes |= {"endpoint": "unix:/nowhere/http.sock", "ready_at": now}
    if status is Status.DELETING:
        changes["purge_at"] = now + timedelta(days=7)
    if status is Status.DELETED:
        changes |= {"purge_at": now, "purged_at": now}
    Instance.objects.filter(pk=instance.pk).update(**changes)
    return Instance.objects.get(pk=instance.pk)


def make_workspace(
    owner: User, slug: str = "", *, name: str = "", status: Status = Status.RUNNING
) -> Workspace:
    """Make a workspace in a status, with its owner."""
    slug = slug or f"space-{next(_numbers)}"
    image = Image.objects.filter(state=Image.State.READY).first() or make_image()
    instance = set_status(lifecycle.create(image), status)
    workspace = Workspace.objects.create(
        name=name or slug.replace("-", " ").capitalize(),
        slug=slug,
        plan=make_plan(),
        release=make_release(),
        instance=instance,
        deleted_at=timezone.now() if status in (Status.DELETING, Status.DELETED) else None,
    )
    add_member(workspace, owner, Role.OWNER)
    return workspace


def add_member(workspace: Workspace, user: User, role: Role) -> Member:
    """Make a user a member."""
    return Member.objects.create(workspace=workspace, user=user, role=role)


def add_event(instance: Instance, kind: str, **fields: Any) -> InstanceEvent:
    """Record an event of an instance."""
    told = {"generation": instance.generation, "history": instance.history} | fields
    return InstanceEvent.objects.create(instance=instance, kind=kind, **told)
