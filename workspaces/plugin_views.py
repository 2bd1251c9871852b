"""The page on which a workspace's owners choose its plugins, and watch the change being made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from deploy import notify
from workspaces import access, changes, progress, sets
from workspaces.models import Approval, Change, Member, Step, Workspace
from workspaces.services import Refused
from workspaces.views import SignedInRequest, signed_in

# Form fields: the names of the plugins that should be on, and a value for each secret.
PLUGIN = "plugin"
SECRET = "secret-"  # noqa: S105 - the beginning of a field's name


@dataclass(frozen=True)
class Need:
    """Something that a plugin needs: a secret that is there already, or that is asked for."""

    name: str
    help: str
    is_set: bool


@dataclass(frozen=True)
class Choice:
    """One plugin that may be on. `newer` is the approved version where another one is running."""

    approval: Approval
    on: bool
    needs: tuple[Need, ...]
    newer: str = ""


# --- what the page shows -------------------------------------------------------------------------


def choices(workspace: Workspace, ticked: set[str] | None = None) -> list[Choice]:
    """Return what a workspace may have; `ticked` stands in for what is on, in a refused form."""
    running = {approval.plugin_id: approval for approval in workspace.plugins.all()}
    return [_choice(workspace, approval, running, ticked) for approval in sets.available(workspace)]


def _choice(
    workspace: Workspace,
    approval: Approval,
    running: Mapping[int, Approval],
    ticked: set[str] | None,
) -> Choice:
    mine = running.get(approval.plugin_id)
    return Choice(
        approval=approval,
        on=mine is not None if ticked is None else approval.plugin.name in ticked,
        needs=tuple(
            Need(need["name"], need.get("help", ""), need["name"] in workspace.instance.secrets)
            for need in approval.needs
        ),
        newer=approval.version if mine and mine.pk != approval.pk else "",
    )


@dataclass(frozen=True)
class Line:
    """One step of a change: `state` is done, now, failed or todo."""

    name: str
    state: str
    ms: int | None


def steps_of(change: Change) -> list[Line]:
    """Return the steps of a change. What was there already took no step, and shows as done."""
    order = list(Step)
    at = order.index(Step(change.step))
    return [
        Line(step.label, _state(change, index - at), change.durations.get(step.value))
        for index, step in enumerate(order)
    ]


def _state(change: Change, distance: int) -> str:
    if change.state == Change.State.DONE or distance < 0:
        return "done"
    if distance > 0:
        return "todo"
    return "now" if change.state == Change.State.OPEN else "failed"


def mark_of(change: Change | None) -> str:
    """Return a short text that differs whenever the live part would."""
    return f"{change.pk}-{change.state}-{change.step}-{len(change.durations)}" if change else "none"


def _live_context(member: Member) -> dict[str, Any]:
    workspace = member.workspace
    change = workspace.changes.select_related("by", "release").first()
    steps = steps_of(change) if change else []
    back = changes.last_done(workspace)
    return {
        "workspace": workspace,
        "can": access.abilities(member.role),
        "change": change,
        "steps": steps,
        "done": sum(step.state == "done" for step in steps),
        "busy": change is not None and change.state == Change.State.OPEN,
        "back": back,
        "back_to": sorted(sets.names_of(back.old_plugins.select_related("plugin"))) if back else [],
        "mark": mark_of(change),
    }


def _page(
    request: HttpRequest,
    member: Member,
    *,
    ticked: set[str] | None = None,
    error: str = "",
    status: int = 200,
) -> HttpResponse:
    workspace = member.workspace
    change = changes.open_change(workspace)
    if change is not None and ticked is None:
        ticked = sets.names_of(change.wanted.select_related("plugin"))
    offered = choices(workspace, ticked)
    shown = {choice.approval.plugin_id for choice in offered}
    running = workspace.plugins.select_related("plugin")
    context = _live_context(member) | {
        "choices": offered,
        "required": sets.required(workspace.release).select_related("plugin").order_by("plugin"),
        # Still running, but not to be had any more: the next change leaves them out.
        "leaving": [approval for approval in running if approval.plugin_id not in shown],
        "secrets": sorted(workspace.instance.secrets),
        "error": error,
    }
    return render(request, "workspaces/plugins.html", context, status=status)


# --- the views -----------------------------------------------------------------------------------


@signed_in
@require_GET
def plugins(request: SignedInRequest, slug: str) -> HttpResponse:
    """Show what a workspace may have, what is on, and how the last change goes."""
    return _page(request, access.get_member(request.user, slug, access.NEEDS["see"]))


@signed_in
@require_POST
def apply(request: SignedInRequest, slug: str) -> HttpResponse:
    """Have just the ticked plugins on: several at once, or none of them."""
    member = access.get_member(request.user, slug, access.NEEDS["change_plugins"])
    ticked = set(request.POST.getlist(PLUGIN))
    try:
        changes.request(
            member.workspace, request.user, ticked, secrets=_secrets_in(request.POST, member)
        )
    except Refused as refusal:
        return _page(request, member, ticked=ticked, error=str(refusal), status=422)
    return redirect("workspace_plugins", slug=slug)


def _secrets_in(post: QueryDict, member: Member) -> dict[str, str]:
    """Return the secrets that were typed: only those that something on offer needs."""
    names = {need["name"] for a in sets.available(member.workspace) for need in a.needs}
    typed = {name: post.get(SECRET + name, "").strip() for name in names}
    return {name: value for name, value in typed.items() if value}


@require_GET
def live(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the live part of the page once it is not as `seen` any more; 204 if it stays so."""
    if not request.user.is_authenticated:
        return HttpResponse(status=401, headers={"HX-Refresh": "true"})
    member = access.get_member(request.user, slug, access.NEEDS["see"])
    if _wait_for_news(member.workspace, request.GET.get("seen", "")):
        member = access.get_member(request.user, slug, access.NEEDS["see"])
        context = _live_context(member)
        response = render(request, "workspaces/_change.html", context | {"announce": True})
        if not context["busy"]:
            response["HX-Refresh"] = "true"  # what is on has changed, above the live part
    else:
        response = HttpResponse(status=204)
    response["Cache-Control"] = "no-store"
    return response


def _wait_for_news(workspace: Workspace, seen: str) -> bool:
    def news() -> bool:
        return mark_of(workspace.changes.first()) != seen

    if news() or changes.open_change(workspace) is None:
        return news()
    with progress.a_hold() as may_wait:
        held = may_wait and notify.wait_until(workspace.instance_id, news, progress.HOLD_SECONDS)
        return bool(held)


@signed_in
@require_POST
def roll_back(request: SignedInRequest, slug: str) -> HttpResponse:
    """Go back to the set before the last change."""
    workspace = access.get_workspace(request.user, slug, access.NEEDS["change_plugins"])
    try:
        changes.roll_back(workspace, request.user)
    except Refused as refusal:
        messages.error(request, str(refusal))
    return redirect("workspace_plugins", slug=slug)


@signed_in
@require_POST
def remove_secret(request: SignedInRequest, slug: str) -> HttpResponse:
    """Forget a secret. The container that runs has it until its next start."""
    workspace = access.get_workspace(request.user, slug, access.NEEDS["change_plugins"])
    name = request.POST.get("name", "")
    try:
        changes.remove_secret(workspace, request.user, name)
    except Refused as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, f"{name} is forgotten. A restart takes it from what runs now.")
    return redirect("workspace_plugins", slug=slug)
