"""Round-trip times of the real kernel, over a path whose delay is known and whose ends have looked at their clocks."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from itertools import pairwise

from tests.kernel.agent_process import AgentProcess, FlowLine
from tests.kernel.hosts import Namespace, Pair
from tests.kernel.tcp_ends import PORT, connection, listen, make_socket
from tests.kernel.test_delayed_path import DELAY_S, connected
from tests.kernel.told import assert_accounted, chosen
from tests.kernel.waiting import look_until

NS = 1e9
QUESTIONS = 23
TCP_CLOSE = 7  # of net/tcp_states.h
SERVERS = ("10.0.0.2", "fd00::2")
FIELDS = ("TimeFlowRttNs", "TimeFlowRttMinNs", "TimeFlowRttMaxNs", "TimeFlowRttHandshakeNs")
# Two ways of the delay. The kernel rounds to microseconds, and to milliseconds where it measures by TCP's timestamps:
# that is what is left to it of a segment that a loaded machine made it send twice.
LEAST_NS = 2 * DELAY_S * NS - 1_000_000


def converse(left: Namespace, right: Namespace, server: str) -> list[float]:
    """Connect, ask, answer and end; return how long the client waited each time, for its connection first.

    The last time is for its FIN to be acknowledged: the kernel measures that as well.
    """
    with listen(right, server) as listener, make_socket(left, server) as client:
        begins_s = [time.monotonic()]
        client.connect((server, PORT))
        with listener.accept()[0] as accepted:
            for _ in range(QUESTIONS):
                begins_s.append(time.monotonic())
                client.sendall(b"question")
                assert accepted.recv(100) == b"question"
                accepted.sendall(b"answer")
                assert client.recv(100) == b"answer"
        assert client.recv(100) == b""
        begins_s.append(time.monotonic())
        client.shutdown(socket.SHUT_WR)
        assert look_until(lambda: state_of(client), lambda state: state == TCP_CLOSE) == TCP_CLOSE
        begins_s.append(time.monotonic())
    return [end - begin for begin, end in pairwise(begins_s)]


def state_of(client: socket.socket) -> int:
    """Return the state of a connection (tcpi_state)."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def measured(flows: list[FlowLine], field: str) -> list[int]:
    return [flow[field] for flow in flows if field in flow]


def test_path_of_known_delay(namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess]) -> None:
    """Handshake, smoothed, least and greatest: none shorter than the path, none longer than the client has waited."""
    with connected(namespaces) as path:
        daemons = [agent(end.namespace, "-i", end.name, "--active-timeout", "0.2") for end in (path.left, path.right)]
        waited_s = {server: converse(path.left.namespace, path.right.namespace, server) for server in SERVERS}
        results = [daemon.stop() for daemon in daemons]
    for result in results:
        assert_accounted(result)
    for server in SERVERS:
        here = chosen(results[0].flows, DstAddr=server, DstPort=PORT)
        there = chosen(results[1].flows, SrcAddr=server, SrcPort=PORT)
        (handshake,) = measured(here, "TimeFlowRttHandshakeNs")
        assert LEAST_NS <= handshake <= waited_s[server][0] * NS
        for field in FIELDS[:3]:
            values = measured(here, field)
            assert values
            assert all(LEAST_NS <= value <= max(waited_s[server]) * NS for value in values), (field, values)
            assert all(value >= LEAST_NS for value in measured(there, field))
        # The least is no longer than the first: what came later is told with the next event, if there is one.
        assert min(measured(here, "TimeFlowRttMinNs")) <= waited_s[server][0] * NS
        for flow in (*here, *there):
            if "TimeFlowRttNs" in flow:
                assert flow["TimeFlowRttMinNs"] <= flow["TimeFlowRttNs"] <= flow["TimeFlowRttMaxNs"]
        # The server measures its handshake, too: from SYN+ACK to what acknowledges it.
        (handshake,) = measured(there, "TimeFlowRttHandshakeNs")
        assert handshake >= LEAST_NS
        # Each end tells of the direction in which it sends.
        assert not any(field in flow for field in FIELDS for flow in chosen(results[0].flows, SrcAddr=server))


def test_each_drain_has_it(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """A connection that sends in each epoch has a round-trip time in each of its records, however steady it is."""
    daemon = agent(pair.left.namespace, "-i", "left0", "--active-timeout", "0.1")
    with connection(pair.left.namespace, pair.right.namespace, "10.0.0.2") as (client, accepted):
        told = 0
        for _ in range(7):
            client.sendall(b"question")
            assert accepted.recv(100) == b"question"
            accepted.sendall(b"answer")
            assert client.recv(100) == b"answer"
            told = wait_for_more(daemon, told)
    result = daemon.stop()
    assert_accounted(result)
    # Not the last ones: an acknowledgement or FIN may be all that they have, of a socket that is none any more.
    flows = chosen(result.flows, DstPort=PORT)[:told]
    assert len(flows) >= 7
    assert all(flow.get("TimeFlowRttNs", 0) > 0 for flow in flows), flows


def wait_for_more(daemon: AgentProcess, told: int) -> int:
    """Wait for more records of the client than there were; return how many there are."""
    found = 0

    def has_more(flows: list[FlowLine]) -> bool:
        nonlocal found
        found = len(chosen(flows, DstPort=PORT))
        return found > told

    daemon.wait_for_flows(has_more)
    return found


def test_datagrams_have_none(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """Of what has no acknowledgements there is nothing to tell."""
    daemon = agent(pair.left.namespace, "-i", "left0", "--active-timeout", "0.2")
    with pair.left.namespace.enter():
        client = socket.socket(type=socket.SOCK_DGRAM)
    with client:
        client.sendto(b"question", ("10.0.0.2", PORT))
    result = daemon.stop()
    assert_accounted(result)
    assert chosen(result.flows, DstPort=PORT)
    assert not any(field in flow for field in FIELDS for flow in result.flows)
