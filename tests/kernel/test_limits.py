"""The flow map at its limit: what has no room is lost and counted, packet for packet; what has a row goes on.

Without enrichment: with it, what has no room goes through the ring (`test_enrich_overflow.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve

from bench.generator import Generator, Mode, Traffic, generate
from tests.kernel.agent_process import AgentProcess, AgentResult
from tests.kernel.hosts import Pair
from tests.kernel.scrape import FLAGS, scrape_until

MAX_FLOWS = 64
WITHOUT_RING = ("--enrich", "none")
MAP_FULL = ("kernel", "flow map full")


@pytest.fixture
def traffic(pair: Pair) -> Traffic:
    """Flows from the left host to the right one, which come in at `right0`."""
    return Traffic(interface=pair.left.name, source="10.0.0.1", destination="10.0.0.2")


def assert_all_in_flows_or_map_full(result: AgentResult, packets: int, bytes_: int) -> tuple[int, int]:
    """Assert that all that was sent was exported or did not fit into the map; return what did not."""
    ledger = result.ledger
    assert result.exit_code == 0, result.log
    assert ledger is not None
    assert ledger["seen"] == {"packets": packets, "bytes": bytes_}
    assert ledger["audits"]["mismatches"] == 0, result.log
    (lost,) = ledger["lost"]
    assert (lost["stage"], lost["reason"]) == MAP_FULL
    (exporter,) = ledger["exporters"]
    assert (exporter["balances"], exporter["lost"]) == (True, [])
    assert exporter["exported"]["packets"] + lost["packets"] == packets
    assert exporter["exported"]["bytes"] + lost["bytes"] == bytes_
    assert (result.sum("Packets"), result.sum("Bytes")) == (packets - lost["packets"], bytes_ - lost["bytes"])
    return lost["packets"], lost["bytes"]


def test_more_flows_than_the_map_holds(pair: Pair, traffic: Traffic, agent: Callable[..., AgentProcess]) -> None:
    """As many flows as it holds are exported, those that were known go on, each packet of the others is lost."""
    limits = ("--active-timeout", "1h", "--max-flows", str(MAX_FLOWS), *WITHOUT_RING)
    daemon = agent(pair.right.namespace, "-i", "right0", "--direction", "ingress", *limits)
    prefix = pair.left.namespace.prefix
    known = generate(evolve(traffic, flows=17, packets_per_flow=3), prefix)
    # The first 17 of these are the known ones: they find their row in the full map too.
    twice = [generate(evolve(traffic, flows=1009, packets_per_flow=1), prefix) for _ in range(2)]
    sent = (known, *twice)
    result = daemon.stop()
    lost_packets, lost_bytes = assert_all_in_flows_or_map_full(
        result, sum(one.packets for one in sent), sum(one.bytes for one in sent)
    )
    assert lost_packets == 2 * (1009 - MAX_FLOWS)
    assert lost_bytes == lost_packets * (known.bytes // known.packets)
    packets_of = {(flow["SrcAddr"], flow["SrcPort"]): flow["Packets"] for flow in result.flows}
    assert packets_of == {("10.0.0.1", 1024 + n): 5 if n < 17 else 2 for n in range(MAX_FLOWS)}


def test_fill_and_recovery(pair: Pair, traffic: Traffic, agent: Callable[..., AgentProcess]) -> None:
    """The metrics tell that the map is full and what that costs; the next epoch has room again, and loses nothing."""
    limits = ("--active-timeout", "0.2", "--max-flows", str(MAX_FLOWS), *WITHOUT_RING, *FLAGS)
    namespace, prefix = pair.right.namespace, pair.left.namespace.prefix
    daemon = agent(namespace, "-i", "right0", "--direction", "ingress", *limits)
    flood = evolve(traffic, flows_per_second=10_000, duration_s=3600)
    with Generator(flood, prefix) as generator:
        lost = {"stage": MAP_FULL[0], "reason": MAP_FULL[1]}
        full = scrape_until(namespace, lambda now: now.sum("lost_packets_total", **lost) > MAX_FLOWS)
        assert full.sum("flow_map_limit_flows") == full.sum("flow_map_peak_flows") == MAX_FLOWS
        assert full.sum("lost_bytes_total", **lost) > MAX_FLOWS * 142
        sent = generator.stop()
    empty = scrape_until(namespace, lambda now: now.sum("flow_map_flows") == 0)
    assert empty.sum("seen_packets_total") == sent.packets
    few = evolve(traffic, flow_offset=50_000, flows=MAX_FLOWS - 1, packets_per_flow=7)
    after = generate(few, prefix)
    last = scrape_until(namespace, lambda now: now.sum("seen_packets_total") == sent.packets + after.packets)
    assert last.sum("lost_packets_total") == empty.sum("lost_packets_total")
    result = daemon.stop()
    assert_all_in_flows_or_map_full(result, sent.packets + after.packets, sent.bytes + after.bytes)
    came_after = [flow for flow in result.flows if flow["SrcPort"] >= 1024 + 50_000]
    assert sum(flow["Packets"] for flow in came_after) == after.packets
    assert len({flow["SrcPort"] for flow in came_after}) == MAX_FLOWS - 1


def test_two_processors_at_a_full_map(pair: Pair, traffic: Traffic, agent: Callable[..., AgentProcess]) -> None:
    """At full speed, across drains, with rows being made and refused on both processors, not one packet is missing."""
    limits = ("--active-timeout", "0.1", "--max-flows", "509", *WITHOUT_RING)
    namespace, prefix = pair.right.namespace, pair.left.namespace.prefix
    daemon = agent(namespace, "-i", "right0", "--direction", "ingress", *limits, *FLAGS)
    many = evolve(traffic, mode=Mode.FLOWS, flows=100_000_003, duration_s=3600)
    with Generator(evolve(many, cpu=0), prefix) as first, Generator(evolve(many, cpu=1), prefix) as second:
        scrape_until(namespace, lambda now: now.sum("audited_drains_total") >= 8)
        scrape_until(namespace, lambda now: now.sum("lost_packets_total") > 50_000)
        first.stop()
        second.stop()
    result = daemon.stop()
    received = pair.right.statistics()
    assert_all_in_flows_or_map_full(result, received.rx_packets, received.rx_bytes)
