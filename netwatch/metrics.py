"""The ledger and the agent's state as Prometheus metrics.

Law: nothing is counted here. A scrape reads the one ledger there is, once, so that its numbers belong together and add
up. No two samples have the same labels, and the series are bounded: interfaces that have gone share one.
Neighbours: `ledger.py` and `status.py` are read, `http.py` serves the text. Heavy to import: only where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from netwatch import __version__
from netwatch.core.audit import KERNEL_LOSSES
from netwatch.core.batch import InterfaceNames
from netwatch.core.layout import direction_of, ifindex_of
from netwatch.event_ledger import EventLedger
from netwatch.export import EXPORT_LOSSES
from netwatch.ledger import PENDING_FULL, Amount, FlowAmount, Ledger, Loss
from netwatch.status import DRAIN_BUCKETS_S, AgentStatus, DrainTimes

Reading = tuple[Ledger, AgentStatus, InterfaceNames]
"""What a scrape shows."""

_Labels = tuple[str, ...]
_Samples = Iterable[tuple[_Labels, float]]
_Family = TypeVar("_Family", CounterMetricFamily, GaugeMetricFamily)

_PACKET_UNITS = ("packets", "bytes")
_FLOW_UNITS = ("flows", *_PACKET_UNITS)
_SUBJECTS = MappingProxyType({"flows": "Flows", "packets": "Packets", "bytes": "Bytes of the packets"})

_EVENT_ENDS = ("joined", "continued", "drop_only", "unclaimed", "not_sampled", "evicted")
_GONE = "gone"
_NS_PER_S = 1e9


class Metrics:
    """All metrics of an agent, in a registry of their own. `read` is called once a scrape."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_AgentCollector(read))
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """Return the metrics in the text format, version 0.0.4. Takes about a millisecond."""
        return generate_latest(self._registry)


class _AgentCollector(Collector):
    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        ledger, status, names = self._read()
        yield _gauge("build_info", "The version of netwatch; always 1.", ("version",), [((__version__,), 1)])
        yield from _packets(ledger, names)
        yield from _exporters(ledger, status)
        yield from _drains(ledger, status)
        yield from _kernel(status)
        if status.events:
            yield from _events(status.events)
            yield from _enrichment(status)


def _packets(ledger: Ledger, names: InterfaceNames) -> Iterator[Metric]:
    seen = [(_hook_labels(hook, names), amount) for hook, amount in ledger.seen.items()]
    ignored = [((reason,), amount) for reason, amount in ledger.ignored.items()]
    what = "that reached a hook, duplicate and ignored ones included"
    yield from _amounts(_counter, "seen", what, ("interface", "direction"), seen, units=_PACKET_UNITS)
    what = "seen again at a later hook, after they had counted at their flow's home"
    yield from _amounts(_counter, "duplicate", what, (), [((), ledger.duplicate)], units=_PACKET_UNITS)
    what = "left out by a setting, or because they are not IP that can be counted"
    yield from _amounts(_counter, "ignored", what, ("reason",), ignored, units=_PACKET_UNITS)
    what = "lost before any exporter had them"
    yield from _amounts(
        _counter, "lost", what, ("stage", "reason"), _losses(ledger.lost, (*KERNEL_LOSSES, PENDING_FULL))
    )
    yield from _amounts(_counter, "drained", "drained from the flow map", (), [((), ledger.drained)])


def _exporters(ledger: Ledger, status: AgentStatus) -> Iterator[Metric]:
    label = ("exporter",)
    exported = [((account.exporter,), account.exported) for account in ledger.exporters]
    yield from _amounts(_counter, "exporter_exported", "that an exporter delivered", label, exported)
    lost = [sample for account in ledger.exporters for sample in _losses(account.lost, EXPORT_LOSSES, account.exporter)]
    yield from _amounts(_counter, "exporter_lost", "that an exporter lost", (*label, "stage", "reason"), lost)
    in_flight = [((account.exporter,), account.in_flight) for account in ledger.exporters]
    what = "that wait for an exporter or are being sent"
    yield from _amounts(_gauge, "exporter_in_flight", what, label, in_flight)
    queues = [((exporter.exporter,), exporter) for exporter in status.exporters]
    yield _counter("exporter_errors", "Attempts to send that failed.", label, [(key, q.errors) for key, q in queues])
    help_text = "Bytes that an exporter's queue holds."
    yield _gauge("exporter_queue_bytes", help_text, label, [(key, q.queue_bytes) for key, q in queues])
    help_text = "Bytes that an exporter's queue can hold; past that its oldest flows are lost."
    yield _gauge("exporter_queue_limit_bytes", help_text, label, [(key, q.max_queue_bytes) for key, q in queues])


def _drains(ledger: Ledger, status: AgentStatus) -> Iterator[Metric]:
    times = status.drain_times
    yield _counter("audited_drains", "Drains checked against the kernel's counters.", (), [((), ledger.drains)])
    help_text = "Drains whose flows did not add up to the kernel's counters: each is a bug."
    yield _counter("audit_mismatches", help_text, (), [((), ledger.mismatches)])
    yield _histogram("drain_duration_seconds", "Time that a drain took.", times)
    yield _gauge("last_drain_duration_seconds", "Time that the last drain took.", (), [((), times.last_s)])
    yield _gauge("flow_map_flows", "Flows in the flow map when it was last drained.", (), [((), status.map_flows)])
    help_text = "Most flows in the flow map at any drain so far."
    yield _gauge("flow_map_peak_flows", help_text, (), [((), status.peak_flows)])
    help_text = "Flows that the flow map can hold; packets of further ones are lost."
    yield _gauge("flow_map_limit_flows", help_text, (), [((), status.max_flows)])


