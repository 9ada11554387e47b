"""Translated connections on the real kernel: what nftables makes of a flow is in its record, in both directions."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.kernel.agent_process import AgentProcess, FlowLine
from tests.kernel.hosts import Gateway, Namespace
from tests.kernel.waiting import PATIENCE_S


@pytest.fixture
def gateway(namespaces: Callable[[], Namespace]) -> Gateway:
    """Masquerade what goes out, and lead port 8080 of the gateway to port 80 of the server, for both IP versions."""
    middle = namespaces()
    gateway = Gateway.between(namespaces(), middle, namespaces())
    for family, target in (("ip", "10.2.0.3"), ("ip6", "fd02::3")):
        for rule in (
            f"add table {family} nat",
            f"add chain {family} nat out {{ type nat hook postrouting priority 100; }}",
            f"add rule {family} nat out oifname outside0 masquerade",
            f"add chain {family} nat in {{ type nat hook prerouting priority -100; }}",
        ):
            middle.run("nft", rule)
        port = f"{target}:80" if family == "ip" else f"[{target}]:80"
        for protocol in ("tcp", "udp"):
            middle.run("nft", f"add rule {family} nat in iifname inside0 {protocol} dport 8080 dnat to {port}")
    return gateway


@contextlib.contextmanager
def echo_server(namespace: Namespace, family: int, kind: int) -> Iterator[None]:
    """Answer one client on port 80, of TCP or UDP."""
    with namespace.enter():
        listener = socket.socket(family, kind)
    listener.settimeout(PATIENCE_S)
    with listener:
        listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 80))  # noqa: S104 - in a namespace of its own
        if kind == socket.SOCK_STREAM:
            listener.listen()
        thread = threading.Thread(target=_answer, args=(listener, kind))
        thread.start()
        yield
        thread.join()


def _answer(listener: socket.socket, kind: int) -> None:
    if kind == socket.SOCK_DGRAM:
        _, client = listener.recvfrom(100)
        listener.sendto(b"answer", client)
        return
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(PATIENCE_S)
        connection.recv(100)
        connection.sendall(b"answer")
        connection.recv(100)


def ask(namespace: Namespace, family: int, kind: int, address: str) -> int:
    """Ask the gateway's port 8080, and return the port of the client."""
    with namespace.enter():
        client = socket.socket(family, kind)
    with client:
        client.settimeout(PATIENCE_S)
        client.connect((address, 8080))
        client.sendall(b"question")
        assert client.recv(100) == b"answer"
        port: int = client.getsockname()[1]
        return port


def flow_of(flows: list[FlowLine], src: str, dst: str, **ports: int) -> FlowLine:
    found = [
        flow
        for flow in flows
        if (flow["SrcAddr"], flow["DstAddr"]) == (src, dst)
        and all(flow.get(name) == port for name, port in ports.items())
    ]
    assert found, (src, dst, ports, flows)
    return found[-1]


def translation(flow: FlowLine) -> tuple[str, int, str, int]:
    return flow["XlatSrcAddr"], flow["XlatSrcPort"], flow["XlatDstAddr"], flow["XlatDstPort"]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_translated_both_ways(
    gateway: Gateway, agent: Callable[..., AgentProcess], family: socket.AddressFamily, kind: socket.SocketKind
) -> None:
    """The client's flow shows the server behind the gateway, the server's flow shows the client behind it."""
    v6 = family == socket.AF_INET6
    client, inside, outside, server = (
        ("fd01::1", "fd01::2", "fd02::2", "fd02::3") if v6 else ("10.1.0.1", "10.1.0.2", "10.2.0.2", "10.2.0.3")
    )
    daemon = agent(gateway.inside.namespace, "--active-timeout", "0.2")
    with echo_server(gateway.server.namespace, family, kind):
        port = ask(gateway.client.namespace, family, kind, inside)
    result = daemon.stop()
    there = flow_of(result.flows, client, inside, SrcPort=port, DstPort=8080)
    leaving = flow_of(result.flows, outside, server, DstPort=80)
    assert translation(there) == (outside, leaving["SrcPort"], server, 80)
    assert "XlatSrcAddr" not in leaving
    back = flow_of(result.flows, server, outside, SrcPort=80)
    assert translation(back) == (inside, 8080, client, port)
    assert "XlatSrcAddr" not in flow_of(result.flows, inside, client, SrcPort=8080)


def test_connection_from_before(gateway: Gateway, agent: Callable[..., AgentProcess]) -> None:
    """A connection that was there before the daemon is known by its first row."""
    with echo_server(gateway.server.namespace, socket.AF_INET, socket.SOCK_STREAM):
        with gateway.client.namespace.enter():
            client = socket.socket()
        with client:
            client.settimeout(PATIENCE_S)
            client.connect(("10.1.0.2", 8080))
            daemon = agent(gateway.inside.namespace, "--active-timeout", "0.2")
            client.sendall(b"question")
            assert client.recv(100) == b"answer"
            port = client.getsockname()[1]
            daemon.wait_for_flows(lambda flows: any(flow.get("SrcPort") == port for flow in flows))
    there = flow_of(daemon.stop().flows, "10.1.0.1", "10.1.0.2", SrcPort=port)
    assert translation(there)[2:] == ("10.2.0.3", 80)


def test_without(gateway: Gateway, agent: Callable[..., AgentProcess]) -> None:
    """With the switch off, nothing is asked of the kernel and nothing is told."""
    daemon = agent(gateway.inside.namespace, "--active-timeout", "0.2", "--enrich", "drops")
    with echo_server(gateway.server.namespace, socket.AF_INET, socket.SOCK_DGRAM):
        ask(gateway.client.namespace, socket.AF_INET, socket.SOCK_DGRAM, "10.1.0.2")
    flows = daemon.stop().flows
    assert flows
    assert not any("XlatSrcAddr" in flow for flow in flows)
