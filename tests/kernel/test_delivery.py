"""Delivery by gRPC to a collector that comes and goes: while the queue has room nothing is lost, and all is counted."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import pytest
from attrs import evolve

from bench.generator import Generator, Sent, Traffic, generate
from tests.kernel.agent_process import AgentProcess, AgentResult, FlowLine
from tests.kernel.bad_collectors import bad_collector, hangs, resets, sends_garbage, speaks_http1
from tests.kernel.collector_process import CollectorProcess
from tests.kernel.hosts import Pair
from tests.kernel.ledger_file import account_of
from tests.kernel.scrape import FLAGS, Scrape, scrape, scrape_until

ADDRESS, SECOND = "127.0.0.1:2055", "127.0.0.1:2056"
URL = f"grpc://{ADDRESS}"
SHUTDOWN = ("shutdown", "not delivered within the grace period")
QUEUE_FULL = ("queue", "full")
FRAME_BYTES = 142  # the generator's payload of 100 bytes and its headers
FLOW_BYTES = 144
MAX_MESSAGE_FLOWS = 10_000
MIN_QUEUE_BYTES = 65_536

Start = Callable[..., AgentProcess]


@pytest.fixture
def traffic(pair: Pair) -> Traffic:
    """Flows that come in at `right0`, where nobody answers: the frames are for another host."""
    return Traffic(interface=pair.left.name, source="10.0.0.1", destination="10.0.0.2")


@pytest.fixture
def start(pair: Pair, agent: Start, tmp_path: Path) -> Start:
    """Start a daemon that is quick to drain, to try again and to give up: `start(*arguments, setting=value)`."""

    def start_with(*arguments: str, **settings: float) -> AgentProcess:
        quick: Mapping[str, float] = {"backoff_max_s": 0.2, "active_timeout_s": 0.1} | settings
        path = tmp_path / "netwatch.toml"
        path.write_text("".join(f"{name} = {value}\n" for name, value in quick.items()))
        return agent(pair.right.namespace, "-c", str(path), "-i", "right0", "--direction", "ingress", *arguments)

    return start_with


def flows_in(printed: Iterable[FlowLine]) -> Counter[int]:
    """Count how often each flow of the generator was printed, by its number: it has one packet, so one record."""
    lines = list(printed)
    assert {(flow["SrcAddr"], flow["Packets"], flow["Bytes"]) for flow in lines} == {("10.0.0.1", 1, FRAME_BYTES)}
    return Counter(flow["SrcPort"] - 1024 for flow in lines)


def assert_nothing_lost(result: AgentResult, url: str, sent: Sent) -> None:
    """Assert that an exporter has delivered all that was sent, and that its account says so."""
    assert result.exit_code == 0, result.log
    assert result.ledger is not None
    exported, lost, balances = account_of(result.ledger, url)
    assert result.ledger["audits"]["mismatches"] == 0
    assert (balances, lost, result.ledger["lost"]) == (True, {}, [])
    assert (exported["packets"], exported["bytes"]) == (sent.packets, sent.bytes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_collector_restarted_under_traffic(number: signal.Signals, pair: Pair, traffic: Traffic, start: Start) -> None:
    """Nothing is lost; nothing comes twice either, unless the collector died between printing and answering."""
    namespace = pair.right.namespace
    daemon = start("-x", URL, *FLAGS)
    flood = evolve(traffic, flows_per_second=2000, flows=60_000)
    with Generator(flood, pair.left.namespace.prefix) as generator:
        with CollectorProcess(namespace, ADDRESS) as first:
            first.wait_for_lines(1000)
            before = first.stop(number)
        scrape_until(namespace, lambda now: now.sum("exporter_errors_total") >= 2)
        with CollectorProcess(namespace, ADDRESS) as second:
            second.wait_for_lines(1000)
            sent = generator.stop()
            result = daemon.stop()
            after = second.stop()
    assert_nothing_lost(result, URL, sent)
    printed = flows_in(before + after)
    assert sorted(printed) == [*range(sent.flows)]
    twice = [number for number, count in printed.items() if count > 1]
    if number == signal.SIGTERM:
        assert twice == []
    # If any, they are of the message that was under way, which came first to the second collector.
    assert set(twice) <= set(flows_in(after[:MAX_MESSAGE_FLOWS]))


def test_no_collector_at_all(pair: Pair, traffic: Traffic, start: Start) -> None:
    """What could not be delivered within the grace period is lost, and that is no failure of the daemon."""
    daemon = start("-x", URL, "--grace", "0.5")
    sent = generate(evolve(traffic, flows=1009), pair.left.namespace.prefix)
    daemon.wait_for_log("trying again")
    result = daemon.stop()
    assert result.exit_code == 0
    assert result.ledger is not None
    exported, lost, balances = account_of(result.ledger, URL)
    assert (exported["flows"], balances) == (0, True)
    assert lost[SHUTDOWN]["packets"] == sent.packets
    assert lost[SHUTDOWN]["bytes"] == sent.bytes


def test_collectors_that_misbehave(pair: Pair, traffic: Traffic, start: Start) -> None:
    """Whatever the other end does, flows are kept and captured on, and the terminal has them in time.

    In the end a real collector takes the place, and all of it arrives.
    """
    namespace = pair.right.namespace
    daemon = start("-x", URL, "-x", "stdout", *FLAGS, deadline_s=1.0)
    behaviours = (hangs, resets, speaks_http1, sends_garbage)
    part = evolve(traffic, flows=211)
    for number, behave in enumerate(behaviours):
        with bad_collector(namespace, ADDRESS, behave):
            capture_meanwhile(pair, evolve(part, flow_offset=211 * number))
    with CollectorProcess(namespace, ADDRESS) as collector:
        result = daemon.stop()
        arrived = collector.stop()
    flows = 211 * len(behaviours)
    sent = Sent(flows=flows, packets=flows, bytes=FRAME_BYTES * flows, seconds=0, errors=0)
    assert_nothing_lost(result, URL, sent)
    assert_nothing_lost(result, "stdout", sent)
    assert flows_in(result.flows) == Counter(range(flows))
    # Twice, where the answer came too late for the short deadline.
    assert set(flows_in(arrived)) == set(range(flows))


def capture_meanwhile(pair: Pair, traffic: Traffic) -> None:
    """Send traffic; wait until stdout has it and gRPC has failed twice more."""
    namespace = pair.right.namespace
    before = scrape(namespace)
    failures = before.sum("exporter_errors_total", exporter=URL)
    printed = before.sum("exporter_exported_packets_total", exporter="stdout")
    printed += generate(traffic, pair.left.namespace.prefix).packets
    scrape_until(namespace, lambda now: now.sum("exporter_exported_packets_total", exporter="stdout") == printed)
    now = scrape_until(namespace, lambda now: now.sum("exporter_errors_total", exporter=URL) >= failures + 2)
    assert now.sum("exporter_exported_packets_total", exporter=URL) == 0


def test_stop_before_a_collector_that_hangs(pair: Pair, traffic: Traffic, start: Start) -> None:
    """With the queue full and a drain waiting for room, the end comes with the grace period, not with an answer."""
    namespace, period_s = pair.right.namespace, 1.5
    limits = {"max_queue_bytes": MIN_QUEUE_BYTES, "max_message_bytes": MIN_QUEUE_BYTES, "deadline_s": 3600}
    periods = {"active_timeout_s": period_s, "grace_s": period_s}
    with bad_collector(namespace, ADDRESS, hangs):
        daemon = start("-x", URL, *FLAGS, **limits, **periods)
        flood = evolve(traffic, flows_per_second=1000, flows=60_000)
        with Generator(flood, pair.left.namespace.prefix) as generator:
            # The second drain has waited in vain for room, the third one begins to.
            scrape_until(namespace, lambda now: now.sum("exporter_lost_flows_total") > 0)
            result = daemon.stop()
            generator.stop()
    assert result.exit_code == 0
    assert result.ledger is not None
    exported, lost, balances = account_of(result.ledger, URL)
    assert (exported["flows"], balances) == (0, True)
    assert lost


def test_failover(pair: Pair, traffic: Traffic, start: Start) -> None:
    """Two collectors share the messages; when one goes, the other gets all, and nothing is lost on the way."""
    namespace, url = pair.right.namespace, f"{URL},{SECOND}"
    with CollectorProcess(namespace, ADDRESS) as first, CollectorProcess(namespace, SECOND) as second:
        daemon = start("-x", url, *FLAGS)
        flood = evolve(traffic, flows_per_second=2000, flows=60_000)
        with Generator(flood, pair.left.namespace.prefix) as generator:
            first.wait_for_lines(500)
            second.wait_for_lines(500)
            one = first.stop()
            daemon.wait_for_log(f"{ADDRESS}: ")
            before = scrape(namespace).sum("exporter_exported_flows_total")
            scrape_until(namespace, lambda now: now.sum("exporter_exported_flows_total") > before + 1000)
            sent = generator.stop()
            result = daemon.stop()
        other = second.stop()
    assert_nothing_lost(result, url, sent)
    assert flows_in(one + other) == Counter(range(sent.flows))
    # No attempt failed as a whole, so nothing ever waited for a pause.
    assert not any("trying again" in line for line in result.log)


def has_drained(flows: int, now: Scrape) -> bool:
    """Say whether all that was sent so far has come to the queue."""
    return now.sum("drained_flows_total") == flows


def test_queue_overflow(pair: Pair, traffic: Traffic, start: Start) -> None:
    """What does not fit is lost oldest first, and is counted flow by flow."""
    namespace, prefix = pair.right.namespace, pair.left.namespace.prefix
    rounds, flows = 8, 101
    limits = {"max_queue_bytes": MIN_QUEUE_BYTES, "max_message_bytes": MIN_QUEUE_BYTES}
    # Without facts, so that a flow takes what a row takes.
    daemon = start("-x", URL, "--enrich", "none", *FLAGS, **limits, active_timeout_s=1.0)
    for number in range(rounds):
        generate(evolve(traffic, flows=flows, flow_offset=number * flows), prefix)
        now = scrape_until(namespace, partial(has_drained, (number + 1) * flows))
        assert now.sum("exporter_queue_bytes") <= MIN_QUEUE_BYTES
        assert now.sum("exporter_in_flight_flows") <= MIN_QUEUE_BYTES // FLOW_BYTES
    with CollectorProcess(namespace, ADDRESS) as collector:
        scrape_until(namespace, lambda now: now.sum("exporter_in_flight_flows") == 0)
        # More than the queue holds at once: now the drain waits for room, and nothing more is lost.
        more = generate(evolve(traffic, flows=1009, flow_offset=rounds * flows), prefix)
        result = daemon.stop()
        arrived = sorted(flows_in(collector.stop()).elements())
    assert result.exit_code == 0
    assert result.ledger is not None
    exported, lost, balances = account_of(result.ledger, URL)
    assert balances
    assert set(lost) == {QUEUE_FULL}
    assert exported["flows"] == len(arrived) > MIN_QUEUE_BYTES // FLOW_BYTES // 2 + more.flows
    sent = rounds * flows + more.flows
    assert lost[QUEUE_FULL]["flows"] == lost[QUEUE_FULL]["packets"] == sent - len(arrived)
    missing = sorted(set(range(sent)) - set(arrived))
    # One message may have been on its way at the very moment when it was the oldest.
    assert len(set(arrived) & set(range(missing[-1]))) <= flows
    assert missing[-1] < (rounds - 1) * flows
