"""The web pages. They ask access who may, services to do, and show what is."""

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.timesince import timeuntil
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.models import User
from deploy import logs
from workspaces import access, changes, history, invitations, progress, services, slugs, support
from workspaces.forms import DeleteForm, NewWorkspaceForm, RenameForm
from workspaces.models import Member, Workspace
from workspaces.usage import SPANS, USUAL_SPAN, Disk, figures

PER_PAGE = 30
RECENT = 6
# So many invitations are shown; those behind them come up when these are accepted.
INVITED = 20

P = ParamSpec("P")
R = TypeVar("R", bound=HttpResponseBase)


class SignedInRequest(HttpRequest):
    """A request that `signed_in` let through, so its user is one."""

    user: User


def signed_in(
    view: Callable[Concatenate[SignedInRequest, P], R],
) -> Callable[..., R]:
    """Let only signed-in people through, and keep their pages out of shared caches."""
    private = cache_control(private=True, no_cache=True)
    return login_required(private(view))


# --- start page, list, new ---------------------------------------------------------------------


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """Say what this is; people who are signed in know already."""
    if request.user.is_authenticated:
        return redirect("workspaces")
    return render(request, "workspaces/home.html")


@signed_in
@require_GET
def index(request: SignedInRequest) -> HttpResponse:
    """List the workspaces of this person, the deleted ones that can be brought back last."""
    members = list(access.memberships(request.user).order_by("workspace__name", "workspace__slug"))
    live = [member for member in members if member.workspace.deleted_at is None]
    context = {
        "live": live,
        "deleted": [member for member in members if member.workspace.deleted_at is not None],
        "invitations": invitations.of_user(request.user)[:INVITED],
        "moving": any(progress.is_busy(member.workspace.instance) for member in live),
    }
    return render(request, "workspaces/index.html", context)


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: SignedInRequest) -> HttpResponse:
    """Ask for name and slug, and make the workspace."""
    form = NewWorkspaceForm(request.POST or None)
    status = 200
    if request.method == "POST":
        status = 422
        if form.is_valid():
            try:
                workspace = services.create_workspace(
                    request.user, form.cleaned_data["name"], form.cleaned_data["slug"]
                )
            except services.Refused as refusal:
                form.add_error(refusal.field, str(refusal))
                status = 503 if isinstance(refusal, services.NoImage) else 422
            else:
                return redirect(workspace)
        form.focus_first_error()
    response = render(request, "workspaces/new.html", {"form": form}, status=status)
    if status == 503:
        response["Retry-After"] = "30"
    return response


@signed_in
@require_GET
def slug_field(request: SignedInRequest) -> HttpResponse:
    """Return the form's slug field for the name or slug that is being typed.

    A slug that is still the one we proposed follows the name; one that a person typed stays.
    """
    name, slug, proposed = (request.GET.get(key, "") for key in ("name", "slug", "proposed"))
    if "name" in request.GET and slug == proposed:
        slug = proposed = services.free_slug(slugs.propose(name)) if name.strip() else ""
    form = NewWorkspaceForm(initial={"slug": slug, "proposed": proposed})
    return render(
        request, "workspaces/_slug.html", {"form": form, "slug": slug, "hint": _slug_hint(slug)}
    )


def _slug_hint(slug: str) -> str:
    """Return why this slug will not do, with one that will; empty when it is fine."""
    slug = slug.strip().lower()
    if not slug:
        return ""
    if words := slugs.problem(slug):
        return f"{words} “{services.free_slug(slugs.propose(slug))}” is free."
    alternative = services.free_slug(slug)
    return "" if alternative == slug else f"“{slug}” is taken. “{alternative}” is free."


# --- one workspace -----------------------------------------------------------------------------


def _state(member: Member) -> dict[str, Any]:
    """Return what the live part of a workspace's page shows."""
    workspace = member.workspace
    # The mark first: what changes while the rest is read is news for the next look.
    mark = progress.mark_of(workspace.instance)
    workspace.instance.refresh_from_db()
    return {
        "workspace": workspace,
        "instance": workspace.instance,
        "status": workspace.status,
        "disk": Disk.of(workspace.instance),
        "member": member,
        "can": access.abilities(member.role),
        "mark": mark,
        "busy": progress.is_busy(workspace.instance),
        "progress": progress.progress_of(workspace.instance),
        "recent": history.recent(workspace, RECENT),
        "now": timezone.now(),
    }


def _detail(
    request: HttpRequest,
    member: Member,
    *,
    rename: RenameForm | None = None,
    delete: DeleteForm | None = None,
    status: int = 200,
) -> HttpResponse:
    workspace = member.workspace
    named = Prefetch("user", User.objects.with_names())
    now = timezone.now()
    context = _state(member) | {
        "members": workspace.members.order_by("created_at", "id").prefetch_related(named),
        "rename_form": rename or RenameForm(initial={"name": workspace.name}),
        "delete_form": delete or DeleteForm(workspace=workspace),
        "support_choices": support.CHOICES.items(),
        "grace": timeuntil(now + timedelta(seconds=settings.DELETE_GRACE_SECONDS), now),
    }
    return render(request, "workspaces/detail.html", context, status=status)


@signed_in
@require_GET
def detail(request: SignedInRequest, slug: str) -> HttpResponse:
    """Show one workspace."""
    return _detail(request, access.get_member(request.user, slug, access.NEEDS["see"]))


