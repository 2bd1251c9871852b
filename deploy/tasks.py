"""Celery tasks: a few lines each, they take ids only. Losing or doubling one does no harm."""

from celery import shared_task

from deploy import hosts, idle, logs, usage
from deploy import reconcile as reconciling
from deploy import sweep as sweeping


@shared_task
def reconcile(instance_id: str) -> None:
    """Make one instance what it should be."""
    reconciling.reconcile(instance_id)


@shared_task
def sweep() -> None:
    """Find and mend whatever the rows and the engine disagree on."""
    sweeping.sweep()


@shared_task
def put_idle_to_sleep() -> None:
    """Stop the instances that nobody uses."""
    idle.put_idle_to_sleep()


@shared_task
def measure() -> None:
    """Have every instance say what it uses, and tell it what its disk may hold."""
    usage.measure()


@shared_task
def fetch_log(instance_id: str) -> None:
    """Store the last lines of an instance's log for a page to show."""
    logs.fetch(instance_id)


@shared_task
def beat_of(queue: str) -> None:
    """Write down that this queue is worked off."""
    hosts.note_beat(queue)


@shared_task
def look_at_host() -> None:
    """Write down what the engine's machine has, for pages that may not ask it."""
    hosts.look()
