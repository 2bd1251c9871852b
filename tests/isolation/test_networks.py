"""What a container reaches: nothing; and on a bridge what its operator allowed, nothing more."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import docker
import pytest
from django.conf import settings

from deploy.engines import firewall
from deploy.engines.base import Engine
from tests.conftest import clean_up
from tests.deploy.boxes import Box, wait_for
from tests.isolation import outside
from tests.isolation.outside import GREETING, NOT_PUBLIC, PORT, PUBLIC, Outside
from tests.isolation.programs import Inside, docker_engine

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="bridges need a worker that is root; others get none at all"
)

NEIGHBOUR_PORT = "9999"


@dataclass
class Bridged:
    """A box on a bridge, its neighbour there, and what it may reach."""

    inside: Inside
    neighbour: Inside
    internet: bool

    @property
    def box(self) -> Box:
        return self.inside.box


@pytest.fixture(scope="module")
def world() -> Iterator[Outside]:
    with Outside() as made:
        yield made


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[int, int]]:
    """The ports of a service that listens on every address of the host, by IP version."""
    with outside.greeter() as found:
        yield found


@pytest.fixture(scope="module", params=["unix internet", "tcp", "tcp internet"])
def bridged(request: pytest.FixtureRequest, workspace_image: str) -> Iterator[Bridged]:
    kind, _, internet = request.param.partition(" ")
    with ExitStack() as stack:
        boxes = []
        for _ in range(2):
            box = Box(
                docker_engine(kind), workspace_image, settings.NAMESPACE, internet=bool(internet)
            )
            stack.callback(box.down)
            boxes.append(Inside(box.up()))
        yield Bridged(boxes[0], boxes[1], bool(internet))


def _address(inside: Inside) -> str:
    networks = inside.inspect()["NetworkSettings"]["Networks"]
    assert len(networks) == 1
    return str(next(iter(networks.values()))["IPAddress"])


def _gateway(inside: Inside) -> str:
    return str(next(iter(inside.inspect()["NetworkSettings"]["Networks"].values()))["Gateway"])


def _of_the_host(ports: dict[int, int]) -> list[str]:
    return [f"{a} {ports[6 if ':' in a else 4]}" for a in outside.host_addresses()]


def _greeted(outcome: dict[str, str]) -> set[str]:
    return {address for address, said in outcome.items() if said == GREETING}


def _from_here(*addresses: str) -> set[str]:
    """Which of the addresses answer the host itself: else a refusal would prove nothing."""
    answering = set()
    for address in addresses:
        host, port = address.split(" ")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            if connection.recv(100).decode() == GREETING:
                answering.add(address)
    return answering


# --- as every workspace is -----------------------------------------------------------------------


def test_without_a_network_nothing_is_reached(
    inside: Inside, world: Outside, ports: dict[int, int]
) -> None:
    there = [f"{address} {PORT}" for address in (PUBLIC, *NOT_PUBLIC)]
    loopback = [f"127.0.0.1 {ports[4]}", f"::1 {ports[6]}"]
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{settings.NAMESPACE}")
        abstract.listen()
        outcome = inside(
            "connect", *there, *loopback, *_of_the_host(ports), f"@{settings.NAMESPACE} 0"
        )
    assert _from_here(*there, *loopback) == {*there, *loopback}
    nothing = {"ENETUNREACH", "EADDRNOTAVAIL", "ECONNREFUSED", "no such interface"}
    assert set(outcome.values()) <= nothing, outcome


# --- on a bridge ---------------------------------------------------------------------------------


def test_the_internet_is_reached_where_it_was_allowed(bridged: Bridged, world: Outside) -> None:
    address = f"{PUBLIC} {PORT}"
    assert _from_here(address)
    assert bool(_greeted(bridged.inside("connect", address))) is bridged.internet


def test_private_and_metadata_addresses_are_refused(bridged: Bridged, world: Outside) -> None:
    there = [f"{address} {PORT}" for address in NOT_PUBLIC]
    assert _from_here(*there) == set(there)
    assert _greeted(bridged.inside("connect", *there)) == set()


def test_no_address_of_the_host_is_reached(
    bridged: Bridged, world: Outside, ports: dict[int, int]
) -> None:
    there = _of_the_host(ports)
    gateway = f"{_gateway(bridged.inside)} {ports[4]}"
    assert gateway in there, "the bridge's own address is one of them"
    assert f"{outside.HOST_SIDE} {ports[4]}" in there, "and one that looks public"
    assert any("%" in address for address in there), "and a link-local one"
    assert _from_here(*(address for address in there if "%" not in address))
    own = f"127.0.0.1 {ports[4]}"
    assert _greeted(bridged.inside("connect", *there, own)) == set()


def test_no_datagram_reaches_the_host(bridged: Bridged) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as four,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six,
    ):
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        four.bind(("0.0.0.0", 0))  # noqa: S104
        six.bind(("::", 0))
        ports = {4: four.getsockname()[1], 6: six.getsockname()[1]}
        bridged.inside("send_udp", *_of_the_host(ports))
        # What was sent before would be here before.
        for receiver, loopback in ((four, "127.0.0.1"), (six, "::1")):
            receiver.settimeout(60)
            receiver.sendto(b"from the host", (loopback, receiver.getsockname()[1]))
            assert receiver.recv(100) == b"from the host"


def test_the_neighbour_on_the_same_bridge_is_not_reached(bridged: Bridged) -> None:
    bridged.neighbour.begin("listen", NEIGHBOUR_PORT)
    there = f"{_address(bridged.neighbour)} {NEIGHBOUR_PORT}"
    assert _from_here(there)
    assert _greeted(bridged.inside("connect", there)) == set()


def test_nobody_out_there_reaches_a_container(bridged: Bridged, world: Outside) -> None:
    bridged.inside.begin("listen", NEIGHBOUR_PORT)
    there = f"{_address(bridged.inside)} {NEIGHBOUR_PORT}"
    assert _from_here(there)
    assert world.connect(there) in ("timeout", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH")


def test_no_ipv6_at_all(bridged: Bridged) -> None:
    assert bridged.inside("addresses") == []


def test_names_are_not_resolved_by_the_host(bridged: Bridged) -> None:
    asked = bridged.inside.inspect()["HostConfig"]["Dns"]
    if bridged.internet:
        assert not asked, "where the internet is allowed, so are its names"
    else:
        assert asked == ["127.0.0.1"]
        assert bridged.inside("resolve", "example.com") == "gaierror"


def test_hardened_like_one_without_a_network(bridged: Bridged) -> None:
    config = bridged.inside.inspect()["HostConfig"]
    assert config["CapDrop"] == ["ALL"]
    assert config["SecurityOpt"] == ["no-new-privileges"]
    assert config["ReadonlyRootfs"] is True
    status = bridged.inside("facts")["status"]["1"]
    assert status["CapEff"] == status["CapBnd"] == "0000000000000000"
    assert set(bridged.inside("facts")["syscalls"].values()) & {"done"} == set()


def test_ports_are_published_to_the_host_itself_only(bridged: Bridged) -> None:
    published = bridged.inside.inspect()["NetworkSettings"]["Ports"]
    hosts = {binding["HostIp"] for bound in published.values() for binding in bound or ()}
    assert hosts <= {"127.0.0.1"}


def test_lost_rules_and_networks_are_back_before_the_next_start(
    bridged: Bridged, world: Outside, ports: dict[int, int], docker_client: docker.APIClient
) -> None:
    box = Box(bridged.box.engine, bridged.box.image, settings.NAMESPACE, internet=bridged.internet)
    box.engine.create(box.spec)
    network = Inside(box).inspect()["HostConfig"]["NetworkMode"]
    reach = firewall.Reach.INTERNET if bridged.internet else firewall.Reach.NOTHING
    firewall.remove(firewall.interface(settings.NAMESPACE, reach))
    box.engine.start(box.id)
    wait_for(box.health, "it to answer")
    try:
        there = [*_of_the_host(ports), *(f"{address} {PORT}" for address in NOT_PUBLIC)]
        assert _greeted(Inside(box)("connect", *there)) == set()
        assert docker_client.inspect_network(network)
    finally:
        box.down()


def test_a_pruned_network_is_made_again(
    engine: Engine, workspace_image: str, docker_client: docker.APIClient
) -> None:
    """`docker network prune` takes networks whose containers all sleep."""
    namespace = f"{settings.NAMESPACE}c"
    tcp = docker_engine("tcp", namespace)
    box = Box(tcp, workspace_image, namespace)
    try:
        tcp.create(box.spec)
        docker_client.remove_network(f"{namespace}-local")
        tcp.start(box.id)
        wait_for(box.health, "it to answer")
    finally:
        box.down()
        clean_up(namespace)
