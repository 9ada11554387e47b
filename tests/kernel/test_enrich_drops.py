"""Dropped packets on the real kernel: how many, of how many bytes, and why, against what was sent."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import pytest
from attrs import evolve

from bench.generator import Mode, Traffic, generate
from tests.kernel.agent_process import AgentProcess, AgentResult, FlowLine
from tests.kernel.hosts import Gateway, Namespace, Pair, wait_until_taken

COUNT, PAYLOAD = 101, 300
CPUS, DROP_WINDOW_S = os.sched_getaffinity(0), 0.01
NETFILTER, NO_SOCKET, BUFFER_FULL = (
    f"SKB_DROP_REASON_{reason}" for reason in ("NETFILTER_DROP", "NO_SOCKET", "SOCKET_RCVBUFF")
)
FAMILIES = {socket.AF_INET: ("10.0.0.1", "10.0.0.2"), socket.AF_INET6: ("fd00::1", "fd00::2")}
by_family = pytest.mark.parametrize("family", list(FAMILIES), ids=["IPv4", "IPv6"])


def filter_out(namespace: Namespace, hook: str, port: int) -> None:
    """Drop what goes to a UDP port, at one of netfilter's hooks."""
    namespace.run("nft", "add table inet filter")
    namespace.run("nft", f"add chain inet filter here {{ type filter hook {hook} priority 0; }}")
    namespace.run("nft", f"add rule inet filter here udp dport {port} drop")


def send(namespace: Namespace, family: int, address: str, port: int, count: int) -> None:
    with namespace.enter():
        sender = socket.socket(family, socket.SOCK_DGRAM)
    with sender:
        for _ in range(count):
            try:
                sender.sendto(b"x" * PAYLOAD, (address, port))
            except PermissionError:  # what an output rule drops is told to the sender
                continue
        wait_until_taken(sender)


def flows_to(result: AgentResult, port: int) -> list[FlowLine]:
    """Return the flows to a port, once both ledgers are known to balance."""
    assert result.exit_code == 0, result.log
    assert result.ledger is not None
    assert result.ledger["audits"]["mismatches"] == 0, result.log
    assert all(exporter["balances"] for exporter in result.ledger["exporters"])
    assert result.ledger["events"]["balances"], result.log
    found = [flow for flow in result.flows if flow.get("DstPort") == port]
    assert found
    return found


def total(flows: list[FlowLine], field: str) -> int:
    return sum(flow.get(field, 0) for flow in flows)


def causes(flows: list[FlowLine]) -> dict[str, int]:
    found: dict[str, int] = {}
    for flow in flows:
        for name, packets in flow.get("PktDropCauses", {}).items():
            found[name] = found.get(name, 0) + packets
    return found


@by_family
def test_input(pair: Pair, agent: Callable[..., AgentProcess], family: socket.AddressFamily) -> None:
    """What an input rule drops is in its flow: each packet, each byte, and netfilter as the reason."""
    filter_out(pair.right.namespace, "input", 9999)
    daemon = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "0.2")
    send(pair.left.namespace, family, FAMILIES[family][1], 9999, COUNT)
    flows = flows_to(daemon.stop(), 9999)
    assert total(flows, "Packets") == total(flows, "PktDropPackets") == COUNT
    assert total(flows, "Bytes") == total(flows, "PktDropBytes")
    assert causes(flows) == {NETFILTER: COUNT}
    assert {flow["PktDropLatestDropCause"] for flow in flows if "PktDropPackets" in flow} == {NETFILTER}
    assert not any("RecordKind" in flow for flow in flows)


@by_family
def test_output(pair: Pair, agent: Callable[..., AgentProcess], family: socket.AddressFamily) -> None:
    """What an output rule drops no hook has seen: records of its own, with the interface that it would have left by."""
    filter_out(pair.left.namespace, "output", 9999)
    daemon = agent(pair.left.namespace, "-i", "left0", "--active-timeout", "0.2")
    send(pair.left.namespace, family, FAMILIES[family][1], 9999, COUNT)
    flows = flows_to(daemon.stop(), 9999)
    assert {flow["RecordKind"] for flow in flows} == {"drop-only"}
    assert not any("Packets" in flow or "Bytes" in flow for flow in flows)
    assert causes(flows) == {NETFILTER: COUNT}
    headers = 14 + (40 if family == socket.AF_INET6 else 20) + 8
    assert total(flows, "PktDropBytes") == COUNT * (headers + PAYLOAD)
    assert {(*flow["Interfaces"], *flow["IfDirections"]) for flow in flows} == {("left0", 1)}
    assert {(flow["SrcAddr"], flow["DstAddr"]) for flow in flows} == {FAMILIES[family]}


