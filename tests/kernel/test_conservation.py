"""Conservation on the real kernel: what was sent is what the daemon says, packet for packet and byte for byte."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable

from attrs import evolve
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP

from bench.generator import Generator, Mode, Traffic
from tests.kernel.agent_process import AgentProcess, AgentResult
from tests.kernel.dissection import Datagram, Flow, expected
from tests.kernel.hosts import Pair


def assert_balanced(result: AgentResult) -> None:
    """Assert what must be true of every run that lost nothing."""
    ledger = result.ledger
    assert result.exit_code == 0, result.log
    assert ledger is not None
    assert ledger["audits"]["mismatches"] == 0, result.log
    assert all(exporter["balances"] for exporter in ledger["exporters"]), ledger
    assert ledger["lost"] == []
    assert all(exporter["lost"] == [] for exporter in ledger["exporters"])
    exported = ledger["exporters"][0]["exported"]
    assert exported["flows"] == len(result.flows)
    assert exported["packets"] == result.sum("Packets")
    assert exported["bytes"] == result.sum("Bytes")


def test_two_processors_across_hundreds_of_drains(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """Full speed from two processors, drained every 100 ms for 25 s: the sum is exactly what arrived."""
    daemon = agent(pair.right.namespace, "-i", "right0", "--direction", "ingress", "--active-timeout", "0.1")
    traffic = Traffic(
        interface=pair.left.name,
        source="10.0.0.1",
        destination="10.0.0.2",
        destination_mac=pair.right.mac,
        mode=Mode.ONE_FLOW,
        duration_s=21,
    )
    prefix = pair.left.namespace.prefix
    with Generator(evolve(traffic, cpu=0), prefix) as first, Generator(evolve(traffic, cpu=1), prefix) as second:
        sent = first.wait(timeout_s=60).packets + second.wait(timeout_s=60).packets
    result = daemon.stop()
    assert_balanced(result)
    received = pair.right.statistics()
    assert (result.sum("Packets"), result.sum("Bytes")) == (received.rx_packets, received.rx_bytes)
    # The kernel's own queue may drop between the two ends of a veth; that is before our hook, and in its statistics.
    dropped = sent - received.rx_packets
    assert 0 <= dropped < sent // 10
    assert result.ledger is not None
    assert result.ledger["audits"]["drains"] >= 200
    assert {(flow["SrcAddr"], flow["DstAddr"], flow["Proto"]) for flow in result.flows} == {
        ("10.0.0.1", "10.0.0.2", 17)
    }


def _mixed_frames(source_mac: str, destination_mac: str) -> list[bytes]:
    """Frames of every kind that a flow can have, each kind a prime number of times."""
    ethernet = Ether(src=source_mac, dst=destination_mac)
    ipv4, ipv6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
    options = IP(src="10.0.0.1", dst="10.0.0.2", options=[IPOption_Router_Alert(), IPOption_NOP()])
    extended = ipv6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
    datagrams = {
        7: fragment(ipv4 / UDP(sport=53, dport=1111) / (b"f" * 3_000), fragsize=1_000),
        11: fragment6(ipv6 / IPv6ExtHdrFragment(id=9) / UDP(sport=53, dport=2222) / (b"f" * 3_000), 1_000),
    }
    kinds = {
        13: ipv4 / TCP(sport=1, dport=2, flags="S"),
        17: ipv4 / TCP(sport=1, dport=2, flags="PA") / b"data",
        19: ipv6 / TCP(sport=3, dport=4, flags="FA"),
        23: ipv4 / UDP(sport=5, dport=6) / (b"u" * 101),
        29: ipv6 / UDP(sport=7, dport=8) / (b"u" * 103),
        31: ipv4 / ICMP() / b"ping",
        37: ipv6 / ICMPv6EchoRequest(data=b"ping"),
        41: ipv4 / SCTP(sport=9, dport=10),
        43: options / UDP(sport=11, dport=12),
        47: extended / TCP(sport=13, dport=14),
        53: ipv4 / GRE(),
    }
    frames = [bytes(ethernet / kind) for count, kind in kinds.items() for _ in range(count)]
    frames += [bytes(ethernet / Dot1Q(vlan=5) / kinds[23]) for _ in range(59)]
    frames += [bytes(ethernet / Dot1AD(vlan=5) / Dot1Q(vlan=6) / kinds[29]) for _ in range(61)]
    frames += [bytes(ethernet / part) for count, parts in datagrams.items() for _ in range(count) for part in parts]
    frames += [bytes(ethernet / ARP(psrc="10.0.0.1", pdst="10.0.0.2")) for _ in range(67)]
    return frames


def test_every_kind_of_packet(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """Flow by flow, packets and bytes are what an independent dissection of the same frames adds up to."""
    frames = _mixed_frames(pair.left.mac, pair.right.mac)
    expected_flows: dict[tuple[str, str, int, int, int], list[int]] = {}
    first_fragments: dict[Datagram, Flow] = {}
    for frame in frames:
        end = expected(frame, first_fragments=first_fragments)
        if isinstance(end, Flow):
            key = (_text(end.source), _text(end.destination), end.protocol, end.source_port, end.destination_port)
            sums = expected_flows.setdefault(key, [0, 0])
            sums[0] += 1
            sums[1] += len(frame)
    daemon = agent(pair.right.namespace, "-i", "right0", "--direction", "ingress", "--active-timeout", "0.1")
    pair.left.send(frames)
    result = daemon.stop()
    assert_balanced(result)
    found: dict[tuple[str, str, int, int, int], list[int]] = {}
    for flow in result.flows:
        ports = flow.get("SrcPort", 0), flow.get("DstPort", 0)
        sums = found.setdefault((flow["SrcAddr"], flow["DstAddr"], flow["Proto"], *ports), [0, 0])
        sums[0] += flow["Packets"]
        sums[1] += flow["Bytes"]
    assert found == expected_flows
    assert result.ledger is not None
    assert result.ledger["ignored"] == [{"reason": "not IP: ARP (0x0806)", "packets": 67, "bytes": 67 * 42}]
    assert result.ledger["seen"] == {"packets": len(frames), "bytes": sum(map(len, frames))}


def test_segments_count_as_on_the_wire(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """A TCP stream over a veth that segments nothing counts as the packets and headers that a wire would carry."""
    daemon = agent(pair.left.namespace, "-i", "left0", "--direction", "egress", "--active-timeout", "0.1")
    payload = 20_000_003
    _stream(pair, payload)
    result = daemon.stop()
    assert_balanced(result)
    packets = sum(flow["Packets"] for flow in result.flows if flow["Proto"] == 6)
    size = sum(flow["Bytes"] for flow in result.flows if flow["Proto"] == 6)
    statistics = pair.left.statistics()
    # The veth counted socket buffers: some of them were many segments.
    assert statistics.tx_packets < packets
    # Ethernet 14, IPv4 20, TCP 20 and its timestamps 12; SYN carries 20 of options.
    assert size == payload + packets * (14 + 20 + 32) + 8
    # The maximum segment is 1,500 less 20 and 32.
    assert payload // 1_448 <= packets <= payload // 1_448 * 1.2


def _text(address: bytes) -> str:
    parsed = ipaddress.IPv6Address(address)
    return str(parsed.ipv4_mapped or parsed)


def _stream(pair: Pair, payload: int) -> None:
    """Send so many bytes from left to right by one TCP connection, and close it from the left."""
    with pair.right.namespace.enter():
        server = socket.create_server(("10.0.0.2", 7), backlog=1)
    with pair.left.namespace.enter():
        client = socket.create_connection(("10.0.0.2", 7))
    connection, _ = server.accept()
    received = 0

    def receive() -> None:
        nonlocal received
        while data := connection.recv(1 << 20):
            received += len(data)

    reader = threading.Thread(target=receive)
    reader.start()
    client.sendall(bytes(payload))
    client.shutdown(socket.SHUT_WR)
    reader.join(timeout=30)
    for end in (connection, client, server):
        end.close()
    assert received == payload
