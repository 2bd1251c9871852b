"""A small world with something on every page: rows of all kinds, in all states."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from allauth.account.forms import default_token_generator
from allauth.account.internal.flows.login import record_authentication
from allauth.account.models import EmailAddress, EmailConfirmationHMAC
from allauth.account.utils import user_pk_to_url_str
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django.test import Client
from django.utils import timezone

from accounts import api_tokens
from accounts.models import User
from deploy import lifecycle, locks, vault
from deploy.locks import Pin
from deploy.models import Heartbeat, HostFacts, Image, Instance, LogTail, Orphan, UsageHour
from deploy.states import MEBIBYTE, Status
from tests import factories
from workspaces import changes, services
from workspaces.handoff_tokens import digest
from workspaces.models import (
    Approval,
    Change,
    Grant,
    Invitation,
    OutgoingMail,
    Plugin,
    Role,
    Rollout,
    Step,
    Visibility,
    Workspace,
)

PASSWORD = "a rather long password 42"
INVITED = "invited-by-a-link"
NEWCOMER = "new@example.org"
NEVER = timedelta(days=300)


@dataclass
class World:
    """The people, the workspace whose pages have everything, and what addresses are made of."""

    ada: User  # owns everything
    grace: User  # has an authenticator app, and may only look at `trees`
    tim: User  # signs in with Google alone, or with a key
    olga: User  # an operator
    trees: Workspace
    parts: dict[str, Any] = field(default_factory=dict)


def make() -> World:
    """Make it all."""
    world = _people()
    _catalogue(world.olga)
    _fill(world.trees, world)
    _others(world)
    _fleet(world)
    world.parts |= _keys(world)
    return world


def cookie_of(user: User) -> str:
    """Sign somebody in; return their session cookie. They have just shown who they are."""
    client = Client()
    client.force_login(user)
    request = HttpRequest()
    request.session = client.session
    record_authentication(request, user, "password", reauthenticated=True)
    request.session.save()
    return str(client.cookies[settings.SESSION_COOKIE_NAME].value)


# --- people --------------------------------------------------------------------------------------


def _people() -> World:
    factories.make_plan()
    factories.make_image()
    ada = factories.make_user("ada@example.org", name="Ada", password=PASSWORD)
    grace = factories.make_user("grace@example.org", name="Grace", password=PASSWORD)
    tim = factories.make_user("tim@example.org", name="Tim")
    olga = factories.make_user("olga@example.org", name="Olga", is_staff=True, is_superuser=True)
    mary = User.objects.create_user(PASSWORD)
    EmailAddress.objects.create(user=mary, email="mary@example.org", primary=True)
    told = {"email": "tim@example.org", "email_verified": True, "name": "Tim"}
    SocialAccount.objects.create(user=tim, provider="google", uid="1815", extra_data=told)
    TOTP.activate(grace, generate_totp_secret())
    RecoveryCodes.activate(grace)
    key = {"name": "My laptop", "credential": {"clientExtensionResults": {}}}
    Authenticator.objects.create(user=tim, type=Authenticator.Type.WEBAUTHN, data=key)
    Group.objects.create(name="Night shift")
    trees = factories.make_workspace(ada, "trees", name="Trees of Lisbon")
    factories.add_member(trees, grace, Role.VIEWER)
    return World(ada, grace, tim, olga, trees)


def _keys(world: World) -> dict[str, Any]:
    """What the addresses in mails hold, and the numbers of rows."""
    unproven = EmailAddress.objects.get(verified=False)
    tokens = [
        api_tokens.create(world.ada, name, ["read"])[0] for name in ("laptop", "nightly import")
    ]
    api_tokens.revoke(tokens[0], by=world.ada)
    uid, token = user_pk_to_url_str(world.ada), default_token_generator.make_token(world.ada)
    webhook = world.trees.webhooks.earliest("pk")
    return {
        "invitation": INVITED,
        "confirm": EmailConfirmationHMAC(unproven).key,
        "reset": f"{uid}-{token}",
        "webhook": webhook.pk,
        "key": Authenticator.objects.get(type=Authenticator.Type.WEBAUTHN).pk,
    }


# --- a workspace with everything -----------------------------------------------------------------


def _catalogue(by: User) -> None:
    release = factories.make_release()
    for name, terms in (
        ("datasette-birds", {}),
        ("datasette-always", {"required": True}),
        ("datasette-places", {"needs": [{"name": "PLACES_KEY", "help": "From places.example"}]}),
        ("datasette-outside", {"needs_internet": True, "reach": "granted"}),
    ):
        plugin = Plugin.objects.create(
            name=name, state="known", newest="2.0", summary=f"What {name} does", licence="MIT",
            home_page="https://example.org/", requires=["datasette>=0.65"], added_by=by,
        )  # fmt: skip
        pin = Pin(name, "1.0", ("0" * 64,))
        told: dict[str, Any] = {"reach": "everyone", "version": "1.0", "by": by, **terms}
        for state in (Approval.State.ACTIVE, Approval.State.WITHDRAWN):
            Approval.objects.create(
                plugin=plugin, release=release, state=state, lock=locks.text_of([pin]), **told
            )


def _fill(trees: Workspace, world: World) -> None:
    now, instance = timezone.now(), trees.instance
    for kind, failed in (("create", False), ("start", True), ("await_ready", False)):
        message = "It ran out of memory." if failed else ""
        factories.add_event(instance, kind, duration_ms=190, failed=failed, message=message)
    services.rename(trees, world.ada, "Trees")
    LogTail.objects.create(instance=instance, text="ready\n" * 40, fetched_at=now + NEVER)
    for ago in range(0, 90, 3):
        UsageHour.objects.create(
            history=instance.history,
            hour=now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=ago),
            samples=2, memory_peak=120 * MEBIBYTE, memory_sum=200 * MEBIBYTE, cpu_seconds=10,
            requests=50, awake_seconds=1800, disk_bytes=(100 + ago) * MEBIBYTE,
        )  # fmt: skip
    Instance.objects.filter(pk=instance.pk).update(
        disk_mb=1024, disk_bytes=900 * MEBIBYTE, disk_level="nearly_full", disk_measured_at=now
    )
    for email, lasts in ((NEWCOMER, 7), ("late@example.org", -1)):
        _invite(trees, email, lasts)
    webhook = trees.webhooks.create(
        url="https://hooks.example.org/in", name="Chat", secret=vault.seal("whsec_c2Vj"),
        failing_since=now, created_by=world.ada,
    )  # fmt: skip
    for state, error in (("delivered", ""), ("failed", "It answered 500."), ("pending", "")):
        webhook.deliveries.create(
            type="ping", body='{"type": "ping"}', state=state, error=error, answer="thanks",
            attempts=1, attempted_at=now, status_code=500 if error else 200, duration_ms=12,
            next_attempt_at=now + NEVER,
        )  # fmt: skip
    trees.plugins.set(change_to(trees, Change.State.DONE).wanted.all())


def _invite(workspace: Workspace, email: str, days: int) -> Invitation:
    token = INVITED if email == NEWCOMER else email
    return Invitation.objects.create(
        workspace=workspace, email=email, role=Role.EDITOR, digest=digest(token),
        expires_at=timezone.now() + timedelta(days=days),
    )  # fmt: skip


def change_to(workspace: Workspace, state: Change.State) -> Change:
    """Have a workspace's plugins changed, as far as this state."""
    change = changes.request(workspace, None, ["datasette-birds"])
    wrong = state in (Change.State.FAILED, Change.State.ROLLED_BACK)
    Change.objects.filter(pk=change.pk).update(
        state=state,
        step=Step.SWITCH,
        durations={"resolve": 12, "fetch": 240},
        error="It does not start with datasette-birds." if wrong else "",
        detail="Traceback (most recent call last): …" if wrong else "",
        finished_at=None if state == Change.State.OPEN else timezone.now(),
    )
    return Change.objects.get(pk=change.pk)


