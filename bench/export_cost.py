"""What a flow costs from the kernel to the collector: CPU time of the daemon for each flow record it exported by gRPC.

Law: a run counts from before the first packet until after the last drain, so that what is counted and what was used
belong together. What the daemon would have used without traffic is in it (`idle_cost.py` tells it), start and end are
not. Flows, packets and losses are those of the collector; the agent's own ledger is checked against it.
Neighbours: `daemon.py`, `testbed.py`, `sink.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import attrs

from bench.daemon import Account, Agent, Daemon
from bench.generator import Sent
from bench.measure import Quantity, Sample, alternate
from bench.plan import PERIOD_S, Plan
from bench.sink import Received
from bench.testbed import Load, Testbed, open_testbed
from bench.usage import CpuTime, Memory

# At 20k flows/s memory is measured too: the goals are for that load.
_MEMORY_LOAD = Load(20_000, 1)
LOADS = (Load(5_000, 3), _MEMORY_LOAD, Load(50_000, 1))
_USER_GOAL_US = 1.0
_SETTLE_S = 1.0  # what a start leaves to do (imports, garbage collection) is done by then
_DRAIN_S = PERIOD_S + 2.0  # the last packet waits for a drain a period long, and its flow for the export


@attrs.frozen
class Outcome:
    """One run of one agent."""

    sent: Sent
    used: CpuTime
    received: Received
    at_start: Memory
    at_end: Memory
    account: Account | None


def measure(plan: Plan) -> Iterator[Sample]:
    """Run every load through every agent, by turns."""
    for _, agent in alternate(plan.agents, plan.rounds):
        for load in LOADS:
            with open_testbed() as testbed:
                yield from samples_of(load, agent.name, run_load(testbed, agent, load, plan.seconds))


def run_load(testbed: Testbed, agent: Agent, load: Load, duration_s: float) -> Outcome:
    """Start an agent, send the load, wait for the last drain, and stop it."""
    with testbed.sink() as sink, Daemon(agent, testbed, sink.port, PERIOD_S, load.max_flows(PERIOD_S)) as daemon:
        time.sleep(_SETTLE_S)
        at_start, before = daemon.memory(), daemon.cpu_time()
        sent = testbed.send(load, duration_s)
        time.sleep(_DRAIN_S)
        used, at_end = daemon.cpu_time() - before, daemon.memory()
        account = daemon.stop()
        return Outcome(sent, used, sink.received(), at_start, at_end, account)


def samples_of(load: Load, agent: str, outcome: Outcome) -> Iterator[Sample]:
    """Turn a run into samples. A flow that a drain cut in two is two records, and counts as two."""

    def sample(name: str, unit: str, value: float, goal: float | None = None) -> Sample:
        return Sample(Quantity("export", f"{load} flows/s x packets: {name}", unit, goal), agent, value)

    flows, account = outcome.received.flows, outcome.account
    if flows:
        yield sample("user CPU a flow", "us", outcome.used.user_s / flows * 1e6, _USER_GOAL_US)
        yield sample("all CPU a flow", "us", outcome.used.total_s / flows * 1e6)
        yield sample("partial flows", "%", outcome.received.partial_flows / flows * 100, 0)
        yield sample("message bytes a flow", "B", outcome.received.message_bytes / flows)
    missing = outcome.sent.packets - outcome.received.packets
    yield sample("packets lost", f"of {outcome.sent.packets:,}", missing, 0)
    if account:
        # Absolute: a packet counted twice is as wrong as one that nobody counted.
        wrong = max(
            abs(outcome.sent.packets - account.seen),
            abs(outcome.received.packets - account.exported),
            abs(missing - account.lost),
        )
        yield sample("packets not in the ledger", f"of {outcome.sent.packets:,}", wrong, 0)
    if load == _MEMORY_LOAD:
        yield sample("resident memory at start", "MiB", outcome.at_start.resident_mib, 50)
        yield sample("resident memory, peak", "MiB", outcome.at_end.peak_mib, 80)
