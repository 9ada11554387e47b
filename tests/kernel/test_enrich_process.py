"""Whose packets they are: processes that name themselves and are gone, and what the records of their flows say."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.agent_process import AgentProcess, AgentResult, FlowLine
from tests.kernel.hosts import Namespace, Pair, connect
from tests.kernel.short_process import Life, Order, ShortProcesses, converse
from tests.kernel.told import assert_accounted, chosen, total
from tests.kernel.waiting import PATIENCE_S

CONVERSATIONS = 11
PERIOD = ("--active-timeout", "0.2")
PROTOCOLS = {True: 6, False: 17}
Owner = tuple[int | None, str | None]

by_protocol = pytest.mark.parametrize("is_tcp", [True, False], ids=["TCP", "UDP"])


def owners(flows: list[FlowLine], end: str) -> set[Owner]:
    """Return who is told to have the source ("Src") or the destination ("Dst") of the flows."""
    told = {(flow.get(f"{end}ProcessId"), flow.get(f"{end}ProcessName")) for flow in flows}
    return told - {(None, None)}


def of(life: Life) -> set[Owner]:
    return {(life.pid, life.name)}


def assert_both_named(result: AgentResult, protocol: int, server: Life, client: Life) -> None:
    """Assert that both directions of a conversation name both ends, and nobody else."""
    there = chosen(result.flows, Proto=protocol, SrcPort=client.port, DstPort=server.port)
    back = chosen(result.flows, Proto=protocol, SrcPort=server.port, DstPort=client.port)
    assert owners(there, "Src") == of(client), there
    assert owners(there, "Dst") == of(server), there
    assert owners(back, "Src") == of(server), back
    assert owners(back, "Dst") == of(client), back


@by_protocol
def test_client_and_server_on_one_host(
    namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess], is_tcp: bool
) -> None:
    """Both directions name both ends, though none of them lives longer than a moment; over IPv4 and IPv6."""
    namespace = namespaces()
    daemon = agent(namespace, "-i", "lo", *PERIOD)
    lives: list[tuple[Life, Life]] = []
    with ShortProcesses(namespace) as servers, ShortProcesses(namespace) as clients:
        for number in range(2 * CONVERSATIONS):
            # A port for each: of ports that the kernel chooses at random, two may be the same.
            order = Order("server", f"server-{number}", ("127.0.0.1", "::1")[number % 2], 80 + number, is_tcp)
            lives.append(converse(servers, clients, order, f"client-{number}"))
    result = daemon.stop()
    assert_accounted(result)
    for server, client in lives:
        assert (server.exit_code, client.exit_code) == (0, 0)
        assert_both_named(result, PROTOCOLS[is_tcp], server, client)


@by_protocol
def test_one_end_on_this_host(pair: Pair, agent: Callable[..., AgentProcess], is_tcp: bool) -> None:
    """The end that is here has its name and its cgroup; of the other one there is nothing, where UDP tells nothing."""
    daemon = agent(pair.right.namespace, "-i", "right0", "--enrich", "process", *PERIOD)
    with ShortProcesses(pair.right.namespace) as servers, ShortProcesses(pair.left.namespace) as clients:
        order = Order("server", "server-here", "10.0.0.2", 80, is_tcp)
        server, client = converse(servers, clients, order, "client-there")
    result = daemon.stop()
    assert_accounted(result)
    there, back = chosen(result.flows, SrcPort=client.port), chosen(result.flows, DstPort=client.port)
    assert owners(there, "Dst") == owners(back, "Src") == of(server)
    cgroups = {flow["DstCgroupId"] for flow in there if "DstProcessId" in flow}
    assert cgroups == {cgroup_id(os.getpid())}
    # A connection of another namespace is told by the tracepoint of its states.
    foreign = of(client) if is_tcp else set()
    assert owners(there, "Src") == owners(back, "Dst") == foreign


def test_other_namespaces(namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess]) -> None:
    """Two hosts behind ours talk over TCP: each end of each direction is named, though no socket is here."""
    host, one, other = namespaces(), namespaces(), namespaces()
    (left, port0), (right, port1) = one.veth("eth0", host, "port0"), other.veth("eth0", host, "port1")
    connect(left, ("10.0.0.1/24", "fd00::1/64"), right, ("10.0.0.2/24", "fd00::2/64"))
    host.bridge("br0", port0, port1)
    daemon = agent(host, "-i", "port0", *PERIOD)
    lives: list[tuple[Life, Life]] = []
    with ShortProcesses(other) as servers, ShortProcesses(one) as clients:
        for number in range(2 * CONVERSATIONS):
            order = Order("server", f"server-{number}", ("10.0.0.2", "fd00::2")[number % 2], 80 + number)
            lives.append(converse(servers, clients, order, f"client-{number}"))
    result = daemon.stop()
    assert_accounted(result)
    for server, client in lives:
        assert_both_named(result, 6, server, client)


def test_receiver_that_never_answers(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """Who only listens is named with the flow that comes to it, and with nothing else."""
    daemon = agent(pair.right.namespace, "-i", "right0", *PERIOD)
    with open_socket(pair.right.namespace, ("10.0.0.2", 9_000), socket.SOCK_DGRAM) as receiver:
        with pair.left.namespace.enter():
            sender = socket.socket(type=socket.SOCK_DGRAM)
        with sender:
            for port in (9_000, 9_001):
                sender.sendto(b"no answer", ("10.0.0.2", port))
        assert receiver.recv(20) == b"no answer"
        result = daemon.stop()
    assert_accounted(result)
    assert owners(chosen(result.flows, DstPort=9_000), "Dst") == {us()}
    assert owners(chosen(result.flows, DstPort=9_001), "Dst") == set()
    assert owners(result.flows, "Src") == set()


def test_sockets_from_before(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """A connection, a listener, and a datagram socket that were there before the daemon have their process."""
    here, there = pair.right.namespace, pair.left.namespace
    with (
        open_socket(here, ("10.0.0.2", 80), socket.SOCK_STREAM) as listener,
        open_socket(here, ("10.0.0.2", 81), socket.SOCK_DGRAM) as receiver,
    ):
        with there.enter():
            client = socket.create_connection(("10.0.0.2", 80), PATIENCE_S)
        with client, listener.accept()[0] as accepted:
            old_port = client.getsockname()[1]
            daemon = agent(here, "-i", "right0", *PERIOD)
            accepted.sendall(b"from before")
            assert client.recv(20) == b"from before"
            with there.enter():
                later, datagrams = socket.create_connection(("10.0.0.2", 80)), socket.socket(type=socket.SOCK_DGRAM)
            with later, datagrams, listener.accept()[0] as new:
                new_port = later.getsockname()[1]
                new.sendall(b"after")
                assert later.recv(20) == b"after"
                datagrams.sendto(b"datagram", ("10.0.0.2", 81))
                assert receiver.recv(20) == b"datagram"
                result = daemon.stop()
    assert_accounted(result)
    for port in (old_port, new_port):
        assert owners(chosen(result.flows, SrcPort=80, DstPort=port), "Src") == {us()}
        assert owners(chosen(result.flows, SrcPort=port, DstPort=80), "Dst") == {us()}
    assert owners(chosen(result.flows, DstPort=81), "Dst") == {us()}


def test_without(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """With the switch off nobody is named; the flows are the same."""
    daemon = agent(pair.right.namespace, "-i", "right0", "--enrich", "drops", "--enrich", "tcp", *PERIOD)
    with ShortProcesses(pair.right.namespace) as servers, ShortProcesses(pair.left.namespace) as clients:
        converse(servers, clients, Order("server", "server", "10.0.0.2", 80), "client")
    result = daemon.stop()
    assert_accounted(result)
    assert total(result.flows, "Packets") >= 8
    assert not any("Process" in field or "Cgroup" in field for flow in result.flows for field in flow)


def us() -> Owner:
    return os.getpid(), Path("/proc/self/comm").read_text().strip()


def cgroup_id(pid: int) -> int:
    """Return the number of a process's cgroup: that of its directory."""
    path = next(line[3:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next(mount[1] for mount in mounts if mount[2] == "cgroup2")
    return os.stat(root + path).st_ino


@contextmanager
def open_socket(namespace: Namespace, address: tuple[str, int], kind: socket.SocketKind) -> Iterator[socket.socket]:
    """Bind a socket of this process in a namespace; one of TCP listens."""
    with namespace.enter():
        made = socket.socket(type=kind)
    with made:
        made.settimeout(PATIENCE_S)
        made.bind(address)
        if kind == socket.SOCK_STREAM:
            made.listen()
        yield made
