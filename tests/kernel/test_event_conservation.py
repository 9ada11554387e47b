"""Conservation of events on the real kernel: what nftables dropped, by its own count, is what the join has told of.

Each dropped packet is an event here (`drop_window_s = 0`), so the kernel's count of packets is a count of events.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import evolve

from bench.generator import Generator, Mode, Traffic, generate
from tests.kernel.agent_process import AgentProcess
from tests.kernel.hosts import Namespace, Pair
from tests.kernel.scrape import FLAGS, scrape
from tests.kernel.tallying_agent import TallyingAgent
from tests.kernel.told import assert_accounted, chosen, events_of, total
from tests.kernel.waiting import look_until

PORT = 9
REFUSED = 1_009
FLOOD_S = 4.0
SMALL_RING_BYTES = 65_536
# The daemon with numpy and its ring takes 60 MB; the 262,144 events that may wait are 31 MB, and stand several times in
# memory while they are put in order and joined.
MAX_RESIDENT_BYTES = 250_000_000
MAX_ANSWER_S = 3.0  # of the metrics, while two processors do nothing but send: it shares them


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
    """A thousand and ten thousand a second for hundreds of epochs, and some that no hook saw: nothing is lost."""
    arriving, leaving = DropRule(pair.right.namespace, "input"), DropRule(pair.right.namespace, "output")
    settings = settings_file(tmp_path, active_timeout_s=0.05)
    daemon = agent(pair.right.namespace, "-i", "right0", "--enrich", "drops", *settings)
    for rate, offset in ((1_000, 0), (10_000, 100_000)):
        paced = evolve(traffic, flows_per_second=rate, flow_offset=offset, packets_per_flow=2, duration_s=6.5)
        with Generator(paced, pair.left.namespace.prefix) as running:
            send_what_is_refused(pair.right.namespace)
            running.wait(timeout_s=30)
    received = settle(pair, arriving)
    result = daemon.stop()
    ledger = assert_accounted(result)
    told = events_of(ledger, "drop")
    assert ledger["audits"]["drains"] >= 200
    assert leaving.packets() == 2 * REFUSED
    assert told["made"] == received + leaving.packets()
    assert told["lost"] == told["evicted"] == told["thinned"] == told["unclaimed"] == 0
    assert told["made"] == told["joined"] + told["continued"] + told["drop_only"]
    assert total(result.flows, "Packets") == received
    refused = chosen(result.flows, SrcAddr="10.0.0.2")
    assert total(refused, "PktDropPackets") == told["drop_only"] == leaving.packets()
    assert total(result.flows, "PktDropPackets") == told["made"]


def send_what_is_refused(namespace: Namespace) -> None:
    """Send REFUSED datagrams that an output rule drops, from one socket, some in each epoch."""
    with namespace.enter():
        sender = socket.socket(type=socket.SOCK_DGRAM)
    with sender:
        for _ in range(REFUSED):
            with pytest.raises(PermissionError):
                sender.sendto(b"refused", ("10.0.0.1", PORT))
            time.sleep(0.001)


@pytest.mark.parametrize("ring_bytes", [SMALL_RING_BYTES, 8 << 20], ids=["small ring", "default ring"])
def test_at_full_speed(
    pair: Pair, traffic: Traffic, tmp_path: Path, agent: Callable[..., AgentProcess], ring_bytes: int
) -> None:
    """Two processors drop as fast as they can: flows are exact, events told or counted as lost; and it answers."""
    rule = DropRule(pair.right.namespace, "input")
    settings = settings_file(tmp_path, active_timeout_s=0.05, ring_bytes=ring_bytes)
    daemon = agent(pair.right.namespace, "-i", "right0", "--enrich", "drops", *settings, *FLAGS)
    flood = evolve(traffic, mode=Mode.ONE_FLOW, duration_s=FLOOD_S)
    prefix = pair.left.namespace.prefix
    with (
        Generator(evolve(flood, cpu=0, source_port=1), prefix) as first,
        Generator(evolve(flood, cpu=1, source_port=2), prefix) as second,
    ):
        answers_s = list(answer_times_s(pair.right.namespace, seconds=FLOOD_S - 1))
        first.wait(timeout_s=30)
        second.wait(timeout_s=30)
    received = settle(pair, rule)
    peak_bytes = peak_resident_bytes(daemon.pid)
    result = daemon.stop()
    ledger = assert_accounted(result)
    told = events_of(ledger, "drop")
    print(f"{received / FLOOD_S:,.0f} drops/s, answers in {max(answers_s):.3f} s, {peak_bytes / 1e6:.0f} MB", told)
    assert total(result.flows, "Packets") == received
    # What nftables did not drop: the kernel frees a FIN that comes in TIME_WAIT as it frees a dropped packet, and each
    # connection by which the daemon is asked has one, which may come so late.
    others = told["made"] + ledger["events"]["missed"].get("drop", 0) - received
    assert told["unclaimed"] <= others <= len(answers_s)
    ended = sum(told[name] for name in ("joined", "continued", "drop_only", "unclaimed", "evicted"))
    assert told["made"] == told["lost"] + ended
    assert total(result.flows, "PktDropPackets") == told["joined"] + told["continued"] + told["drop_only"]
    assert told["drop_only"] == 0
    assert told["lost"] > 0 or ring_bytes > SMALL_RING_BYTES
    assert max(answers_s) < MAX_ANSWER_S
    assert peak_bytes < MAX_RESIDENT_BYTES


def answer_times_s(namespace: Namespace, seconds: float) -> Iterator[float]:
    """Ask the daemon for its metrics again and again; yield how long each answer took."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        asked_s = time.monotonic()
        scrape(namespace)
        yield time.monotonic() - asked_s
        time.sleep(0.05)


def peak_resident_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


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
    """A million flows at 20,000 a second, each dropped once, drained each 200 ms: not one partial record."""
    flows = 1_000_003
    rule = DropRule(pair.right.namespace, "input")
    arguments = ("-i", "right0", "--direction", "ingress", "--active-timeout", "0.2")
    with TallyingAgent(pair.right.namespace, tmp_path / "ledger.json", *arguments) as daemon:
        tally = daemon.tally(kind_of_record)
        sent = generate(
            evolve(traffic, flows=flows, flows_per_second=20_000, duration_s=300), pair.left.namespace.prefix
        )
        received = settle(pair, rule)
        ledger = assert_accounted(daemon.stop())
    assert sent.packets == received == flows
    assert (tally.counts, tally.odd) == ({"whole": flows}, [])
    told = events_of(ledger, "drop")
    assert told["joined"] == told["made"] == flows
    assert ledger["audits"]["drains"] >= 200
