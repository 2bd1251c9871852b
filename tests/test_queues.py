"""Each task goes to a queue, and each queue has a worker."""

from django.conf import settings

from cloudapp.celery import app
from cloudapp.local.processes import WORKERS

BUILDS = {"build_releases", "lock_approval", "read_plugin", "run_change"}


def test_each_queue_has_one_worker() -> None:
    queues = sorted(queue.name for queue in settings.CELERY_TASK_QUEUES)
    assert sorted(queue for queue, _ in WORKERS.values()) == queues


def test_what_takes_minutes_keeps_nothing_else_waiting() -> None:
    app.loader.import_default_modules()
    ours = [name for name in app.tasks if name.startswith("workspaces.")]
    queues = {name.rpartition(".")[2]: app.amqp.router.route({}, name)["queue"] for name in ours}
    assert {name for name, queue in queues.items() if queue.name == "builds"} == BUILDS
    outside = {name for name, queue in queues.items() if queue.name == "outside"}
    assert outside == {"send_mail", "send_webhook"}
    assert {queue.name for queue in queues.values()} == {"builds", "later", "outside"}
