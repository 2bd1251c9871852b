"""The audit log of a workspace, for its owners: a page and two kinds of files."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import Http404, HttpResponse, QueryDict, StreamingHttpResponse
from django.shortcuts import render
from django.utils.timezone import now
from django.views.decorators.http import require_GET

from accounts import audit, audit_log
from accounts.models import AuditEntry
from workspaces import access
from workspaces.history import DEED_WORDS
from workspaces.models import Workspace
from workspaces.views import SignedInRequest, signed_in

PER_PAGE = 50
# Deeds that concern a workspace and are not in its history.
WORDS: Mapping[str, str] = {
    **DEED_WORDS,
    "disabled_webhook": "switched off the webhook",
    "made_token": "made an API token for it:",
    "revoked_token": "revoked an API token for it:",
    "signed_in_at_workspace": "signed in at its address",
    "read_log": "read its log",
    "read_audit": "read its audit log",
    "exported_audit": "took its audit log away as a file",
    "used_invitation": "used up an invitation, as a member already:",
    "tested_webhook": "sent a test message to the webhook",
    "sent_again": "sent a message again to the webhook",
    "granted": "allowed it the plugin",
    "took_grant_back": "took back the plugin",
    "tried_release": "moved it to the release",
    "admin_added": "added in the admin:",
    "admin_changed": "changed in the admin:",
    "admin_removed": "removed in the admin:",
}
# What these leave open is what the thing was called.
_NAMED = (
    "made_token",
    "revoked_token",
    "used_invitation",
    "tested_webhook",
    "sent_again",
    "granted",
    "took_grant_back",
    "tried_release",
)
_OF_ADMIN = ("admin_added", "admin_changed", "admin_removed")
_VIA = {"session": "in a browser", "token": "with the API token", "command": "at a shell"}


class SearchForm(audit_log.SearchForm):
    """With the deeds that a workspace knows."""

    verb = forms.ChoiceField(
        required=False,
        label="Deed",
        choices=[("", "All"), *((verb, verb.replace("_", " ")) for verb in sorted(WORDS))],
    )


def _members(workspace: Workspace) -> set[int]:
    return set(workspace.members.values_list("user_id", flat=True))


def _line(entry: AuditEntry, members: set[int]) -> dict[str, Any]:
    """Return an entry in words."""
    told = audit_log.shown(entry, members)
    by_itself = entry.actor is None and entry.via == "machinery"
    who = told["actor_name"] or ("cloudapp" if by_itself else "Somebody")
    words = str(entry.detail.get("words", ""))
    label = entry.label if entry.verb in (*_NAMED, *_OF_ADMIN) else ""
    more = label if entry.verb in _NAMED else f"{label} {words}".strip()
    what = WORDS.get(entry.verb, entry.verb.replace("_", " "))
    return {
        **told,
        "at": entry.at,
        "who": who,
        "what": what if more else what.removesuffix(":"),
        "more": more,
        "how": " ".join(filter(None, [_VIA.get(entry.via, "by itself"), told["via_name"]])),
    }


@signed_in
@require_GET
def page(request: SignedInRequest, slug: str) -> HttpResponse:
    """Show who did what, from where, newest first."""
    member = access.get_member(request.user, slug, access.NEEDS["read_audit"])
    workspace = member.workspace
    form, members = SearchForm(request.GET), _members(workspace)
    entries = form.search().of(audit_log.of_workspace(workspace.pk), members)
    if before := _number(request.GET.get("before", "")):
        entries = entries.filter(id__lt=before)
    found = list(entries[: PER_PAGE + 1])
    context = {
        "workspace": workspace,
        "can": access.abilities(member.role),
        "form": form,
        "lines": [_line(entry, members) for entry in found[:PER_PAGE]],
        "query": _query(request.GET),
        "searching": any(request.GET.get(name) for name in form.fields),
        "is_first": not before,
        "older": _query(request.GET, before=str(found[PER_PAGE - 1].pk))
        if len(found) > PER_PAGE
        else "",
    }
    return render(request, "workspaces/audit.html", context)


@signed_in
@require_GET
def export(request: SignedInRequest, slug: str) -> StreamingHttpResponse:
    """Return all that the search finds as a file."""
    workspace = access.get_workspace(request.user, slug, access.NEEDS["read_audit"])
    kind = request.GET.get("format", "csv")
    if kind not in audit_log.FORMS:
        raise Http404
    members, query = _members(workspace), {"query": request.GET.dict()}
    entries = SearchForm(request.GET).search().of(audit_log.of_workspace(workspace.pk), members)
    audit.note(request.user, "exported_audit", workspace, workspace=workspace.pk, detail=query)
    return audit_log.export(entries, kind, f"{slug}-audit-{now():%Y-%m-%d}", members)


def _number(text: str) -> int | None:
    """Return the number of an entry; None for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _query(given: QueryDict, **more: str) -> str:
    """Return the search as the query of an address."""
    kept = QueryDict(mutable=True)
    for name in SearchForm.base_fields:
        if value := given.get(name):
            kept[name] = value
    kept.update(more)
    return kept.urlencode()
