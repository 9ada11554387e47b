"""What gets lost where nobody has tuned anything: a burst at default settings, and flows in the kernel at SIGTERM.

Law: a flow here has one packet, so a flow that the collector does not get is a packet that it does not get.
Neighbours: `daemon.py`, `testbed.py`, `sink.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.daemon import Agent, Daemon
from bench.measure import Quantity, Sample, alternate
from bench.plan import PERIOD_S, Plan
from bench.testbed import Load, Testbed, open_testbed

_BURST, _BURST_FLOWS = Load(5_000, 1), 50_000
_LAST_FLOWS = 100
DEFAULTS = Quantity("delivery", "flows lost at default settings, 5k/s", f"of {_BURST_FLOWS:,}", 0)
SIGTERM = Quantity("delivery", "flows lost that were in the kernel at SIGTERM", f"of {_LAST_FLOWS}", 0)


def measure(plan: Plan) -> Iterator[Sample]:
    """Do both with every agent, by turns."""
    for _, agent in alternate(plan.agents, plan.rounds):
        with open_testbed() as testbed:
            yield Sample(DEFAULTS, agent.name, _lost(testbed, agent, _BURST_FLOWS, PERIOD_S + 2))
            yield Sample(SIGTERM, agent.name, _lost(testbed, agent, _LAST_FLOWS, 0))


def _lost(testbed: Testbed, agent: Agent, flows: int, wait_s: float) -> int:
    with testbed.sink() as sink, Daemon(agent, testbed, sink.port, None, None) as daemon:
        sent = testbed.send_flows(_BURST, flows)
        time.sleep(wait_s)
        daemon.stop()
        return sent.packets - sink.received().packets