# --- others, and what operators see --------------------------------------------------------------


def _others(world: World) -> None:
    for status in Status:
        factories.make_workspace(world.ada, f"is-{status}", status=status)
    Workspace.objects.filter(slug=f"is-{Status.SUSPENDED}").update(suspended_reason="Unpaid.")
    for state in (Change.State.OPEN, Change.State.FAILED, Change.State.ROLLED_BACK):
        slug = f"change-{state.replace(' ', '-')}"
        change_to(factories.make_workspace(world.ada, slug), state)
    public = factories.make_workspace(world.ada, "public")
    Workspace.objects.filter(pk=public.pk).update(
        visibility=Visibility.PUBLIC, support_until=timezone.now() + timedelta(days=1)
    )
    Instance.objects.filter(pk=public.instance_id).update(
        disk_mb=100, disk_bytes=100 * MEBIBYTE, disk_level="full", disk_measured_at=timezone.now()
    )
    shared = factories.make_workspace(world.grace, "shared")
    _invite(shared, world.ada.email, 3)


def _fleet(world: World) -> None:
    now = timezone.now()
    outside = Plugin.objects.get(name="datasette-outside")
    Grant.objects.create(plugin=outside, workspace=world.trees, by=world.olga)
    Plugin.objects.create(name="datasette-reading")
    Plugin.objects.create(name="datasette-refused", state="refused", error="It needs a newer one.")
    coming = factories.make_release("1.0a41")
    for state in (Rollout.State.RUNNING, Rollout.State.DONE):
        Rollout.objects.create(
            from_release=world.trees.release, to_release=coming, state=state, by=world.olga,
            skipped={"trees": "It has a plugin that is not approved there."},
        )  # fmt: skip
    factories.make_image(state=Image.State.FAILED, error="datasette-owls needs Python 3.14")
    Orphan.objects.create(name="cloudapp-6f1f-data", kind="volume")
    HostFacts.objects.create(
        name="host-1", engine="Docker", cores=16, memory_mb=16_384, disk_mb=220, disk_free_mb=8
    )
    for queue in settings.CELERY_TASK_QUEUES:
        Heartbeat.objects.create(queue=queue.name, at=now - timedelta(seconds=12))
    factories.set_status(lifecycle.create(world.trees.instance.image, spare=True), Status.RUNNING)
    for state in OutgoingMail.State:
        OutgoingMail.objects.create(
            key=state, kind="failed", to="ada@example.org", subject="Trees", state=state,
            workspace=world.trees, next_attempt_at=now + NEVER, error="The server is away.",
        )  # fmt: skip
    world.trees.webhooks.create(url="https://dead.example.org/", failing_since=now - NEVER)
