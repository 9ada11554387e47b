"""A full flow map, with enrichment: what has no room goes through the ring, and is lost only where that is full too."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from bench.generator import Generator, Mode, Sent, Traffic, generate
from tests.kernel.agent_process import AgentProcess, AgentResult
from tests.kernel.hosts import Gateway, Namespace, Pair
from tests.kernel.told import assert_accounted, chosen, events_of, total
from tests.kernel.waiting import look_until

MAX_FLOWS = 64
FLOWS = 1009
LIMITS = ("--max-flows", str(MAX_FLOWS))
INGRESS = ("-i", "right0", "--direction", "ingress")
UDP = 17


@pytest.fixture
def traffic(pair: Pair) -> Traffic:
    """Flows from the left host to the right one, which come in at `right0`."""
    return Traffic(pair.left.name, "10.0.0.1", "10.0.0.2", flows=FLOWS)


def send(pair: Pair, traffic: Traffic) -> Sent:
    """Send, and see that all has come in."""
    before = pair.right.statistics().rx_packets
    sent = generate(traffic, pair.left.namespace.prefix)
    assert pair.right.statistics().rx_packets - before == sent.packets
    return sent


def packets_of(result: AgentResult) -> dict[int, list[int]]:
    """Return the packets of each record, by source port."""
    packets: dict[int, list[int]] = {}
    for flow in result.flows:
        packets.setdefault(flow["SrcPort"], []).append(flow["Packets"])
    return packets


def test_more_flows_than_the_map_holds(pair: Pair, traffic: Traffic, agent: Callable[..., AgentProcess]) -> None:
    """Each flow has one record, with all its packets and bytes, whether it found room or not."""
    daemon = agent(pair.right.namespace, *INGRESS, *LIMITS, "--active-timeout", "1h", "--enrich", "overflow")
    # The second run goes to rows that are there, and to flows that have been in the ring.
    sent = [send(pair, evolve(traffic, packets_per_flow=packets)) for packets in (3, 2)]
    result = daemon.stop()
    ledger = assert_accounted(result)
    assert ledger["lost"] == []
    assert packets_of(result) == {1024 + number: [5] for number in range(FLOWS)}
    assert {flow["Bytes"] for flow in result.flows} == {5 * sent[0].bytes // sent[0].packets}
    assert {(*flow["Interfaces"], *flow["IfDirections"]) for flow in result.flows} == {("right0", 0)}
    assert {flow["DstMac"] for flow in result.flows} == {"02:6e:77:00:00:00"}
    assert not any("RecordKind" in flow for flow in result.flows)
    # The ledger's word for one of these is an event: merging them is not losing any.
    told = events_of(ledger, "flow")
    assert told["joined"] == told["made"] == (FLOWS - MAX_FLOWS) * 5


def test_across_epochs(pair: Pair, traffic: Traffic, agent: Callable[..., AgentProcess]) -> None:
    """While flows come and go from drain to drain, every packet is in one record, and facts are with their flows.

    Two events a packet: the ring's 65,536 slots are enough for all of them, however late the daemon comes.
    """
    daemon = agent(pair.right.namespace, *INGRESS, *LIMITS, "--active-timeout", "0.05")
    paced = evolve(traffic, flows=20_011, flows_per_second=10_000)
    sent = send(pair, paced)
    result = daemon.stop()
    ledger = assert_accounted(result)
    assert ledger["lost"] == []
    assert packets_of(result) == {1024 + number: [1] for number in range(20_011)}
    # Their destination is nobody's: each is dropped as for another host, and its record says so.
    assert total(result.flows, "PktDropPackets") == sent.packets
    assert all(flow.get("PktDropPackets") == 1 for flow in result.flows)
    assert events_of(ledger, "flow")["made"] > 0


def test_several_hooks(namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess]) -> None:
    """A packet that finds the map full at both of its hooks counts at the first one, once; the other one is listed."""
    router = namespaces()
    hosts = Gateway.between(namespaces(), router, namespaces())
    client, inside, server = hosts.client, hosts.inside, hosts.server
    daemon = agent(router, "-i", "/.*side0/", *LIMITS, "--active-timeout", "1h", "--enrich", "overflow")
    traffic = Traffic(client.name, "10.1.0.1", "10.2.0.3", destination_mac=inside.mac, flows=FLOWS, packets_per_flow=3)
    sent = generate(evolve(traffic, flows_per_second=20_000), client.namespace.prefix)
    assert look_until(lambda: server.statistics().rx_packets, lambda now: now == sent.packets) == sent.packets
    result = daemon.stop()
    ledger = assert_accounted(result)
    flows = chosen(result.flows, Proto=UDP, DstPort=9)
    assert {flow["SrcPort"]: flow["Packets"] for flow in flows} == {1024 + number: 3 for number in range(FLOWS)}
    assert len(flows) == FLOWS
    assert {tuple(flow["Interfaces"]) for flow in flows} == {("inside0", "outside0")}
    assert ledger["duplicate"]["packets"] >= sent.packets


def test_full_ring(pair: Pair, traffic: Traffic, tmp_path: Path, agent: Callable[..., AgentProcess]) -> None:
    """Two processors at full speed fill map and ring: what is lost is counted, and nothing else is lost."""
    settings = tmp_path / "netwatch.toml"
    settings.write_text("ring_bytes = 65536\nmax_flows = 509\nactive_timeout_s = 0.1\n")
    daemon = agent(pair.right.namespace, *INGRESS, "-c", str(settings), "--enrich", "overflow")
    prefix = pair.left.namespace.prefix
    many = evolve(traffic, mode=Mode.FLOWS, flows=100_003)
    # Stopped meanwhile, the daemon is late on any machine.
    daemon.send_signal(signal.SIGSTOP)
    with Generator(evolve(many, cpu=0), prefix) as first, Generator(evolve(many, cpu=1), prefix) as second:
        first.wait()
        daemon.send_signal(signal.SIGCONT)
        second.wait()
    result = daemon.stop()
    ledger = assert_accounted(result)
    received = pair.right.statistics()
    (lost,) = ledger["lost"]
    assert (lost["stage"], lost["reason"]) == ("kernel", "flow map full")
    assert lost["packets"] == events_of(ledger, "flow")["lost"] > 0
    assert total(result.flows, "Packets") + lost["packets"] == received.rx_packets
    assert total(result.flows, "Bytes") + lost["bytes"] == received.rx_bytes
