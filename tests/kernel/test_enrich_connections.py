"""How connections begin and end on the real kernel: latency, errors, resets, states; each against what the ends saw."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from itertools import takewhile

import pytest

from tests.kernel.agent_process import AgentProcess, FlowLine
from tests.kernel.delayed_path import SegmentDropper
from tests.kernel.hosts import Namespace, Pair
from tests.kernel.tcp_ends import PORT, attempt, connection, listen
from tests.kernel.test_delayed_path import DELAY_S, connected, send_over_tcp
from tests.kernel.test_delayed_path import PORT as STREAM_PORT
from tests.kernel.told import assert_accounted, chosen, total
from tests.kernel.waiting import look_until

NS = 1e9
SERVERS = ("10.0.0.2", "fd00::2")
CLOSED = 17
PERIOD = ("--active-timeout", "0.2")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def both_ends(agent: Callable[..., AgentProcess], left: Namespace, right: Namespace) -> tuple[AgentProcess, ...]:
    return tuple(agent(end, "-i", name, *PERIOD) for end, name in ((left, "left0"), (right, "right0")))


def flows_of(daemon: AgentProcess) -> list[FlowLine]:
    result = daemon.stop()
    assert_accounted(result)
    return result.flows


def only(flows: list[FlowLine], field: str) -> int:
    """Return the number that the one record that has the field says."""
    (flow,) = (flow for flow in flows if field in flow)
    number = flow[field]
    assert isinstance(number, int)
    return number


def assert_failed(flows: list[FlowLine], error: int, least_s: float, most_s: float) -> None:
    assert only(flows, "TcpConnectErrno") == error
    assert {flow["TcpConnectError"] for flow in flows if "TcpConnectError" in flow} == {errno.errorcode[error]}
    assert least_s * NS <= only(flows, "TcpConnectNs") <= most_s * NS
    assert [flow["TcpState"] for flow in flows if "TcpState" in flow] == ["TCP_CLOSE"]


@pytest.mark.parametrize("server", SERVERS)
def test_bytes_that_are_sent_again(
    namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess], server: str
) -> None:
    """As many segments as the kernel counts, with all the octets of their frames, and none of the other direction."""
    dropper = SegmentDropper(every=10, at_most=7)
    with connected(namespaces, dropper) as path:
        daemon = agent(path.left.namespace, "-i", "left0", *PERIOD)
        _, sent = send_over_tcp(path, server, segments=211)
        flows = flows_of(daemon)
        connects_again = path.left.namespace.counter("TcpExt", "TCPSynRetrans")
    there, back = chosen(flows, DstPort=STREAM_PORT), chosen(flows, SrcPort=STREAM_PORT)
    # A loaded machine may send one again that was only late: the socket's own count decides.
    assert total(there, "TcpRetransmits") == sent.segments_again >= len(dropper.dropped) == 7
    # Ethernet 14, IP, TCP 20 with 12 of timestamps, or a SYN's 20.
    header_bytes = 14 + (40 if ":" in server else 20) + 32
    assert (
        total(there, "TcpRetransmitBytes")
        == sent.octets_again + sent.segments_again * header_bytes + connects_again * 8
    )
    assert total(back, "TcpRetransmits") == 0


def test_connect_over_a_path_of_known_delay(
    namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess]
) -> None:
    """It takes one round trip at least, and no longer than connect(2) took, whether it succeeds or is refused."""
    with connected(namespaces) as path:
        daemons = both_ends(agent, path.left.namespace, path.right.namespace)
        made, refused = [], []
        for server in SERVERS:
            with listen(path.right.namespace, server) as listener:
                made.append(attempt(path.left.namespace, server))
                listener.accept()[0].close()
            refused.append(attempt(path.left.namespace, server))
        here, there = (flows_of(daemon) for daemon in daemons)
    for one in made:
        assert one.errno == 0
        flows = chosen(here, SrcPort=one.port)
        assert 2 * DELAY_S * NS <= only(flows, "TcpConnectNs") <= one.took_s * NS
        assert not any("TcpConnectErrno" in flow for flow in flows)
    for one in refused:
        flows = chosen(here, SrcPort=one.port)
        assert_failed(flows, errno.ECONNREFUSED, 2 * DELAY_S, one.took_s)
        assert total(flows, "TcpResetsReceived") == total(chosen(there, DstPort=one.port), "TcpResetsSent") == 1
    # Only who connects knows how long that takes.
    assert not any("TcpConnectNs" in flow for flow in there)


def test_connect_that_times_out(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """What the kernel gives up is a failure with its error, told with the flow of its requests."""
    pair.right.namespace.run("nft", "add table inet filter")
    pair.right.namespace.run("nft", "add chain inet filter here { type filter hook input priority 0; policy drop; }")
    daemon = agent(pair.left.namespace, "-i", "left0", *PERIOD)
    failed = attempt(pair.left.namespace, "10.0.0.2", user_timeout_ms=500)
    assert failed.errno == errno.ETIMEDOUT
    flows = chosen(flows_of(daemon), SrcPort=failed.port)
    assert_failed(flows, errno.ETIMEDOUT, 0.5, failed.took_s)
    # All but the first request were sent again.
    assert total(flows, "TcpRetransmits") == total(flows, "Packets") - 1


def test_reset(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """Who resets has sent one, and the other end has received one; at both, the connection is closed."""
    daemons = both_ends(agent, pair.left.namespace, pair.right.namespace)
    ports = []
    for server in SERVERS:
        with connection(pair.left.namespace, pair.right.namespace, server) as (client, accepted):
            ports.append(client.getsockname()[1])
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    left, right = (flows_of(daemon) for daemon in daemons)
    for server, port in zip(SERVERS, ports, strict=True):
        here, there = chosen(left, SrcPort=port, DstAddr=server), chosen(right, DstPort=port, SrcAddr=server)
        assert total(here, "TcpResetsReceived") == total(there, "TcpResetsSent") == 1
        assert total(here, "TcpResetsSent") == total(there, "TcpResetsReceived") == 0
        for flows in (here, there):
            assert [flow["TcpState"] for flow in flows if "TcpState" in flow][-1] == "TCP_CLOSE"


def test_state_at_the_end_of_each_epoch(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """A record has the state that its epoch came to: established, then closed, with nothing to say in between.

    Where an epoch ends between two packets of the opening or of the end, it came to a state between these.
    """
    daemon = agent(pair.left.namespace, "-i", "left0", *PERIOD)
    with connection(pair.left.namespace, pair.right.namespace, "10.0.0.2") as (client, accepted):
        port = client.getsockname()[1]
        daemon.wait_for_flows(lambda flows: bool(chosen(flows, SrcPort=port, TcpState="TCP_ESTABLISHED")))
        client.sendall(b"between")
        assert accepted.recv(20) == b"between"
        daemon.wait_for_flows(lambda flows: total(chosen(flows, SrcPort=port, DstPort=PORT), "Packets") >= 3)
        client.close()
        assert accepted.recv(20) == b""
        accepted.close()
    states = [flow["TcpState"] for flow in chosen(flows_of(daemon), SrcPort=port) if "TcpState" in flow]
    opening = [*takewhile(lambda state: state == "TCP_SYN_SENT", states)]
    established, *ending, closed = states[len(opening) :]
    assert (established, closed) == ("TCP_ESTABLISHED", "TCP_CLOSE")
    assert set(ending) <= {"TCP_FIN_WAIT1", "TCP_FIN_WAIT2", "TCP_TIME_WAIT"}


def assert_no_drops(flows: list[FlowLine], connections: int) -> None:
    # From the server, on its way in: SYN+ACK and FIN at the least.
    assert total(chosen(flows, SrcPort=PORT), "Packets") >= 2 * connections
    assert [flow for flow in flows if "PktDropPackets" in flow] == []


@pytest.mark.parametrize("server", SERVERS)
def test_fin_that_comes_after_the_close(pair: Pair, agent: Callable[..., AgentProcess], server: str) -> None:
    """It comes to what is left of a socket (TIME_WAIT), which frees it as if dropped: it has done what it was for."""
    left, right = pair.left.namespace, pair.right.namespace
    daemon = agent(left, "-i", "left0", *PERIOD)

    def waiting() -> int:
        return left.run("ss", "-tan").count("FIN-WAIT-2")

    for _ in range(CLOSED):
        with connection(left, right, server) as (client, _):
            client.close()
            # The server's acknowledgement by itself; its FIN comes with its own close.
            assert look_until(waiting, bool)
        assert not look_until(waiting, lambda sockets: not sockets)
    assert_no_drops(flows_of(daemon), CLOSED)


@pytest.mark.parametrize("server", SERVERS)
def test_fin_that_is_never_read(pair: Pair, agent: Callable[..., AgentProcess], server: str) -> None:
    """A FIN that acknowledges ours goes with the socket's queue, as if dropped: it has done what it was for."""
    left, right = pair.left.namespace, pair.right.namespace
    daemon = agent(left, "-i", "left0", *PERIOD)
    for _ in range(CLOSED):
        with connection(left, right, server) as (client, accepted):
            # So that the server has not acknowledged by the time that it closes.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            client.close()
            assert accepted.recv(1) == b""
    assert_no_drops(flows_of(daemon), CLOSED)
