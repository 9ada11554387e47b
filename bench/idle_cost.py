"""What an agent costs that has nothing to do: CPU time of the whole daemon, on an interface without traffic.

Law: the sum is exact (usage.py), for a share as small as this one is beneath the kernel's samples.
Neighbours: `daemon.py`, `testbed.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.daemon import Daemon
from bench.measure import Quantity, Sample, alternate
from bench.plan import PERIOD_S, Plan
from bench.testbed import open_testbed

IDLE = Quantity("idle", "CPU of an idle agent", "% of a core", 0.1)
_LEAST_S = 20.0  # four drains; the share of one alone would depend on how many fall into the run
_SETTLE_S = 2.0


def measure(plan: Plan) -> Iterator[Sample]:
    """Let every agent idle, by turns, for whole periods."""
    duration_s = max(_LEAST_S, plan.seconds // PERIOD_S * PERIOD_S)
    for _, agent in alternate(plan.agents, plan.rounds):
        with (
            open_testbed() as testbed,
            testbed.sink() as sink,
            Daemon(agent, testbed, sink.port, PERIOD_S, None) as daemon,
        ):
            time.sleep(_SETTLE_S)
            before, began = daemon.cpu_time(), time.monotonic()
            time.sleep(duration_s)
            used = (daemon.cpu_time() - before).total_s
            yield Sample(IDLE, agent.name, used / (time.monotonic() - began) * 100)
