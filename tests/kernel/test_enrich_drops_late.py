"""Drops that are told later than they happen, or of more than one packet at once: merged, of segments, after the flow."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable

import pytest
from attrs import evolve

from bench.generator import Traffic, generate
from tests.kernel.agent_process import AgentProcess
from tests.kernel.hosts import Pair
from tests.kernel.tcp_ends import PORT, connection
from tests.kernel.told import assert_accounted, chosen, events_of, total
from tests.kernel.waiting import look_until

NETFILTER = "SKB_DROP_REASON_NETFILTER_DROP"
BURSTS, PACKETS = 29, 101
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def test_bursts_at_any_moment_of_an_epoch(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """What merged in a slot is told with its epoch, also where nothing more comes: in the grace of a drain, or after it."""
    daemon = agent(pair.right.namespace, "-i", "right0", "--direction", "ingress", "--active-timeout", "0.2")
    moments = random.Random(BURSTS)
    for burst in range(BURSTS):
        # A flow of its own each; to a MAC that nobody has.
        traffic = Traffic("left0", "10.0.0.1", "10.0.0.2", flow_offset=burst, flows=1, packets_per_flow=PACKETS)
        generate(traffic, pair.left.namespace.prefix)
        time.sleep(moments.uniform(0.02, 0.15))
    received = pair.right.statistics().rx_packets
    result = daemon.stop()
    ledger = assert_accounted(result)
    assert received == BURSTS * PACKETS
    by_flow = {
        port: (
            total(flows, "Packets"),
            total(flows, "PktDropPackets"),
            total(flows, "Bytes") - total(flows, "PktDropBytes"),
        )
        for port in {flow["SrcPort"] for flow in result.flows}
        if (flows := chosen(result.flows, SrcPort=port))
    }
    assert by_flow == {1024 + burst: (PACKETS, PACKETS, 0) for burst in range(BURSTS)}
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


def test_thrown_away_after_the_flow(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """What a socket that closes throws away is told of its flow though that has left: as its continuation, once."""
    with pair.right.namespace.enter():
        reader = socket.socket(type=socket.SOCK_DGRAM)
    with reader:
        reader.bind(("10.0.0.2", 9_000))
        daemon = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "0.2")
        traffic = Traffic("left0", "10.0.0.1", "10.0.0.2", destination_mac=pair.right.mac, destination_port=9_000)
        sent = generate(evolve(traffic, flows=7, packets_per_flow=11), pair.left.namespace.prefix)
        assert look_until(lambda: pair.right.statistics().rx_packets, lambda now: now == sent.packets) == sent.packets
        daemon.wait_for_flows(lambda flows: total(flows, "Packets") == sent.packets)
        reader.close()
    daemon.wait_for_flows(lambda flows: any("RecordKind" in flow for flow in flows))
    result = daemon.stop()
    assert_accounted(result)
    later = chosen(result.flows, RecordKind="continuation")
    assert total(later, "PktDropPackets") == sent.packets
