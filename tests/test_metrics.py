"""The metrics, read back by Prometheus's own parser: they say what the ledger says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from netwatch.core.batch import InterfaceNames
from netwatch.core.direction import Direction
from netwatch.core.layout import EventKind, hook_of
from netwatch.event_ledger import EventEnds, EventLedger, KernelEvents
from netwatch.ledger import Amount, EpochCount, FlowAmount, Ledger, Loss
from netwatch.metrics import Metrics
from netwatch.status import AgentStatus, DrainTimes, ExporterStatus, MapMemory, ProgramStats

GRPC = "grpc://127.0.0.1:2055"
NAMES = InterfaceNames({2: "eth0", 3: "veth1"})


def ledger() -> Ledger:
    """Return a ledger that balances, in prime numbers."""
    ledger = Ledger()
    ledger.add_epoch(
        EpochCount(
            seen={
                hook_of(2, Direction.INGRESS): Amount(101, 10_007),
                hook_of(2, Direction.EGRESS): Amount(53, 5_003),
                hook_of(3, Direction.INGRESS): Amount(7, 701),
            },
            duplicate=Amount(11, 1_009),
            ignored={"not sampled": Amount(13, 1_301), "not IP: ARP": Amount(3, 127)},
            lost={Loss("kernel", "flow map full"): FlowAmount(0, 5, 503)},
            drained=FlowAmount(17, 129, 12_771),
        )
    )
    account = ledger.open_exporter(GRPC)
    account.accepted = FlowAmount(17, 129, 12_771)
    account.exported = FlowAmount(5, 59, 6_007)
    account.lose(Loss("queue", "full"), FlowAmount(2, 31, 3_001))
    return ledger


STATUS = AgentStatus(
    map_flows=17,
    max_flows=131_072,
    peak_flows=19,
    drain_times=DrainTimes().added(0.004).added(0.004).added(7.0).added(0.018),
    exporters=(ExporterStatus(GRPC, 4_096, 1 << 20, 23),),
    attached=(("eth0", Direction.INGRESS), ("eth0", Direction.EGRESS)),
    program_stats=(ProgramStats("netwatch_ingress", 1_000_003, 90_000_270),),
    map_bytes=(MapMemory("flows_0", 17_825_792),),
)


def families(ledger: Ledger, status: AgentStatus = STATUS, names: InterfaceNames = NAMES) -> Mapping[str, Metric]:
    text = Metrics(lambda: (ledger, status, names)).render().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family: Metric) -> dict[tuple[str, ...], float]:
    """Return the samples by their label values, in the order of the labels' names."""
    return {tuple(sample.labels[name] for name in sorted(sample.labels)): sample.value for sample in family.samples}


def test_seen() -> None:
    """Packets and bytes are there for each direction of each interface."""
    parsed = families(ledger())
    assert values(parsed["netwatch_seen_packets"]) == {
        ("ingress", "eth0"): 101,
        ("egress", "eth0"): 53,
        ("ingress", "veth1"): 7,
    }
    assert values(parsed["netwatch_seen_bytes"])["egress", "eth0"] == 5_003


def test_terms_of_the_ledger() -> None:
    """Duplicate, ignored, lost and drained are the ledger's terms, reason by reason."""
    parsed = families(ledger())
    assert values(parsed["netwatch_duplicate_packets"]) == {(): 11}
    assert values(parsed["netwatch_ignored_packets"]) == {("not sampled",): 13, ("not IP: ARP",): 3}
    full, failed = ("flow map full", "kernel"), ("flow map insert failed", "kernel")
    pending = ("too many pending events", "join")
    assert values(parsed["netwatch_lost_packets"]) == {full: 5, failed: 0, pending: 0}
    assert values(parsed["netwatch_lost_bytes"]) == {full: 503, failed: 0, pending: 0}
    assert values(parsed["netwatch_drained_flows"]) == {(): 17}


