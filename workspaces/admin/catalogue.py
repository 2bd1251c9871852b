"""The plugin catalogue, for operators: add, approve, withdraw, grant."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Exists, F, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.forms import HiddenInput
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from accounts.admin import operator
from accounts.models import User
from deploy.admin import ReadOnlyAdmin
from workspaces import catalogue, deeds
from workspaces.admin.deeds import DeedsAdmin, back_to, demand, named_by, refuse
from workspaces.admin.forms import (
    AddPluginForm,
    ApproveForm,
    DescriptionForm,
    GrantForm,
    NeedFormSet,
    WithdrawForm,
)
from workspaces.catalogue import Terms
from workspaces.models import Approval, Grant, Plugin, Release, Workspace
from workspaces.services import Refused

ACTIVE = Approval.State.ACTIVE
# So many of the workspaces that use a plugin are named on its page; the number tells all.
NAMED = 50


class _ApprovalFilter(admin.SimpleListFilter):
    """Plugins by what an active approval on any release says."""

    choices_by_value: dict[str, tuple[str, dict[str, Any]]] = {}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer them."""
        return [(value, words) for value, (words, _) in self.choices_by_value.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Plugin]) -> QuerySet[Plugin] | None:
        """Keep those with such an approval."""
        chosen = self.choices_by_value.get(self.value() or "")
        if chosen is None:
            return None
        such = Approval.objects.filter(plugin=OuterRef("pk"), state=ACTIVE, **chosen[1])
        return queryset.filter(Exists(such))


class ReachFilter(_ApprovalFilter):
    """Who may use it."""

    title = "reach"
    parameter_name = "reach"
    choices_by_value = {
        value: (str(words), {"reach": value}) for value, words in Approval.Reach.choices
    }


class RequiredFilter(_ApprovalFilter):
    """Whether it is in every image."""

    title = "part of every image"
    parameter_name = "required"
    choices_by_value = {"yes": ("Yes", {"required": True}), "no": ("No", {"required": False})}


