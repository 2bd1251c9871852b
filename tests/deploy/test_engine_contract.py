"""What every engine must do: one suite, for the fake and for a real one with either endpoint."""

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from django.conf import settings

from deploy.engines.base import (
    ABSENT,
    Engine,
    EngineError,
    EngineEvent,
    EngineRefused,
)
from deploy.engines.docker import (
    GENERATION_LABEL,
    INSTANCE_LABEL,
    NAMESPACE_LABEL,
    DockerEngine,
)
from deploy.states import Observed
from tests.conftest import clean_up
from tests.deploy.boxes import Box, wait_for
from tests.deploy.fake_engine import FakeEngine

NOBODY = str(uuid.UUID(int=0))
SECONDS = 60


@dataclass
class Place:
    """An engine under test, another namespace on the same engine, and boxes on the first."""

    engine: Engine
    other: Engine
    box: Callable[..., Box]
    other_box: Callable[[], Box]


def _fake() -> tuple[FakeEngine, FakeEngine]:
    run_dir = Path(settings.RUN_DIR) / "instances" / "fake"
    engine = FakeEngine(run_dir)
    return engine, FakeEngine(run_dir, engine.world, "other")


def _docker(kind: str, namespace: str) -> DockerEngine:
    return DockerEngine(
        url=settings.DOCKER_HOST,
        namespace=namespace,
        run_dir=Path(settings.RUN_DIR),
        endpoint_kind=kind,
    )


