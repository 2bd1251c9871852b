"""What tests of teams do: send what is due, let time go by, find the link in a mail."""

import re
from datetime import timedelta

from django.db import connection
from django.db.models import F

from deploy import vault
from workspaces import mailing, tasks
from workspaces.models import OutgoingMail

LINK = re.compile(r"/invitations/([\w-]{43})/")


def send_all() -> None:
    """Do what the beat and the worker do for what is due now."""
    for mail in mailing.due():
        tasks.send_mail(str(mail.pk))


def pass_time(**time: float) -> None:
    """Let so much time go by for what waits."""
    earlier = timedelta(**time)
    OutgoingMail.objects.update(
        next_attempt_at=F("next_attempt_at") - earlier, attempted_at=F("attempted_at") - earlier
    )


def body_of(mail: OutgoingMail) -> str:
    """What it says, as long as it waits."""
    return vault.open_all({"mail": mail.body})["mail"]


def token_for(email: str) -> str:
    """The token in the newest invitation that waits to be sent to somebody."""
    mail = OutgoingMail.objects.filter(kind="invitation", to=email).exclude(body="")
    found = LINK.search(body_of(mail.latest("created_at")))
    assert found
    return found[1]


def somebody_waits() -> bool:
    """Whether one in this database waits for a lock of another."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        (count,) = cursor.fetchone()
    return bool(count)