@admin.register(Plugin)
class PluginAdmin(DeedsAdmin):
    """The catalogue: what the index says of each plugin, and what operators decided."""

    list_display = ("name", "state", "newest_version", "approved", "reach", "used_by")
    list_filter = ("state", ReachFilter, RequiredFilter)
    search_fields = ("name", "summary", "description")
    search_help_text = "A package name or words of what it is for"
    ordering = ("name",)
    list_per_page = 50
    form = DescriptionForm
    facts = (
        "newest",
        "summary",
        "licence",
        "home",
        "requires_python",
        "requires_datasette",
        "dependencies",
    )
    deeds = {"read": "read", "approve": "approve", "grants": "grants"}
    change_form_template = "admin/workspaces/plugin.html"

    # --- the list ------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plugin]:
        """Plugins with what counts on the default release, and how many workspaces use each."""
        counts = Approval.objects.filter(
            plugin=OuterRef("pk"), state=ACTIVE, release__is_default=True
        )
        live = Q(approvals__workspaces__deleted_at=None)
        found: QuerySet[Plugin] = super().get_queryset(request)
        return found.annotate(
            approved_version=Subquery(counts.values("version")),
            approved_reach=Subquery(counts.values("reach")),
            approved_required=Subquery(counts.values("required")),
            used=Count("approvals__workspaces", filter=live, distinct=True),
        )

    @admin.display(description="approved", ordering="approved_version")
    def approved(self, plugin: Plugin) -> str | None:
        """The version that counts on the default release."""
        version: str | None = getattr(plugin, "approved_version", None)
        return version

    @admin.display(description="newest", ordering="newest")
    def newest_version(self, plugin: Plugin) -> str:
        """The newest version on the index, marked where it is newer than the approved one."""
        newer = plugin.newer_than(getattr(plugin, "approved_version", None) or "")
        return f"{newer} ▲ newer" if newer else plugin.newest

    @admin.display(description="reach", ordering="approved_reach")
    def reach(self, plugin: Plugin) -> str:
        """Who may use it on the default release."""
        if getattr(plugin, "approved_required", False):
            return "every image"
        value = getattr(plugin, "approved_reach", None)
        return str(value or "")

    @admin.display(description="workspaces", ordering="used")
    def used_by(self, plugin: Plugin) -> int:
        """How many workspaces have it switched on, in any version."""
        return int(getattr(plugin, "used", 0))

    # --- adding --------------------------------------------------------------------------------

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Ask for a package name, and nothing else."""
        demand(request, "add_plugin")
        form = AddPluginForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            try:
                plugin = deeds.add_plugin(form.cleaned_data["name"], operator(request))
            except Refused as refusal:
                refuse(form, refusal)
            else:
                return back_to(plugin)
        intro = (
            "The newest version and what it says of itself are read from the package index. "
            "Nobody can use it before you approve an exact version."
        )
        return self.ask(request, "Add a plugin", form, intro=intro, button="Read it from the index")

    # --- its page ------------------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: Plugin | None = None) -> Any:
        """Show what is known; while nothing is, only how far it is."""
        if obj is None or not obj.newest:
            return [(None, {"fields": ("how_far", "added")})]
        fields = ("how_far", *self.facts, "added", "description")
        return [(None, {"fields": fields})]

    def get_readonly_fields(self, request: HttpRequest, obj: Plugin | None = None) -> Any:
        """All but the description; that too while the page refreshes itself."""
        shown = ("how_far", "added", *self.facts)
        return (*shown, "description") if obj and _is_busy(obj) else shown

    @admin.display(description="state")
    def how_far(self, plugin: Plugin) -> SafeString:
        """Say what the reading came to."""
        if plugin.state == Plugin.State.READING:
            words = "Being read from the package index. This page looks again by itself."
            return format_html('<strong class="busy">{}</strong>', words)
        if plugin.state == Plugin.State.REFUSED:
            return format_html('<strong class="refused">Refused.</strong> {}', plugin.error)
        if plugin.own:
            return format_html("{}", "Ours: it comes with this software and not from an index.")
        when = f"{plugin.read_at:%Y-%m-%d %H:%M} UTC" if plugin.read_at else "with this software"
        known = format_html("Known; last read {}.", when)
        if plugin.error:
            return format_html('{} <strong class="refused">{}</strong>', known, plugin.error)
        return known

    @admin.display(description="home page")
    def home(self, plugin: Plugin) -> SafeString | str:
        """Link to it, without telling it where from."""
        if not plugin.home_page:
            return "-"
        link = '<a href="{0}" rel="noreferrer noopener">{0}</a>'
        return format_html(link, plugin.home_page)

    @admin.display(description="dependencies")
    def dependencies(self, plugin: Plugin) -> SafeString | str:
        """What it asks for, in its own words."""
        items = format_html_join("", "<li>{}</li>", ((line,) for line in plugin.requires))
        return format_html('<ul class="plain">{}</ul>', items) if plugin.requires else "nothing"

    @admin.display(description="added")
    def added(self, plugin: Plugin) -> str:
        """When, and by whom."""
        return f"{plugin.added_at:%Y-%m-%d %H:%M} UTC by {plugin.added_by or 'this software'}"

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show approvals, grants and workspaces beside the facts."""
        plugin: Plugin = kwargs["obj"]
        busy = _is_busy(plugin)
        context |= _decisions(plugin) | {
            "busy": busy,
            "can": _abilities(request, plugin),
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
            "show_save": bool(plugin.newest) and not busy,
        }
        return super().render_change_form(request, context, *args, **kwargs)

    # --- deeds ---------------------------------------------------------------------------------

    def read(self, request: HttpRequest, plugin: Plugin) -> HttpResponse:
        """Have the index asked again."""
        demand(request, "read_plugin")
        return self.at_once(request, plugin, lambda: deeds.read_again(plugin, operator(request)))

    def approve(self, request: HttpRequest, plugin: Plugin) -> HttpResponse:
        """Ask for version and terms, and say yes to it."""
        demand(request, "approve")
        if request.method == "POST":
            form, needs = ApproveForm(request.POST), NeedFormSet(request.POST, prefix="needs")
            if form.is_valid() and needs.is_valid() and self._approve(request, plugin, form, needs):
                return back_to(plugin)
        else:
            initial = _last_terms(plugin, request.GET.get("release", ""))
            form = ApproveForm(initial=initial)
            needs = NeedFormSet(initial=initial["needs"], prefix="needs")
        return self.ask(
            request,
            f"Approve {plugin.name}",
            form,
            template="admin/workspaces/approve.html",
            original=plugin,
            intro=_newest_words(plugin),
            needs=needs,
            button="Approve and lock",
        )

    def _approve(self, request: HttpRequest, plugin: Plugin, form: ApproveForm, needs: Any) -> bool:
        said = form.cleaned_data
        terms = Terms(
            reach=said["reach"],
            required=said["required"],
            needs_internet=said["needs_internet"],
            needs=[need for need in needs.cleaned_data if need.get("name")],
            note=said["note"],
        )
        version = said["version"].strip()
        try:
            deeds.approve(plugin, said["release"], version, terms, operator(request))
        except Refused as refusal:
            refuse(form, refusal)
            return False
        words = f"Approved {version} on {said['release']}. A worker locks its files now."
        messages.success(request, words)
        return True

    def grants(self, request: HttpRequest, plugin: Plugin) -> HttpResponse:
        """List who has a grant; give one more; take one back."""
        demand(request, "see_grants")
        if "revoke" in request.POST:
            return self._revoke(request, plugin)
        form = GrantForm(request.POST if request.method == "POST" else None)
        if request.method == "POST":
            demand(request, "grant")
            if form.is_valid():
                workspace = form.cleaned_data["workspace"]
                messages.success(request, deeds.grant(plugin, workspace, operator(request)))
                return self._to_grants(plugin)
        return self.ask(
            request,
            f"Grants of {plugin.name}",
            form,
            template="admin/workspaces/grants.html",
            original=plugin,
            grants=_grants_of(plugin),
            may_revoke=deeds.may(operator(request), "take_back"),
            button="Grant",
        )

    def _revoke(self, request: HttpRequest, plugin: Plugin) -> HttpResponse:
        demand(request, "take_back")
        chosen = Workspace.objects.filter(pk__in=plugin.grants.values("workspace"))
        for workspace in chosen.filter(slug=request.POST["revoke"]):
            words = deeds.take_back(plugin, workspace, operator(request))
            messages.success(request, f"{words} What it runs stays until its set is changed.")
        return self._to_grants(plugin)

    def _to_grants(self, plugin: Plugin) -> HttpResponse:
        response = back_to(plugin)
        response["Location"] = reverse("admin:workspaces_plugin_grants", args=[plugin.pk])
        return response


