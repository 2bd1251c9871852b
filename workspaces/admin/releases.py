"""Releases of Datasette, for operators: build, offer, try on a few workspaces, roll out."""

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.admin import operator
from deploy.admin import ReadOnlyAdmin
from workspaces import deeds, releases, rollouts
from workspaces.admin.deeds import DeedsAdmin, back_to, demand, named_by, refuse
from workspaces.admin.forms import RolloutForm, TryForm
from workspaces.models import Change, Release, Rollout
from workspaces.services import Refused

# So many changes of a roll-out are named on its page, the newest first.
NAMED = 100


@admin.register(Release)
class ReleaseAdmin(DeedsAdmin, ReadOnlyAdmin):
    """The Datasette versions that this software has a lock for."""

    list_display = ("version", "offered", "is_default", "image_state", "used_by")
    list_filter = ("offered", "prerelease")
    search_fields = ("version",)
    ordering = ("-is_default", "pk")
    list_select_related = ("image",)
    fields = (
        "version",
        "prerelease",
        "offered",
        "is_default",
        "image_state",
        "used_by",
        "packages",
    )
    deeds = {
        "build": "build",
        "default": "make_default",
        "offer": "offer",
        "try": "try_out",
        "roll-out": "roll_out",
    }
    change_form_template = "admin/workspaces/release.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Release]:
        """Releases with how many workspaces have each."""
        live = Count("workspaces", filter=Q(workspaces__deleted_at=None))
        found: QuerySet[Release] = super().get_queryset(request)
        return found.annotate(used=live)

    @admin.display(description="workspaces", ordering="used")
    def used_by(self, release: Release) -> int:
        """How many workspaces have it."""
        return int(getattr(release, "used", 0))

    @admin.display(description="image")
    def image_state(self, release: Release) -> SafeString:
        """Whether new workspaces could get it, and why not."""
        words = str(release.image.get_state_display()) if release.image else "not built yet"
        if release.error:
            failed = '{}; <strong class="refused">the last build failed: {}</strong>'
            return format_html(failed, words, release.error)
        return format_html("{}", words)

    @admin.display(description="packages")
    def packages(self, release: Release) -> SafeString:
        """What every image of it holds, with the sha256 of each file."""
        markup = "<details><summary>{} packages</summary><pre class='lock'>{}</pre></details>"
        return format_html(markup, len(release.pins), release.lock)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show the buttons that this operator may press."""
        may = partial(deeds.may, operator(request))
        context |= {
            "is_ready": releases.is_ready(kwargs["obj"]),
            "may_change": may("change_release"),
            "may_try": may("try_release"),
            "may_roll_out": may("roll_out"),
            "rollouts": kwargs["obj"].rollouts.select_related("from_release", "to_release")[:5],
        }
        return super().render_change_form(request, context, *args, **kwargs)

    # --- deeds ---------------------------------------------------------------------------------

    def build(self, request: HttpRequest, release: Release) -> HttpResponse:
        """Have a worker build its image now."""
        demand(request, "change_release")
        return self.at_once(request, release, lambda: deeds.build(release, operator(request)))

    def make_default(self, request: HttpRequest, release: Release) -> HttpResponse:
        """Have new workspaces get it."""
        demand(request, "change_release")
        who = operator(request)
        return self.at_once(request, release, lambda: deeds.make_default(release, who))

    def offer(self, request: HttpRequest, release: Release) -> HttpResponse:
        """Offer it, or stop that."""
        demand(request, "change_release")
        who, offered = operator(request), request.POST.get("offered") == "yes"
        return self.at_once(request, release, lambda: deeds.offer(release, who, offered=offered))

    def try_out(self, request: HttpRequest, release: Release) -> HttpResponse:
        """Move a few workspaces over, before all others."""
        demand(request, "try_release")
        form = TryForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and form.is_valid():
            for workspace in form.cleaned_data["workspaces"]:
                try:
                    _, words = deeds.try_out(release, workspace, operator(request))
                except Refused as refusal:
                    messages.error(request, f"Stays where it is: {workspace.slug}. {refusal}")
                else:
                    messages.success(request, words)
            return back_to(release)
        intro = (
            "Each keeps its plugins, at the versions that are approved on this release. "
            "One that does not come up is back on its old image by itself."
        )
        title = f"Try {release} on chosen workspaces"
        return self.ask(request, title, form, original=release, intro=intro, button="Change over")

    def roll_out(self, request: HttpRequest, release: Release) -> HttpResponse:
        """Move all workspaces of another release over, in batches."""
        demand(request, "roll_out")
        others = Release.objects.exclude(pk=release.pk).order_by("-is_default", "pk").first()
        begin = {"source": others}
        form = RolloutForm(request.POST if request.method == "POST" else None, initial=begin)
        if request.method == "POST" and form.is_valid():
            said = form.cleaned_data
            who = operator(request)
            size, left_out = said["batch_size"], said["leave_out"]
            try:
                rollout = deeds.roll_out(said["source"], release, size, who, left_out)
            except Refused as refusal:
                refuse(form, refusal)
            else:
                return back_to(rollout)
        intro = (
            "Workspaces move in batches. The first one that fails stops the roll-out and is back "
            "on its old image; those whose plugins have no approval here are skipped and listed."
        )
        title = f"Roll out {release}"
        return self.ask(request, title, form, original=release, intro=intro, button="Roll out")


@admin.register(Rollout)
class RolloutAdmin(DeedsAdmin, ReadOnlyAdmin):
    """Moves of all workspaces of one release to another: how far each came, and what stopped it."""

    list_display = ("at", "from_release", "to_release", "state", "moved", "batch_size", "by")
    list_filter = ("state", "to_release", "at")
    search_fields = ("error",)
    ordering = ("-pk",)
    list_select_related = ("from_release", "to_release")
    fields = (
        "state",
        "error",
        "moved",
        "to_move",
        "batch_size",
        "by",
        "at",
        "finished_at",
    )
    deeds = {"stop": "stop"}
    change_form_template = "admin/workspaces/rollout.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Rollout]:
        """Roll-outs with how many workspaces each has moved."""
        done = Count("changes", filter=Q(changes__state=Change.State.DONE))
        found: QuerySet[Rollout] = super().get_queryset(request)
        return found.annotate(moved_count=done).prefetch_related(named_by)

    @admin.display(description="moved")
    def moved(self, rollout: Rollout) -> int:
        """How many workspaces have changed over."""
        return int(getattr(rollout, "moved_count", 0))

    @admin.display(description="still to move")
    def to_move(self, rollout: Rollout) -> int:
        """How many are left."""
        return rollouts.remaining(rollout).count()

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show the workspaces of the last batches, and those that stay."""
        rollout: Rollout = kwargs["obj"]
        running = rollout.state == Rollout.State.RUNNING
        under_way = rollout.changes.filter(state=Change.State.OPEN).exists()
        context |= {
            "busy": running or under_way,
            "running": running,
            "may_stop": deeds.may(operator(request), "stop_rollout"),
            "changes": rollout.changes.select_related("workspace")[:NAMED],
            "skipped": sorted(rollout.skipped.items()),
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def stop(self, request: HttpRequest, rollout: Rollout) -> HttpResponse:
        """Begin no more batches."""
        demand(request, "stop_rollout")
        who = operator(request)
        return self.at_once(request, rollout, lambda: deeds.stop_rollout(rollout, who))
