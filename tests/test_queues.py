"""Each task goes to a queue, and each queue has a worker."""

from django.conf import settings

from cloudapp.celery import app
from cloudapp.local.processes import WORKERS
from workspaces import queues

BUILDS = {"build_releases", "lock_approval", "read_plugin", "run_change"}


def test_each_queue_has_one_worker() -> None:
    names = sorted(queue.name for queue in settings.CELERY_TASK_QUEUES)
    assert sorted(queue for queue, _ in WORKERS.values()) == names == sorted(queues.MINUTES)


def test_what_takes_minutes_keeps_nothing_else_waiting() -> None:
    app.loader.import_default_modules()
    ours = [name for name in app.tasks if name.startswith("workspaces.")]
    routes = {name.rpartition(".")[2]: app.amqp.router.route({}, name)["queue"] for name in ours}
    assert {name for name, queue in routes.items() if queue.name == "builds"} == BUILDS
    outside = {name for name, queue in routes.items() if queue.name == "outside"}
    assert outside == {"send_mail", "send_webhook"}
    assert {queue.name for queue in routes.values()} == {"builds", "later", "outside"}


def test_a_beat_waits_its_turn_for_as_long_as_the_queue_may_take() -> None:
    """Or a backlog would look like a worker that is away."""
    for queue, minutes in queues.MINUTES.items():
        options = settings.CELERY_BEAT_SCHEDULE[f"beat-of-{queue}"]["options"]
        assert options == {"queue": queue, "expires": 60 * minutes}
