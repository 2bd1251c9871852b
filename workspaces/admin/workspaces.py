"""Workspaces, for operators: found by anything that people know of one, and whole on one page.

A row is only looked at. What is done goes through workspace_deeds, so that its instance follows and
its members can read of it.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.core.paginator import Page, Paginator
from django.db.models import Count, Prefetch, Q, QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.defaultfilters import pluralize
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts import audit
from accounts.admin import operator
from accounts.models import User
from deploy import logs
from deploy.admin import NodeFilter, ReadOnlyAdmin
from deploy.finding import having_disk, having_status
from deploy.models import Instance
from deploy.states import MEBIBYTE, Desired, DiskLevel, Status
from workspaces import attention, changes, deeds, events, history, operations, usage
from workspaces.admin.deeds import DeedsAdmin, back_to, demand, named_by, refuse
from workspaces.admin.filters import ChoiceFilter
from workspaces.admin.workspace_deeds import DEEDS, MOST, Deed, Outcome, do
from workspaces.models import Approval, Member, Plugin, Role, Workspace
from workspaces.services import Refused
from workspaces.templatetags.workspaces import duration

PER_PAGE = 50
CHANGES = 10
IMAGES = 20
SEE_WEBHOOKS = "workspaces.view_webhook"

_named_user = Prefetch("user", User.objects.with_names())


# --- finding -------------------------------------------------------------------------------------


class StateFilter(ChoiceFilter):
    """Whether a workspace is there, deleted and restorable (kept: either), or gone."""

    title = "state"
    parameter_name = "state"
    choices_by_value = {
        "live": ("there", Q(deleted_at=None)),
        "deleted": ("deleted, data kept", Q(deleted_at__isnull=False, instance__purged_at=None)),
        "kept": ("there, or data kept", Q(instance__purged_at=None)),
        "purged": ("gone", Q(instance__purged_at__isnull=False)),
    }


class StatusFilter(ChoiceFilter):
    """What people see."""

    title = "status"
    parameter_name = "status"
    choices_by_value = {
        status.value: (status.value, having_status(status, prefix="instance__"))
        for status in Status
    }


class DiskFilter(ChoiceFilter):
    """How full its disk is."""

    title = "disk"
    parameter_name = "disk"
    choices_by_value = {
        "full": ("full: read-only", having_disk(DiskLevel.FULL, "instance__")),
        "nearly": ("nearly full", having_disk(DiskLevel.NEARLY_FULL, "instance__")),
    }


class UsedFilter(admin.SimpleListFilter):
    """When somebody last used it."""

    title = "last activity"
    parameter_name = "used"
    spans: Mapping[str, tuple[str, bool, int]] = {
        "day": ("within a day", True, 1),
        "week": ("within 7 days", True, 7),
        "not-week": ("not for 7 days", False, 7),
        "not-month": ("not for 30 days", False, 30),
        "not-quarter": ("not for 90 days", False, 90),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer them."""
        return [(value, words) for value, (words, _, _) in self.spans.items()]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Workspace]
    ) -> QuerySet[Workspace] | None:
        """Keep those that were used since then, or were not."""
        if (span := self.spans.get(self.value() or "")) is None:
            return None
        _, within, days = span
        since = timezone.now() - timedelta(days=days)
        lookup = "gte" if within else "lt"
        return queryset.filter(**{f"instance__last_used_at__{lookup}": since})


class PluginFilter(admin.SimpleListFilter):
    """Those that have a plugin switched on, in any version."""

    title = "plugin"
    parameter_name = "plugin"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the plugins that were ever approved."""
        approved = Plugin.objects.filter(approvals__isnull=False).distinct().order_by("name")
        return [(name, name) for name in approved.values_list("name", flat=True)]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Workspace]
    ) -> QuerySet[Workspace] | None:
        """Keep those that have it."""
        if not self.value():
            return None
        having = Approval.workspaces.through.objects.filter(approval__plugin__name=self.value())
        return queryset.filter(pk__in=having.values("workspace"))


class NodeOfWorkspaceFilter(NodeFilter):
    """Those whose container is on a machine."""

    prefix = "instance__"


class ImageFilter(admin.SimpleListFilter):
    """Those whose instance has an image in its spec; any of them, by its number."""

    title = "image"
    parameter_name = "image"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer those that most instances have."""
        used = Instance.objects.filter(purged_at=None).values_list("image", "image__reference")
        most = used.annotate(count=Count("pk")).order_by("-count", "image")[:IMAGES]
        return [(str(pk), f"{reference[-12:]} ({count})") for pk, reference, count in most]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Workspace]
    ) -> QuerySet[Workspace] | None:
        """Keep those that have it."""
        value = self.value() or ""
        return queryset.filter(instance__image=int(value)) if value.isdecimal() else None


