"""What a container on a bridge may reach. `icc=false` alone leaves every listener of the host open.

Two chains per bridge, in the tables of the engine's host: the rules refuse private, link-local,
metadata and host addresses, the bridge's own gateway included. The worker must run as root on the
engine's host for this; where it cannot, no container gets a bridge.
"""

import hashlib
import subprocess
from enum import StrEnum
from pathlib import Path

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

_ANSWERS = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
# In words, so that a program inside does not wait for minutes.
_REFUSE = "-j REJECT --reject-with icmp-port-unreachable"


def interface(namespace: str, reach: Reach) -> str:
    """Return the bridge's name: 15 characters at the most, one per namespace and reach."""
    return f"ca{hashlib.sha256(namespace.encode()).hexdigest()[:10]}{reach[0]}"


def has_ipv6() -> bool:
    """Whether this host speaks IPv6 at all; where it does not, there are no tables for it."""
    return Path("/proc/net/if_inet6").exists()


def ensure(bridge: str, reach: Reach) -> None:
    """Put the rules in place, before each start: a reboot or another program may have lost them.

    Raises EngineRefused where they cannot be set: a container without them must not start.
    """
    _complete("iptables", _chains(bridge, reach), _jumps(bridge))
    if has_ipv6():
        _complete("ip6tables", _chains6(bridge), _jumps6(bridge))


def remove(bridge: str) -> None:
    """Take the rules away again, with the bridge."""
    for command, jumps in (("iptables", _jumps(bridge)), ("ip6tables", _jumps6(bridge))):
        for jump in jumps:
            while _run([command, "-w", "10", "-D", *jump.split()]) is not None:
                pass
        for chain in (f"{bridge}-F", f"{bridge}-I"):
            _run([command, "-w", "10", "-F", chain])
            _run([command, "-w", "10", "-X", chain])


# --- the rules, spelled as `iptables -S` lists them ---------------------------------------------


def _chains(bridge: str, reach: Reach) -> dict[str, list[str]]:
    """Return chain -> rules: F for what passes through the host, I for what is sent to it."""
    private = [f"-d {network} {_REFUSE}" for network in NOT_PUBLIC]
    outward = [*private, "-j RETURN"] if reach is Reach.INTERNET else [_REFUSE]
    return {
        f"{bridge}-F": [
            # Neighbours never talk, and nobody comes in but through a port that was published.
            f"-i {bridge} -o {bridge} -j DROP",
            _ANSWERS,
            f"-o {bridge} -m conntrack --ctstate DNAT -j RETURN",
            f"-o {bridge} -j DROP",
            *outward,
        ],
        # Whichever of the host's addresses it is.
        f"{bridge}-I": [_ANSWERS, _REFUSE],
    }


def _jumps(bridge: str) -> list[str]:
    return [
        f"DOCKER-USER -i {bridge} -j {bridge}-F",
        f"DOCKER-USER -o {bridge} -j {bridge}-F",
        f"INPUT -i {bridge} -j {bridge}-I",
    ]


def _chains6(bridge: str) -> dict[str, list[str]]:
    return {f"{bridge}-I": ["-j DROP"]}


def _jumps6(bridge: str) -> list[str]:
    return [f"INPUT -i {bridge} -j {bridge}-I", f"FORWARD -i {bridge} -j {bridge}-I"]


# --- putting them in place ----------------------------------------------------------------------


def _complete(command: str, chains: dict[str, list[str]], jumps: list[str]) -> None:
    """Make the chains what they should be and have the table's own chains ask them first.

    In one transaction of the kernel: no rule is missing for a moment, and nothing is written when
    all is as it should be.
    """
    listed = (_run([command, "-w", "10", "-S"]) or "").splitlines()
    missing = [jump for jump in jumps if f"-A {jump}" not in listed]
    if not missing and all(_listed(chain, listed) == rules for chain, rules in chains.items()):
        return
    lines = ["*filter", *(f":{chain} - [0:0]" for chain in chains)]
    lines += [f"-A {chain} {rule}" for chain, rules in chains.items() for rule in rules]
    lines += [f"-I {jump.replace(' ', ' 1 ', 1)}" for jump in missing]
    # --noflush leaves everything alone that is not named; a chain that is named is filled anew.
    restore = [f"{command}-restore", "-w", "10", "--noflush"]
    if _run(restore, "\n".join([*lines, "COMMIT\n"])) is None:
        raise EngineRefused(
            f"the firewall could not be set ({command}): containers on a bridge need a worker "
            "that runs as root on the engine's host, with iptables"
        )


def _listed(chain: str, listed: list[str]) -> list[str]:
    start = f"-A {chain} "
    return [line.removeprefix(start) for line in listed if line.startswith(start)]


def _run(command: list[str], text: str = "") -> str | None:
    """Run a program; return what it wrote, or None when it is not there or failed."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
