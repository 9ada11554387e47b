"""Round-trip times of the real kernel, over a path whose delay is known and whose ends have looked at their clocks."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from tests.kernel.agent_process import AgentProcess, FlowLine
from tests.kernel.hosts import Namespace, Pair
from tests.kernel.test_delayed_path import DELAY_S, PORT, connected
from tests.kernel.test_enrich_tcp import NS, SERVERS, connection, family_of, make_socket
from tests.kernel.told import assert_accounted, chosen

QUESTIONS = 23
FIELDS = ("TimeFlowRttNs", "TimeFlowRttMinNs", "TimeFlowRttMaxNs", "TimeFlowRttHandshakeNs")
# Two ways of the delay; the kernel rounds down to microseconds, and smooths in eighths of one.
LEAST_NS = 2 * DELAY_S * NS - 1_000


def measured(flows: list[FlowLine], field: str) -> list[int]:
    return [flow[field] for flow in flows if field in flow]


@pytest.mark.parametrize("server", SERVERS)
def test_path_of_known_delay(
    namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess], server: str
) -> None:
    """Handshake, smoothed, least and greatest: none shorter than the path, none longer than the client has waited."""
    with connected(namespaces) as path:
        daemons = [agent(end.namespace, "-i", end.name, "--active-timeout", "0.2") for end in (path.left, path.right)]
        with path.right.namespace.enter():
            listener = socket.create_server((server, PORT), family=family_of(server))
        with listener, make_socket(path.left.namespace, server) as client:
            waited_s = [time.monotonic()]
            client.connect((server, PORT))
            connect_s = time.monotonic() - waited_s.pop()
            with listener.accept()[0] as accepted:
                for _ in range(QUESTIONS):
                    asked_s = time.monotonic()
                    client.sendall(b"question")
                    accepted.recv(100)
                    accepted.sendall(b"answer")
                    client.recv(100)
                    waited_s.append(time.monotonic() - asked_s)
        results = [daemon.stop() for daemon in daemons]
    for result in results:
        assert_accounted(result)
    here, there = chosen(results[0].flows, DstPort=PORT), chosen(results[1].flows, SrcPort=PORT)
    (handshake,) = measured(here, "TimeFlowRttHandshakeNs")
    assert LEAST_NS <= handshake <= connect_s * NS
    longest_ns = max(connect_s, *waited_s) * NS
    for field in FIELDS[:3]:
        values = measured(here, field)
        assert values
        assert all(LEAST_NS <= value <= longest_ns for value in values), (field, values)
    # The least is no longer than the first: what came later is told with the next event, if there is one.
    assert min(measured(here, "TimeFlowRttMinNs")) <= connect_s * NS
    for flow in here:
        if "TimeFlowRttNs" in flow:
            assert flow["TimeFlowRttMinNs"] <= flow["TimeFlowRttNs"] <= flow["TimeFlowRttMaxNs"]
    # The server measures, too: from SYN+ACK to its answer, and from its answers on.
    (handshake,) = measured(there, "TimeFlowRttHandshakeNs")
    assert handshake >= LEAST_NS
    assert all(value >= LEAST_NS for field in FIELDS[:3] for value in measured(there, field))
    # Each end tells of the direction in which it sends.
    assert not any(field in flow for field in FIELDS for flow in chosen(results[0].flows, SrcPort=PORT))


def test_each_drain_has_it(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """A connection that sends in each epoch has a round-trip time in each of its records, however steady it is."""
    daemon = agent(pair.left.namespace, "-i", "left0", "--active-timeout", "0.1")
    with connection(pair.left.namespace, pair.right.namespace, "10.0.0.2") as (client, accepted):
        for records in range(1, 8):
            client.sendall(b"question")
            accepted.recv(100)
            accepted.sendall(b"answer")
            client.recv(100)
            daemon.wait_for_flows(lambda flows, least=records: len(chosen(flows, DstPort=PORT)) >= least)  # type: ignore[misc]
    result = daemon.stop()
    assert_accounted(result)
    # Not the last one: its FIN may be all that it has, and a closing socket is none any more.
    flows = chosen(result.flows, DstPort=PORT)[:7]
    assert all(flow.get("TimeFlowRttNs", 0) > 0 for flow in flows), flows


def test_datagrams_have_none(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """Of what has no acknowledgements there is nothing to tell."""
    daemon = agent(pair.left.namespace, "-i", "left0", "--active-timeout", "0.2")
    with pair.left.namespace.enter():
        client = socket.socket(type=socket.SOCK_DGRAM)
    with client:
        client.sendto(b"question", ("10.0.0.2", PORT))
    result = daemon.stop()
    ledger = assert_accounted(result)
    assert chosen(result.flows, DstPort=PORT)
    assert not any(field in flow for field in FIELDS for flow in result.flows)
    assert ledger["events"]["missed"] == {}
