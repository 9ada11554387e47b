"""Drops that are told late, or of more than one packet at once: merged ones, of segments, of flows that have left."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import struct
import time
from collections.abc import Callable

import pytest

from bench.generator import Traffic, generate
from tests.kernel.agent_process import AgentProcess
from tests.kernel.hosts import Interface, Namespace, Pair
from tests.kernel.tcp_ends import PORT, connection
from tests.kernel.told import assert_accounted, chosen, events_of, total

NETFILTER = "SKB_DROP_REASON_NETFILTER_DROP"
BURSTS, PACKETS = 17, 101
REMEMBERED = (
    *("SrcAddr", "SrcPort", "DstPort", "Proto", "Etype", "SrcMac", "DstMac", "Interfaces", "IfDirections"),
    *("SrcProcessId", "SrcProcessName"),
)
TUNSETIFF, TUNSETPERSIST = 0x4004_54CA, 0x4004_54CB
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def test_bursts_at_any_moment_of_an_epoch(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """What was merged is told with its epoch, also where nothing comes after it: in the grace of a drain or later."""
    daemon = agent(pair.right.namespace, "-i", "right0", "--direction", "ingress", "--active-timeout", "0.2")
    moments = random.Random(BURSTS)
    for burst in range(BURSTS):
        # A flow of its own each; to a MAC that nobody has.
        traffic = Traffic("left0", "10.0.0.1", "10.0.0.2", flow_offset=burst, flows=1, packets_per_flow=PACKETS)
        generate(traffic, pair.left.namespace.prefix)
        time.sleep(moments.uniform(0.1, 0.4))
    received = pair.right.statistics().rx_packets
    result = daemon.stop()
    ledger = assert_accounted(result)
    assert received == BURSTS * PACKETS
    flows = [chosen(result.flows, SrcPort=1024 + burst) for burst in range(BURSTS)]
    for field in ("Packets", "PktDropPackets"):
        assert [total(of_burst, field) for of_burst in flows] == [PACKETS] * BURSTS, field
    assert total(result.flows, "PktDropBytes") == total(result.flows, "Bytes")
    assert events_of(ledger, "drop")["thinned"] > 0


@pytest.mark.parametrize("server", ["10.0.0.2", "fd00::2"])
def test_merged_segments(pair: Pair, agent: Callable[..., AgentProcess], server: str) -> None:
    """A dropped buffer of several segments is as many packets and octets as its flow counts it for."""
    receiver = pair.right.namespace
    with connection(pair.left.namespace, receiver, server) as (client, _):
        for command in (
            "add table inet filter",
            "add counter inet filter dropped",
            "add chain inet filter here { type filter hook input priority 0; }",
            f'add rule inet filter here tcp dport {PORT} counter name "dropped" drop',
        ):
            receiver.run("nft", command)
        daemon = agent(receiver, "-i", "right0", "--active-timeout", "0.2")
        client.sendall(bytes(20_000))
        daemon.wait_for_flows(lambda flows: total(chosen(flows, DstPort=PORT), "PktDropPackets") > 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        client.close()
        result = daemon.stop()
    assert_accounted(result)
    flows = chosen(result.flows, DstPort=PORT)
    assert total(flows, "PktDropPackets") == total(flows, "Packets")
    assert total(flows, "PktDropBytes") == total(flows, "Bytes")
    assert {name for flow in flows for name in flow.get("PktDropCauses", {})} == {NETFILTER}
    buffers = int(receiver.run("nft", "list", "counter", "inet", "filter", "dropped").split("packets ")[1].split()[0])
    assert buffers < total(flows, "Packets")


def test_dropped_after_the_flow_has_left(
    namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess]
) -> None:
    """What waits in a device's queue and is dropped there epochs later continues its flow, with all that was known."""
    namespace = namespaces()
    reader, tap = tap_that_stays(namespace)
    try:
        tap.address("10.0.0.1/24", "fd00::1/64")
        for address in ("10.0.0.2", "fd00::2"):
            tap.neighbour(address, "02:00:00:00:00:99")
        daemon = agent(namespace, "-i", "tap0", "--active-timeout", "0.2")
        for family, address in ((socket.AF_INET, "10.0.0.2"), (socket.AF_INET6, "fd00::2")):
            with namespace.enter():
                sender = socket.socket(family, socket.SOCK_DGRAM)
            with sender:
                for _ in range(PACKETS):
                    sender.sendto(b"waits", (address, 9))
        daemon.wait_for_flows(lambda flows: total(flows, "Packets") == 2 * PACKETS)
    finally:
        os.close(reader)
    daemon.wait_for_flows(lambda flows: len(chosen(flows, RecordKind="continuation")) >= 2)
    result = daemon.stop()
    ledger = assert_accounted(result)
    assert {flow.get("RecordKind") for flow in result.flows} == {None, "continuation"}
    for address in ("10.0.0.2", "fd00::2"):
        # One of each, unless an epoch ended in between.
        of_flow = chosen(result.flows, DstAddr=address)
        whole = [flow for flow in of_flow if "RecordKind" not in flow]
        later = chosen(of_flow, RecordKind="continuation")
        assert (total(later, "PktDropPackets"), total(later, "PktDropBytes")) == (PACKETS, total(whole, "Bytes"))
        for flow in later:
            assert "Packets" not in flow
            assert {name: flow[name] for name in REMEMBERED} == {name: whole[-1][name] for name in REMEMBERED}
            assert flow["TimeFlowStartMs"] >= whole[-1]["TimeFlowEndMs"]
    told = events_of(ledger, "drop")
    assert told["continued"] == told["taken"]


def tap_that_stays(namespace: Namespace) -> tuple[int, Interface]:
    """Make a TAP device that outlives its reader; return the descriptor, whose queue has what was not read."""
    with namespace.enter():
        reader = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(reader, TUNSETIFF, struct.pack("16sH22x", b"tap0", IFF_TAP | IFF_NO_PI))
        fcntl.ioctl(reader, TUNSETPERSIST, 1)
    namespace.run("ip", "link", "set", "tap0", "multicast", "off", "arp", "off", "up")
    return reader, namespace.interface("tap0")
