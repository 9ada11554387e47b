"""How long a program remembers: a fragment for its datagram, a drop for others like it. On the real kernel."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from netwatch.kernel.program import ProgramSettings, load_programs
from tests.kernel.agent_process import AgentProcess
from tests.kernel.dissection import Flow
from tests.kernel.hosts import Pair
from tests.kernel.program_runner import ProgramRunner
from tests.kernel.test_enrich_drops import filter_out
from tests.kernel.told import assert_accounted, events_of, total

ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
LIFETIME_S = 30  # FRAGMENT_LIFETIME_NS: what Linux itself gives an IPv4 datagram to become whole
PORTS = (7, 9)
DROPPED = 7


@pytest.fixture(scope="module")
def runner() -> Iterator[ProgramRunner]:
    """Load the programs once."""
    loaded = load_programs(ProgramSettings(max_flows=64, max_fragments=64))
    yield ProgramRunner(loaded)
    loaded.close()


def fragments_of(version: int) -> tuple[bytes, bytes]:
    """Return a UDP datagram in two fragments."""
    content = bytes(UDP(sport=PORTS[0], dport=PORTS[1], len=24, chksum=0) / Raw(bytes(16)))
    pieces: list[Packet] = []
    for begin, end in ((0, 16), (16, 24)):
        if version == 4:
            ip = IP(src="10.0.0.1", dst="10.0.0.2", id=5, proto=17, frag=begin // 8, flags="MF" if not begin else "")
            pieces.append(ip / Raw(content[begin:end]))
        else:
            header = IPv6ExtHdrFragment(nh=17, id=5, offset=begin // 8, m=int(not begin))
            pieces.append(IPv6(src="fd00::1", dst="fd00::2") / header / Raw(content[begin:end]))
    first, later = (bytes(ETHERNET / piece) for piece in pieces)
    return first, later


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("age_s", "ports"), [(20, PORTS), (LIFETIME_S, (0, 0))])
def test_fragment_whose_first_has_passed_long_ago(
    runner: ProgramRunner, version: int, age_s: int, ports: tuple[int, int]
) -> None:
    """Its identifier may be another datagram's by then: it counts without ports. Within the time it has its own."""
    runner.forget_fragments()
    first, later = fragments_of(version)
    flow = runner.ending("ingress_ethernet", first)
    assert isinstance(flow, Flow)
    assert (flow.source_port, flow.destination_port) == PORTS
    runner.age_fragments(age_s * 1_000_000_000)
    flow = runner.ending("ingress_ethernet", later)
    assert isinstance(flow, Flow)
    assert (flow.source_port, flow.destination_port) == ports


def drops_told(
    pair: Pair, agent: Callable[..., AgentProcess], tmp_path: Path, window_s: float, pause_s: float
) -> dict[str, int]:
    """Let the kernel drop datagrams of a flow, one after the other on one processor, within one epoch."""
    settings = tmp_path / "netwatch.toml"
    settings.write_text(f"drop_window_s = {window_s}\n")
    filter_out(pair.right.namespace, "input", 9999)
    daemon = agent(pair.right.namespace, "-i", "right0", "--active-timeout", "300", "-c", str(settings))
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        with pair.left.namespace.enter():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            for _ in range(DROPPED):
                sender.sendto(b"dropped", ("10.0.0.2", 9999))
                time.sleep(pause_s)
    finally:
        os.sched_setaffinity(0, processors)
    result = daemon.stop()
    ledger = assert_accounted(result)
    assert total(result.flows, "PktDropPackets") == DROPPED
    return events_of(ledger, "drop")


def test_drops_further_apart_than_the_window(pair: Pair, agent: Callable[..., AgentProcess], tmp_path: Path) -> None:
    """Each is told by itself, however many come in an epoch."""
    told = drops_told(pair, agent, tmp_path, window_s=0.01, pause_s=0.02)
    assert (told["made"], told["thinned"]) == (DROPPED, 0)


def test_drops_within_the_window(pair: Pair, agent: Callable[..., AgentProcess], tmp_path: Path) -> None:
    """They are told together, once."""
    told = drops_told(pair, agent, tmp_path, window_s=10, pause_s=0)
    assert (told["made"], told["thinned"]) == (1, DROPPED - 1)


def test_no_window(pair: Pair, agent: Callable[..., AgentProcess], tmp_path: Path) -> None:
    """With a window of 0 no drop waits for another."""
    told = drops_told(pair, agent, tmp_path, window_s=0, pause_s=0)
    assert (told["made"], told["thinned"]) == (DROPPED, 0)