def _kernel(status: AgentStatus) -> Iterator[Metric]:
    attached = [((name, direction.name.lower()), 1) for name, direction in status.attached]
    help_text = "Hooks where packets are counted now; always 1."
    yield _gauge("attached_hooks", help_text, ("interface", "direction"), attached)
    runs = [((stats.program,), stats.run_count) for stats in status.program_stats]
    yield _counter("program_runs", "Runs of a BPF program, by the kernel's statistics.", ("program",), runs)
    seconds = [((stats.program,), stats.run_ns / _NS_PER_S) for stats in status.program_stats]
    help_text = "Time that a BPF program ran, by the kernel's statistics."
    yield _counter("program_run_seconds", help_text, ("program",), seconds)
    memory = [((used.map,), used.bytes) for used in status.map_bytes]
    yield _gauge("map_memory_bytes", "Kernel memory that a BPF map occupies.", ("map",), memory)


def _events(events: EventLedger) -> Iterator[Metric]:
    kernel, kinds = events.kernel, [(kind.name.lower(), kind) for kind in events.ends]
    made = {kind: events.made(kind) for _, kind in kinds}
    for name, counts, what in (
        ("made", made, "that there were to tell, lost ones included"),
        ("ring_lost", kernel.lost, "that found the ring full"),
        ("thinned", kernel.thinned, "that were merged into others, or said nothing new: they were never made"),
    ):
        samples = [((label,), counts.get(kind, 0)) for label, kind in kinds]
        yield _counter(f"events_{name}", f"Events {what}.", ("kind",), samples)
    ends = [((label, end), getattr(events.ends[kind], end)) for label, kind in kinds for end in _EVENT_ENDS]
    yield _counter(
        "events_ended", "Events by where they ended: evicted ones were lost for room.", ("kind", "end"), ends
    )
    held = [((label,), events.ends[kind].held) for label, kind in kinds]
    yield _gauge("events_held", "Events that wait for their flow.", ("kind",), held)
    yield _counter(
        "ring_wakeups", "Times that a program asked for the ring to be emptied early.", (), [((), kernel.wakes)]
    )
    missed = [((name,), count) for name, count in kernel.missed.items()]
    help_text = "Runs that the kernel left out, because the program was running on that CPU already."
    yield _counter("program_missed_runs", help_text, ("program",), missed)


def _enrichment(status: AgentStatus) -> Iterator[Metric]:
    yield _gauge("recent_flows", "Exported flows that are remembered.", (), [((), status.recent_flows)])
    forgotten = [((what,), count) for what, count in status.forgotten.items()]
    yield _counter("forgotten", "What there was no room for, so that records may lack it.", ("what",), forgotten)
    help_text = "Times that connection tracking told more than could be read, and was listed again."
    yield _counter("translation_overruns", help_text, (), [((), status.translation_overruns)])
    help_text = "Processes and sockets from before the start that could not be looked at: they have no owner."
    yield _gauge("unnamed_sockets", help_text, (), [((), status.unnamed_sockets)])


def _hook_labels(hook: int, names: InterfaceNames) -> _Labels:
    # A host that starts containers all day would add two series with each; nobody asks for an interface by its number.
    return names.by_ifindex.get(ifindex_of(hook), _GONE), direction_of(hook).name.lower()


def _losses(losses: Mapping[Loss, FlowAmount], known: Sequence[Loss], *owner: str) -> list[tuple[_Labels, FlowAmount]]:
    # A series that begins with the first loss hides it from increase(): so each is there from the start.
    amounts = dict.fromkeys(known, FlowAmount()) | dict(losses)
    return [((*owner, loss.stage, loss.reason), amount) for loss, amount in amounts.items()]


def _amounts(
    family: Callable[[str, str, _Labels, _Samples], Metric],
    name: str,
    what: str,
    labels: _Labels,
    amounts: Sequence[tuple[_Labels, Amount | FlowAmount]],
    *,
    units: Sequence[str] = _FLOW_UNITS,
) -> Iterator[Metric]:
    """Yield a family for each unit."""
    for unit in units:
        samples = [(key, getattr(amount, unit)) for key, amount in amounts]
        yield family(f"{name}_{unit}", f"{_SUBJECTS[unit]} {what}.", labels, samples)


def _counter(name: str, help_text: str, labels: _Labels, samples: _Samples) -> Metric:
    return _filled(CounterMetricFamily(f"netwatch_{name}", help_text, labels=labels), samples)


def _gauge(name: str, help_text: str, labels: _Labels, samples: _Samples) -> Metric:
    return _filled(GaugeMetricFamily(f"netwatch_{name}", help_text, labels=labels), samples)


def _filled(family: _Family, samples: _Samples) -> _Family:
    sums: dict[_Labels, float] = {}
    for labels, value in samples:
        # What is not UTF-8 in an interface name would make the whole scrape fail.
        key = tuple(label.encode("utf-8", "replace").decode() for label in labels)
        sums[key] = sums.get(key, 0) + value
    for key, value in sums.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, help_text: str, times: DrainTimes) -> Metric:
    limits = (*map(str, DRAIN_BUCKETS_S), "+Inf")
    buckets = list(zip(limits, accumulate(times.counts), strict=True))
    return HistogramMetricFamily(f"netwatch_{name}", help_text, buckets=buckets, sum_value=times.total_s)
