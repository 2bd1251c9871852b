"""What a program inside of a workspace's container finds."""

import os
from collections.abc import Mapping
from typing import Any

import pytest

from tests.deploy.boxes import Box
from tests.isolation.programs import Inside

NOTHING = "0000000000000000"
# Where a program may leave something: its own volume, and tmpfs that count as its memory.
WRITABLE = {"/data", "/tmp", "/dev/shm", "/dev/mqueue"}
HARMLESS_DEVICES = {
    *("full", "null", "random", "tty", "urandom", "zero"),
    *("fd", "mqueue", "ptmx", "pts", "shm", "stderr", "stdin", "stdout"),
}


@pytest.fixture(scope="module")
def facts(inside: Inside) -> Mapping[str, Any]:
    """Everything that inside.facts found out, asked once."""
    found: Mapping[str, Any] = inside("facts")
    return found


def test_no_network(facts: Mapping[str, Any]) -> None:
    assert facts["interfaces"] == ["lo"]
    assert facts["routes"] == []


def test_not_root(facts: Mapping[str, Any]) -> None:
    assert facts["ids"] == [[10001] * 3, [10001] * 3, [10001]]


@pytest.mark.parametrize("process", ["1", "self"])
def test_no_capabilities_no_new_privileges_seccomp(facts: Mapping[str, Any], process: str) -> None:
    _check(facts["status"][process])


def test_no_program_runs_as_somebody_else(facts: Mapping[str, Any]) -> None:
    assert facts["setuid"] == []


def _check(status: Mapping[str, str]) -> None:
    assert set(status["Uid"].split()) == {"10001"}
    assert set(status["Gid"].split()) == {"10001"}
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {NOTHING}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_what_only_the_privileged_may_do(facts: Mapping[str, Any]) -> None:
    worked = {name: said for name, said in facts["syscalls"].items() if said == "done"}
    assert worked == {}


def test_nowhere_to_write_but_its_own(facts: Mapping[str, Any]) -> None:
    assert set(facts["writable"]) == WRITABLE


def test_the_root_is_read_only(facts: Mapping[str, Any]) -> None:
    root = next(mount for mount in facts["mounts"] if mount["point"] == "/")
    assert "ro" in root["options"].split(",")


def test_one_socket_and_no_engine(facts: Mapping[str, Any]) -> None:
    assert facts["sockets"] == ["/run/instance/http.sock"]


def test_nothing_of_the_host_is_mounted(facts: Mapping[str, Any], neighbour: Box) -> None:
    kernel = {"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"}
    others = {m["point"]: m for m in facts["mounts"] if m["kind"] not in kernel}
    # The engine's own three files are made for this container, and it cannot write to them.
    made = {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
    assert set(others) == {"/", "/data", *made}
    assert all("ro" in others[path]["options"].split(",") for path in made)
    assert neighbour.id not in str(facts["mounts"])


def test_the_socket_directory_is_a_small_file_system(facts: Mapping[str, Any]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount one: see docs/operating.md")
    mount = next(m for m in facts["mounts"] if m["point"] == "/run/instance")
    assert mount["kind"] == "tmpfs"
    assert {"nosuid", "nodev", "noexec", "nosymfollow"} <= set(mount["options"].split(","))


def test_small_scratch_that_runs_nothing(facts: Mapping[str, Any]) -> None:
    mount = next(m for m in facts["mounts"] if m["point"] == "/tmp")
    assert mount["kind"] == "tmpfs"
    assert {"nosuid", "nodev", "noexec"} <= set(mount["options"].split(","))


def test_no_other_process_is_there(facts: Mapping[str, Any]) -> None:
    assert facts["pids"][0] == 1
    assert len(facts["pids"]) == 2, "itself and the workspace"


def test_namespaces_are_its_own(facts: Mapping[str, Any], neighbour: Box) -> None:
    host = {name: os.readlink(f"/proc/self/ns/{name}") for name in facts["namespaces"]}
    other = Inside(neighbour)("facts")["namespaces"]
    for name, own in facts["namespaces"].items():
        assert own != host[name]
        assert own != other[name]


def test_the_kernel_s_doors_are_shut(facts: Mapping[str, Any]) -> None:
    assert set(facts["masked"].values()) <= {0, "ENOENT", "EACCES"}
    assert set(facts["read_only"].values()) <= {"EROFS", "EACCES", "ENOENT"}
    assert set(facts["devices"]) <= HARMLESS_DEVICES


def test_it_knows_who_it_is_and_nothing_else(facts: Mapping[str, Any]) -> None:
    ours = {"INSTANCE_ID", "INSTANCE_GENERATION", "INSTANCE_KEY", "INSTANCE_LISTEN"}
    assert set(facts["environment"]) - ours <= {"PATH", "HOME", "HOSTNAME", "TMPDIR"}
    assert facts["hostname"] == "workspace"


def test_a_crash_leaves_no_dump_with_the_host(facts: Mapping[str, Any]) -> None:
    assert facts["limits"]["RLIMIT_CORE"] == [0, 0]
