"""Devices that stand on others: a tunnel makes a packet of its own, a view of a device shows the same packet again.

They are modules of Debian's kernels. Where they are missing these tests are deselected; in the virtual machines
(`make kernels`) they must be there.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pyroute2 import WireGuard
from scapy.layers.inet import IP, UDP

from tests.kernel.agent_process import AgentProcess
from tests.kernel.hosts import Interface, Namespace, Pair
from tests.kernel.told import assert_accounted, chosen

pytestmark = pytest.mark.devices

DATAGRAMS = 101
PAYLOAD = b"p" * 211
INNER = {"left": "10.9.0.1", "right": "10.9.0.2"}
WIREGUARD_PORT = 51820

# `ip link add over0 …` with the addresses of this end and of the other, and how the outer packet is found.
TUNNELS: dict[str, tuple[str, dict[str, int]]] = {
    "geneve": ("type geneve id 7 remote {other}", {"Proto": 17, "DstPort": 6081}),
    "gre": ("type gre local {own} remote {other} ttl 64", {"Proto": 47}),
    "ipip": ("type ipip local {own} remote {other} ttl 64", {"Proto": 4}),
}
VIEWS = {
    "vlan": "link {lower} type vlan id 12",
    "macvlan": "link {lower} type macvlan mode bridge",
    "bond": "type bond mode active-backup miimon 100",
}


def make(lower: Interface, description: str, own: str, other: str) -> str:
    """Make `over0` on the interface that it stands on, and start it."""
    words = description.format(lower=lower.name, own=own, other=other).split()
    at = words.index("type")
    lower.namespace.run("ip", "link", "add", *words[:at], "name", "over0", *words[at:])
    if "bond" in words:
        lower.namespace.run("ip", "link", "set", lower.name, "down")
        lower.namespace.run("ip", "link", "set", lower.name, "master", "over0")
    start(lower.namespace)
    return "over0"


def start(namespace: Namespace) -> None:
    namespace.run("ip", "link", "set", "over0", "multicast", "off", "up")


def join(pair: Pair) -> tuple[Interface, Interface]:
    """Give both ends of `over0` their addresses; those with a link layer know each other without asking."""
    left, right = (end.namespace.interface("over0") for end in (pair.left, pair.right))
    for end, own, other, peer in ((left, "left", "right", right), (right, "right", "left", left)):
        end.address(f"{INNER[own]}/24")
        if peer.mac.count(":") == 5:
            end.neighbour(INNER[other], peer.mac)
    return left, right


def send(left: Namespace) -> None:
    """Send the datagrams through the tunnel or view, as an application does."""
    with left.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((INNER["left"], 4_000))
        for _ in range(DATAGRAMS):
            sender.sendto(PAYLOAD, (INNER["right"], 9_999))


def captured(pair: Pair, agent: Callable[..., AgentProcess]) -> tuple[list[dict[str, object]], int]:
    """Send, and return the right host's flows with the packets that its ledger calls duplicate."""
    daemon = agent(pair.right.namespace, "-i", pair.right.name, "-i", "over0", "--active-timeout", "60")
    send(pair.left.namespace)
    result = daemon.stop()
    assert_accounted(result)
    assert result.ledger is not None
    return result.flows, result.ledger["duplicate"]["packets"]


def assert_inner(flows: Sequence[dict[str, object]], interfaces: list[str], link_bytes: int) -> None:
    """Assert that the application's flow is there, once, and complete."""
    (flow,) = chosen(flows, DstAddr=INNER["right"], DstPort=9_999)
    assert flow["Packets"] == DATAGRAMS
    assert flow["Bytes"] == DATAGRAMS * (link_bytes + len(IP() / UDP() / PAYLOAD))
    assert flow["Interfaces"] == interfaces


@pytest.mark.parametrize("kind", TUNNELS)
def test_tunnel(pair: Pair, agent: Callable[..., AgentProcess], kind: str) -> None:
    """The packet outside and the packet inside are two, and each counts once, at the cable and at the tunnel."""
    description, outer = TUNNELS[kind]
    make(pair.left, description, "10.0.0.1", "10.0.0.2")
    make(pair.right, description, "10.0.0.2", "10.0.0.1")
    join(pair)
    flows, duplicates = captured(pair, agent)
    assert_inner(flows, ["over0"], 14 if kind == "geneve" else 0)
    (outside,) = chosen(flows, DstAddr="10.0.0.2", **outer)
    assert (outside["Packets"], outside["Interfaces"]) == (DATAGRAMS, ["right0"])
    assert duplicates == 0


def test_wireguard(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """What WireGuard encrypts is a flow at its device; what it sends is another at the cable, handshakes included."""
    keys = [X25519PrivateKey.generate() for _ in range(2)]
    ends = ((pair.left, keys[0], keys[1], "10.0.0.2"), (pair.right, keys[1], keys[0], "10.0.0.1"))
    for end, own, other, address in ends:
        end.namespace.run("ip", "link", "add", "over0", "type", "wireguard")
        with end.namespace.enter(), WireGuard() as wireguard:
            wireguard.set(
                "over0",
                private_key=base64.b64encode(own.private_bytes_raw()).decode(),
                listen_port=WIREGUARD_PORT,
                peer={
                    "public_key": base64.b64encode(other.public_key().public_bytes_raw()).decode(),
                    "endpoint_addr": address,
                    "endpoint_port": WIREGUARD_PORT,
                    "allowed_ips": ["10.9.0.0/24"],
                },
            )
        start(end.namespace)
    join(pair)
    flows, duplicates = captured(pair, agent)
    assert_inner(flows, ["over0"], 0)
    (outside,) = chosen(flows, DstAddr="10.0.0.2", Proto=17, DstPort=WIREGUARD_PORT)
    assert outside["Packets"] > DATAGRAMS
    assert outside["Interfaces"] == ["right0"]
    assert duplicates == 0


@pytest.mark.parametrize("kind", VIEWS)
def test_view(pair: Pair, agent: Callable[..., AgentProcess], kind: str) -> None:
    """The packet at the cable and at the device above it is one: it counts at the cable, and its flow names both."""
    for end in (pair.left, pair.right):
        make(end, VIEWS[kind], "", "")
    join(pair)
    flows, duplicates = captured(pair, agent)
    assert_inner(flows, ["right0", "over0"], 18 if kind == "vlan" else 14)
    assert duplicates >= DATAGRAMS
