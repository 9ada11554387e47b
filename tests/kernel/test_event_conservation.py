"""Conservation of events on the real kernel: what nftables dropped, by its own count, is what the join has told of.

Each dropped packet is an event here (`drop_window_s = 0`), so the kernel's count of packets is a count of events.
"""

from __future__ import annotations

import itertools
import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from bench.generator import Generator, Mode, Traffic, generate
from tests.kernel.agent_process import AgentProcess, FlowLine
from tests.kernel.hosts import Namespace, Pair
from tests.kernel.scrape import FLAGS, scrape
from tests.kernel.tallying_agent import TallyingAgent
from tests.kernel.told import assert_accounted, chosen, events_of, total
from tests.kernel.waiting import look_until

PORT = 9
HERE = "10.0.0.2"
FLOOD_S = 4.0
SMALL_RING_BYTES, SLOT_BYTES = 65_536, 128
PORTION = 20_011  # flows: as many events; the default ring takes 65,536 of them


@pytest.fixture
def traffic(pair: Pair) -> Traffic:
    """Flows from the left host to a port of the right one, where they are dropped."""
    return Traffic(pair.left.name, "10.0.0.100", "10.0.0.2", destination_mac=pair.right.mac, destination_port=PORT)


class DropRule:
    """A rule that drops what goes to PORT, and the kernel's count of it."""

    def __init__(self, namespace: Namespace, hook: str) -> None:
        self._namespace, self._hook = namespace, hook
        for command in (
            f"add table inet {hook}",
            f"add counter inet {hook} dropped",
            f"add chain inet {hook} here {{ type filter hook {hook} priority 0; }}",
            f'add rule inet {hook} here udp dport {PORT} counter name "dropped" drop',
        ):
            namespace.run("nft", command)

    def packets(self) -> int:
        """Return how many it has dropped."""
        listed = json.loads(self._namespace.run("nft", "-j", "list", "counter", "inet", self._hook, "dropped"))
        (counter,) = (entry["counter"] for entry in listed["nftables"] if "counter" in entry)
        return int(counter["packets"])


def settings_file(directory: Path, **settings: float) -> tuple[str, str]:
    path = directory / "netwatch.toml"
    path.write_text("".join(f"{name} = {value}\n" for name, value in ({"drop_window_s": 0} | settings).items()))
    return "-c", str(path)


def settle(pair: Pair, rule: DropRule) -> int:
    """Wait until what has come in has been dropped; return how many came in."""
    received = pair.right.statistics().rx_packets
    assert look_until(rule.packets, lambda dropped: dropped >= received) == received
    return received


def test_at_rates_that_the_ring_takes(
    pair: Pair, traffic: Traffic, tmp_path: Path, agent: Callable[..., AgentProcess]
) -> None:
    """A thousand and ten thousand a second for a hundred epochs, and some that no hook saw: nothing is lost.

    The ring has 65,536 slots. Each round makes at most 20,014 events and those of what is refused; the next one begins
    when they are in records: so however late the daemon comes, the ring has room.
    """
    arriving, leaving = DropRule(pair.right.namespace, "input"), DropRule(pair.right.namespace, "output")
    settings = settings_file(tmp_path, active_timeout_s=0.05)
    daemon = agent(pair.right.namespace, "-i", "right0", "--enrich", "drops", *settings)
    refused_packets, rounds, flows = 0, itertools.cycle(((1_000, 1_009), (10_000, 10_007))), Tally()
    with pair.right.namespace.enter():
        refused = socket.socket(type=socket.SOCK_DGRAM)
    with refused:
        # What is refused is one flow, and each drain has a record of it.
        while flows.refused < 100:
            rate, count = next(rounds)
            paced = evolve(traffic, flows_per_second=rate, flows=count, packets_per_flow=2)
            with Generator(paced, pair.left.namespace.prefix) as running:
                while running.is_running():
                    refused_packets += send_what_is_refused(refused)
                running.wait()
            received = settle(pair, arriving)
            daemon.wait_for_flows(flows.have(received, refused_packets))
    result = daemon.stop()
    ledger = assert_accounted(result)
    told = events_of(ledger, "drop")
    assert leaving.packets() == refused_packets
    assert told["made"] == received + leaving.packets()
    assert told["lost"] == told["evicted"] == told["thinned"] == told["unclaimed"] == 0
    assert told["made"] == told["joined"] + told["continued"] + told["drop_only"]
    assert total(result.flows, "Packets") == received
    assert total(chosen(result.flows, SrcAddr=HERE), "PktDropPackets") == told["drop_only"] == leaving.packets()
    assert total(result.flows, "PktDropPackets") == told["made"]


class Tally:
    """Adds up what the daemon has printed so far: packets that came in, and those that were refused."""

    def __init__(self) -> None:
        self.refused = 0
        """Records of what was refused."""
        self._lines = self._packets = self._refused_packets = 0

    def have(self, packets: int, refused_packets: int) -> Callable[[list[FlowLine]], bool]:
        """Return what says whether there are records of all these; it looks at each line once."""

        def has_all(flows: list[FlowLine]) -> bool:
            for flow in flows[self._lines :]:
                if flow["SrcAddr"] == HERE:
                    self.refused += 1
                    self._refused_packets += flow["PktDropPackets"]
                else:
                    self._packets += flow.get("Packets", 0)
            self._lines = len(flows)
            return (self._packets, self._refused_packets) == (packets, refused_packets)

        return has_all


