"""The limits hold when they are really hit, and the neighbour does not feel it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings

from deploy.engines.base import Engine
from tests.deploy.boxes import Box
from tests.isolation.programs import Inside

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def greedy(engine: Engine, workspace_image: str) -> Iterator[Inside]:
    """A box with little of everything."""
    box = Box(engine, workspace_image, settings.NAMESPACE, memory_mb=128, cpus=0.5, pids=48)
    try:
        yield Inside(box.up())
    finally:
        box.down()


def test_a_fork_bomb_is_bounded(greedy: Inside, neighbour: Box) -> None:
    outcome = greedy("fork_bomb")
    assert outcome["refused"] == "EAGAIN"
    assert 0 < outcome["children"] < 48
    assert neighbour.health()
    assert greedy.box.health()


def test_a_memory_hog_is_ended_and_its_neighbour_is_not(greedy: Inside, neighbour: Box) -> None:
    before = neighbour.observe()
    with ThreadPoolExecutor(1) as pool:
        hog = pool.submit(greedy.run, "memory_hog")
        over = False
        while not over:
            over = hog.done()
            assert neighbour.health()
    code, _ = hog.result()
    assert code == 137
    assert neighbour.observe() == before


def test_the_processor_is_shared_out(greedy: Inside) -> None:
    spent = greedy("burn", "1.0", "2")
    # Half a core for a second and a bit; the quota is dealt out every 100 ms.
    assert spent < 0.5 * 1.0 + 0.25


@pytest.mark.parametrize(("directory", "size"), [("/tmp", 16 * MEBIBYTE), ("/dev/shm", MEBIBYTE)])
def test_scratch_is_small_and_runs_nothing(greedy: Inside, directory: str, size: int) -> None:
    outcome = greedy("fill", directory)
    assert outcome["ended"] == "ENOSPC"
    assert outcome["written"] <= size
    assert greedy("run_from", directory) == "EACCES"
