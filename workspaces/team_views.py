"""The pages on which people come into a workspace, get roles, leave, and let everybody read."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts import came_for
from accounts.models import User
from workspaces import access, invitations, members, services
from workspaces.forms import InviteForm, TransferForm
from workspaces.models import Invitation, Member, Role, Visibility, Workspace
from workspaces.services import Refused
from workspaces.views import SignedInRequest, signed_in

_named = Prefetch("user", User.objects.with_names())


# --- who belongs to it ---------------------------------------------------------------------------


def _page(
    request: SignedInRequest, member: Member, form: InviteForm | None = None, status: int = 200
) -> HttpResponse:
    workspace = member.workspace
    everybody = list(workspace.members.order_by("created_at", "id").prefetch_related(_named))
    others = [one for one in everybody if one.user_id != request.user.pk]
    may = access.is_at_least(member.role, access.NEEDS["change_members"])
    by = Prefetch("invited_by", User.objects.with_names())
    invited = list(invitations.pending(workspace).prefetch_related(by)) if may else []
    context = {
        "workspace": workspace,
        "member": member,
        "can": access.abilities(member.role),
        "open_to_changes": may and workspace.deleted_at is None,
        "members": everybody,
        "last_owner": may
        and not any(one.role == Role.OWNER and one.user.is_active for one in others),
        "roles": Role.choices,
        "invitations": invited,
        "senders": {one.invited_by_id for one in invited},
        "form": form or InviteForm(),
        "transfer_form": TransferForm(members=others) if others else None,
        "now": timezone.now(),
    }
    return render(request, "workspaces/members.html", context, status=status)


@signed_in
@require_GET
def index(request: SignedInRequest, slug: str) -> HttpResponse:
    """Show who belongs to a workspace; to owners also who is invited."""
    return _page(request, access.get_member(request.user, slug, access.NEEDS["see"]))


@signed_in
@require_POST
def invite(request: SignedInRequest, slug: str) -> HttpResponse:
    """Invite an address."""
    member = access.get_member(request.user, slug, access.NEEDS["change_members"])
    form = InviteForm(request.POST)
    if form.is_valid():
        email, role = form.cleaned_data["email"], Role(form.cleaned_data["role"])
        try:
            made = invitations.invite(member.workspace, request.user, email, role)
        except Refused as refusal:
            form.add_error("email", str(refusal))
        else:
            messages.success(request, f"An invitation is on its way to {made.email}.")
            return redirect("workspace_members", slug)
    form.focus_first_error()
    return _page(request, member, form, status=422)


def _deed(
    do: Callable[..., str],
) -> Callable[..., HttpResponse]:
    """Make a view that does one thing that owners may, says what was done, and shows the list."""

    def view(request: SignedInRequest, /, slug: str, **which: int) -> HttpResponse:
        needed = access.NEEDS["change_members"]
        workspace = access.get_workspace(request.user, slug, needed)
        try:
            if words := do(request, workspace, **which):
                messages.success(request, words)
        except Refused as refusal:
            messages.error(request, str(refusal))
        return redirect("workspace_members", slug)

    return wraps(do)(signed_in(require_POST(view)))


@_deed
def change_role(request: SignedInRequest, workspace: Workspace, pk: int) -> str:
    """Give a member another role."""
    role = request.POST.get("role", "")
    if role not in Role.values:
        raise Refused("Choose a role.")
    members.change_role(workspace, request.user, pk, Role(role))
    return "The role is changed; it counts within seconds."


@_deed
def remove(request: SignedInRequest, workspace: Workspace, pk: int) -> str:
    """Take a member out."""
    members.remove(workspace, request.user, pk)
    return "Removed. Within seconds no door of this workspace opens to them."


@_deed
def transfer(request: SignedInRequest, workspace: Workspace) -> str:
    """Make somebody else an owner, and oneself an editor."""
    to = request.POST.get("to", "")
    if not to.isascii() or not to.isdigit() or len(to) > 18:
        raise Refused("Choose who takes it over.")
    members.transfer(workspace, request.user, int(to))
    return "It is handed over: you are an editor now."


@_deed
def resend(request: SignedInRequest, workspace: Workspace, pk: int) -> str:
    """Send an invitation again."""
    sent = invitations.resend(workspace, request.user, pk)
    return f"A new link is on its way to {sent.email}. The old one works no more."


@_deed
def withdraw(request: SignedInRequest, workspace: Workspace, pk: int) -> str:
    """Take an invitation back."""
    invitations.withdraw(workspace, request.user, pk)
    return "The invitation is withdrawn."


@signed_in
@require_POST
def leave(request: SignedInRequest, slug: str) -> HttpResponse:
    """Take oneself out."""
    workspace = access.get_workspace(request.user, slug, access.NEEDS["see"])
    try:
        members.remove(workspace, request.user, request.user.pk)
    except Refused as refusal:
        messages.error(request, str(refusal))
        return redirect("workspace_members", slug)
    messages.success(request, f"You have left “{workspace.name}”.")
    return redirect("workspaces")


# --- those who are invited -----------------------------------------------------------------------


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """Show an invitation to whoever has its link; let the right one accept it.

    Who has to sign in first is led back here.
    """
    found = invitations.find(token)
    if found is None:
        return came_for.forget(render(request, "workspaces/invitation_over.html", status=404))
    if not request.user.is_authenticated:
        page = render(request, "workspaces/invitation.html", _about(found))
        return came_for.remember(page, request.path)
    return came_for.forget(_invited(request, found, request.user))


def _about(found: Invitation) -> dict[str, Any]:
    return {
        "invitation": found,
        "workspace": found.workspace,
        "role_words": invitations.ROLE_WORDS[Role(found.role)],
        "masked": invitations.masked(found.email),
    }


def _invited(request: HttpRequest, found: Invitation, user: User) -> HttpResponse:
    standing = invitations.standing(found, user)
    if request.method != "POST":
        context = _about(found) | {"standing": standing}
        return render(request, "workspaces/invitation.html", context)
    if not standing.verified:
        return redirect(request.path)  # no error: these are logged, with the path
    try:
        workspace = invitations.accept(found, user)
    except Refused as refusal:
        messages.error(request, str(refusal))
        return redirect("workspaces")
    return redirect(workspace)


@signed_in
@require_POST
def accept(request: SignedInRequest, pk: int) -> HttpResponse:
    """Accept an invitation to an address of one's own, without its link: the list shows it."""
    found = get_object_or_404(invitations.of_user(request.user), pk=pk)
    try:
        workspace = invitations.accept(found, request.user)
    except Refused as refusal:
        messages.error(request, str(refusal))
        return redirect("workspaces")
    return redirect(workspace)


# --- who may read it -----------------------------------------------------------------------------


@signed_in
@require_GET
def visibility(request: SignedInRequest, slug: str) -> HttpResponse:
    """Say what it means that everybody may read, and ask once more."""
    member = access.get_member(request.user, slug, access.NEEDS["change_visibility"])
    context = {"workspace": member.workspace, "can": access.abilities(member.role)}
    return render(request, "workspaces/visibility.html", context)


@signed_in
@require_POST
def set_visibility(request: SignedInRequest, slug: str) -> HttpResponse:
    """Let everybody read, or members only."""
    workspace = access.get_workspace(request.user, slug, access.NEEDS["change_visibility"])
    to = request.POST.get("to", "")
    try:
        if to not in Visibility.values:
            raise Refused("Say who may read it.")
        services.set_visibility(workspace, request.user, Visibility(to))
    except Refused as refusal:
        messages.error(request, str(refusal))
    else:
        if not workspace.is_public:  # the banner says the other
            messages.success(request, "It is private again. Within seconds only members get in.")
    return redirect(workspace)
