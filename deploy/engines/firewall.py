"""What a container on a bridge may reach. `icc=false` alone leaves every listener of the host open.

One chain per bridge, in the tables of the engine's host: the rules refuse private, link-local,
metadata and host addresses, the bridge's own gateway included. The worker must run as root on the
engine's host for this; where it cannot, no container gets a bridge.
"""

import hashlib
import subprocess
from collections.abc import Iterator
from enum import StrEnum

from deploy.engines.base import EngineRefused


class Reach(StrEnum):
    """How far containers on a bridge may go."""

    INTERNET = "internet"
    NOTHING = "local"  # only answer those who ask them


# Every IPv4 range that is not the public internet (RFC 6890), metadata addresses included.
NOT_PUBLIC = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)

ANSWERS = ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"]


def interface(namespace: str, reach: Reach) -> str:
    """Return the bridge's name: 15 characters at the most, one per namespace and reach."""
    return f"ca{hashlib.sha256(namespace.encode()).hexdigest()[:10]}{reach[0]}"


def forward_rules(reach: Reach) -> Iterator[list[str]]:
    """Yield the rules for what the bridge's containers send through the host."""
    yield ANSWERS
    if reach is Reach.NOTHING:
        yield ["-j", "DROP"]
        return
    for network in NOT_PUBLIC:
        yield ["-d", network, "-j", "REJECT"]
    yield ["-j", "RETURN"]


def input_rules() -> Iterator[list[str]]:
    """Yield the rules for what they send to the host itself, whichever of its addresses."""
    yield ANSWERS
    yield ["-j", "DROP"]


def ensure(bridge: str, reach: Reach) -> None:
    """Put the rules in place, before the first container and again whenever they are missing.

    Raises EngineRefused where they cannot be set: a container without them must not start.
    """
    _chain("iptables", f"{bridge}-F", forward_rules(reach))
    _chain("iptables", f"{bridge}-I", input_rules())
    _first("iptables", "DOCKER-USER", bridge, f"{bridge}-F")
    _first("iptables", "INPUT", bridge, f"{bridge}-I")
    _chain("ip6tables", f"{bridge}-I", [["-j", "DROP"]])
    _first("ip6tables", "INPUT", bridge, f"{bridge}-I")
    _first("ip6tables", "FORWARD", bridge, f"{bridge}-I")


def remove(bridge: str) -> None:
    """Take the rules away again, with the bridge."""
    for command, parent, chain in (
        ("iptables", "DOCKER-USER", f"{bridge}-F"),
        ("iptables", "INPUT", f"{bridge}-I"),
        ("ip6tables", "INPUT", f"{bridge}-I"),
        ("ip6tables", "FORWARD", f"{bridge}-I"),
    ):
        while _run(command, "-D", parent, "-i", bridge, "-j", chain):
            pass
    for command, chain in (("iptables", "F"), ("iptables", "I"), ("ip6tables", "I")):
        if _run(command, "-F", f"{bridge}-{chain}"):
            _run(command, "-X", f"{bridge}-{chain}")


def _run(command: str, *arguments: str) -> bool:
    """Run iptables; whether it did as asked. `-w` waits for others who change the tables."""
    try:
        done = subprocess.run([command, "-w", "10", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def _must(command: str, *arguments: str) -> None:
    if not _run(command, *arguments):
        raise EngineRefused(
            f"the firewall could not be set ({command} {' '.join(arguments)}): containers on a "
            "bridge need a worker that runs as root on the engine's host, with iptables"
        )


def _chain(command: str, chain: str, rules: Iterator[list[str]] | list[list[str]]) -> None:
    """Fill a chain, unless it is complete: its rules are then never missing for a moment."""
    wanted = list(rules)
    if all(_run(command, "-C", chain, *rule) for rule in wanted):
        return
    _run(command, "-N", chain)
    _must(command, "-F", chain)
    for rule in wanted:
        _must(command, "-A", chain, *rule)


def _first(command: str, parent: str, bridge: str, chain: str) -> None:
    """Have a parent chain hand over what comes from the bridge, before any rule that lets it in."""
    jump = ["-i", bridge, "-j", chain]
    if not _run(command, "-C", parent, *jump):
        _must(command, "-I", parent, "1", *jump)
