"""What the engine reports of a container, line by line: not what we asked for."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.deploy.boxes import Box
from tests.isolation.programs import Inside


@pytest.fixture(scope="module")
def reported(inside: Inside) -> Mapping[str, Any]:
    return inside.inspect()


WANTED = {
    "NetworkMode": "none",
    "ReadonlyRootfs": True,
    "CapDrop": ["ALL"],
    "CapAdd": None,
    "Privileged": False,
    "SecurityOpt": ["no-new-privileges"],  # and no seccomp=…: the engine's default profile
    "IpcMode": "private",
    "PidMode": "",
    "UTSMode": "",
    "UsernsMode": "",
    "Devices": None,
    "DeviceRequests": None,
    "DeviceCgroupRules": None,
    "Binds": None,
    "VolumesFrom": None,
    "GroupAdd": None,
    "ExtraHosts": None,
    "PortBindings": None,
    "PublishAllPorts": False,
    "OomKillDisable": False,
    "Runtime": "runc",
    "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=32m,mode=1777"},
    "ShmSize": 1 << 20,
    "LogConfig": {"Type": "json-file", "Config": {"max-file": "2", "max-size": "1m"}},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "Ulimits": [{"Name": "core", "Hard": 0, "Soft": 0}],
}


@pytest.mark.parametrize("name", WANTED)
def test_host_config(reported: Mapping[str, Any], name: str) -> None:
    assert (reported["HostConfig"][name] or None) == (WANTED[name] or None)


def test_limits(reported: Mapping[str, Any], box: Box) -> None:
    config = reported["HostConfig"]
    assert config["Memory"] == config["MemorySwap"] == box.memory_mb << 20
    assert config["NanoCpus"] == box.cpus * 1e9
    assert config["PidsLimit"] == box.pids


def test_user(reported: Mapping[str, Any]) -> None:
    assert reported["Config"]["User"] == "10001:10001"


def test_only_its_data_and_its_socket_directory_are_mounted(
    reported: Mapping[str, Any], box: Box
) -> None:
    mounted = {mount["Destination"]: mount for mount in reported["Mounts"]}
    assert set(mounted) == {"/data", "/run/instance"}
    assert mounted["/data"]["Name"] == box.volume
    assert mounted["/run/instance"]["Source"].endswith(f"/instances/{box.id}")
    assert mounted["/run/instance"]["Propagation"] == "rprivate"


def test_no_network_and_no_port(reported: Mapping[str, Any]) -> None:
    assert set(reported["NetworkSettings"]["Networks"]) == {"none"}
    assert not reported["NetworkSettings"]["Ports"]
    assert not reported["NetworkSettings"]["IPAddress"]


def test_the_kernel_s_doors_are_masked(reported: Mapping[str, Any]) -> None:
    config = reported["HostConfig"]
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(config["MaskedPaths"])
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(config["ReadonlyPaths"])


def test_it_is_told_nothing_but_who_it_is(reported: Mapping[str, Any]) -> None:
    told = {entry.split("=")[0] for entry in reported["Config"]["Env"]}
    ours = {"INSTANCE_ID", "INSTANCE_GENERATION", "INSTANCE_KEY", "INSTANCE_LISTEN"}
    assert told - ours <= {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL"}
    assert ours <= told