def test_forward(namespaces: Callable[[], Namespace], agent: Callable[..., AgentProcess]) -> None:
    """What a router's rule drops is in the flow that came in."""
    router = namespaces()
    client_host = Gateway.between(namespaces(), router, namespaces()).client.namespace
    client_host.route("10.2.0.0/24", "10.1.0.2")
    filter_out(router, "forward", 9999)
    daemon = agent(router, "--active-timeout", "0.2")
    send(client_host, socket.AF_INET, "10.2.0.3", 9999, COUNT)
    send(client_host, socket.AF_INET, "10.2.0.3", 9998, 7)
    result = daemon.stop()
    flows = flows_to(result, 9999)
    assert {tuple(flow["Interfaces"]) for flow in flows} == {("inside0",)}
    assert total(flows, "Packets") == COUNT
    assert causes(flows) == {NETFILTER: COUNT}
    passed = flows_to(result, 9998)
    assert total(passed, "Packets") == 7
    assert causes(passed) == {}


@by_family
def test_closed_port(pair: Pair, agent: Callable[..., AgentProcess], family: socket.AddressFamily) -> None:
    """A datagram that nobody waits for is dropped for want of a socket."""
    daemon = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "0.2")
    send(pair.left.namespace, family, FAMILIES[family][1], 7, COUNT)
    flows = flows_to(daemon.stop(), 7)
    assert causes(flows) == {NO_SOCKET: COUNT}
    assert total(flows, "PktDropBytes") == total(flows, "Bytes")


def test_full_socket_buffer(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """What a slow reader's buffer does not take is dropped for that; what it took was not dropped."""
    with pair.right.namespace.enter():
        reader = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.bind(("10.0.0.2", 9000))
        daemon = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "0.2")
        send(pair.left.namespace, socket.AF_INET, "10.0.0.2", 9000, 211)
        flows = flows_to(daemon.stop(), 9000)
        reader.setblocking(False)
        taken = 0
        try:
            while reader.recv(2000):
                taken += 1
        except BlockingIOError:
            pass
    assert taken > 0
    assert causes(flows) == {BUFFER_FULL: 211 - taken}
    assert total(flows, "Packets") == 211


def test_flood(pair: Pair, agent: Callable[..., AgentProcess]) -> None:
    """A flood of one flow is told in a few events, across many epochs, and the sums are exact."""
    daemon = agent(pair.right.namespace, "-i", "right0", "--direction", "ingress", "--active-timeout", "0.1")
    # To a MAC that nobody has: the stack drops what is for another host.
    traffic = Traffic(pair.left.name, "10.0.0.1", "10.0.0.2", mode=Mode.ONE_FLOW, duration_s=3)
    began_s = time.monotonic()
    generate(evolve(traffic, destination_mac="02:00:00:00:00:99"), pair.left.namespace.prefix)
    took_s = time.monotonic() - began_s
    result = daemon.stop()
    assert result.ledger is not None
    assert result.ledger["events"]["balances"]
    received = pair.right.statistics().rx_packets
    assert result.sum("Packets") == received
    assert total(result.flows, "PktDropPackets") == received
    assert total(result.flows, "PktDropBytes") == result.sum("Bytes")
    (drops,) = (kind for kind in result.ledger["events"]["kinds"] if kind["kind"] == "drop")
    assert drops["made"] + drops["thinned"] == received
    # On each processor one for each window that has passed, and one for each drain.
    assert drops["made"] <= len(CPUS) * (took_s / DROP_WINDOW_S + result.ledger["audits"]["drains"] + 1)
    assert drops["lost"] == 0
