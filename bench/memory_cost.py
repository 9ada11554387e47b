"""What memory takes over many drains and in a flood of drops, and how soon the metrics answer meanwhile.

Law: everything is switched on, and each packet is dropped once, for it is addressed to another host. What is resident
depends on the C library, the processor type and the load: these are figures, and no test asserts them. That Python and
numpy hold nothing more for each drain is a test (`tests/tasks/test_memory.py`).
Neighbours: `daemon.py`, `testbed.py`, `sink.py`; `enrich_cost.py` has the peak at a steady load.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.daemon import Daemon, Netwatch
from bench.measure import Quantity, Sample
from bench.plan import Plan
from bench.testbed import FULL_SPEED, Load, Testbed, open_testbed
from tests.kernel.scrape import LISTEN, get

_LOAD, _PERIOD_S = Load(10_000, 1), 0.05  # 120 drains, in 6 s, are ten minutes of the default period
_WARM_UP_S = 2.5  # 50 drains: what has a limit is full by then, with the limit below
_FLOOD_S = 4.0
_ASK_AGAIN_S = 0.05


def measure(plan: Plan) -> Iterator[Sample]:
    """Measure this repository's agent alone: many drains, then a flood."""
    for _ in range(plan.rounds):
        with open_testbed() as testbed:
            yield from _over_drains(testbed, plan.seconds)
        with open_testbed() as testbed:
            yield from _in_a_flood(testbed)


def _over_drains(testbed: Testbed, seconds: float) -> Iterator[Sample]:
    agent = Netwatch(enrich=(), variables={"NETWATCH_MAX_RECENT_FLOWS": "10000"})
    with testbed.sink() as sink, Daemon(agent, testbed, sink.port, _PERIOD_S, None) as daemon:
        with testbed.start(_LOAD):
            time.sleep(_WARM_UP_S)
            before = daemon.memory().resident_mib
            time.sleep(seconds)
            after = daemon.memory()
        daemon.stop()
    name = f"{_LOAD} flows/s x packets, a drain each {_PERIOD_S * 1e3:.0f} ms"
    yield Sample(Quantity("memory", f"{name}: resident, peak", "MiB"), agent.name, after.peak_mib)
    growth = Quantity("memory", f"{name}: growth in {seconds:g} s, after {_WARM_UP_S:g} s", "MiB")
    yield Sample(growth, agent.name, after.resident_mib - before)


def _in_a_flood(testbed: Testbed) -> Iterator[Sample]:
    # Without a window each drop is an event.
    variables = {"NETWATCH_DROP_WINDOW_S": "0", "NETWATCH_METRICS_LISTEN": LISTEN}
    agent, answers_s = Netwatch(enrich=(), variables=variables), list[float]()
    with testbed.sink() as sink, Daemon(agent, testbed, sink.port, _PERIOD_S, None) as daemon:
        with testbed.start(FULL_SPEED):
            until_s = time.monotonic() + _FLOOD_S
            while (asked_s := time.monotonic()) < until_s:
                get(testbed.watched.namespace, "/metrics")
                answers_s.append(time.monotonic() - asked_s)
                time.sleep(_ASK_AGAIN_S)
        peak_mib = daemon.memory().peak_mib
        daemon.stop()
    yield Sample(Quantity("memory", "drops at full speed: resident, peak", "MiB"), agent.name, peak_mib)
    slowest = Quantity("memory", "drops at full speed: slowest answer of the metrics", "ms")
    yield Sample(slowest, agent.name, max(answers_s) * 1e3)
