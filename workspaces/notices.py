"""What owners must know, by mail: each is told once, at the primary address that they verified.

In the transaction of what it tells of. Who may read it in the browser sees the same there.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from allauth.account.models import EmailAddress
from django.utils import timezone

from accounts.names import OPERATOR
from deploy.models import InstanceEvent
from deploy.states import FAILED_AFTER_ATTEMPTS, Status
from workspaces import history, mailing
from workspaces.models import Activity, OutgoingMail, Role, Workspace

# A workspace that fails, is started again and fails again is told of at most so often.
QUIET_AFTER_FAILURE = timedelta(hours=1)
# Whoever deletes it and brings it back, again and again, fills nobody's mailbox.
QUIET_AFTER_DELETION = timedelta(hours=1)
# A disk that fills up does so for weeks.
QUIET_AFTER_NEARLY_FULL = timedelta(days=7)
QUIET_AFTER_FULL = timedelta(days=1)
_PENDING = OutgoingMail.State.PENDING


def hear(event: InstanceEvent, **_: Any) -> None:
    """Tell what an instance's event means for its owners, if anything."""
    tells = [tell for name in (event.kind, event.status) if (tell := _OF_EVENTS.get(name))]
    if not tells:
        return
    found = Workspace.objects.filter(instance=event.instance_id, deleted_at=None)
    if workspace := found.select_related("instance").first():  # a spare's is nobody's business
        for tell in tells:
            tell(workspace, event)


def _failed(workspace: Workspace, event: InstanceEvent) -> None:
    """Tell of the third failure in a row, and not of those that follow.

    The count begins anew when it ran well for a while, or when somebody asked for a start. Where
    the mail of that third one was called back, nobody has heard of it: then the next one counts.
    """
    third = workspace.instance.attempts == FAILED_AFTER_ATTEMPTS
    if not third and not _was_called_back(workspace, "failed"):
        return
    if not _told_lately(workspace, "failed", QUIET_AFTER_FAILURE):
        _tell(workspace, "failed", str(event.pk), error=workspace.instance.last_error)


def _recovered(workspace: Workspace, event: InstanceEvent) -> None:
    """Call back what was to tell of a failure: it runs, or nobody wants it to any more."""
    _call_back(workspace, "failed", "The failure was over before it was sent.")


def suspended(deed: Activity) -> None:
    """Tell that the operators suspended it, and why."""
    _call_back(deed.workspace, "resumed", "It was suspended again before it was sent.")
    _tell(deed.workspace, "suspended", str(deed.pk), reason=deed.detail)


def resumed(deed: Activity) -> None:
    """Tell that they lifted the suspension."""
    _call_back(deed.workspace, "suspended", "The suspension was lifted before it was sent.")
    _tell(deed.workspace, "resumed", str(deed.pk))


def deletion(deed: Activity, purge_at: datetime) -> None:
    """Tell that somebody asked for its deletion, and until when that can be undone.

    At most once an hour; the date of a second deletion then is later than the one in the mail.
    """
    by = deed.user
    name = history.name_of(by, deed.workspace) if by else ""
    who = mailing.plain(name, address=by.email if by else "")
    if who == OPERATOR:
        who = who.capitalize()  # the words begin with it; a name or an address is written as it is
    if not _told_lately(deed.workspace, "deletion", QUIET_AFTER_DELETION):
        _tell(deed.workspace, "deletion", str(deed.pk), who=who, purge_at=purge_at)


def restored(workspace: Workspace) -> None:
    """Call back what was to tell of its deletion, and did not go out yet."""
    _call_back(workspace, "deletion", "The deletion was undone before it was sent.")


def forgotten(deed: Activity, *, was_deleted: bool) -> None:
    """Tell that the operators closed it for good, because its container is gone.

    Of one `was_deleted`, which could not be removed in time, that does not come as a surprise.
    """
    _call_back(deed.workspace, "deletion", "It is closed for good.")
    _tell(deed.workspace, "forgotten", str(deed.pk), was_deleted=was_deleted)


def _disk_nearly_full(workspace: Workspace, event: InstanceEvent) -> None:
    """Tell that its disk is nearly full; however often that happens, at most once a week."""
    if not _told_lately(workspace, "disk_nearly_full", QUIET_AFTER_NEARLY_FULL):
        instance = workspace.instance
        percent = 100 * (instance.disk_bytes or 0) // instance.disk_limit
        _tell(workspace, "disk_nearly_full", str(event.pk), percent=percent)


def _disk_full(workspace: Workspace, event: InstanceEvent) -> None:
    """Tell that its disk is full; however often that happens, at most once a day."""
    if not _told_lately(workspace, "disk_full", QUIET_AFTER_FULL):
        _tell(workspace, "disk_full", str(event.pk))


# By the kind of an event, and by the status that it tells of. A start that is asked for ends no
# failure yet.
_OF_EVENTS: Mapping[str, Callable[[Workspace, InstanceEvent], None]] = {
    "disk_nearly_full": _disk_nearly_full,
    "disk_full": _disk_full,
    Status.FAILED: _failed,
    **{
        status: _recovered
        for status in Status
        if status not in (Status.FAILED, Status.PROVISIONING)
    },
}


def _call_back(workspace: Workspace, kind: str, why: str) -> None:
    """Do not send what waits of a kind: it is not so any more, and would arrive after what is."""
    waiting = OutgoingMail.objects.filter(workspace=workspace, kind=kind, state=_PENDING)
    for key in waiting.values_list("key", flat=True):
        mailing.call_back(key, why)


def _was_called_back(workspace: Workspace, kind: str) -> bool:
    """Whether the newest mail of a kind was."""
    newest = OutgoingMail.objects.filter(workspace=workspace, kind=kind).first()
    if newest is None:
        return False
    return newest.state == OutgoingMail.State.FAILED and newest.attempted_at is None


def _told_lately(workspace: Workspace, kind: str, within: timedelta) -> bool:
    """Whether such a mail went out, or will; one that was called back told nobody."""
    mails = OutgoingMail.objects.filter(workspace=workspace, kind=kind)
    mails = mails.exclude(state=OutgoingMail.State.FAILED)
    return mails.filter(created_at__gt=timezone.now() - within).exists()


def _tell(workspace: Workspace, kind: str, about: str, **context: Any) -> None:
    for user_id, email in _owners(workspace):
        key = f"{kind}:{about}:{user_id}"
        mailing.write(kind, email, key=key, workspace=workspace, **context)


def _owners(workspace: Workspace) -> list[tuple[int, str]]:
    """Return id and address of each owner; not of those who have verified none."""
    addresses = EmailAddress.objects.filter(
        verified=True,
        user__is_active=True,
        user__memberships__workspace=workspace,
        user__memberships__role=Role.OWNER,
    )
    found = addresses.order_by("user_id", "-primary", "pk").distinct("user_id")
    return list(found.values_list("user_id", "email"))
