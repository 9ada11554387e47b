"""TCP connections on the real kernel: retransmissions, connects, resets and round-trip times, against a path that is known."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.kernel.agent_process import AgentProcess, AgentResult, FlowLine
from tests.kernel.delayed_path import DelayedPath, SegmentDropper
from tests.kernel.hosts import Interface, Namespace, Pair, connect

TIMEOUT_S = 20.0
DELAY_S = 0.02
FAMILIES = {socket.AF_INET: ("10.0.0.1", "10.0.0.2"), socket.AF_INET6: ("fd00::1", "fd00::2")}
by_family = pytest.mark.parametrize("family", list(FAMILIES), ids=["IPv4", "IPv6"])
Start = Callable[..., AgentProcess]


@contextlib.contextmanager
def delayed(
    namespaces: Callable[[], Namespace], drops: SegmentDropper | None = None
) -> Iterator[tuple[Interface, Interface]]:
    """Two hosts with the usual addresses, DELAY_S apart."""
    with DelayedPath(namespaces(), namespaces(), DELAY_S, drops) as path:
        connect(path.left, ("10.0.0.1/24", "fd00::1/64"), path.right, ("10.0.0.2/24", "fd00::2/64"))
        yield path.left, path.right


def transfer(left: Namespace, right: Namespace, family: int, octets: int) -> None:
    """Send so many octets from left to right, and close on both sides."""
    address = (FAMILIES[socket.AddressFamily(family)][1], 80)
    with right.enter():
        listener = socket.create_server(address, family=family)
    received = bytearray()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(TIMEOUT_S)
            while part := connection.recv(65_536):
                received.extend(part)

    server = threading.Thread(target=serve)
    server.start()
    with listener:
        with left.enter():
            client = socket.create_connection(address, timeout=TIMEOUT_S)
        with client:
            client.sendall(b"x" * octets)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        server.join()
    assert len(received) == octets


def flows_to(result: AgentResult, port: int) -> list[FlowLine]:
    assert result.exit_code == 0, result.log
    assert result.ledger is not None
    assert result.ledger["events"]["balances"], result.log
    assert all(exporter["balances"] for exporter in result.ledger["exporters"])
    found = [flow for flow in result.flows if flow.get("DstPort") == port]
    assert found
    return found


def total(flows: list[FlowLine], field: str) -> int:
    return sum(flow.get(field, 0) for flow in flows)


@by_family
def test_retransmissions(namespaces: Callable[[], Namespace], agent: Start, family: socket.AddressFamily) -> None:
    """Seven segments are lost on the way, and seven are told as retransmitted, with the bytes that a wire carries."""
    dropper = SegmentDropper(every=10, at_most=7)
    with delayed(namespaces, dropper) as (left, right):
        daemon = agent(left.namespace, "-i", left.name, "--active-timeout", "0.5")
        transfer(left.namespace, right.namespace, family, 400_000)
        result = daemon.stop()
    assert len(dropper.dropped) == 7
    flows = flows_to(result, 80)
    assert total(flows, "TcpRetransmits") == 7
    # Each is a whole segment of 1,500 B of IP, but for the last of the stream.
    assert 6 * 1_514 < total(flows, "TcpRetransmitBytes") <= 7 * 1_514


@by_family
def test_times(namespaces: Callable[[], Namespace], agent: Start, family: socket.AddressFamily) -> None:
    """Connect latency and round-trip times are those of the path: twice the delay, and a little of our forwarder."""
    with delayed(namespaces) as (left, right):
        daemon = agent(left.namespace, "-i", left.name, "--active-timeout", "10")
        transfer(left.namespace, right.namespace, family, 20_000)
        flows = flows_to(daemon.stop(), 80)
    (flow,) = (flow for flow in flows if "Packets" in flow)
    least, most = 2 * DELAY_S * 1e9, 4 * DELAY_S * 1e9
    for name in ("TcpConnectNs", "TimeFlowRttHandshakeNs", "TimeFlowRttNs", "TimeFlowRttMinNs", "TimeFlowRttMaxNs"):
        assert least <= flow[name] <= most, (name, flow)
    assert flow["TimeFlowRttMinNs"] <= flow["TimeFlowRttNs"] <= flow["TimeFlowRttMaxNs"]
    assert "TcpRetransmits" not in flow
    assert "TcpConnectErrno" not in flow
    assert flow["TcpState"] == "TCP_CLOSE"


@by_family
def test_refused(pair: Pair, agent: Start, family: socket.AddressFamily) -> None:
    """A connect to a closed port fails with its error at the one end, and is reset by the other."""
    asking = agent(pair.left.namespace, "-i", "left0", "--active-timeout", "0.5")
    answering = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "0.5")
    for _ in range(3):
        with pair.left.namespace.enter():
            client = socket.socket(family)
        with client, pytest.raises(ConnectionRefusedError):
            client.connect((FAMILIES[family][1], 81))
    flows = flows_to(asking.stop(), 81)
    assert len(flows) == 3
    assert {(flow["TcpConnectErrno"], flow["TcpConnectError"], flow["TcpState"]) for flow in flows} == {
        (111, "ECONNREFUSED", "TCP_CLOSE")
    }
    assert all(0 < flow["TcpConnectNs"] < 1e9 for flow in flows)
    assert total(flows, "TcpResetsReceived") == 3
    result = answering.stop()
    assert total([flow for flow in result.flows if flow.get("SrcPort") == 81], "TcpResetsSent") == 3


def test_nobody_answers(pair: Pair, agent: Start) -> None:
    """A connect that is given up has no answer, and says so; its packets are counted as they left."""
    pair.right.namespace.run("nft", "add table ip filter")
    pair.right.namespace.run("nft", "add chain ip filter in { type filter hook input priority 0; }")
    pair.right.namespace.run("nft", "add rule ip filter in tcp dport 82 drop")
    daemon = agent(pair.left.namespace, "-i", "left0", "--active-timeout", "10")
    with pair.left.namespace.enter():
        client = socket.socket()
    with client:
        client.settimeout(1.5)
        with pytest.raises(TimeoutError):
            client.connect(("10.0.0.2", 82))
    (flow,) = flows_to(daemon.stop(), 82)
    # The second SYN, a second after the first, is a retransmission.
    assert flow["Packets"] == 1 + flow["TcpRetransmits"] == 2
    assert flow["TcpState"] == "TCP_CLOSE"
    assert flow["TcpConnectNs"] >= 1.5e9
