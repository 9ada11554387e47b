"""What a packet costs at the hook: run time of the agent's TCX program, as the kernel measures it on real traffic.

Law: the measurement's own cost is taken off. Beside the agent's program runs one that does nothing, at the same hook,
on the same packets, in the same seconds; what the kernel measures for that one is the cost of measuring.
Neighbours: `daemon.py` runs the agent, `tests/kernel/bare_programs.py` loads the program that does nothing.
Source: kernel/bpf `bpf_prog_start_time`, `struct bpf_prog_stats`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import attrs

from bench.daemon import Agent, Daemon
from bench.measure import Quantity, Sample, alternate
from bench.plan import PERIOD_S, Plan
from bench.testbed import Load, Testbed, open_testbed
from netwatch.core.direction import Direction
from netwatch.kernel.attach import attach_tcx
from netwatch.kernel.syscall import Command, bpf, enable_stats, program_stats
from tests.kernel.bare_programs import TCX_INGRESS, TCX_NEXT, load_program, tcx_programs

MEASURING = Quantity("program", "cost of measuring, taken off below", "ns")
# Fast loads: at a slow pace each packet finds the processor's caches full of something else, and that is then measured.
# Known flows: 64 of them take turns, a thousand packets each, so that one packet in a thousand is of a new one.
_FLOWS_PER_SECOND = 40_000
_PATTERNS = (
    (Load(200, 1_000), Quantity("program", "packet of a known flow", "ns", 90)),
    (Load(_FLOWS_PER_SECOND, 1), Quantity("program", "packet of a new flow", "ns", 300)),
    (Load(_FLOWS_PER_SECOND, 3), Quantity("program", "3 packets a flow, mean", "ns", 180)),
)
_SOFTIRQ_S = 0.1  # the last packets may still be in a queue when the generator ends
_MAX_FLOWS = Load(_FLOWS_PER_SECOND, 1).max_flows(PERIOD_S)


@attrs.frozen
class RunTime:
    """How often a program ran, and for how long in all."""

    runs: int
    total_ns: int

    def __sub__(self, before: RunTime) -> RunTime:
        return RunTime(self.runs - before.runs, self.total_ns - before.total_ns)

    @property
    def mean_ns(self) -> float:
        """Time of one run."""
        return self.total_ns / self.runs


def measure(plan: Plan) -> Iterator[Sample]:
    """Send every pattern past every agent's program, by turns."""
    for _, agent in alternate(plan.agents, plan.rounds):
        with (
            open_testbed() as testbed,
            testbed.sink() as sink,
            Daemon(agent, testbed, sink.port, PERIOD_S, _MAX_FLOWS),
        ):
            yield from _measure_patterns(testbed, agent, plan.seconds)


def _measure_patterns(testbed: Testbed, agent: Agent, duration_s: float) -> Iterator[Sample]:
    (program_id,) = tcx_programs(testbed.watched, TCX_INGRESS)
    offset = 0
    with contextlib.ExitStack() as stack:
        theirs = _keep(stack, bpf(Command.PROG_GET_FD_BY_ID, "=I", program_id))
        bare = _keep(stack, load_program(TCX_NEXT, "bare"))
        with testbed.watched.namespace.enter():
            # Ahead of the agent's, which may end the chain.
            _keep(stack, attach_tcx(bare, testbed.watched.ifindex, Direction.INGRESS))
        _keep(stack, enable_stats())
        for load, quantity in _PATTERNS:
            before = _run_time(theirs), _run_time(bare)
            offset += testbed.send(load, duration_s, offset).flows
            time.sleep(_SOFTIRQ_S)
            program, nothing = _run_time(theirs) - before[0], _run_time(bare) - before[1]
            assert program.runs == nothing.runs, "a packet that one of the two programs did not see"
            yield Sample(MEASURING, agent.name, nothing.mean_ns)
            yield Sample(quantity, agent.name, program.mean_ns - nothing.mean_ns)


def _keep(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _run_time(program_fd: int) -> RunTime:
    total_ns, runs, _ = program_stats(program_fd)
    return RunTime(runs, total_ns)
