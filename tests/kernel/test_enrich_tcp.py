"""TCP on the real kernel: what is sent again, what fails and how, how long a connect takes, who resets, how it ends."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import attrs
import pytest

from tests.kernel.agent_process import AgentProcess, FlowLine
from tests.kernel.delayed_path import SegmentDropper
from tests.kernel.hosts import Namespace, Pair
from tests.kernel.test_delayed_path import DELAY_S, PORT, SEGMENT_BYTES, connected, retransmitted, send_over_tcp
from tests.kernel.told import assert_accounted, chosen, total

TIMEOUT_S = 10.0
NS = 1e9
SERVERS = ["10.0.0.2", "fd00::2"]
PERIOD = ("--active-timeout", "0.2")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@attrs.frozen
class Attempt:
    """A connect(2): the port that it came from, its errno (0: it succeeded), and how long it took."""

    port: int
    errno: int
    took_s: float


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def make_socket(namespace: Namespace, address: str) -> socket.socket:
    with namespace.enter():
        made = socket.socket(family_of(address))
    made.settimeout(TIMEOUT_S)
    return made


def attempt(namespace: Namespace, server: str, user_timeout_ms: int = 0) -> Attempt:
    """Connect to PORT of the server, and close."""
    with make_socket(namespace, server) as client:
        client.bind(("::" if ":" in server else "", 0))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_ms)
        client.setblocking(True)
        port = client.getsockname()[1]
        began_s = time.monotonic()
        error = client.connect_ex((server, PORT))
        return Attempt(port, error, time.monotonic() - began_s)


@contextmanager
def connection(left: Namespace, right: Namespace, server: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect a client to a server; both sockets are closed at the end."""
    with ExitStack() as stack:
        with right.enter():
            listener = stack.enter_context(socket.create_server((server, PORT), family=family_of(server)))
        client = stack.enter_context(make_socket(left, server))
        client.connect((server, PORT))
        accepted = stack.enter_context(listener.accept()[0])
        accepted.settimeout(TIMEOUT_S)
        yield client, accepted


def both_ends(agent: Callable[..., AgentProcess], left: Namespace, right: Namespace) -> tuple[AgentProcess, ...]:
    return tuple(agent(end, "-i", name, *PERIOD) for end, name in ((left, "left0"), (right, "right0")))


def flows_of(daemon: AgentProcess, **fields: object) -> list[FlowLine]:
    result = daemon.stop()
    assert_accounted(result)
    return chosen(result.flows, Proto=6, **fields)


def only(flows: list[FlowLine], field: str) -> object:
    """Return what the one record that has the field says."""
    (flow,) = (flow for flow in flows if field in flow)
    return flow[field]


@pytest.mark.parametrize("server", SERVERS)
def test_segments_that_are_sent_again(
    namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess], server: str
) -> None:
    """As many as were dropped, each once, with all the octets of their frames; and none of the answers."""
    dropper = SegmentDropper(every=10, at_most=7)
    with connected(namespaces, dropper) as path:
        daemon = agent(path.left.namespace, "-i", "left0", *PERIOD)
        send_over_tcp(path, server, segments=211)
        flows = flows_of(daemon)
        sent_again = retransmitted(path.left.namespace)
    assert len(dropper.dropped) == 7
    there, back = chosen(flows, DstPort=PORT), chosen(flows, SrcPort=PORT)
    # A loaded machine may send one again that was only late: the kernel's own count decides.
    assert total(there, "TcpRetransmits") == sent_again >= 7
    # Ethernet 14, IP, TCP 20 with 12 of timestamps; all segments are of one size.
    frame_bytes = 14 + (40 if ":" in server else 20) + 32 + SEGMENT_BYTES - 12
    assert total(there, "TcpRetransmitBytes") == sent_again * frame_bytes
    assert total(back, "TcpRetransmits") == 0


@pytest.mark.parametrize("server", SERVERS)
def test_connection_that_is_refused(
    namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess], server: str
) -> None:
    """The client's end tells the error and how long it took; one reset was sent there, and one received here."""
    with connected(namespaces) as path:
        left, right = both_ends(agent, path.left.namespace, path.right.namespace)
        refused = attempt(path.left.namespace, server)
        assert refused.errno == errno.ECONNREFUSED
        here = flows_of(left, SrcPort=refused.port)
        there = flows_of(right, DstPort=refused.port)
    assert only(here, "TcpConnectErrno") == errno.ECONNREFUSED
    assert only(here, "TcpConnectError") == "ECONNREFUSED"
    took_ns = only(here, "TcpConnectNs")
    assert isinstance(took_ns, int)
    assert 2 * DELAY_S * NS <= took_ns <= refused.took_s * NS
    assert only(here, "TcpState") == "TCP_CLOSE"
    assert total(here, "TcpResetsReceived") == total(there, "TcpResetsSent") == 1
    assert total(here, "TcpResetsSent") == total(there, "TcpResetsReceived") == 0


