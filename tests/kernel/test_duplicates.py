"""One packet, one count: a packet that passes several hooks counts at its flow's home, and is a duplicate elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from attrs import evolve

from bench.generator import Generator, Mode, Traffic
from tests.kernel.agent_process import AgentProcess
from tests.kernel.hosts import Interface, Namespace, connect
from tests.kernel.test_conservation import assert_balanced
from tests.kernel.told import chosen

HOME_S = 1.0  # HOME_SILENCE in bpf/netwatch.h
FORWARD = {"SrcAddr": "10.0.0.1", "DstAddr": "10.0.1.2"}


class Path:
    """sender ── in0 (port of br0) ─ router ─ br1 (port out0) ── receiver: four hooks for each packet."""

    def __init__(self, sender: Namespace, router: Namespace, receiver: Namespace) -> None:
        self.router = router
        self.sender, port_in = sender.veth("sender0", router, "in0")
        port_out, self.receiver = router.veth("out0", receiver, "receiver0")
        self.near, far = router.bridge("br0", port_in), router.bridge("br1", port_out)
        connect(self.sender, ["10.0.0.1/24"], self.near, ["10.0.0.254/24"])
        connect(self.receiver, ["10.0.1.2/24"], far, ["10.0.1.254/24"])
        router.forward()
        self.traffic = Traffic(
            interface="sender0",
            source="10.0.0.1",
            destination="10.0.1.2",
            destination_mac=self.near.mac,
            mode=Mode.ONE_FLOW,
        )


@pytest.fixture
def path(namespaces: Callable[[], Namespace]) -> Path:
    """Make the path of four hooks."""
    return Path(namespaces(), namespaces(), namespaces())


def test_four_hooks_at_full_speed_across_hundreds_of_drains(path: Path, agent: Callable[..., AgentProcess]) -> None:
    """Each packet counts exactly once, though its four hooks may fall into two epochs; its row lists all of them."""
    daemon = agent(path.router, "--active-timeout", "0.1")
    with Generator(evolve(path.traffic, duration_s=3600), path.sender.namespace.prefix) as generator:
        # Each drain prints a line of it.
        daemon.wait_for_flows(lambda flows: len(chosen(flows, **FORWARD)) >= 200)
        generator.stop()
    result = daemon.stop()
    assert_balanced(result)
    arrived = path.router.interface("in0").statistics().rx_packets
    forward = chosen(result.flows, **FORWARD)
    assert sum(flow["Packets"] for flow in forward) == arrived
    whole = [flow for flow in forward if len(flow["Interfaces"]) == 4]
    # A packet may be between two hooks when an epoch ends: one on each processor. Others went the whole way in it.
    partial = [flow for flow in forward if len(flow["Interfaces"]) < 4]
    assert all(flow["Packets"] <= len(os.sched_getaffinity(0)) for flow in partial), partial
    # The home comes first; the others come in the order in which the epoch met them.
    assert {flow["Interfaces"][0] for flow in whole} == {"in0"}
    hooks = {frozenset(zip(flow["Interfaces"], flow["IfDirections"], strict=True)) for flow in whole}
    assert hooks == {frozenset({("in0", 0), ("br0", 0), ("br1", 1), ("out0", 1)})}


def test_encapsulated_flow(namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess]) -> None:
    """Over bridge and VXLAN, a packet counts once as itself and once as the datagram that carries it."""
    near, far = namespaces(), namespaces()
    left, right = near.veth("left0", far, "right0")
    connect(left, ["192.168.7.1/24"], right, ["192.168.7.2/24"])
    tunnels = [
        near.vxlan("vx0", 7, "192.168.7.1", "192.168.7.2"),
        far.vxlan("vx0", 7, "192.168.7.2", "192.168.7.1"),
    ]
    bridge, other = near.bridge("br0", tunnels[0]), far.bridge("br0", tunnels[1])
    connect(bridge, ["10.9.0.1/24"], other, ["10.9.0.2/24"])
    daemon = agent(near, "--active-timeout", "0.1")
    near.run("ping", "-q", "-c", "103", "-i", "0.002", "-s", "200", "10.9.0.2")
    result = daemon.stop()
    assert_balanced(result)
    inner = [flow for flow in result.flows if flow["SrcAddr"] == "10.9.0.1"]
    outer = [flow for flow in result.flows if flow["SrcAddr"] == "192.168.7.1"]
    answers = [flow for flow in result.flows if flow["SrcAddr"] == "10.9.0.2"]
    assert sum(flow["Packets"] for flow in inner) == 103
    assert sum(flow["Packets"] for flow in outer) == 103
    assert sum(flow["Packets"] for flow in answers) == 103
    # Ethernet 14, IPv4 20, ICMP 8 and 200 of payload; the tunnel adds Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
    assert sum(flow["Bytes"] for flow in inner) == 103 * 242
    assert sum(flow["Bytes"] for flow in outer) == 103 * 292
    assert {tuple(flow["Interfaces"]) for flow in inner} == {("br0", "vx0")}
    assert {tuple(flow["Interfaces"]) for flow in answers} == {("vx0", "br0")}
    assert {tuple(flow["Interfaces"]) for flow in outer} == {("left0",)}
    assert {flow["DstPort"] for flow in outer} == {4789}


def test_flow_that_moves(namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess]) -> None:
    """A flow whose route moves is counted at its new interface after a second at most; until then as duplicate."""
    sender, router, receiver = namespaces(), namespaces(), namespaces()
    sender0, in0 = sender.veth("sender0", router, "in0")
    connect(sender0, ["10.0.0.1/24"], in0, ["10.0.0.254/24"])
    for number in (1, 2):
        out, end = router.veth(f"out{number}", receiver, f"end{number}")
        connect(out, [f"10.1.{number}.1/24"], end, [f"10.1.{number}.2/24"])
    router.forward()
    router.route("10.0.1.2/32", "10.1.1.2")
    # 500 packets a second, until the route has moved for twice the time that a home lasts.
    frame = _udp_frame(sender0, in0)
    daemon = agent(router, "-i", "/out./", "--active-timeout", "0.1")
    before_s, after_s = [], []  # of each packet, by the clock that the programs read: it passed the hook in between

    def send_until(is_over: Callable[[], bool]) -> None:
        while not is_over():
            before_s.append(time.monotonic())
            sender0.send([frame])
            after_s.append(time.monotonic())
            time.sleep(0.002)

    send_until(lambda: len(after_s) == 1_009)
    moved_at = len(after_s)
    router.route("10.0.1.2/32", "10.1.2.2")
    send_until(lambda: after_s[-1] >= after_s[moved_at - 1] + 2 * HOME_S)
    sent = len(after_s)
    result = daemon.stop()
    assert_balanced(result)
    assert result.ledger is not None
    by_interface = {
        name: sum(flow["Packets"] for flow in result.flows if flow["Interfaces"][0] == name and flow["Proto"] == 17)
        for name in ("out1", "out2")
    }
    uncounted = sent - moved_at - by_interface["out2"]
    assert by_interface["out1"] == moved_at
    # Those of the second after the last packet at the old home.
    surely = sum(passed_s < before_s[moved_at - 1] + HOME_S for passed_s in after_s[moved_at:])
    maybe = sum(began_s < after_s[moved_at - 1] + HOME_S for began_s in before_s[moved_at:])
    assert surely <= uncounted <= maybe
    assert result.ledger["duplicate"]["packets"] == uncounted


def _udp_frame(source: Interface, gateway: Interface) -> bytes:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    datagram = IP(src="10.0.0.1", dst="10.0.1.2") / UDP(sport=5, dport=9) / (b"x" * 50)
    return bytes(Ether(src=source.mac, dst=gateway.mac) / datagram)