# --- the admin -----------------------------------------------------------------------------------


@admin.register(Workspace)
class WorkspaceAdmin(DeedsAdmin, ReadOnlyAdmin):
    """What customers have, found by name, address, or a member's email address."""

    list_display = (
        "what",
        "status",
        "owners",
        "plan",
        "version",
        "last_used",
    )
    list_filter = (
        StatusFilter,
        StateFilter,
        UsedFilter,
        DiskFilter,
        "plan",
        "release",
        PluginFilter,
        ImageFilter,
        NodeOfWorkspaceFilter,
        "instance__observed",
        "created_at",
    )
    search_fields = (
        "slug",
        "name",
        "=id",
        "=instance__id",
        "=instance__node",
        "members__user__emailaddress__email",
    )
    search_help_text = "A name, an address, an id, a node or a member's email address"
    ordering = ("-created_at",)
    list_select_related = ("plan", "release", "instance")
    fields = ("slug", "name")
    change_form_template = "admin/workspaces/workspace.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Workspace]:
        """Workspaces with their owners' names, in two more queries however many there are."""
        owners = Member.objects.filter(role=Role.OWNER).prefetch_related(_named_user)
        found: QuerySet[Workspace] = super().get_queryset(request)
        return found.prefetch_related(Prefetch("members", owners, to_attr="owning"))

    @admin.display(description="workspace", ordering="slug")
    def what(self, workspace: Workspace) -> SafeString:
        """Its address and its name."""
        return format_html('{} <span class="quiet">{}</span>', workspace.slug, workspace.name)

    @admin.display(description="status")
    def status(self, workspace: Workspace) -> SafeString:
        """What people see, and on which machine."""
        value, node = workspace.status.value, workspace.instance.node
        where = format_html(' <span class="quiet">on {}</span>', node) if node else ""
        return format_html('<span class="state state--{0}">{0}</span>{1}', value, where)

    @admin.display(description="owners")
    def owners(self, workspace: Workspace) -> str:
        """Who owns it."""
        owning: list[Member] = getattr(workspace, "owning", [])
        return ", ".join(str(member.user) for member in owning)

    @admin.display(description="last used", ordering="instance__last_used_at")
    def last_used(self, workspace: Workspace) -> str:
        """When somebody last asked for a page."""
        return naturaltime(workspace.instance.last_used_at)

    @admin.display(description="release", ordering="release")
    def version(self, workspace: Workspace) -> str:
        """Which Datasette it runs."""
        return workspace.release.version

    # --- deeds ---------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Put the deeds' addresses before Django's own, which would swallow them."""
        ours = [
            path(
                f"<uuid:pk>/{deed.name}/",
                self.admin_site.admin_view(partial(self.do_one, deed)),
                name=f"workspaces_workspace_{deed.name}",
            )
            for deed in DEEDS.values()
        ]
        log = path(
            "<uuid:pk>/log/",
            self.admin_site.admin_view(self.read_log),
            name="workspaces_workspace_log",
        )
        return [*ours, log, *super().get_urls()]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Offer what this operator may do with a selection."""

        def action(deed: Deed) -> Callable[..., HttpResponse | None]:
            return lambda _, request, chosen: self.do_many(deed, request, chosen)

        who = operator(request)
        return {
            deed.name: (action(deed), deed.name, deed.button)
            for deed in DEEDS.values()
            if deed.may(who)
        }

    def do_one(self, deed: Deed, request: HttpRequest, pk: Any) -> HttpResponse:
        """Do it to one workspace, from its page."""
        demand_deed(request, deed)
        rows = Workspace.objects.select_related("instance", "plan", "release")
        workspace = get_object_or_404(rows, pk=pk)
        who = operator(request)

        def run(said: Mapping[str, Any]) -> str:
            outcome = do(deed, [workspace], who, said)
            for slug, why in outcome.refused:
                raise Refused(f"{slug}: {why}")
            return "; ".join(f"{slug} {words}" for slug, words in outcome.done) + "."

        if deed.form is None:
            return self.at_once(request, workspace, lambda: run({}))
        form = deed.form(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            try:
                messages.success(request, run(form.cleaned_data))
            except Refused as refusal:
                refuse(form, refusal)
            else:
                return back_to(workspace)
        title = f"{deed.label}: {workspace.slug}"
        return self.ask(
            request, title, form, original=workspace, intro=deed.intro, button=deed.label
        )

    def do_many(
        self, deed: Deed, request: HttpRequest, chosen: QuerySet[Workspace]
    ) -> HttpResponse | None:
        """Do it to a selection; where it asks something, first show the page that does."""
        demand_deed(request, deed)
        if chosen.count() > MOST:
            words = f"Choose at most {MOST} at a time: somebody waits for each."
            messages.error(request, words)
            return None
        rows = chosen.prefetch_related(None).select_related("instance", "plan", "release")
        workspaces = list(rows.order_by("slug"))
        said: Mapping[str, Any] = {}
        if deed.form is not None:
            form = deed.form(request.POST if "go" in request.POST else None)
            if not form.is_valid():
                return self._ask_many(request, deed, form, workspaces)
            said = form.cleaned_data
        _tell(request, deed, do(deed, workspaces, operator(request), said))
        return HttpResponseRedirect(request.get_full_path())

    def _ask_many(
        self, request: HttpRequest, deed: Deed, form: Form, workspaces: list[Workspace]
    ) -> TemplateResponse:
        return self.ask(
            request,
            f"{deed.label}: {len(workspaces)} workspaces",
            form,
            template="admin/workspaces/ask_many.html",
            intro=deed.intro,
            button=deed.label,
            deed=deed,
            chosen=workspaces,
            unfit=[workspace for workspace in workspaces if not deed.fits(workspace)],
        )

    # --- its log -------------------------------------------------------------------------------

    def read_log(self, request: HttpRequest, pk: Any) -> HttpResponse:
        """Have the log fetched, and write down who reads it: what it says is the customer's."""
        demand(request, "read_customers_log")
        workspace = get_object_or_404(Workspace, pk=pk)
        tail, asked = None, request.method == "POST"
        if asked:
            audit.note(operator(request), "read_log", workspace, workspace=workspace.pk)
            tail = logs.tail(workspace.instance_id)
        return self.ask(
            request,
            f"Log of {workspace.slug}",
            Form(),
            template="admin/workspaces/log.html",
            original=workspace,
            intro="Its owners see in their audit log that you read it.",
            button="Fetch it again" if asked else "Read the log",
            asked=asked,
            tail=tail,
        )

    # --- its page ------------------------------------------------------------------------------

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show all that there is to know of one, and the buttons that are of use now."""
        rows = Workspace.objects.select_related("instance__image", "instance__predecessor", "plan")
        workspace = rows.select_related("release").get(pk=kwargs["obj"].pk)
        instance = workspace.instance
        who = operator(request)
        context |= {
            "workspace": workspace,
            "instance": instance,
            "deeds": [
                (deed, reverse(f"admin:workspaces_workspace_{deed.name}", args=[workspace.pk]))
                for deed in DEEDS.values()
                if deed.may(who) and deed.fits(workspace)
            ],
            "troubles": attention.of_workspace(workspace),
            "sides": _sides(instance),
            "container": _container(instance),
            "use": _use(workspace),
            "may_see_audit": deeds.may(who, "see_audit"),
            "now": timezone.now(),
            "may_read_log": deeds.may(who, "read_customers_log"),
            "what_happened": _history(workspace, request.GET.get("page")),
            "members": workspace.members.order_by("created_at").prefetch_related(_named_user),
            "plugins": workspace.plugins.select_related("plugin").order_by("plugin__name"),
            "changes": workspace.changes.prefetch_related(named_by)[:CHANGES],
            "open_change": changes.open_change(workspace),
            "webhooks": workspace.webhooks.all() if who.has_perm(SEE_WEBHOOKS) else None,
            "hangs": operations.hangs(instance),
            "title": workspace.slug,
            "subtitle": None,
        }
        return super().render_change_form(request, context, *args, **kwargs)


def demand_deed(request: HttpRequest, deed: Deed) -> None:
    """Raise PermissionDenied unless the operator may."""
    demand(request, deed.needs)


def _tell(request: HttpRequest, deed: Deed, outcome: Outcome) -> None:
    """Say of each what came of it: together where it is the same."""
    for rows, tell in ((outcome.done, messages.success), (outcome.refused, messages.error)):
        by_words: dict[str, list[str]] = {}
        for slug, words in rows:
            by_words.setdefault(words, []).append(slug)
        for words, slugs in by_words.items():
            tell(request, f"{deed.label}: {', '.join(slugs)}: {words.removesuffix('.')}.")


# What the engine may say of an instance that is as it is wanted.
_AS_WANTED: Mapping[str, tuple[str, ...]] = {
    "running": ("running",),
    "paused": ("paused", "exited", "absent", "created"),
    "stopped": ("exited", "absent", "created"),
    "absent": ("absent",),
}


def _sides(instance: Instance) -> list[tuple[str, Any, Any, bool]]:
    """Return what is wanted and what is there: (of what, wanted, there, whether they differ)."""
    up = instance.desired == Desired.RUNNING
    why = f" ({instance.stop_reason})" if instance.stop_reason else ""
    differs = instance.observed not in _AS_WANTED[instance.desired]
    made, answers = instance.observed_generation, "yes" if instance.ready else "no"
    outdated = up and made != instance.generation
    return [
        ("State", f"{instance.desired}{why}", instance.observed, differs),
        ("Answers", "yes" if up else "no", answers, up != instance.ready),
        ("Generation", instance.generation, "none" if made is None else made, outdated),
    ]


def _container(instance: Instance) -> list[tuple[str, Any]]:
    """Return the facts of its container, and of who works on it."""
    idle = instance.idle_seconds
    return [
        ("Instance", instance.pk),
        ("Node", instance.node or "not known yet"),
        ("Image", instance.image.reference),
        ("Memory", f"{instance.memory_mb} MiB"),
        ("CPU", f"{instance.cpus:g} core{pluralize(instance.cpus)}"),
        ("Processes", instance.pids),
        ("Internet", "public addresses" if instance.internet else "none"),
        ("Sleeps after", duration(idle * 1000) if idle else "never"),
        ("Data volume", instance.volume or "none: a successor has it"),
        ("Endpoint", instance.endpoint or "none"),
        ("Secrets", ", ".join(sorted(instance.secrets)) or "none"),
        ("Started", _when(instance.started_at, "not now")),
        ("First answer of this run", _when(instance.ready_at, "never")),
        ("Last used", _when(instance.last_used_at)),
        ("Failures in a row", instance.attempts),
        ("Next attempt", _when(instance.next_attempt_at, "when something changes")),
        ("Worker's lease until", _when(instance.lease_expires_at, "nobody is at it")),
        ("Waits for", instance.predecessor if _waits(instance) else "nothing"),
    ]


def _use(workspace: Workspace) -> list[tuple[str, str]]:
    """Return how full its disk is, and what it used lately, by its own word."""
    disk, span = usage.Disk.of(workspace.instance), usage.SPANS[usage.USUAL_SPAN]
    found = usage.hours_of(workspace, span.hours)
    limit = f"of {disk.limit / MEBIBYTE:,.0f} MiB"
    held = "not measured yet" if disk.used is None else f"{disk.used / MEBIBYTE:,.1f} {limit}"
    seen = f" ({disk.percent} %), as of {_when(disk.measured_at)}" if disk.measured_at else ""
    peak = max((hour.memory_peak / MEBIBYTE for hour in found), default=0)
    return [
        ("Disk", held + seen),
        ("Memory at most", f"{peak:,.0f} MiB"),
        ("CPU", f"{sum(hour.cpu_seconds for hour in found):,.0f} seconds of one core"),
        ("Requests", f"{sum(hour.requests for hour in found):,}"),
        ("Awake", f"{sum(hour.awake_seconds for hour in found) / 3600:,.1f} hours"),
    ]


def _when(at: datetime | None, never: str = "") -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else never


def _waits(instance: Instance) -> bool:
    return bool(instance.predecessor and instance.predecessor.purged_at is None)


def _history(workspace: Workspace, number: str | None) -> "Page[dict[str, Any]]":
    """Return a page of all that happened, newest first, in words."""
    rows = events.rows_of(workspace).order_by("-id")
    page: Page[dict[str, Any]] = Paginator(rows, PER_PAGE).get_page(number)
    names = history.names_in(page, None)
    told = [
        {**row, "words": history.words_of(row), "who": history.who_of(row, names) or ""}
        for row in page
    ]
    page.object_list = told
    return page
