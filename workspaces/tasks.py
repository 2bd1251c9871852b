"""Work of the workspaces that nobody waits for. Losing or doubling a task does no harm."""

from importlib import import_module
from typing import Any

from celery import current_app, shared_task
from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from accounts import api_tokens
from deploy import usage
from deploy.base_image import PYTHON
from deploy.engines import get_builder
from deploy.index import Target
from workspaces import (
    calls,
    catalogue,
    change_runs,
    invitations,
    mailing,
    plans,
    releases,
    rollouts,
    sending,
    services,
)
from workspaces.models import Approval, Change, Plugin, Release, SignInCode, WorkspaceSession


@shared_task
def keep_spares() -> None:
    """Make instances ahead of time, as many as the plan says."""
    services.keep_spares()


@shared_task
def clear_expired() -> None:
    """Remove codes, sessions and tokens that let nobody in any more, and old messages.

    And give slugs back.
    """
    now = timezone.now()
    SignInCode.objects.filter(expires_at__lt=now).delete()
    WorkspaceSession.objects.filter(expires_at__lt=now).delete()
    services.release_purged()
    sending.prune()
    mailing.prune()
    invitations.prune()
    services.forget_old_keys()
    api_tokens.prune()
    usage.forget()
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()


def _target() -> Target:
    return Target(get_builder().architecture(), PYTHON)


@shared_task
def read_plugin(pk: int) -> None:
    """Read what the package index says of a plugin."""
    plugin = Plugin.objects.filter(pk=pk, state=Plugin.State.READING).first()
    if plugin:
        catalogue.read_plugin(plugin, _target())


@shared_task
def lock_approval(pk: int) -> None:
    """Lock every file that an approved plugin needs."""
    approvals = Approval.objects.select_related("plugin", "release")
    approval = approvals.filter(pk=pk, state=Approval.State.LOCKING).first()
    if approval:
        catalogue.lock_approval(approval, _target())


@shared_task
def run_change(pk: int) -> None:
    """Make a change of a workspace's plugins."""
    change_runs.run(pk, get_builder())


@shared_task
def build_releases(only: int | None = None) -> None:
    """Have the image of each release that is offered, or of one, with what is required."""
    releases.build_all(get_builder(), only)


@shared_task
def run_rollouts() -> None:
    """Begin the next batch of each roll-out whose last one is done."""
    rollouts.run_all()


@shared_task
def follow_plans() -> None:
    """Take the workspaces whose plan has changed a step further."""
    if plans.follow_all():
        current_app.send_task("workspaces.tasks.follow_plans")


@shared_task
def look_for_newer() -> None:
    """Read every plugin anew, so that operators see newer versions."""
    catalogue.refresh_all()


@shared_task
def prune_images() -> None:
    """Remove the images that nothing uses or may go back to."""
    releases.prune(get_builder())


@shared_task
def send_webhook(pk: str, *others: str) -> None:
    """Send a webhook's message, if it is due. Other workers send the others meanwhile."""
    calls.now(send_webhook.name, others)
    sending.send(pk)


@shared_task
def send_mail(pk: str, *others: str) -> None:
    """Send a mail, if it is due. Other workers send the others meanwhile."""
    calls.now(send_mail.name, others)
    mailing.send(pk)


@shared_task
def take_up() -> None:
    """Find work whose task was lost, and the worker that died at it."""
    sending.give_up_too_many()
    mailing.settle()
    # Without its image nobody can make a workspace; one that cannot be built says why on its page.
    unbuilt = Release.objects.filter(offered=True, image=None, error="")
    left: tuple[tuple[str, QuerySet[Any]], ...] = (
        ("build_releases", unbuilt),
        ("read_plugin", Plugin.objects.filter(state=Plugin.State.READING)),
        ("lock_approval", Approval.objects.filter(state=Approval.State.LOCKING)),
        ("run_change", Change.objects.filter(state=Change.State.OPEN)),
        ("send_webhook", sending.due()),
        ("send_mail", mailing.due()),
    )
    for task, rows in left:
        for pk in rows.values_list("pk", flat=True):
            current_app.send_task(
                f"workspaces.tasks.{task}", [pk], expires=settings.TAKE_UP_SECONDS
            )
