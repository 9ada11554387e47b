"""Flows that pass more interfaces than a row has room for: a chain of bridges in one namespace."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.generator import Sent, Traffic, generate
from tests.kernel.agent_process import AgentProcess, FlowLine
from tests.kernel.hosts import Interface, Namespace
from tests.kernel.told import assert_accounted, events_of, total
from tests.kernel.waiting import look_until

MAX_LISTED = 64  # MAX_HOOKS of netwatch/core/enrichment.py: no record lists more
PACKETS = 101
INGRESS, EGRESS = 0, 1
ONLY_LINKS = ("-i", "in0", "-i", "/[ab][0-9]+/")  # the bridges are interfaces as well


def chain_of_bridges(sender: Namespace, middle: Namespace, links: int) -> tuple[Interface, list[tuple[str, int]]]:
    """Join so many links by bridges; return where to send, and the hooks that a packet passes, in order.

    sender0 - in0 (br0) a0 - b0 (br1) a1 - b1 ... : nobody takes the packets at the end.
    """
    sender0, port = sender.veth("sender0", middle, "in0")
    hooks = [("in0", INGRESS)]
    for number in range(links):
        near, far = middle.veth(f"a{number}", middle, f"b{number}")
        middle.bridge(f"br{number}", port, near)
        hooks += [(near.name, EGRESS), (far.name, INGRESS)]
        port = far
    return sender0, hooks


def send(sender: Interface, middle: Namespace, hooks: list[tuple[str, int]]) -> Sent:
    """Send three flows, and wait until they have come to the end."""
    sent = generate(
        Traffic(sender.name, "10.0.0.1", "10.0.0.2", flows=3, packets_per_flow=PACKETS), sender.namespace.prefix
    )
    last = middle.interface(hooks[-1][0])
    assert look_until(lambda: last.statistics().rx_packets, lambda packets: packets == sent.packets) == sent.packets
    return sent


def listed(flow: FlowLine) -> list[tuple[str, int]]:
    return list(zip(flow["Interfaces"], flow["IfDirections"], strict=True))


@pytest.mark.parametrize("links", [4, 36], ids=["nine", "more than a record lists"])
def test_in_a_row(namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess], links: int) -> None:
    """Each packet counts once, at the first interface; the record lists all of them, up to its bound, each once."""
    middle = namespaces()
    sender, hooks = chain_of_bridges(namespaces(), middle, links)
    daemon = agent(middle, *ONLY_LINKS, "--active-timeout", "1h")
    sent = send(sender, middle, hooks)
    result = daemon.stop()
    ledger = assert_accounted(result)
    assert total(result.flows, "Packets") == sent.packets
    assert ledger["duplicate"]["packets"] == sent.packets * (len(hooks) - 1)
    assert {flow["SrcPort"]: flow["Packets"] for flow in result.flows} == dict.fromkeys((1024, 1025, 1026), PACKETS)
    for flow in result.flows:
        assert listed(flow)[0] == hooks[0]
        assert len(set(listed(flow))) == len(listed(flow)) == min(len(hooks), MAX_LISTED)
        assert set(listed(flow)) <= set(hooks)
    told = events_of(ledger, "hook")
    # Each hook beyond the home and the six of a row, once for each row.
    assert told["joined"] == told["made"] == 3 * (len(hooks) - 7)
    assert told["lost"] == 0


def test_without(namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess]) -> None:
    """With the switch off a record lists seven, and each packet counts once all the same."""
    middle = namespaces()
    sender, hooks = chain_of_bridges(namespaces(), middle, 4)
    daemon = agent(middle, *ONLY_LINKS, "--enrich", "drops", "--active-timeout", "1h")
    sent = send(sender, middle, hooks)
    result = daemon.stop()
    assert_accounted(result)
    assert total(result.flows, "Packets") == sent.packets
    assert {tuple(listed(flow)) for flow in result.flows} == {tuple(hooks[:7])}
