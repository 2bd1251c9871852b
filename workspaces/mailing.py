"""Mail about workspaces: written down in the transaction of what it tells of, sent afterwards.

So a mail exists if and only if what it tells of does, and no request waits for a mail server. Of
all mails with one key one is sent, and never twice: a worker marks it before it hands it over, and
takes it up again only where it is sure that the server did not take it, because there was no
connection or the server said no. Whatever else goes wrong, a worker that dies included, counts as
sent: better one mail lost than somebody told twice that their workspace is about to be removed.

Bodies lie sealed (deploy.vault) and are erased once it is over: an invitation's holds a key.
"""

import random
import re
import smtplib
from contextlib import closing
from datetime import timedelta
from email.utils import format_datetime, localtime
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import transaction
from django.db.models import Count, F, QuerySet
from django.template.loader import render_to_string
from django.utils import timezone

from accounts.models import User
from deploy import vault
from workspaces import calls
from workspaces.models import OutgoingMail, Workspace

# Seconds from one attempt to the next.
DELAYS = (30, 2 * 60, 10 * 60, 3600, 4 * 3600, 12 * 3600, 24 * 3600)
# So much more or less by chance, lest all that failed together comes back together.
JITTER = 0.2
# Longer than an attempt can take (EMAIL_TIMEOUT is for each step of it).
STUCK = timedelta(minutes=10)
KEPT = timedelta(days=30)
TAKEN_UP_AT_ONCE = 500
# The server heard what we want and said no.
_REFUSALS = (
    smtplib.SMTPResponseException,
    smtplib.SMTPRecipientsRefused,
    smtplib.SMTPNotSupportedError,
)

# Control characters, and those that turn the direction of what follows.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
# What programs that read mail make a link of: `pay-now.com` too, with any character for the dot.
_ADDRESS = re.compile(r"://|www\.|\w[.\u3002\uff0e\uff61][^\W\d_]{2,}", re.IGNORECASE)

State = OutgoingMail.State
_SEND = "workspaces.tasks.send_mail"


# --- writing -------------------------------------------------------------------------------------


def write(
    kind: str,
    to: str,
    *,
    key: str,
    workspace: Workspace | None = None,
    by: User | None = None,
    **context: Any,
) -> None:
    """Write a mail, unless one with this key was written already.

    Its text is the template mail/<kind>.txt, whose first line is the subject.
    """
    name = plain(workspace.name, workspace.slug) if workspace else ""
    told = {"workspace": workspace, "name": name, "by": by, "cloud_url": settings.CLOUD_URL}
    text = render_to_string(f"mail/{kind}.txt", {**told, **context})
    subject, _, body = text.strip().partition("\n")
    mail = OutgoingMail(
        key=key,
        kind=kind,
        to=to,
        subject=" ".join(subject.split())[:200],
        body=vault.seal(f"{body.strip()}\n"),
        workspace=workspace,
        by=by,
    )
    OutgoingMail.objects.bulk_create([mail], ignore_conflicts=True)
    _wake(mail)


def plain(name: str, instead: str = "Somebody", *, address: str = "") -> str:
    """Return a name that people gave, for a mail: without what hides text or turns its direction.

    One with an address of the web in it is none: by our mails, strangers would be sent there. Who
    gave no name is called by their mail `address`, which is fine.
    """
    shown = " ".join(_HIDDEN.sub(" ", name).split())
    leads_away = shown != address and _ADDRESS.search(shown)
    return shown if shown and not leads_away else instead


def call_back(key: str, why: str) -> None:
    """Do not send the mail with this key, if nobody has begun to."""
    OutgoingMail.objects.filter(key=key, state=State.PENDING).update(
        state=State.FAILED,
        error=why[:300],
        body="",
        attempted_at=None,  # nobody need look why: it failed at nothing
    )


def _wake(mail: OutgoingMail) -> None:
    """Have a worker send it once the transaction is in."""
    calls.after_commit(_SEND, [mail.pk])


# --- sending -------------------------------------------------------------------------------------


def due() -> QuerySet[OutgoingMail]:
    """Return what the beat has sent."""
    ready = OutgoingMail.objects.filter(state=State.PENDING, next_attempt_at__lte=timezone.now())
    return ready.order_by("next_attempt_at")[:TAKEN_UP_AT_ONCE]


