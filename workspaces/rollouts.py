"""Roll a release out: move the workspaces of another one over, a batch at a time.

Each move is an ordinary change, so a workspace that does not come up is back on its old image by
itself. The first one that fails stops the roll-out; those that moved before stay where they are.

From a release to itself, it takes those to its newest image that have an older one: after an
upgrade of this software.
"""

from collections.abc import Iterable
from functools import partial

from celery import current_app
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import User
from workspaces import changes, releases
from workspaces.models import Change, Release, Rollout, Workspace
from workspaces.services import Refused

FAILED = (Change.State.FAILED, Change.State.ROLLED_BACK)
LEFT_OUT = "Left out by the operator."


def start(
    source: Release,
    target: Release,
    batch_size: int,
    by: User | None,
    leave_out: Iterable[Workspace] = (),
) -> Rollout:
    """Begin to move all workspaces of `source` to `target`. Raises Refused."""
    if source.pk == target.pk and not releases.behind().filter(release=source).exists():
        words = f"All workspaces of {source} have its newest image. Choose another release."
        raise Refused(words, "source")
    if not releases.is_ready(target):
        raise Refused(f"The image of {target} is not ready. Build it first.")
    try:
        with transaction.atomic():
            rollout = Rollout.objects.create(
                from_release=source,
                to_release=target,
                batch_size=batch_size,
                by=by,
                skipped={workspace.slug: LEFT_OUT for workspace in leave_out},
            )
            send = partial(current_app.send_task, "workspaces.tasks.run_rollouts")
            transaction.on_commit(send, robust=True)  # else the beat finds it
    except IntegrityError as error:
        if "one_running_rollout" not in str(error):
            raise
        raise Refused(f"A roll-out from {source} is under way already.", "source") from error
    return rollout


def stop(rollout: Rollout, words: str) -> None:
    """Begin no more batches. What is under way comes to its end."""
    changed = Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.RUNNING).update(
        state=Rollout.State.STOPPED, error=words, finished_at=timezone.now()
    )
    if not changed:
        raise Refused("This roll-out is over.")


def run_all() -> None:
    """Take every running roll-out one step further, if there is one to take. In a worker."""
    for pk in Rollout.objects.filter(state=Rollout.State.RUNNING).values_list("pk", flat=True):
        with transaction.atomic():
            mine = Rollout.objects.select_for_update(skip_locked=True, of=("self",))
            running = mine.filter(pk=pk, state=Rollout.State.RUNNING)
            for rollout in running.select_related("from_release", "to_release", "by"):
                _advance(rollout)


def _advance(rollout: Rollout) -> None:
    """Stop at a failure, wait for the batch that is under way, or begin the next one."""
    failed = rollout.changes.filter(state__in=FAILED).select_related("workspace").last()
    if failed:
        stop(rollout, f"{failed.workspace.slug}: {failed.error}")
    elif not rollout.changes.filter(state=Change.State.OPEN).exists():
        _begin_batch(rollout)


def _begin_batch(rollout: Rollout) -> None:
    begun = 0
    busy = set(Change.objects.filter(state=Change.State.OPEN).values_list("workspace", flat=True))
    left = list(remaining(rollout))
    for workspace in left:
        if begun == rollout.batch_size:
            break
        if workspace.pk in busy:  # its own change comes first; a later batch takes it
            continue
        try:
            changes.to_release(workspace, rollout.by, rollout.to_release, rollout)
            begun += 1
        except Refused as refusal:
            rollout.skipped[workspace.slug] = str(refusal)
    rollout.save(update_fields=["skipped"])
    if not begun and not busy & {workspace.pk for workspace in left}:
        Rollout.objects.filter(pk=rollout.pk).update(
            state=Rollout.State.DONE, finished_at=timezone.now()
        )


def remaining(rollout: Rollout) -> QuerySet[Workspace]:
    """Return the workspaces that it has still to move."""
    same = rollout.from_release_id == rollout.to_release_id
    live = releases.behind() if same else Workspace.objects.filter(deleted_at=None)
    tried = rollout.changes.values("workspace")
    return (
        live.filter(release=rollout.from_release)
        .exclude(slug__in=rollout.skipped)
        .exclude(pk__in=tried)
        .select_related("instance", "plan", "release")
        .order_by("slug")
    )