# --- what the page of a plugin shows -------------------------------------------------------------


def _is_busy(plugin: Plugin) -> bool:
    """Whether a worker is at it, so that the page looks again by itself."""
    if plugin.state == Plugin.State.READING:
        return True
    return plugin.approvals.filter(state=Approval.State.LOCKING).exists()


def _abilities(request: HttpRequest, plugin: Plugin) -> dict[str, bool]:
    may = partial(deeds.may, operator(request))
    return {
        "read": may("read_plugin") and not plugin.own,
        "approve": may("approve") and plugin.state == Plugin.State.KNOWN,
        "withdraw": may("withdraw"),
        "renew": may("renew"),
        "grants": may("see_grants") and plugin.state == Plugin.State.KNOWN,
    }


def _decisions(plugin: Plugin) -> dict[str, Any]:
    """Return approvals (by release, newest first), grants and who uses it."""
    live = Workspace.objects.filter(deleted_at=None).order_by("slug")
    approvals = (
        plugin.approvals.select_related("release")
        .prefetch_related(named_by, Prefetch("ended_by", User.objects.with_names()))
        .prefetch_related(Prefetch("workspaces", live[:NAMED], to_attr="named"))
        .annotate(used=Count("workspaces", filter=Q(workspaces__deleted_at=None)))
        .order_by(F("release__is_default").desc(), "release_id", "-pk")
    )
    rows = [_row(plugin, approval) for approval in approvals]
    return {
        "approvals": rows,
        "newer": [row for row in rows if row["newer"]],
        "grants": _grants_of(plugin),
        "used": [row["approval"] for row in rows if row["approval"].used],
    }


def _row(plugin: Plugin, approval: Approval) -> dict[str, Any]:
    used = getattr(approval, "used", 0)
    return {
        "approval": approval,
        "files": list(approval.pins.values()),
        "newer": plugin.newer_than(approval.version) if approval.state == ACTIVE else "",
        "may_renew": approval.state == ACTIVE and approval.expires_soon,
        "may_end": (approval.state in catalogue.ENDABLE and bool(approval.lock))
        or approval.state == Approval.State.LOCKING
        or (approval.state == Approval.State.WITHDRAWN and used),
    }


def _grants_of(plugin: Plugin) -> Iterable[Grant]:
    rows = plugin.grants.filter(workspace__deleted_at=None).select_related("workspace")
    return rows.prefetch_related(named_by).order_by("workspace__slug")


