"""Read the audit log: find entries, show them, write them out as CSV and JSON lines."""

import csv
import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from django import forms
from django.db.models import Q, QuerySet
from django.http import StreamingHttpResponse
from django.utils import timezone

from accounts import names
from accounts.models import AuditEntry

# No number of a user is longer.
_DIGITS = 18
# Spreadsheets take a cell that begins like this for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001
_CHUNK = 1000


@dataclass(frozen=True)
class Search:
    """What is looked for; what is empty is not asked. `until` itself is left out.

    A part of a `person` is looked for in each entry, so only among those of one workspace; an
    `email`, which is whole, is found in all.
    """

    person: str = ""
    email: str = ""
    verb: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def of(
        self, entries: QuerySet[AuditEntry], members: Collection[int] | None = None
    ) -> QuerySet[AuditEntry]:
        """Return those that fit. A person is found by a part of their name or address then.

        With `members` as in `shown`: who is not told to owners, they cannot search for either.
        """
        if self.person:
            named = Q(actor_name__icontains=self.person) | Q(actor_email__icontains=self.person)
            entries = entries.filter(named)
            if members is not None:
                entries = entries.filter(Q(by_operator=False) | Q(actor__in=members))
        if self.email:
            entries = entries.filter(actor_email=self.email.lower())
        if self.verb:
            entries = entries.filter(verb=self.verb)
        if self.since:
            entries = entries.filter(at__gte=self.since)
        if self.until:
            entries = entries.filter(at__lt=self.until)
        return entries


class SearchForm(forms.Form):
    """The search as a page asks for it: days are whole, and the last one is part of it."""

    person = forms.CharField(required=False, max_length=100)
    verb: forms.Field = forms.CharField(required=False, max_length=40, label="Deed")
    since = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}))

    def search(self) -> Search:
        """Return what was asked for; what is not valid is as if left out."""
        self.is_valid()
        found: dict[str, Any] = self.cleaned_data
        last: date | None = found.get("until")
        return Search(
            person=found.get("person", "").replace("\0", ""),
            verb=found.get("verb", "").replace("\0", ""),
            since=_midnight(found.get("since")),
            until=_midnight(last + timedelta(days=1) if last and last < date.max else None),
        )


def _midnight(day: date | None) -> datetime | None:
    return timezone.make_aware(datetime.combine(day, time.min)) if day else None


def of_workspace(workspace: UUID) -> QuerySet[AuditEntry]:
    """Return what was done to one workspace, newest first."""
    return AuditEntry.objects.filter(workspace=workspace).order_by("-id")


def called(text: str) -> Q:
    """Return what finds the entries in which somebody or something is called exactly this.

    Each lookup has an index and fits its type, so that none of them makes Postgres read the whole
    log, which only ever grows.
    """
    found = Q(verb=text) | Q(label=text) | Q(object_id=text) | Q(request_id=text)
    found |= Q(actor_email=text.lower())
    if text.isdecimal() and len(text) <= _DIGITS:
        found |= Q(actor=int(text))
    with suppress(ValueError):
        found |= Q(workspace=UUID(text))
    with suppress(ValueError):
        found |= Q(address=str(ip_address(text)))
    return found


# --- showing -------------------------------------------------------------------------------------


def shown(entry: AuditEntry, members: Collection[int] | None = None) -> dict[str, Any]:
    """Return an entry as plain values.

    With `members`, the numbers of the users of a workspace, as its owners see it: who acted as an
    operator has neither name nor address there.
    """
    hidden = names.is_hidden(entry.actor, members, by_operator=entry.by_operator)
    return {
        "id": entry.pk,
        "at": entry.at.isoformat(),
        "actor": None if hidden else entry.actor,
        "actor_name": names.OPERATOR if hidden else entry.actor_name,
        "actor_email": "" if hidden else entry.actor_email,
        "by_operator": entry.by_operator,
        "via": entry.via,
        "via_name": "" if hidden else entry.via_name,
        "address": None if hidden else entry.address,
        "request_id": entry.request_id,
        "verb": entry.verb,
        "kind": entry.kind,
        "object_id": entry.object_id,
        "label": entry.label,
        "workspace": str(entry.workspace) if entry.workspace else None,
        "detail": entry.detail,
    }


# --- writing out ---------------------------------------------------------------------------------


def export(
    entries: QuerySet[AuditEntry],
    form: str,
    name: str,
    members: Collection[int] | None = None,
) -> StreamingHttpResponse:
    """Return all entries, newest first, as a file that is written while it is read.

    `form` is csv or jsonl.
    """
    writer, kind = FORMS[form]
    rows = (shown(entry, members) for entry in _in_pages(entries))
    response = StreamingHttpResponse(writer(rows), content_type=kind)
    response["Content-Disposition"] = f'attachment; filename="{name}.{form}"'
    response["Cache-Control"] = "no-store"
    return response


def _in_pages(entries: QuerySet[AuditEntry]) -> Iterator[AuditEntry]:
    """Return all of them, a page at a time: a cursor would have the database keep all of them
    until the slowest reader is through.
    """
    entries = entries.order_by("-id")
    page = list(entries[:_CHUNK])
    while page:
        yield from page
        page = list(entries.filter(id__lt=page[-1].pk)[:_CHUNK])


def _as_csv(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    head = list(shown(AuditEntry(at=timezone.now())))
    yield _line(head)
    for row in rows:
        values = {**row, "detail": json.dumps(row["detail"], ensure_ascii=False)}
        yield _line([_cell(values[name]) for name in head])


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerow(cells)
    return text.getvalue()


def _cell(value: Any) -> str:
    """Return a value as text that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _as_json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row, ensure_ascii=False) + "\n"


Writer = Callable[[Iterable[Mapping[str, Any]]], Iterator[str]]
FORMS: Mapping[str, tuple[Writer, str]] = {
    "csv": (_as_csv, "text/csv; charset=utf-8"),
    "jsonl": (_as_json_lines, "application/jsonl; charset=utf-8"),
}
