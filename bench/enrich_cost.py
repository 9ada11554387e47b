"""What enrichment costs from the hook to the collector: user CPU of the daemon for each flow exported with a drop.

Law: as `export_cost.py`, whose runs these are. Every packet here is dropped once by the kernel, for it is addressed to
another host; so each flow has a drop in its record, and a collector that got fewer drops than packets has lost some.
Neighbours: `export_cost.py` runs a load, `ring_cost.py` measures the hooks and the ring alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.daemon import Netwatch
from bench.export_cost import run_load
from bench.measure import Quantity, Sample, alternate
from bench.plan import Plan
from bench.testbed import Load, open_testbed

LOADS = (Load(5_000, 3), Load(20_000, 1))
# None, drops alone, and everything there is: what a switch costs is the difference.
_AGENTS = (
    (Netwatch(), "without enrichment", None),
    (Netwatch(enrich=("drops",)), "each with a drop", 1.5),
    (Netwatch(enrich=()), "each with a drop, everything switched on", 1.5),
)


def measure(plan: Plan) -> Iterator[Sample]:
    """Run every load with every set of switches, by turns. Of this repository's agent alone."""
    for _, (agent, what, goal) in alternate(_AGENTS, plan.rounds):
        for load in LOADS:
            with open_testbed() as testbed:
                outcome = run_load(testbed, agent, load, plan.seconds)

            def sample(name: str, unit: str, value: float, limit: float | None = None) -> Sample:
                quantity = f"{load} flows/s x packets, {what}: {name}"  # noqa: B023 - called within the same turn
                return Sample(Quantity("enrich", quantity, unit, limit), "netwatch", value)

            received = outcome.received
            if received.flows:
                yield sample("user CPU a flow", "us", outcome.used.user_s / received.flows * 1e6, goal)
                yield sample("partial flows", "%", received.partial_flows / received.flows * 100, 0)
            if goal is not None:
                missing = outcome.sent.packets - received.dropped_packets
                yield sample("drops lost", f"of {outcome.sent.packets:,}", missing, 0)
                yield sample("from a drop to its flow at the collector, least", "ms", received.least_delay_s * 1e3)
                yield sample("from a drop to its flow at the collector, median", "ms", received.median_delay_s * 1e3)
            yield sample("resident memory, peak", "MiB", outcome.at_end.peak_mib)