def _last_terms(plugin: Plugin, release_pk: str) -> dict[str, Any]:
    """Return what the form begins with: the terms of before, which mostly hold for the next."""
    releases = Release.objects.filter(pk=release_pk) if release_pk.isdigit() else None
    release = (releases and releases.first()) or catalogue.default_release()
    earlier = plugin.approvals.order_by("-pk")
    last = earlier.filter(release=release).first() or earlier.first()
    version = "" if release.prerelease else plugin.newest
    terms: dict[str, Any] = {"release": release, "version": version, "needs": []}
    if last:
        kept = ("reach", "required", "needs_internet", "needs")
        terms |= {name: getattr(last, name) for name in kept}
    return terms


def _newest_words(plugin: Plugin) -> str:
    return (
        f"The newest version on the index is {plugin.newest}. The version, and the sha256 of every "
        "file that it adds to the release, are locked: an image holds these files or is not built."
    )


# --- approvals and grants ------------------------------------------------------------------------


@admin.register(Approval)
class ApprovalAdmin(DeedsAdmin, ReadOnlyAdmin):
    """Every yes that was ever given, with its files. A record: a new yes is a new row."""

    list_display = ("plugin", "version", "release", "state", "by", "at", "reach", "required")
    list_filter = ("state", "reach", "required", "release", "at")
    search_fields = ("plugin__name", "version", "note", "lock")
    search_help_text = "A plugin, a version, words of the note, a locked package or a sha256"
    ordering = ("-pk",)
    list_select_related = ("plugin", "release")
    fields = (
        "plugin",
        "release",
        "version",
        "state",
        "error",
        "reach",
        "required",
        "needs_internet",
        "needs",
        "note",
        "by",
        "at",
        "expires_at",
        "ended_by",
        "ended_at",
        "files",
    )
    deeds = {"withdraw": "withdraw", "renew": "renew"}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Approval]:
        """Approvals with the names of who gave them, in one more query."""
        found: QuerySet[Approval] = super().get_queryset(request)
        return found.defer("lock").prefetch_related(named_by)

    @admin.display(description="locked files")
    def files(self, approval: Approval) -> SafeString:
        """Each package with the sha256 of its files."""
        return format_html('<pre class="lock">{}</pre>', approval.lock or "none")

    def withdraw(self, request: HttpRequest, approval: Approval) -> HttpResponse:
        """Ask what becomes of those that use it, and take it back."""
        demand(request, "withdraw")
        over = approval.state == Approval.State.WITHDRAWN
        users = catalogue.users_of(approval)
        form = WithdrawForm(request.POST if request.method == "POST" else None)
        if over:
            form.fields["then"].initial = WithdrawForm.REBUILD
        if not users:  # there is nothing to choose
            form.fields["then"].widget = HiddenInput()
        if request.method == "POST" and form.is_valid():
            try:
                self._end(request, approval, form.cleaned_data["then"])
            except Refused as refusal:
                refuse(form, refusal)
            else:
                return back_to(approval.plugin)
        return self.ask(
            request,
            f"Withdraw {approval}",
            form,
            template="admin/workspaces/withdraw.html",
            original=approval,
            users=users,
            holders=catalogue.holders_of(approval.plugin),
            brought_by=catalogue.brought_by(approval),
            over=over,
            button="Rebuild" if over else "Withdraw",
        )

    def renew(self, request: HttpRequest, approval: Approval) -> HttpResponse:
        """Say that it is still good."""
        demand(request, "renew")
        who = operator(request)
        return self.at_once(request, approval.plugin, lambda: deeds.renew(approval, who))

    def _end(self, request: HttpRequest, approval: Approval, then: str) -> None:
        rebuild = then == WithdrawForm.REBUILD
        rebuilds, words = deeds.withdraw(approval, operator(request), rebuild=rebuild)
        for slug, why in rebuilds.refused.items():
            messages.warning(request, f"Not rebuilt yet: {slug}. {why}")
        messages.success(request, words)


@admin.register(Grant)
class GrantAdmin(ReadOnlyAdmin):
    """Which workspaces may use what is not for everyone. Given on the plugin's page."""

    list_display = ("plugin", "workspace", "by", "at")
    list_filter = ("plugin", "at")
    search_fields = ("plugin__name", "workspace__slug", "workspace__name")
    search_help_text = "A plugin or a workspace"
    ordering = ("-pk",)
    list_select_related = ("plugin", "workspace")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Grant]:
        """Grants with the names of who gave them, in one more query."""
        found: QuerySet[Grant] = super().get_queryset(request)
        return found.prefetch_related(named_by)
