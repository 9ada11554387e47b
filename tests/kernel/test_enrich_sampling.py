"""Sampling and enrichment: what is told belongs to what is looked at, whichever way it is sampled."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from tests.kernel.agent_process import AgentProcess, AgentResult
from tests.kernel.hosts import Pair, wait_until_taken

FLOWS, PACKETS, RATE = 400, 3, 4


def send(pair: Pair) -> None:
    """Send packets of many flows to closed ports: each is dropped, for want of a socket."""
    with pair.left.namespace.enter():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        for _ in range(PACKETS):
            for port in range(FLOWS):
                sender.sendto(b"x" * 50, ("10.0.0.2", 10_000 + port))
        wait_until_taken(sender)


def run(pair: Pair, agent: Callable[..., AgentProcess], tmp_path: Path, mode: str) -> AgentResult:
    """Run with sampling, and return the result once all ledgers are known to balance."""
    file = tmp_path / "netwatch.toml"
    file.write_text(f'sampling = {RATE}\nsampling_mode = "{mode}"\ndrop_window_s = 0\n')
    daemon = agent(
        pair.right.namespace, "-i", "right0", "--direction", "ingress", "--active-timeout", "1h", "-c", str(file)
    )
    send(pair)
    result = daemon.stop()
    assert result.exit_code == 0, result.log
    assert result.ledger is not None
    assert result.ledger["audits"]["mismatches"] == 0
    assert all(exporter["balances"] for exporter in result.ledger["exporters"])
    assert result.ledger["events"]["balances"], result.log
    return result


def test_by_flow(pair: Pair, agent: Callable[..., AgentProcess], tmp_path: Path) -> None:
    """A flow is there with all its packets and all its drops, or not at all; of the others nothing is told."""
    result = run(pair, agent, tmp_path, "flow")
    flows = [flow for flow in result.flows if flow["Proto"] == 17]
    # 400 flows, each with a chance of a quarter: 100, and 9 of standard deviation.
    assert 50 < len(flows) < 150
    assert {(flow["Packets"], flow["PktDropPackets"], flow["Sampling"]) for flow in flows} == {(PACKETS, PACKETS, RATE)}
    assert not any("RecordKind" in flow for flow in result.flows)
    assert result.ledger is not None
    (drops,) = (kind for kind in result.ledger["events"]["kinds"] if kind["kind"] == "drop")
    assert drops["made"] == drops["joined"] == len(flows) * PACKETS


def test_by_packet(pair: Pair, agent: Callable[..., AgentProcess], tmp_path: Path) -> None:
    """Drops are told of flows of which a packet was looked at; those of the others are counted as not sampled."""
    result = run(pair, agent, tmp_path, "packet")
    flows = [flow for flow in result.flows if flow["Proto"] == 17]
    # Three packets, each with a chance of a quarter: 58 % of the flows have one that is looked at.
    assert 180 < len(flows) < 290
    assert {flow["PktDropPackets"] for flow in flows} == {PACKETS}
    assert not any("RecordKind" in flow for flow in result.flows)
    assert result.ledger is not None
    (drops,) = (kind for kind in result.ledger["events"]["kinds"] if kind["kind"] == "drop")
    assert drops["made"] == FLOWS * PACKETS
    assert drops["joined"] == len(flows) * PACKETS
    assert drops["not_sampled"] == (FLOWS - len(flows)) * PACKETS
    assert drops["drop_only"] == drops["continued"] == 0