def lately() -> dict[str, int]:
    """Return how many mails of the last day are in each state."""
    rows = OutgoingMail.objects.filter(created_at__gt=timezone.now() - timedelta(days=1))
    counted = dict(rows.order_by().values_list("state").annotate(Count("pk")))
    return {state.value: counted.get(state.value, 0) for state in State}


def send(pk: str) -> None:
    """Make the next attempt at a mail, if it is due and nobody else has begun."""
    mail = _claim(pk)
    if mail is None:
        return
    try:
        message = _message(mail)
    except vault.Unreadable as error:
        _end(mail, State.FAILED, str(error))
        return
    try:
        connection = get_connection()
        connection.open()
    except Exception as error:  # whatever keeps us from the server: it has nothing of ours
        _try_again(mail, f"The mail server could not be reached: {_words(error)}")
        return
    with closing(connection):
        try:
            connection.send_messages([message])
        except _REFUSALS as error:
            words = f"The mail server said no: {_words(error)}"
            if _is_for_good(error):
                _end(mail, State.FAILED, words)
            else:
                _try_again(mail, words)
        except Exception as error:  # it may have been taken, or not
            _end(mail, State.UNCERTAIN, f"The connection ended too early: {_words(error)}")
        else:
            _end(mail, State.SENT, "")


def _claim(pk: str) -> OutgoingMail | None:
    """Mark a mail as being sent; None when it is not due, or somebody else did."""
    now = timezone.now()
    mine = OutgoingMail.objects.filter(pk=pk, state=State.PENDING, next_attempt_at__lte=now)
    if not mine.update(state=State.SENDING, attempts=F("attempts") + 1, attempted_at=now):
        return None
    return OutgoingMail.objects.get(pk=pk)


def _message(mail: OutgoingMail) -> EmailMessage:
    """Raises vault.Unreadable."""
    headers = {
        "Message-ID": f"<{mail.pk}@{settings.CLOUD_HOST}>",
        "Date": format_datetime(localtime(mail.created_at)),
        # Nobody's absence is told to us.
        "Auto-Submitted": "auto-generated",
    }
    body = vault.open_all({"of this mail": mail.body})["of this mail"]
    return EmailMessage(mail.subject, body, to=[mail.to], headers=headers)


def _is_for_good(error: Exception) -> bool:
    """Whether nobody there will ever take mail to this address."""
    if not isinstance(error, smtplib.SMTPRecipientsRefused):
        return False
    return all(code >= 500 for code, _ in error.recipients.values())


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _record(mail: OutgoingMail, **changes: Any) -> None:
    """Write what came of an attempt, unless it was given up meanwhile."""
    mine = OutgoingMail.objects.filter(pk=mail.pk, state=State.SENDING, attempts=mail.attempts)
    mine.update(**changes)


def _end(mail: OutgoingMail, state: OutgoingMail.State, error: str) -> None:
    sent_at = None if state is State.FAILED else timezone.now()
    _record(mail, state=state, error=error[:300], body="", sent_at=sent_at)


def _try_again(mail: OutgoingMail, error: str) -> None:
    """Put it back, for later; after the last attempt, give it up."""
    if mail.attempts > len(DELAYS):
        _end(mail, State.FAILED, error)
        return
    seconds = DELAYS[mail.attempts - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    later = timezone.now() + timedelta(seconds=seconds)
    _record(mail, state=State.PENDING, error=error[:300], next_attempt_at=later)


# --- what is left --------------------------------------------------------------------------------


def settle() -> None:
    """End what a worker died at: it may have been sent, so it counts as that."""
    stuck = OutgoingMail.objects.filter(
        state=State.SENDING, attempted_at__lt=timezone.now() - STUCK
    )
    stuck.update(
        state=State.UNCERTAIN,
        error="The worker ended while it was sending.",
        body="",
        sent_at=F("attempted_at"),
    )


def prune() -> None:
    """Remove what nobody reads any more."""
    old = OutgoingMail.objects.filter(created_at__lt=timezone.now() - KEPT)
    old.exclude(state__in=[State.PENDING, State.SENDING]).delete()


def reseal() -> int:
    """Encrypt what waits with the first key; return how many. Raises vault.Unreadable."""
    with transaction.atomic():
        rows = list(OutgoingMail.objects.select_for_update().exclude(body=""))
        for mail in rows:
            body = vault.reseal({"of a mail": mail.body})["of a mail"]
            OutgoingMail.objects.filter(pk=mail.pk).update(body=body)
    return len(rows)
