"""Rows against what the engine has: mend each difference, skip what is in flight, report orphans.

This is what makes every task dispensable: whatever was lost, the next sweep finds.
"""

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.utils import timezone

from deploy import reconcile, wakeup
from deploy.engines import get_engine
from deploy.engines.base import ABSENT, Engine, EngineError, Observation
from deploy.models import Instance, Orphan
from deploy.plan import Action

logger = logging.getLogger(__name__)

# More than may start at once: stops and removals do not wait for the starts.
THREADS = 8
# Shared by all sweeps of this process: one that hangs keeps a thread here, and no sweep waiting.
_pool = ThreadPoolExecutor(THREADS, thread_name_prefix="sweep")
_under_way: dict[UUID, "Future[None]"] = {}


def sweep() -> int:
    """Look at everything once; return how many instances had to be worked on."""
    engine = get_engine()
    # The rows last: a row that is newer than the listing must not look like one without container.
    try:
        found, volumes = engine.observe_all(), engine.volumes()
    except EngineError as error:
        logger.warning("the engine cannot be asked, nothing is swept: %s", error)
        return 0
    instances = list(Instance.objects.filter(purged_at=None).select_related("image", "predecessor"))
    drifted = [i for i in instances if _needs_work(i, found.get(str(i.pk), ABSENT))]
    for instance in drifted:
        if instance.spare:  # nobody waits for it
            wakeup.after_commit(instance.pk, somebody_waits=False)
    mine = [_hand_out(instance) for instance in drifted if not instance.spare]
    wait(mine, timeout=settings.SWEEP_SECONDS)
    _report_orphans(found, volumes)
    _remove_old_orphans(engine)
    return len(drifted)


def _needs_work(instance: Instance, seen: Observation) -> bool:
    now = timezone.now()
    if instance.next_attempt_at and instance.next_attempt_at > now:
        return False
    if instance.lease_expires_at and instance.lease_expires_at > now:
        return False  # somebody is at it
    if instance.lease_token:
        return True  # somebody died over it
    noted = instance.observed == seen.observed and instance.started_at == seen.started_at
    return not noted or reconcile.plan_for(instance, seen) is not Action.NOTHING


def _hand_out(instance: Instance) -> "Future[None]":
    """Have it reconciled by a thread of the pool, unless an earlier sweep did so just now."""
    for pk in [pk for pk, future in list(_under_way.items()) if future.done()]:
        _under_way.pop(pk, None)
    future = _under_way.get(instance.pk)
    if future is None:
        future = _under_way[instance.pk] = _pool.submit(_reconcile, instance)
    return future


def _reconcile(instance: Instance) -> None:
    try:
        reconcile.reconcile(instance.pk)
    except Exception:  # one instance's trouble must not keep the others from being looked at
        logger.exception("the sweep could not reconcile %s", instance)
    finally:
        connection.close()


def _report_orphans(found: Mapping[str, Observation], volumes: Iterable[str]) -> None:
    """Note what the engine has and no row knows; forget those that are gone or known now."""
    known = {str(pk) for pk in Instance.objects.filter(purged_at=None).values_list("pk", flat=True)}
    in_use = Instance.objects.filter(purged_at=None).exclude(volume="")
    known_volumes = set(in_use.values_list("volume", flat=True))
    orphans = {("container", name) for name in set(found) - known}
    orphans |= {("volume", name) for name in set(volumes) - known_volumes}
    for kind, name in orphans:
        _, new = Orphan.objects.get_or_create(name=name, defaults={"kind": kind})
        if new:
            logger.warning("orphan: %s %s belongs to no instance", kind, name)
    Orphan.objects.filter(~Q(name__in=[name for _, name in orphans])).delete()


def _remove_old_orphans(engine: Engine) -> None:
    """Remove containers that stayed orphans for the grace period. Volumes hold data: never."""
    since = timezone.now() - timedelta(seconds=settings.ORPHAN_GRACE_SECONDS)
    for orphan in Orphan.objects.filter(kind="container", first_seen_at__lt=since):
        try:
            engine.stop(orphan.name, settings.STOP_TIMEOUT_SECONDS)
            engine.remove(orphan.name)
        except EngineError:
            logger.exception("the orphan %s could not be removed", orphan)
            continue
        logger.warning("removed the orphan %s", orphan)
        orphan.delete()
