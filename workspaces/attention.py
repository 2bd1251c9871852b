"""What needs an operator's attention now: one list, with a coded cause for each item.

What each code means stands in attention_codes. All of it is asked in a fixed number of queries,
however many rows there are: each check counts, and names the first few.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.urls import reverse
from django.utils import timezone

from accounts.models import ApiToken
from deploy import hosts
from deploy.models import HostFacts, Image, Instance, InstanceEvent, Orphan
from deploy.states import FAILED_AFTER_ATTEMPTS, Desired, Observed, StopReason
from workspaces import fleet, queues, releases
from workspaces.attention_codes import CODES
from workspaces.models import (
    Approval,
    Change,
    Member,
    OutgoingMail,
    Plugin,
    Release,
    Role,
    Rollout,
    Webhook,
    Workspace,
)
from workspaces.models.catalogue import EXPIRES_SOON

# So many of each code are named; the number tells all.
NAMED = 20

STUCK_AFTER = timedelta(minutes=5)
SILENT_AFTER = timedelta(minutes=2)
CHANGE_AFTER = timedelta(minutes=15)
WEBHOOK_AFTER = timedelta(hours=1)
MAIL_AFTER = timedelta(hours=1)
MAIL_FAILED_WITHIN = timedelta(days=1)
LATELY = timedelta(days=7)
LEAST_FREE = 0.1


@dataclass(frozen=True)
class Item:
    """One thing, in one sentence, with where to look at it. `since` None: not known."""

    code: str
    thing: str
    words: str
    url: str
    since: datetime | None = None

    @property
    def urgent(self) -> bool:
        """Whether somebody should look at once."""
        return CODES[self.code].urgent


@dataclass(frozen=True)
class Found:
    """How many there are of one code, and the first few of them."""

    code: str
    count: int
    items: Sequence[Item]

    @property
    def title(self) -> str:
        """What the code means, in a line."""
        return CODES[self.code].title

    @property
    def urgent(self) -> bool:
        """Whether somebody should look at once."""
        return CODES[self.code].urgent


Check = Callable[[int], tuple[int, Iterable[Item]]]


def find(named: int = NAMED) -> list[Found]:
    """Look at everything; return what there is, the urgent codes first. With 0, only count."""
    found: list[Found] = []
    for code, check in CHECKS.items():
        count, items = check(named)
        if count:
            found.append(Found(code, count, list(items)[:named]))
    return sorted(found, key=lambda one: not one.urgent)


def counts() -> dict[str, int]:
    """Return how many there are of each code that there is."""
    return {found.code: found.count for found in find(0)}


def of_workspace(workspace: Workspace) -> list[Item]:
    """Return what needs attention at one workspace."""
    mine = Q(pk=workspace.instance_id)
    items = [_failing(row) for row in _failing_rows().filter(mine)]
    items += [_stuck(row) for row in _stuck_rows().filter(mine)]
    items += [_silent(row) for row in _silent_rows().filter(mine)]
    items += [_ownerless(row) for row in _ownerless_rows().filter(pk=workspace.pk)]
    items += [_change(row) for row in _change_rows().filter(workspace=workspace)]
    return items + [_webhook(row) for row in _webhook_rows().filter(workspace=workspace)]


def _page(model: str, pk: Any) -> str:
    return reverse(f"admin:{model}_change", args=[pk])


def _list(model: str, query: str = "") -> str:
    return reverse(f"admin:{model}_changelist") + query


def _some(rows: QuerySet[Any], named: int, item: Callable[[Any], Item]) -> tuple[int, list[Item]]:
    count = rows.count()
    return count, [item(row) for row in rows[:named]] if count and named else []


# --- instances -----------------------------------------------------------------------------------


def _thing(instance: Instance) -> tuple[str, str]:
    """Return the name and the page of what an instance is of."""
    workspace: Workspace | None = getattr(instance, "workspace", None)
    if workspace is not None:
        return workspace.slug, _page("workspaces_workspace", workspace.pk)
    what = "a spare" if instance.spare else f"instance {str(instance.pk)[:8]}"
    return what, _page("deploy_instance", instance.pk)


def _there() -> QuerySet[Instance]:
    return Instance.objects.filter(purged_at=None).select_related("workspace").order_by("pk")


def _quiet(since: datetime) -> Q:
    """Nothing happened to it since then."""
    news = InstanceEvent.objects.filter(at__gt=since)
    return Q(created_at__lt=since) & ~Q(pk__in=news.values("instance"))


def _failing_rows() -> QuerySet[Instance]:
    return _there().filter(attempts__gte=FAILED_AFTER_ATTEMPTS).order_by("-attempts")


def _failing(instance: Instance) -> Item:
    thing, url = _thing(instance)
    words = f"{thing} failed {instance.attempts} times in a row: {instance.last_error}"
    return Item("instance-failing", thing, words, url)


def _stuck_rows() -> QuerySet[Instance]:
    now = timezone.now()
    due = now - STUCK_AFTER
    up = Q(desired=Desired.RUNNING, ready=False)
    down = Q(desired=Desired.STOPPED, observed__in=[Observed.RUNNING, Observed.PAUSED])
    gone = Q(desired=Desired.ABSENT) & (~Q(observed=Observed.ABSENT) | Q(purge_at__lt=due))
    return _there().filter(
        up | down | gone,
        _quiet(due),
        ~Q(observed=Observed.UNKNOWN),
        attempts__lt=FAILED_AFTER_ATTEMPTS,
    )


def _stuck(instance: Instance) -> Item:
    thing, url = _thing(instance)
    held = ", and a worker holds it" if instance.lease_token else ""
    words = (
        f"{thing} should be {instance.desired} and is {instance.observed}, "
        f"but nothing happens{held}."
    )
    return Item("instance-stuck", thing, words, url)


def _silent_rows() -> QuerySet[Instance]:
    quiet = _quiet(timezone.now() - SILENT_AFTER)
    return _there().filter(quiet, observed=Observed.UNKNOWN)


def _silent(instance: Instance) -> Item:
    thing, url = _thing(instance)
    return Item("engine-silent", thing, f"The engine says nothing of {thing}.", url)


def _ownerless_rows() -> QuerySet[Workspace]:
    acting = Member.objects.filter(workspace=OuterRef("pk"), role=Role.OWNER, user__is_active=True)
    there = Workspace.objects.filter(~Exists(acting), deleted_at=None, instance__purged_at=None)
    # What is suspended waits for the operators anyway.
    return there.exclude(instance__stop_reason=StopReason.OPERATOR).order_by("slug")


def _ownerless(workspace: Workspace) -> Item:
    words = f"{workspace.slug} has no owner who can sign in."
    url = _page("workspaces_workspace", workspace.pk)
    return Item("workspace-ownerless", workspace.slug, words, url)


def _engine(named: int) -> tuple[int, list[Item]]:
    number, items = _some(_silent_rows(), named, _silent)
    since = hosts.engine_silent_since()
    if since is None:
        return number, items
    words = "The engine does not answer the worker that asks how it is."
    return number + 1, [
        Item("engine-silent", "engine", words, _list("deploy_hostfacts"), since),
        *items,
    ]


def _orphans(kind: str) -> Check:
    def check(named: int) -> tuple[int, list[Item]]:
        rows = Orphan.objects.filter(kind=kind).order_by("first_seen_at")

        def item(orphan: Orphan) -> Item:
            words = f"The {kind} {orphan.name} belongs to no workspace."
            url = _page("deploy_orphan", orphan.pk)
            return Item(f"orphan-{kind}", orphan.name, words, url, orphan.first_seen_at)

        return _some(rows, named, item)

    return check


def _spares(named: int) -> tuple[int, list[Item]]:
    spares = fleet.spares()
    missing = max(0, spares.wanted - spares.ready)
    since = timezone.now() - STUCK_AFTER
    moving = InstanceEvent.objects.filter(kind="claimed", at__gt=since).exists() or (
        Instance.objects.filter(spare=True, created_at__gt=since).exists()
    )
    if not missing or moving:
        return 0, []
    words = f"{spares.ready} of {spares.wanted} spares are ready."
    url = _list("deploy_instance", "?spare__exact=1")
    return missing, [Item("spares-missing", "spares", words, url)]


# --- changes, roll-outs, images, plugins ---------------------------------------------------------


def _change_rows() -> QuerySet[Change]:
    since = timezone.now() - CHANGE_AFTER
    rows = Change.objects.filter(state=Change.State.OPEN, at__lt=since)
    return rows.select_related("workspace").order_by("at")


def _change(change: Change) -> Item:
    slug = change.workspace.slug
    words = f"A change of {slug} is under way for long, at “{change.get_step_display()}”."
    url = _page("workspaces_workspace", change.workspace_id)
    return Item("change-stuck", slug, words, url, change.at)


def _rollouts(named: int) -> tuple[int, list[Item]]:
    newer = Rollout.objects.filter(from_release=OuterRef("from_release"), pk__gt=OuterRef("pk"))
    left = Workspace.objects.filter(release=OuterRef("from_release"), deleted_at=None)
    rows = Rollout.objects.filter(
        ~Exists(newer),
        Exists(left),
        state=Rollout.State.STOPPED,
        finished_at__gt=timezone.now() - LATELY,
    )

    def item(rollout: Rollout) -> Item:
        words = f"The roll-out {rollout} stopped: {rollout.error}"
        url = _page("workspaces_rollout", rollout.pk)
        return Item("rollout-stopped", str(rollout), words, url, rollout.finished_at)

    return _some(rows.select_related("from_release", "to_release"), named, item)


def _releases(named: int) -> tuple[int, list[Item]]:
    rows = Release.objects.filter(offered=True).exclude(error="").order_by("-is_default", "pk")

    def item(release: Release) -> Item:
        words = f"The image of {release} cannot be built: {_first_line(release.error)}"
        return Item("release-failed", str(release), words, _page("workspaces_release", release.pk))

    return _some(rows, named, item)


def _behind(named: int) -> tuple[int, list[Item]]:
    def item(workspace: Workspace) -> Item:
        words = f"{workspace.slug} has an older image than {workspace.release}."
        url = _page("workspaces_release", workspace.release_id)
        return Item("image-outdated", workspace.slug, words, url)

    return _some(releases.behind().select_related("release").order_by("slug"), named, item)


def _images(named: int) -> tuple[int, list[Item]]:
    since = timezone.now() - LATELY
    rows = Image.objects.filter(state=Image.State.FAILED, created_at__gt=since)

    def item(image: Image) -> Item:
        words = f"The image {image.reference[-12:]} failed: {_first_line(image.error)}"
        url = _page("deploy_image", image.pk)
        return Item("image-failed", image.reference[-12:], words, url, image.created_at)

    return _some(rows.order_by("-created_at"), named, item)


def _withdrawn(named: int) -> tuple[int, list[Item]]:
    using = Workspace.objects.filter(plugins=OuterRef("pk"), deleted_at=None)
    rows = Approval.objects.filter(Exists(using), state=Approval.State.WITHDRAWN)

    def item(approval: Approval) -> Item:
        words = f"{approval} was withdrawn, and workspaces run it still."
        return Item("approval-withdrawn", *_plugin(approval.plugin, words), approval.ended_at)

    return _some(rows.select_related("plugin", "release").order_by("pk"), named, item)


def _expiring(named: int) -> tuple[int, list[Item]]:
    soon = timezone.now() + EXPIRES_SOON
    rows = Approval.objects.filter(state=Approval.State.ACTIVE, expires_at__lt=soon)

    def item(approval: Approval) -> Item:
        over = approval.has_expired
        words = f"{approval} {'expired' if over else 'expires'} on {approval.expires_at:%-d %B %Y}."
        since = approval.expires_at if over else None
        return Item("approval-expiring", *_plugin(approval.plugin, words), since)

    return _some(rows.select_related("plugin", "release").order_by("expires_at"), named, item)


def _unlocked(named: int) -> tuple[int, list[Item]]:
    newer = Approval.objects.filter(
        plugin=OuterRef("plugin"), release=OuterRef("release"), pk__gt=OuterRef("pk")
    )
    rows = Approval.objects.filter(~Exists(newer), state=Approval.State.FAILED)

    def item(approval: Approval) -> Item:
        words = f"{approval} could not be locked: {_first_line(approval.error)}"
        return Item("approval-failed", *_plugin(approval.plugin, words), approval.at)

    return _some(rows.select_related("plugin", "release").order_by("pk"), named, item)


def _outdated(named: int) -> tuple[int, list[Item]]:
    rows = Approval.objects.filter(state=Approval.State.ACTIVE, release__is_default=True)
    rows = rows.exclude(version=F("plugin__newest")).select_related("plugin")
    found = []
    for approval in rows.order_by("plugin__name"):  # as many as the catalogue has plugins
        plugin = approval.plugin
        if newer := plugin.newer_than(approval.version):
            words = f"{plugin} {newer} is there; {approval.version} is approved."
            found.append(Item("plugin-outdated", *_plugin(plugin, words), plugin.read_at))
    return len(found), found


def _unreadable(named: int) -> tuple[int, list[Item]]:
    rows = Plugin.objects.exclude(error="").filter(approvals__state=Approval.State.ACTIVE)

    def item(plugin: Plugin) -> Item:
        words = f"{plugin} could not be read: {_first_line(plugin.error)}"
        return Item("plugin-unreadable", *_plugin(plugin, words), plugin.read_at)

    return _some(rows.distinct().order_by("name"), named, item)


def _plugin(plugin: Plugin, words: str) -> tuple[str, str, str]:
    return plugin.name, words, _page("workspaces_plugin", plugin.pk)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]


# --- webhooks, mail, tokens ----------------------------------------------------------------------


def _webhook_rows() -> QuerySet[Webhook]:
    since = timezone.now() - WEBHOOK_AFTER
    rows = Webhook.objects.filter(active=True, failing_since__lt=since)
    return rows.select_related("workspace").order_by("failing_since")


def _webhook(webhook: Webhook) -> Item:
    whose = webhook.workspace.slug if webhook.workspace else "the operators"
    words = f"Nothing gets through to {webhook} of {whose}."
    url = _page("workspaces_webhook", webhook.pk)
    return Item("webhook-failing", str(webhook), words, url, webhook.failing_since)


def _off(named: int) -> tuple[int, list[Item]]:
    rows = Webhook.objects.filter(workspace=None, active=False).exclude(disabled_reason="")

    def item(webhook: Webhook) -> Item:
        words = f"{webhook} was switched off: {webhook.disabled_reason}"
        return Item("webhook-off", str(webhook), words, _page("workspaces_webhook", webhook.pk))

    return _some(rows.order_by("pk"), named, item)


def _mails(named: int) -> tuple[int, list[Item]]:
    now = timezone.now()
    waits = Q(state=OutgoingMail.State.PENDING, attempts__gt=0, created_at__lt=now - MAIL_AFTER)
    # Who waits for it may have got an uncertain one or not: nobody sends it again.
    over = (OutgoingMail.State.FAILED, OutgoingMail.State.UNCERTAIN)
    failed = Q(state__in=over, attempted_at__gt=now - MAIL_FAILED_WITHIN)

    def item(mail: OutgoingMail) -> Item:
        uncertain = mail.state == OutgoingMail.State.UNCERTAIN
        what = "may not have gone out" if uncertain else "does not go out"
        words = f"The mail {mail} {what}: {_first_line(mail.error)}"
        url = _page("workspaces_outgoingmail", mail.pk)
        return Item("mail-failing", str(mail), words, url, mail.created_at)

    return _some(OutgoingMail.objects.filter(waits | failed).order_by("created_at"), named, item)


def _tokens(named: int) -> tuple[int, list[Item]]:
    now = timezone.now()
    rows = ApiToken.objects.filter(
        user__is_staff=True,
        user__is_active=True,
        revoked_at=None,
        expires_at__gt=now,
        expires_at__lt=now + LATELY,
    )

    def item(token: ApiToken) -> Item:
        words = f"{token} expires on {token.expires_at:%-d %B at %H:%M} UTC."
        url = _page("accounts_apitoken", token.pk)
        return Item("token-expiring", token.name, words, url)

    return _some(rows.order_by("expires_at"), named, item)


# --- machines ------------------------------------------------------------------------------------


def _silent_queues() -> dict[str, datetime | None]:
    """Return the queues that nobody works off, with when somebody last did."""
    beats = queues.last_beats()
    return {name: last for name, last in beats.items() if queues.is_silent(name, last)}


def _beat(named: int) -> tuple[int, list[Item]]:
    silent = _silent_queues()
    # What comes through slowly by its nature does not count against the rest.
    if "now" not in silent or len(silent) < len(queues.MINUTES) - 1:
        return 0, []
    last = max((at for at in silent.values() if at), default=None)
    words = "No queue is worked off: beat, Redis or all workers are away."
    return 1, [Item("beat-silent", "queues", words, _list("deploy_heartbeat"), last)]


def _workers(named: int) -> tuple[int, list[Item]]:
    if _beat(named)[0]:
        return 0, []
    items = [
        Item(
            "worker-silent",
            name,
            f"The queue {name} is not worked off.",
            _list("deploy_heartbeat"),
            last,
        )
        for name, last in _silent_queues().items()
    ]
    return len(items), items


def _host_unknown(named: int) -> tuple[int, list[Item]]:
    newest = HostFacts.objects.order_by("-at").first()
    fresh = newest and newest.at > timezone.now() - hosts.FRESH
    if fresh or (newest and hosts.engine_silent_since()):
        return 0, []
    words = "No worker told lately what the engine's machine has."
    since = newest.at if newest else None
    return 1, [Item("host-unknown", "host", words, _list("deploy_hostfacts"), since)]


def _disk(named: int) -> tuple[int, list[Item]]:
    low = hosts.known().filter(disk_mb__gt=0, disk_free_mb__lt=F("disk_mb") * LEAST_FREE)

    def item(host: HostFacts) -> Item:
        free = (host.disk_free_mb or 0) / 1024
        words = f"{free:.1f} GiB of the disk of {host} are free."
        return Item("host-disk-low", host.name, words, _page("deploy_hostfacts", host.pk), host.at)

    return _some(low.order_by("name"), named, item)


CHECKS: Mapping[str, Check] = {
    "beat-silent": _beat,
    "worker-silent": _workers,
    "engine-silent": _engine,
    "host-disk-low": _disk,
    "host-unknown": _host_unknown,
    "instance-failing": lambda named: _some(_failing_rows(), named, _failing),
    "instance-stuck": lambda named: _some(_stuck_rows(), named, _stuck),
    "workspace-ownerless": lambda named: _some(_ownerless_rows(), named, _ownerless),
    "change-stuck": lambda named: _some(_change_rows(), named, _change),
    "rollout-stopped": _rollouts,
    "release-failed": _releases,
    "image-failed": _images,
    "image-outdated": _behind,
    "approval-withdrawn": _withdrawn,
    "approval-expiring": _expiring,
    "approval-failed": _unlocked,
    "plugin-outdated": _outdated,
    "plugin-unreadable": _unreadable,
    "webhook-failing": lambda named: _some(_webhook_rows(), named, _webhook),
    "webhook-off": _off,
    "mail-failing": _mails,
    "spares-missing": _spares,
    "orphan-container": _orphans("container"),
    "orphan-volume": _orphans("volume"),
    "token-expiring": _tokens,
}

if set(CHECKS) != set(CODES):
    raise AssertionError(f"codes without check or words: {set(CHECKS) ^ set(CODES)}")