def test_events() -> None:
    """Of each kind of event: what was made, lost, thinned out and held, and where the others ended."""
    events = EventLedger(
        kernel=KernelEvents(made={EventKind.DROP: 31}, lost={EventKind.DROP: 2}, thinned={EventKind.DROP: 7}, wakes=3),
        ends={EventKind.DROP: EventEnds(taken=29, joined=17, continued=5, drop_only=3, evicted=1, held=3)},
    )
    forgotten = {"DNS question": 11, "translation": 0}
    status = attrs.evolve(STATUS, events=events, recent_flows=19, forgotten=forgotten)
    parsed = families(ledger(), attrs.evolve(status, translation_overruns=2, unnamed_sockets=13))
    for name, count in (("made", 31), ("ring_lost", 2), ("thinned", 7), ("held", 3)):
        assert values(parsed[f"netwatch_events_{name}"]) == {("drop",): count}
    ended = {end: count for (end, _), count in values(parsed["netwatch_events_ended"]).items() if count}
    assert ended == {"joined": 17, "continued": 5, "drop_only": 3, "evicted": 1}
    assert values(parsed["netwatch_ring_wakeups"]) == {(): 3}
    assert values(parsed["netwatch_recent_flows"]) == {(): 19}
    assert values(parsed["netwatch_forgotten"]) == {("DNS question",): 11, ("translation",): 0}
    assert values(parsed["netwatch_translation_overruns"]) == {(): 2}
    assert values(parsed["netwatch_unnamed_sockets"]) == {(): 13}


def test_exporter() -> None:
    """An exporter's account is there in flows, packets and bytes, with what is still in flight."""
    parsed = families(ledger())
    exported, lost, in_flight = (
        [sum(values(parsed[f"netwatch_exporter_{term}_{unit}"]).values()) for unit in ("flows", "packets", "bytes")]
        for term in ("exported", "lost", "in_flight")
    )
    assert (exported, lost, in_flight) == ([5, 59, 6_007], [2, 31, 3_001], [10, 39, 3_763])
    lost_flows = values(parsed["netwatch_exporter_lost_flows"])
    assert {labels: value for labels, value in lost_flows.items() if value} == {(GRPC, "full", "queue"): 2}


def test_first_loss() -> None:
    """A loss that has not happened yet is there as zero, so that its first occurrence is an increase."""
    untouched = Ledger()
    untouched.open_exporter(GRPC)
    parsed = families(untouched)
    assert set(values(parsed["netwatch_lost_packets"]).values()) == {0}
    reasons = {reason for _, reason, _ in values(parsed["netwatch_exporter_lost_packets"])}
    assert {"full", "output closed", "not delivered within the grace period"} <= reasons


def test_conservation() -> None:
    """The terms of one scrape add up, in packets and in bytes: the law can be checked, and alerted on, from outside."""
    parsed = families(ledger())
    for unit in ("packets", "bytes"):
        seen, *terms = (
            sum(values(parsed[f"netwatch_{term}_{unit}"]).values())
            for term in (
                "seen",
                "duplicate",
                "ignored",
                "lost",
                "exporter_exported",
                "exporter_lost",
                "exporter_in_flight",
            )
        )
        assert seen == sum(terms)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("netwatch_audited_drains", {(): 1}),
        ("netwatch_audit_mismatches", {(): 0}),
        ("netwatch_exporter_errors", {(GRPC,): 23}),
        ("netwatch_exporter_queue_bytes", {(GRPC,): 4_096}),
        ("netwatch_exporter_queue_limit_bytes", {(GRPC,): 1 << 20}),
        ("netwatch_flow_map_flows", {(): 17}),
        ("netwatch_flow_map_peak_flows", {(): 19}),
        ("netwatch_flow_map_limit_flows", {(): 131_072}),
        ("netwatch_last_drain_duration_seconds", {(): 0.018}),
        ("netwatch_attached_hooks", {("ingress", "eth0"): 1, ("egress", "eth0"): 1}),
        ("netwatch_program_runs", {("netwatch_ingress",): 1_000_003}),
        ("netwatch_program_run_seconds", {("netwatch_ingress",): 0.09000027}),
        ("netwatch_map_memory_bytes", {("flows_0",): 17_825_792}),
    ],
)
def test_state(name: str, expected: dict[tuple[str, ...], float]) -> None:
    """The agent's state is shown as it is."""
    assert values(families(ledger())[name]) == expected


def test_mismatch() -> None:
    """An epoch that does not add up is in the metrics."""
    broken = ledger()
    broken.add_epoch(EpochCount({2: Amount(1, 60)}, Amount(), {}, {}, FlowAmount()))
    assert values(families(broken)["netwatch_audit_mismatches"]) == {(): 1}


