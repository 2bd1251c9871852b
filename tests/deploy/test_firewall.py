"""The firewall's rules by themselves; that they hold is proven from inside in tests/isolation."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from deploy.engines import firewall
from deploy.engines.base import ABSENT, EngineRefused
from deploy.engines.docker import DockerEngine
from deploy.engines.firewall import Reach
from tests.deploy.boxes import Box

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the firewall")


def _rules(command: str, bridge: str) -> list[str]:
    """What the kernel has of this bridge, in its order."""
    done = subprocess.run([command, "-w", "-S"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if bridge in line]


@pytest.fixture
def bridge() -> Iterator[str]:
    name = firewall.interface(f"cloudapp-test-{secrets.token_hex(4)}", Reach.INTERNET)
    yield name
    firewall.remove(name)


def test_names_fit_the_kernel_and_tell_namespaces_apart() -> None:
    names = {firewall.interface(ns, reach) for ns in ("cloudapp", "cloudapp-b") for reach in Reach}
    assert len(names) == 4
    assert all(len(name) <= 15 for name in names)


@root_only
@pytest.mark.parametrize("reach", Reach)
def test_the_rules_are_all_there_once_and_go_again(bridge: str, reach: Reach) -> None:
    firewall.ensure(bridge, reach)
    rules = {command: _rules(command, bridge) for command in ("iptables", "ip6tables")}
    firewall.ensure(bridge, reach)
    assert {command: _rules(command, bridge) for command in rules} == rules
    refused = [rule for rule in rules["iptables"] if " -d " in rule]
    assert len(refused) == (len(firewall.NOT_PUBLIC) if reach is Reach.INTERNET else 0)
    firewall.remove(bridge)
    assert _rules("iptables", bridge) == _rules("ip6tables", bridge) == []
    firewall.remove(bridge)


@root_only
@pytest.mark.parametrize("parent", ["DOCKER-USER", "INPUT"])
def test_they_are_asked_before_the_rules_of_others_which_stay(bridge: str, parent: str) -> None:
    others = ["-s", "203.0.113.77/32", "-m", "comment", "--comment", bridge, "-j", "ACCEPT"]
    subprocess.run(["iptables", "-w", "-I", parent, *others], check=True)
    try:
        firewall.ensure(bridge, Reach.INTERNET)
        rules = [rule for rule in _rules("iptables", bridge) if rule.startswith(f"-A {parent} ")]
        assert "--comment" in rules[-1]
        assert len(rules) > 1
        firewall.remove(bridge)
        assert _rules("iptables", bridge) == rules[-1:]
    finally:
        subprocess.run(["iptables", "-w", "-D", parent, *others], check=True)


@root_only
@pytest.mark.parametrize(
    "lost",
    [
        ["-D", "INPUT", "-i", "{bridge}", "-j", "{bridge}-I"],
        ["-D", "DOCKER-USER", "-i", "{bridge}", "-j", "{bridge}-F"],
        ["-F", "{bridge}-F"],
        ["-D", "{bridge}-F", "3"],
        ["-I", "{bridge}-F", "1", "-j", "ACCEPT"],
    ],
)
def test_what_was_lost_or_changed_is_put_right(bridge: str, lost: list[str]) -> None:
    firewall.ensure(bridge, Reach.INTERNET)
    right = sorted(_rules("iptables", bridge))
    done = [part.format(bridge=bridge) for part in lost]
    subprocess.run(["iptables", "-w", *done], check=True)
    assert sorted(_rules("iptables", bridge)) != right
    firewall.ensure(bridge, Reach.INTERNET)
    assert sorted(_rules("iptables", bridge)) == right


def test_without_a_firewall_no_container_gets_a_bridge(
    monkeypatch: pytest.MonkeyPatch, workspace_image: str
) -> None:
    namespace = f"{settings.NAMESPACE}f"
    engine = DockerEngine(
        url=settings.DOCKER_HOST,
        namespace=namespace,
        run_dir=Path(settings.RUN_DIR),
    )
    box = Box(engine, workspace_image, namespace, internet=True)
    monkeypatch.setenv("PATH", "")  # there is no iptables
    with pytest.raises(EngineRefused, match="firewall could not be set"):
        engine.create(box.spec)
    assert box.observe() == ABSENT
    engine._client.remove_network(f"{namespace}-internet")