def test_connection_that_nobody_answers(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """After the timeout it has failed, and that is told with the flow of its requests."""
    pair.right.namespace.run("nft", "add table inet filter")
    pair.right.namespace.run("nft", "add chain inet filter here { type filter hook input priority 0; policy drop; }")
    daemon = agent(pair.left.namespace, "-i", "left0", "--active-timeout", "0.5")
    failed = attempt(pair.left.namespace, "10.0.0.2", user_timeout_ms=500)
    assert failed.errno == errno.ETIMEDOUT
    flows = flows_of(daemon, SrcPort=failed.port)
    assert only(flows, "TcpConnectError") == "ETIMEDOUT"
    took_ns = only(flows, "TcpConnectNs")
    assert isinstance(took_ns, int)
    assert 0.5 * NS <= took_ns <= failed.took_s * NS
    # The request was sent again while it waited.
    assert total(flows, "TcpRetransmits") == total(flows, "Packets") - 1


@pytest.mark.parametrize("server", SERVERS)
def test_connect_over_a_path_of_known_delay(
    namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess], server: str
) -> None:
    """It takes one round trip, and no longer than connect(2) took; only who connects has that."""
    with connected(namespaces) as path:
        daemons = both_ends(agent, path.left.namespace, path.right.namespace)
        with path.right.namespace.enter():
            listener = socket.create_server((server, PORT), family=family_of(server))
        with listener:
            made = attempt(path.left.namespace, server)
            listener.accept()[0].close()
        assert made.errno == 0
        here, there = (flows_of(daemon) for daemon in daemons)
    took_ns = only(here, "TcpConnectNs")
    assert isinstance(took_ns, int)
    assert 2 * DELAY_S * NS <= took_ns <= made.took_s * NS
    assert chosen(here, SrcPort=made.port, TcpConnectNs=took_ns)
    assert not any("TcpConnectNs" in flow for flow in there)
    assert not any("TcpConnectErrno" in flow for flow in (*here, *there))


@pytest.mark.parametrize("server", SERVERS)
def test_reset(pair: Pair, agent: Callable[..., AgentProcess], server: str) -> None:
    """Who resets has sent one, and the other end has received one; at both, the connection is closed."""
    left, right = both_ends(agent, pair.left.namespace, pair.right.namespace)
    with connection(pair.left.namespace, pair.right.namespace, server) as (client, accepted):
        port = client.getsockname()[1]
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        accepted.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    here, there = flows_of(left, SrcPort=port), flows_of(right, DstPort=port)
    assert total(here, "TcpResetsReceived") == total(there, "TcpResetsSent") == 1
    assert total(here, "TcpResetsSent") == total(there, "TcpResetsReceived") == 0
    for flows in (here, there):
        assert [flow["TcpState"] for flow in flows if "TcpState" in flow][-1] == "TCP_CLOSE"


def test_connection_that_goes_on_and_ends(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """The record of an epoch has the state at its end: established, then closed, with nothing said in between."""
    daemon = agent(pair.left.namespace, "-i", "left0", *PERIOD)
    with connection(pair.left.namespace, pair.right.namespace, "10.0.0.2") as (client, accepted):
        port = client.getsockname()[1]
        daemon.wait_for_flows(lambda flows: bool(chosen(flows, SrcPort=port, TcpState="TCP_ESTABLISHED")))
        client.sendall(b"between")
        assert accepted.recv(20) == b"between"
        daemon.wait_for_flows(lambda flows: len(chosen(flows, SrcPort=port)) >= 2)
        client.close()
        assert accepted.recv(20) == b""
        accepted.close()
    states = [flow.get("TcpState") for flow in flows_of(daemon, SrcPort=port)]
    assert states[:2] == ["TCP_ESTABLISHED", None]
    assert [state for state in states if state] == ["TCP_ESTABLISHED", "TCP_CLOSE"]