def test_drain_times() -> None:
    """The histogram counts each drain once: at most as long as its bucket says, the longest in the last one."""
    samples = families(ledger())["netwatch_drain_duration_seconds"].samples
    buckets = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("_bucket")}
    assert (buckets["0.0025"], buckets["0.005"], buckets["0.01"], buckets["0.025"]) == (0, 2, 2, 3)
    assert (buckets["5.0"], buckets["+Inf"]) == (3, 4)
    sums = {sample.name: sample.value for sample in samples if not sample.labels}
    assert sums["netwatch_drain_duration_seconds_count"] == 4
    assert sums["netwatch_drain_duration_seconds_sum"] == pytest.approx(7.026)


def test_drain_as_long_as_a_bucket() -> None:
    """A bucket's limit belongs to the bucket."""
    assert DrainTimes().added(0.001).counts[0] == 1


def test_agent_that_has_just_started() -> None:
    """Nothing counted yet is a valid scrape of the same families: totals without labels are zero."""
    parsed = families(Ledger(), AgentStatus(), InterfaceNames({}))
    assert parsed.keys() == families(ledger()).keys()
    assert values(parsed["netwatch_duplicate_packets"]) == {(): 0}
    assert values(parsed["netwatch_seen_packets"]) == {}


def test_interfaces_that_have_gone() -> None:
    """Interfaces without a name share one series, so that a host of short-lived containers does not grow the scrape."""
    gone = Ledger()
    gone.add_epoch(
        EpochCount({n: Amount(n, 100 * n) for n in range(100, 200)}, Amount(), {}, {}, FlowAmount(1, 14_950, 1_495_000))
    )
    assert values(families(gone)["netwatch_seen_packets"]) == {("ingress", "gone"): 14_950}


def test_two_interfaces_of_one_name() -> None:
    """An interface that was made again under its old name goes on in the same series; a series never comes twice."""
    names = InterfaceNames({2: "eth0", 3: "eth0"})
    assert values(families(ledger(), names=names)["netwatch_seen_packets"])["ingress", "eth0"] == 108


@given(st.binary(max_size=15))
def test_any_interface_name(name: bytes) -> None:
    """A name of quotes, line ends or bytes that are not UTF-8 does not break the scrape."""
    names = InterfaceNames({2: os.fsdecode(name)})
    seen = values(families(ledger(), names=names)["netwatch_seen_packets"])
    assert sum(seen.values()) == 161


def test_names_and_help() -> None:
    """Every metric has a help text that is a sentence, a unit in the plural, and `_total` where it is a counter."""
    text = Metrics(lambda: (ledger(), STATUS, NAMES)).render().decode()
    for family in text_string_to_metric_families(text):
        assert family.documentation.endswith(".")
        assert len(family.documentation) > 10
        assert family.name.startswith(("netwatch_", "process_"))
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        else:
            assert not family.name.endswith("_total")


def test_no_series_twice() -> None:
    """No two samples of a scrape have the same name and labels: Prometheus would refuse all of it."""
    twice = ledger()
    twice.open_exporter(GRPC).exported = FlowAmount(1, 1, 1)
    parsed = families(twice)
    series = [
        (sample.name, tuple(sorted(sample.labels.items()))) for family in parsed.values() for sample in family.samples
    ]
    assert len(series) == len(set(series))
    assert values(parsed["netwatch_exporter_exported_flows"]) == {(GRPC,): 6}


def test_scrapes_read_anew() -> None:
    """Each scrape reads once, and shows what is true then."""
    current, reads = ledger(), 0

    def read() -> tuple[Ledger, AgentStatus, InterfaceNames]:
        nonlocal reads
        reads += 1
        return current, attrs.evolve(STATUS, map_flows=reads), NAMES

    metrics = Metrics(read)
    assert reads == 0
    assert b"netwatch_flow_map_flows 1.0\n" in metrics.render()
    assert b"netwatch_flow_map_flows 2.0\n" in metrics.render()


def test_status_is_cheap_to_import() -> None:
    """What the agent says of itself does not bring prometheus-client or h11 into a daemon that serves no metrics."""
    script = "import sys, netwatch.status; sys.exit(any(m in sys.modules for m in ('prometheus_client', 'h11')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