@require_GET
def live(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the live part of the page once it is not as `seen` any more.

    204 when there is nothing new: at once for a settled instance, after a while for a moving one.
    """
    if not request.user.is_authenticated:
        # The page reloads and leads to the sign-in page, instead of showing it inside itself.
        return HttpResponse(status=401, headers={"HX-Refresh": "true"})
    seen = request.GET.get("seen", "")
    member = access.get_member(request.user, slug, access.NEEDS["see"])
    if progress.wait_for_news(member.workspace.instance, seen) == seen:
        return HttpResponse(status=204, headers={"Cache-Control": "no-store"})
    # Read again: the person may have lost the role meanwhile, the workspace its instance.
    member = access.get_member(request.user, slug, access.NEEDS["see"])
    response = render(request, "workspaces/_live.html", _state(member) | {"announce": True})
    response["Cache-Control"] = "no-store"
    return response


def _deed(
    ability: str,
) -> Callable[[Callable[[Workspace, User], None]], Callable[..., HttpResponse]]:
    """Make a view that does one thing when posted to, and returns to the workspace's page."""

    def make(do: Callable[[Workspace, User], None]) -> Callable[..., HttpResponse]:
        @signed_in
        @require_POST
        @wraps(do)
        def view(request: SignedInRequest, slug: str) -> HttpResponse:
            workspace = access.get_workspace(request.user, slug, access.NEEDS[ability])
            try:
                do(workspace, request.user)
            except services.Refused as refusal:
                messages.error(request, str(refusal))
            return redirect(workspace)

        return view

    return make


start = _deed("start")(services.start)
stop = _deed("stop")(services.stop)
restart = _deed("restart")(services.restart)
undelete = _deed("undelete")(changes.undelete)


@signed_in
@require_POST
def rename(request: SignedInRequest, slug: str) -> HttpResponse:
    """Give it another name."""
    member = access.get_member(request.user, slug, access.NEEDS["rename"])
    form = RenameForm(request.POST)
    if form.is_valid():
        try:
            services.rename(member.workspace, request.user, form.cleaned_data["name"])
        except services.Refused as refusal:
            form.add_error(refusal.field, str(refusal))
        else:
            messages.success(request, f"It is called “{member.workspace.name}” now.")
            return redirect(member.workspace)
    form.focus_first_error()
    return _detail(request, member, rename=form, status=422)


@signed_in
@require_POST
def support_access(request: SignedInRequest, slug: str) -> HttpResponse:
    """Let the operators look at the data for some days, or no more."""
    workspace = access.get_workspace(request.user, slug, access.NEEDS["allow_support"])
    days = request.POST.get("days", "")
    try:
        if days == "0":
            support.end(workspace, request.user)
            messages.success(request, "The operators cannot look at the data.")
        else:
            support.allow(workspace, request.user, int(days) if days.isdecimal() else -1)
            messages.success(request, "The operators may look at the data for now.")
    except services.Refused as refusal:
        messages.error(request, str(refusal))
    return redirect(workspace)


@signed_in
@require_POST
def delete(request: SignedInRequest, slug: str) -> HttpResponse:
    """Delete it, if the slug was typed."""
    member = access.get_member(request.user, slug, access.NEEDS["delete"])
    form = DeleteForm(request.POST, workspace=member.workspace)
    if not form.is_valid():
        form.focus_first_error()
        return _detail(request, member, delete=form, status=422)
    try:
        services.delete(member.workspace, request.user)
    except services.Refused as refusal:
        messages.error(request, str(refusal))
    return redirect(member.workspace)


@signed_in
@require_GET
def activity(request: SignedInRequest, slug: str) -> HttpResponse:
    """Show what people and the instance did, newest first."""
    member = access.get_member(request.user, slug, access.NEEDS["read_activity"])
    page = Paginator(history.rows_of(member.workspace), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "workspace": member.workspace,
        "can": access.abilities(member.role),
        "page": page,
        "entries": history.entries(member.workspace, list(page.object_list)),
    }
    return render(request, "workspaces/activity.html", context)


@signed_in
@require_GET
def usage(request: SignedInRequest, slug: str) -> HttpResponse:
    """Show what it uses: its disk now, and the last days as plots."""
    member = access.get_member(request.user, slug, access.NEEDS["see_usage"])
    chosen = SPANS.get(request.GET.get("span", ""), SPANS[USUAL_SPAN])
    context = {
        "workspace": member.workspace,
        "can": access.abilities(member.role),
        "disk": Disk.of(member.workspace.instance),
        "span": chosen,
        "spans": list(SPANS.items()),
        "figures": figures(member.workspace, chosen),
        "zone": timezone.get_current_timezone_name(),
        "days": settings.USAGE_DAYS,
    }
    return render(request, "workspaces/usage.html", context)


@signed_in
@require_GET
def log(request: SignedInRequest, slug: str) -> HttpResponse:
    """Show the last lines of the instance's log."""
    member = access.get_member(request.user, slug, access.NEEDS["read_logs"])
    context = {
        "workspace": member.workspace,
        "can": access.abilities(member.role),
        "tail": logs.tail(member.workspace.instance_id),
    }
    return render(request, "workspaces/log.html", context)
