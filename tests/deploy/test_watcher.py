"""The watcher: what happens to a container is known at once, and nothing makes it give up."""

import threading
from collections.abc import Iterator

import pytest
from celery import current_app

from deploy import watcher
from deploy.reconcile import reconcile
from tests.broker import waiting
from tests.deploy.boxes import wait_for
from tests.deploy.fake_engine import FakeEngine
from tests.deploy.rows import fresh, new

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def listening(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """A watcher that listens to the engine in memory."""
    monkeypatch.setattr(watcher, "RETRY_SECONDS", 0.01)
    stop = threading.Event()
    thread = threading.Thread(target=watcher.watch, args=[stop])
    thread.start()
    wait_for(lambda: fake._listeners, "the watcher to listen")
    yield fake
    stop.set()
    fake.knobs.unreachable = True
    fake.go_away()
    thread.join(60)
    assert not thread.is_alive()


def _sweeps() -> int:
    return sum(message["headers"]["task"] == "deploy.tasks.sweep" for message in waiting("now"))


def test_what_happens_behind_our_back_is_looked_at(listening: FakeEngine) -> None:
    instance = new()
    reconcile(instance.pk)
    for happens in (listening.pause, listening.unpause, listening.crash, listening.remove):
        before = fresh(instance).revision
        happens(str(instance.pk))
        wait_for(lambda before=before: fresh(instance).revision > before, f"{happens} to be heard")


@pytest.mark.usefixtures("fake")
def test_it_ends_when_asked_also_where_a_library_makes_something_else_of_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a class that is being made: what a signal's handler raises there is a RuntimeError."""
    stop = threading.Event()

    def send_task(name: str, **options: object) -> None:
        stop.set()
        raise RuntimeError

    monkeypatch.setattr(current_app, "send_task", send_task)
    thread = threading.Thread(target=watcher.watch, args=[stop], daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_strangers_and_the_labels_of_strangers_do_not_end_it(listening: FakeEngine) -> None:
    for name in ("", "no-uuid", "00000000-0000-0000-0000-000000000000"):
        listening._tell(name, "die")
    instance = new()
    before = fresh(instance).revision
    listening._tell(str(instance.pk), "die")
    wait_for(lambda: fresh(instance).revision > before, "it to listen still")


def test_an_engine_that_comes_back_is_listened_to_and_swept(listening: FakeEngine) -> None:
    before = _sweeps()
    listening.knobs.unreachable = True
    listening.go_away()
    asked = len(listening.calls)
    wait_for(lambda: len(listening.calls) > asked + 2, "it to try again")
    listening.knobs.unreachable = False
    wait_for(lambda: listening._listeners, "it to listen again")
    wait_for(lambda: _sweeps() > before, "a sweep to be asked for")
