"""The socket directory: the container's only door, and the host's only risk from it."""

import errno
import json
import logging
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings

from deploy.engines.base import EngineRefused
from deploy.engines.sockets import ROOM_BYTES, ROOM_INODES, SocketDirs
from tests.deploy.boxes import Box, connect, wait_for
from tests.isolation.programs import Inside, Program, docker_engine

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
Start = Callable[..., Program]


def directory(box: Box) -> Path:
    """The box's socket directory on the host."""
    return Path(settings.RUN_DIR) / "instances" / box.id


@pytest.fixture
def start(workspace_image: str) -> Iterator[Start]:
    """Start a container with another program than a workspace; not sealed yet."""
    programs: list[Program] = []

    def begin(name: str, *arguments: str) -> Program:
        programs.append(Program(workspace_image, name, *arguments))
        programs[-1].start()
        return programs[-1]

    yield begin
    for program in programs:
        program.box.down()


# --- from inside ---------------------------------------------------------------------------------


def test_once_sealed_nothing_in_it_can_be_changed(inside: Inside, box: Box) -> None:
    before = directory(box).joinpath("http.sock").lstat()
    outcome = inside("attack_socket_directory")
    assert outcome.pop("up").split(",").count("instance") == 1
    assert set(outcome.values()) <= {"EACCES", "EPERM", "EROFS", "EXDEV", "EBUSY"}, outcome
    assert directory(box).joinpath("http.sock").lstat() == before
    assert os.listdir(directory(box)) == ["http.sock"]
    assert box.health()


@root_only
def test_what_was_opened_in_time_cannot_fill_the_host(start: Start) -> None:
    program = start("hold_socket_directory")
    program.engine.seal(program.box.id)
    program.signal("SIGUSR1")
    lines = wait_for(lambda: program.log().splitlines()[1:], "it to have filled what it can")
    outcome = json.loads(lines[0])
    assert outcome["ended"] == "ENOSPC"
    assert outcome["written"] <= ROOM_BYTES
    assert outcome["names"] <= ROOM_INODES
    assert directory(program.box).stat().st_dev != Path(settings.RUN_DIR).stat().st_dev


@root_only
def test_a_link_in_the_place_of_the_socket_leads_nowhere(start: Start, tmp_path: Path) -> None:
    target = tmp_path / "secret.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(target))
        server.listen()
        program = start("link_socket", str(target))
        assert os.readlink(directory(program.box) / "http.sock") == str(target)
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            connect(program.box.observe().endpoint)
        with pytest.raises(EngineRefused, match="in the place of its socket"):
            program.engine.seal(program.box.id)


# --- from the host -------------------------------------------------------------------------------


@root_only
def test_nobody_else_on_the_host_reaches_it(box: Box) -> None:
    endpoint = box.observe().endpoint
    child = os.fork()
    if not child:  # another user, who may do nothing but leave with an error's number
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            connect(endpoint)
        except OSError as error:
            os._exit(error.errno or 0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EACCES


@root_only
def test_it_survives_the_worker_and_goes_with_the_container(workspace_image: str) -> None:
    box = Box(docker_engine(), workspace_image, settings.NAMESPACE).up()
    path = directory(box)
    box.engine = docker_engine()  # a worker that was started anew
    assert path.is_mount()
    assert box.health()
    box.engine.stop(box.id, 60)
    path.joinpath("http.sock").unlink(missing_ok=True)
    box.engine.start(box.id)
    wait_for(box.health, "it to answer again")
    box.engine.seal(box.id)
    assert oct(path.stat().st_mode & 0o777) == "0o755"
    box.down()
    assert not path.exists()
    assert box.id not in Path("/proc/self/mountinfo").read_text()


# --- the directories by themselves ---------------------------------------------------------------


@pytest.fixture(params=[pytest.param(True, marks=root_only), False], ids=["limited", "plain"])
def directories(request: pytest.FixtureRequest) -> Iterator[SocketDirs]:
    made = SocketDirs(Path(settings.RUN_DIR) / "instances" / "dirs", "", limited=request.param)
    yield made
    made.remove("one")


def _listen(directories: SocketDirs) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directories.path("one") / "http.sock"))


def _mode(directories: SocketDirs) -> int:
    return directories.path("one").stat().st_mode & 0o777


def test_writable_only_between_open_and_seal(directories: SocketDirs) -> None:
    directories.make("one")
    assert _mode(directories) == 0o755
    directories.open("one")
    assert _mode(directories) == 0o777
    _listen(directories)
    directories.seal("one")
    assert _mode(directories) == 0o755
    directories.make("one")
    assert directories.path("one").joinpath("http.sock").is_socket()
    directories.remove("one")
    directories.remove("one")
    assert not directories.path("one").exists()


def test_each_start_begins_with_an_empty_one(directories: SocketDirs) -> None:
    for _ in range(2):
        directories.open("one")
        assert os.listdir(directories.path("one")) == []
        directories.path("one").joinpath("left").mkdir()
        _listen(directories)
    directories.remove("one")
    assert not directories.path("one").exists()


@pytest.mark.parametrize("what", ["nothing", "file", "link", "directory"])
def test_what_is_no_socket_is_not_sealed(directories: SocketDirs, what: str) -> None:
    directories.open("one")
    place = directories.path("one") / "http.sock"
    if what == "file":
        place.touch()
    elif what == "link":
        place.symlink_to("/var/run/docker.sock")
    elif what == "directory":
        place.mkdir()
    with pytest.raises(EngineRefused):
        directories.seal("one")


def test_only_the_router_gets_past_the_parent(directories: SocketDirs) -> None:
    directories.make("one")
    assert directories.path("one").parent.stat().st_mode & 0o777 == 0o700


def test_without_a_limit_the_operator_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        SocketDirs(tmp_path, "", limited=True)
        assert not caplog.records
        SocketDirs(tmp_path, "", limited=False)
    assert "no size limit" in caplog.text


@root_only
def test_the_limit_costs_next_to_nothing() -> None:
    def once(limited: bool) -> float:
        directories = SocketDirs(Path(settings.RUN_DIR) / "instances" / "dirs", "", limited=limited)
        before = time.perf_counter()
        directories.open("one")
        took = time.perf_counter() - before
        directories.remove("one")
        return took

    pairs = [(once(limited=True), once(limited=False)) for _ in range(20)]
    cost = statistics.median(limited - plain for limited, plain in pairs)
    print(f"a file system per directory costs {cost * 1000:.2f} ms")
    # A tenth of a millisecond on an idle machine; a start takes some 400.
    assert cost < 0.02
