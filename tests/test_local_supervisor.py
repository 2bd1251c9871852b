"""Programs under the supervisor: they come back when they die, and never outlive it."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudapp.local.places import PROJECT
from cloudapp.local.programs import Program
from cloudapp.local.say import Console, Failure
from cloudapp.local.supervisor import FIRST_DELAY, Supervisor


def until(happened: Callable[[], object], seconds: float = 90) -> None:
    """Wait for something to be true, and fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    one = Supervisor(Console(quiet=True))
    yield one
    one.close()


def shell(tmp_path: Path, name: str, script: str, grace: float = 60) -> Program:
    log = tmp_path / f"{name}.log"
    return Program(name, ["sh", "-c", script], log, cwd=tmp_path, grace=grace)


def test_a_killed_program_comes_back(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(shell(tmp_path, "one", "echo begins; exec sleep 1000"))
    first = supervisor.pids()["one"]
    said = (tmp_path / "one.log").read_text
    until(lambda: said().count("begins") == 1)
    supervisor.kill("one")
    until(lambda: supervisor.pids().get("one", first) != first)
    until(lambda: said().count("begins") == 2)
    assert not lives(first)


def test_what_a_dead_program_leaves_is_ended_before_it_comes_back(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.start(shell(tmp_path, "one", "sleep 1000 & echo $! >> children; wait"))
    children = tmp_path / "children"
    until(lambda: children.exists() and children.read_text())
    orphan = int(children.read_text())
    supervisor.kill("one")
    until(lambda: len(children.read_text().split()) == 2)
    assert not lives(orphan)


def test_a_program_that_always_dies_is_tried_less_and_less_often(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.start(shell(tmp_path, "bad", "date +%s.%N >> tries; echo no luck; exit 3"))
    tries = tmp_path / "tries"
    until(lambda: tries.exists() and len(tries.read_text().split()) >= 5)
    moments = [float(moment) for moment in tries.read_text().split()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    # A busy machine makes them longer, nothing makes them shorter.
    assert all(gap >= FIRST_DELAY * 2**tried for tried, gap in enumerate(gaps)), gaps


def test_waiting_for_a_program_that_always_dies_ends_with_its_own_words(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    program = Program(
        "bad", ["sh", "-c", "echo no luck; exit 3"], tmp_path / "bad.log", ready=lambda: False
    )
    supervisor.start(program)
    with pytest.raises(Failure, match="no luck"):
        supervisor.wait_ready("bad", timeout=90)


def test_stop_is_asked_for_first_and_forced_in_the_end(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    polite = "trap 'echo bye > polite; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    deaf = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    supervisor.start(shell(tmp_path, "polite", polite), shell(tmp_path, "deaf", deaf, grace=0.3))
    until(lambda: all("up" in (tmp_path / f"{n}.log").read_text() for n in ("polite", "deaf")))
    pids = supervisor.pids()
    supervisor.stop("polite", "deaf")
    assert (tmp_path / "polite").read_text() == "bye\n"
    assert not any(lives(pid) for pid in pids.values())
    assert supervisor.pids() == {}


def test_a_stopped_program_can_be_started_again(supervisor: Supervisor, tmp_path: Path) -> None:
    program = shell(tmp_path, "one", "exec sleep 1000")
    supervisor.start(program)
    supervisor.stop("one")
    supervisor.start(program)
    assert lives(supervisor.pids()["one"])


def test_a_killed_supervisor_takes_its_programs_along(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from cloudapp.local.programs import Program\n"
        "from cloudapp.local.say import Console\n"
        "from cloudapp.local.supervisor import Supervisor\n"
        "one = Supervisor(Console(quiet=True))\n"
        f"log = Path({str(tmp_path / 'log')!r})\n"
        "one.start(*(Program(n, ['sleep', '1000'], log) for n in ('a', 'b')))\n"
        "print(*one.pids().values(), flush=True)\n"
        "time.sleep(1000)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    assert all(lives(pid) for pid in pids)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    until(lambda: not any(lives(pid) for pid in pids))