def send_what_is_refused(sender: socket.socket) -> int:
    """Send a datagram that an output rule drops, and leave room for others. Return how many that were."""
    with pytest.raises(PermissionError):
        sender.sendto(b"refused", ("10.0.0.1", PORT))
    time.sleep(0.001)
    return 1


@pytest.mark.parametrize("ring_bytes", [SMALL_RING_BYTES, 8 << 20], ids=["small ring", "default ring"])
def test_at_full_speed(
    pair: Pair, traffic: Traffic, tmp_path: Path, agent: Callable[..., AgentProcess], ring_bytes: int
) -> None:
    """Two processors drop as fast as they can: flows are exact, events told or counted as lost; and it answers.

    Meanwhile the daemon is stopped for a while, so that it is late on any machine: a small ring overflows.
    """
    rule = DropRule(pair.right.namespace, "input")
    settings = settings_file(tmp_path, active_timeout_s=0.05, ring_bytes=ring_bytes)
    daemon = agent(pair.right.namespace, "-i", "right0", "--enrich", "drops", *settings, *FLAGS)
    flood = evolve(traffic, mode=Mode.ONE_FLOW, duration_s=FLOOD_S)
    prefix = pair.left.namespace.prefix
    with (
        Generator(evolve(flood, cpu=0, source_port=1), prefix) as first,
        Generator(evolve(flood, cpu=1, source_port=2), prefix) as second,
    ):
        daemon.send_signal(signal.SIGSTOP)
        before = rule.packets()
        look_until(rule.packets, lambda dropped: dropped - before > 2 * SMALL_RING_BYTES // SLOT_BYTES)
        daemon.send_signal(signal.SIGCONT)
        answers = ask_for_metrics(pair.right.namespace, seconds=FLOOD_S / 2)
        first.wait()
        second.wait()
    received = settle(pair, rule)
    result = daemon.stop()
    ledger = assert_accounted(result)
    told = events_of(ledger, "drop")
    assert total(result.flows, "Packets") == received
    # What nftables did not drop: the kernel frees a FIN that comes in TIME_WAIT as it frees a dropped packet, and each
    # connection by which the daemon is asked has one, which may come so late.
    others = told["made"] + ledger["events"]["missed"].get("drop", 0) - received
    assert told["unclaimed"] <= others <= answers
    ended = sum(told[name] for name in ("joined", "continued", "drop_only", "unclaimed", "evicted"))
    assert told["made"] == told["lost"] + ended
    assert total(result.flows, "PktDropPackets") == told["joined"] + told["continued"] + told["drop_only"]
    assert told["drop_only"] == 0
    assert told["lost"] > 0 or ring_bytes > SMALL_RING_BYTES


def ask_for_metrics(namespace: Namespace, seconds: float) -> int:
    """Ask the daemon for its metrics again and again; return how often it answered, once at least."""
    until_s, answers = time.monotonic() + seconds, 0
    while not answers or time.monotonic() < until_s:
        scrape(namespace)
        answers += 1
        time.sleep(0.05)
    return answers


def kind_of_record(line: str) -> str:
    """Return "whole" for a record with its packet, its drop, its interface and its addresses, else ""."""
    is_whole = (
        '"Packets":1,' in line
        and '"PktDropPackets":1,' in line
        and '"PktDropCauses":{"SKB_DROP_REASON_NETFILTER_DROP":1}' in line
        and '"Interfaces":["right0"]' in line
        and '"SrcMac":"00:00:00:00:00:00"' not in line
        and "RecordKind" not in line
    )
    return "whole" if is_whole else ""


@pytest.mark.slow
def test_a_million_flows(pair: Pair, traffic: Traffic, tmp_path: Path) -> None:
    """A million flows, each dropped once, drained each 200 ms: not one partial record.

    They come in portions that the ring has room for, each when the one before it is printed.
    """
    flows = 1_000_003
    rule = DropRule(pair.right.namespace, "input")
    arguments = ("-i", "right0", "--direction", "ingress", "--active-timeout", "0.2")
    with TallyingAgent(pair.right.namespace, tmp_path / "ledger.json", *arguments) as daemon:
        tally = daemon.tally(kind_of_record)
        for offset in range(0, flows, PORTION):
            portion = evolve(traffic, flows=min(PORTION, flows - offset), flow_offset=offset, flows_per_second=40_000)
            generate(portion, pair.left.namespace.prefix)
            received = settle(pair, rule)
            assert look_until(tally.counts.total, received.__le__) == received
        ledger = assert_accounted(daemon.stop())
    assert received == flows
    assert (tally.counts, tally.odd) == ({"whole": flows}, [])
    told = events_of(ledger, "drop")
    assert told["joined"] == told["made"] == flows