@pytest.fixture(scope="module", params=["fake", "docker-unix", "docker-tcp"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    namespace, image = settings.NAMESPACE, "fake"
    other_namespace = f"{namespace}b"
    engine: Engine
    other: Engine
    if request.param == "fake":
        engine, other = _fake()
    else:
        image = request.getfixturevalue("workspace_image")
        kind = request.param.removeprefix("docker-")
        engine, other = _docker(kind, namespace), _docker("unix", other_namespace)
    with ExitStack() as stack:

        def made(box: Box) -> Box:
            stack.callback(box.down)
            return box

        yield Place(
            engine,
            other,
            lambda **changes: made(Box(engine, image, namespace, **changes)),
            lambda: made(Box(other, image, other_namespace)),
        )
    if isinstance(other, DockerEngine):
        clean_up(other_namespace)


@pytest.fixture(scope="module")
def shared(place: Place) -> Box:
    """One that runs and answers; tests leave it so."""
    return place.box().up()


# --- looking -------------------------------------------------------------------------------------


def test_it_answers(place: Place) -> None:
    place.engine.ping()


def test_what_its_machine_has(place: Place) -> None:
    host = place.engine.host()
    assert host.name
    assert host.engine
    assert host.cores >= 1
    assert host.memory_mb > 100
    assert host.disk_mb is None or host.disk_free_mb is not None


def test_what_was_never_made_is_absent(place: Place) -> None:
    assert place.engine.observe(NOBODY) == ABSENT


def test_where_one_is_has_the_name_of_the_machine(place: Place, shared: Box) -> None:
    assert place.engine.observe(shared.id).node == place.engine.host().name


def test_what_it_says_of_one_that_runs(place: Place, shared: Box) -> None:
    seen = place.engine.observe(shared.id)
    assert seen.observed is Observed.RUNNING
    assert seen.generation == shared.generation
    assert seen.endpoint
    assert seen.container_id
    assert seen.started_at
    assert seen.started_at.tzinfo
    assert place.engine.observe_all()[shared.id] == seen
    assert place.engine.observe(shared.id) == seen


def test_each_namespace_sees_its_own_only(place: Place, shared: Box) -> None:
    other = place.other_box()
    place.other.create(other.spec)
    assert set(place.other.observe_all()) == {other.id}
    assert other.id not in place.engine.observe_all()
    assert place.engine.observe(other.id) == ABSENT
    assert place.other.observe(shared.id) == ABSENT
    assert other.volume in place.other.volumes()
    assert other.volume not in place.engine.volumes()
    place.engine.remove(other.id)
    assert place.other.observe(other.id).observed is Observed.CREATED


# --- one life, step by step ----------------------------------------------------------------------


def test_created_is_not_running(place: Place) -> None:
    box = place.box(generation=7)
    place.engine.create(box.spec)
    seen = place.engine.observe(box.id)
    assert (seen.observed, seen.generation, seen.started_at) == (Observed.CREATED, 7, None)
    assert box.volume in place.engine.volumes()
    assert box.health() is None


def test_creating_twice_adopts_what_is_there(place: Place) -> None:
    box = place.box()
    place.engine.create(box.spec)
    first = place.engine.observe(box.id).container_id
    box.generation = 2
    place.engine.create(box.spec)
    seen = place.engine.observe(box.id)
    assert seen.container_id == first
    assert seen.generation == 1, "the label tells what the container was really made from"


def test_starting_what_runs_disturbs_nobody(place: Place, shared: Box) -> None:
    before = place.engine.observe(shared.id)
    place.engine.start(shared.id)
    assert place.engine.observe(shared.id) == before
    assert shared.health()


def test_pause_and_go_on(place: Place, shared: Box) -> None:
    before = place.engine.observe(shared.id)
    place.engine.pause(shared.id)
    assert place.engine.observe(shared.id).observed is Observed.PAUSED
    place.engine.unpause(shared.id)
    assert place.engine.observe(shared.id) == before
    assert shared.health()


def test_stop_start_remove(place: Place) -> None:
    box = place.box().up()
    first = box.observe()
    place.engine.stop(box.id, 60)
    stopped = box.observe()
    assert (stopped.observed, stopped.exit_code) == (Observed.EXITED, 0)
    assert box.health() is None
    place.engine.stop(box.id, 60)  # stopping what has stopped is fine
    place.engine.start(box.id)
    wait_for(box.health, "it to answer again")
    place.engine.seal(box.id)
    again = box.observe()
    assert again.container_id == first.container_id
    assert first.started_at
    assert again.started_at
    assert again.started_at > first.started_at
    place.engine.remove(box.id)  # also while it runs
    assert box.observe() == ABSENT
    assert box.volume in place.engine.volumes(), "the data outlives the container"
    place.engine.remove(box.id)
    place.engine.remove_volume(box.volume)
    place.engine.remove_volume(box.volume)
    assert box.volume not in place.engine.volumes()


def test_a_successor_finds_the_data(place: Place) -> None:
    old, new = place.box(), place.box()
    place.engine.create(old.spec)
    with pytest.raises(EngineRefused):
        place.engine.remove_volume(old.volume)
    place.engine.remove(old.id)
    inherited = new.spec.__class__(**{**vars(new.spec), "volume": old.volume})
    place.engine.create(inherited)
    with pytest.raises(EngineRefused):
        place.engine.remove_volume(old.volume)
    place.engine.remove(new.id)


def test_there_is_no_log_of_what_is_not_there(place: Place) -> None:
    assert place.engine.logs(NOBODY, 5) == ""


@pytest.mark.parametrize("action", ["start", "pause", "unpause"])
def test_what_is_not_there_is_refused_not_ignored(place: Place, action: str) -> None:
    with pytest.raises(EngineRefused):
        getattr(place.engine, action)(NOBODY)


def test_stopping_what_is_not_there_is_fine(place: Place) -> None:
    place.engine.stop(NOBODY, 1)


# --- events --------------------------------------------------------------------------------------


def _listen(engine: Engine) -> "queue.SimpleQueue[EngineEvent]":
    heard: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
    events = engine.events()

    def listen() -> None:
        with suppress(EngineError):
            for event in events:
                heard.put(event)

    threading.Thread(target=listen, daemon=True).start()
    return heard


def test_events_of_our_own_containers_arrive(place: Place) -> None:
    box, other = place.box(), place.other_box()
    heard = _listen(place.engine)
    place.other.create(other.spec)
    place.engine.create(box.spec)
    place.engine.start(box.id)
    place.engine.pause(box.id)
    place.engine.unpause(box.id)
    place.engine.stop(box.id, 0)
    place.engine.remove(box.id)
    events = _until(heard, EngineEvent(box.id, "destroy"))
    wanted = ["create", "start", "pause", "unpause", "die", "destroy"]
    # Twice is fine: what happens while an engine begins to listen, it may tell from both sides.
    told = dict.fromkeys(event.action for event in events if event.instance_id == box.id)
    assert [action for action in told if action in wanted] == wanted
    assert other.id not in {event.instance_id for event in events}


def _until(heard: "queue.SimpleQueue[EngineEvent]", last: EngineEvent) -> list[EngineEvent]:
    events = []
    deadline = time.monotonic() + SECONDS
    while not events or events[-1] != last:
        events.append(heard.get(timeout=max(0.001, deadline - time.monotonic())))
    return events


# --- Docker alone ---------------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path: Path) -> DockerEngine:
    """An engine that is not there."""
    return DockerEngine(
        url=f"unix://{tmp_path}/docker.sock", namespace="cloudapp-test-x", run_dir=tmp_path
    )


@pytest.mark.parametrize("action", ["observe", "start", "seal", "pause", "unpause", "remove"])
def test_an_engine_that_does_not_answer_is_unknown_not_absent(
    nowhere: DockerEngine, action: str
) -> None:
    with pytest.raises(EngineError) as caught:
        getattr(nowhere, action)(NOBODY)
    assert not isinstance(caught.value, EngineRefused)


def test_nothing_else_takes_silence_for_an_answer(nowhere: DockerEngine) -> None:
    spec = Box(nowhere, "image", "cloudapp-test-x").spec
    silent: list[Callable[[], object]] = [
        nowhere.ping,
        nowhere.host,
        nowhere.observe_all,
        nowhere.volumes,
        lambda: nowhere.create(spec),
        lambda: nowhere.stop(NOBODY, 1),
        lambda: nowhere.logs(NOBODY, 1),
        lambda: nowhere.remove_volume("x"),
        nowhere.events,
    ]
    for call in silent:
        with pytest.raises(EngineError):
            call()


def test_an_image_that_is_not_there_is_refused_in_words(engine: Engine) -> None:
    box = Box(engine, "cloudapp-test-no-such:image", settings.NAMESPACE)
    with pytest.raises(EngineRefused, match="No such image: cloudapp-test-no-such:image"):
        engine.create(box.spec)
    assert box.observe() == ABSENT
    box.down()


def test_a_runtime_that_is_not_installed_is_refused_in_words(workspace_image: str) -> None:
    engine = DockerEngine(
        url=settings.DOCKER_HOST,
        namespace=settings.NAMESPACE,
        run_dir=Path(settings.RUN_DIR),
        runtime="no-such-runtime",
    )
    box = Box(engine, workspace_image, settings.NAMESPACE)
    with pytest.raises(EngineRefused, match=r"(?i)unknown.*runtime.*no-such-runtime"):
        engine.create(box.spec)
    assert box.observe() == ABSENT
    box.down()


def test_images_that_are_tried_out_are_no_instances(
    engine: Engine, docker_client: docker.APIClient, workspace_image: str
) -> None:
    labels = {"cloudapp.namespace": settings.NAMESPACE, "cloudapp.smoke": workspace_image}
    container = docker_client.create_container(workspace_image, labels=labels)["Id"]
    try:
        assert "" not in engine.observe_all()
    finally:
        docker_client.remove_container(container)


def test_what_a_container_wrote_is_in_its_log(engine: Engine, workspace_image: str) -> None:
    box = Box(engine, workspace_image, settings.NAMESPACE, key="short")
    engine.create(box.spec)
    assert engine.logs(box.id, 5) == ""
    engine.start(box.id)
    wait_for(lambda: box.observe().observed is Observed.EXITED, "it to give up")
    assert box.observe().exit_code == 2
    assert "INSTANCE_KEY is shorter" in engine.logs(box.id, 5)
    assert engine.logs(box.id, 0) == ""
    box.down()


def test_one_that_does_not_hear_is_killed_after_the_timeout(
    engine: Engine, docker_client: docker.APIClient, workspace_image: str
) -> None:
    box = Box(engine, workspace_image, settings.NAMESPACE)
    docker_client.create_container(
        workspace_image,
        name=box.container,
        labels={NAMESPACE_LABEL: box.namespace, INSTANCE_LABEL: box.id, GENERATION_LABEL: "1"},
        # A container's first program does not hear what it has not asked for.
        entrypoint=["sleep"],
        command=["1000"],
        stop_timeout=2 * SECONDS,  # the engine's own patience with it
    )
    docker_client.start(box.container)
    before = time.monotonic()
    engine.stop(box.id, 1)
    assert 1 <= time.monotonic() - before < SECONDS
    assert box.observe().exit_code == 137
    box.down()
