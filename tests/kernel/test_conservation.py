"""Conservation on the real kernel: what was sent is what the daemon says, packet for packet and byte for byte."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable

import pytest
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
from tests.kernel.tcp_ends import TcpSent
from tests.kernel.waiting import PATIENCE_S


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
    """Full speed from two processors across 200 drains: the sum is exactly what arrived."""
    daemon = agent(pair.right.namespace, "-i", "right0", "--direction", "ingress", "--active-timeout", "0.1")
    traffic = Traffic(
        interface=pair.left.name,
        source="10.0.0.1",
        destination="10.0.0.2",
        destination_mac=pair.right.mac,
        mode=Mode.ONE_FLOW,
        duration_s=3600,
    )
    prefix = pair.left.namespace.prefix
    with Generator(evolve(traffic, cpu=0), prefix) as first, Generator(evolve(traffic, cpu=1), prefix) as second:
        # Of one flow each drain prints one line.
        daemon.wait_for_flows(lambda flows: len(flows) >= 200)
        sent = first.stop().packets + second.stop().packets
    result = daemon.stop()
    assert_balanced(result)
    received = pair.right.statistics()
    assert (result.sum("Packets"), result.sum("Bytes")) == (received.rx_packets, received.rx_bytes)
    # The kernel's own queue may drop between the two ends of a veth; that is before our hook, and in its statistics.
    assert sent == received.rx_packets + pair.left.statistics().tx_dropped
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


@pytest.mark.parametrize("is_lossy", [False, True], ids=["whole", "lossy"])
def test_segments_count_as_on_the_wire(pair: Pair, agent: Callable[..., AgentProcess], is_lossy: bool) -> None:
    """A TCP stream over a veth that segments nothing counts as the packets and headers that a wire would carry."""
    if is_lossy:
        pair.right.namespace.run("nft", "add table inet filter")
        pair.right.namespace.run("nft", "add chain inet filter here { type filter hook input priority 0; }")
        pair.right.namespace.run("nft", "add rule inet filter here tcp dport 7 numgen inc mod 20 == 19 drop")
    daemon = agent(pair.left.namespace, "-i", "left0", "--direction", "egress", "--active-timeout", "0.1")
    payload = 20_000_003
    sender = _stream(pair, payload)
    result = daemon.stop()
    assert_balanced(result)
    packets = sum(flow["Packets"] for flow in result.flows if flow["Proto"] == 6)
    size = sum(flow["Bytes"] for flow in result.flows if flow["Proto"] == 6)
    # The veth counted socket buffers: some of them were many segments.
    assert pair.left.statistics().tx_packets < packets
    # The socket's own count, which has what a busy receiver made it send again.
    assert packets == sender.segments
    assert sender.octets == payload + sender.octets_again
    assert sender.octets_again > 0 or not is_lossy
    # Ethernet 14, IPv4 20, TCP 20 and its timestamps 12; a SYN carries 20 of options.
    connects = 1 + pair.left.namespace.counter("TcpExt", "TCPSynRetrans")
    assert size == sender.octets + packets * (14 + 20 + 32) + connects * 8


def _text(address: bytes) -> str:
    parsed = ipaddress.IPv6Address(address)
    return str(parsed.ipv4_mapped or parsed)


def _stream(pair: Pair, payload: int) -> TcpSent:
    """Send so many bytes from left to right by one TCP connection, and close it, the left side first."""
    with pair.right.namespace.enter():
        server = socket.create_server(("10.0.0.2", 7), backlog=1)
    with pair.left.namespace.enter():
        client = socket.create_connection(("10.0.0.2", 7), PATIENCE_S)
    connection, _ = server.accept()
    received = 0

    def receive() -> None:
        nonlocal received
        while data := connection.recv(1 << 20):
            received += len(data)

    reader = threading.Thread(target=receive)
    reader.start()
    with server, client, connection:
        client.sendall(bytes(payload))
        client.shutdown(socket.SHUT_WR)
        reader.join(PATIENCE_S)
        assert received == payload
        connection.close()
        assert client.recv(1) == b""
        # It has acknowledged the other side's end: there is nothing more to say.
        return TcpSent.by(client)
