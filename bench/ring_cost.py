"""What hooks and ring cost by themselves: run time of the drop program, and the way of an event into the join store.

Law: the measurement's own cost is taken off: a program that does nothing is attached to the same tracepoint. What the
ring lost stands beside how fast it was.
Neighbours: `netwatch/kernel/ring.py` and `core/events.py` are what is timed, by the CPU time of this thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

from bench.measure import Quantity, Sample
from bench.plan import Plan
from bench.testbed import Load, Testbed, open_testbed
from netwatch.core.events import decode
from netwatch.core.join import JoinStore
from netwatch.core.layout import EventKind
from netwatch.kernel.event_source import EventSource
from netwatch.kernel.program import LoadedPrograms, ProgramSettings, load_programs
from netwatch.kernel.syscall import enable_stats, program_stats
from netwatch.kernel.tracing import attached_tracing, load_bare_tracepoint, open_tracepoint

MEASURING = Quantity("ring", "cost of measuring a tracepoint, taken off below", "ns")
FIRST = Quantity("ring", "drop hook, first event of a flow", "ns", 250)
LATER = Quantity("ring", "drop hook, later event of a flow, merged", "ns", 200)
_LOADS = ((Load(20_000, 1), FIRST), (Load(200, 1_000), LATER))
_PERIOD_S = 0.1  # `ring_period_s`
_PACES = (1_000, 100_000, 0)
_SOFTIRQ_S = 0.1


def measure(plan: Plan) -> Iterator[Sample]:
    """Measure the hook under two loads, and the ring at three paces; the last is as fast as the generator goes."""
    for _ in range(plan.rounds):
        with open_testbed() as testbed, _loaded() as loaded:
            for load, quantity in _LOADS:
                yield from _hook(testbed, loaded, load, quantity, plan.seconds)
        for pace in _PACES:
            with open_testbed() as testbed, _loaded() as loaded:
                yield from _events(testbed, loaded, pace, plan.seconds)


@contextlib.contextmanager
def _loaded() -> Iterator[LoadedPrograms]:
    settings = ProgramSettings(1_024, 64, enrich=["drops"])
    with contextlib.closing(load_programs(settings)) as loaded, attached_tracing(loaded):
        yield loaded


def _hook(
    testbed: Testbed, loaded: LoadedPrograms, load: Load, quantity: Quantity, duration_s: float
) -> Iterator[Sample]:
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(EventSource(loaded)))
        bare, link = bare_tracepoint()
        stack.callback(os.close, bare)
        stack.callback(os.close, link)
        stack.callback(os.close, enable_stats())
        before = [program_stats(fd) for fd in (loaded.programs["drop"], bare)]
        testbed.send(load, min(duration_s, 2.0))  # 40,000 events: they stay in the ring, and none finds it full
        time.sleep(_SOFTIRQ_S)
        after = [program_stats(fd) for fd in (loaded.programs["drop"], bare)]
        means = [(now[0] - was[0]) / (now[1] - was[1]) for was, now in zip(before, after, strict=True)]
        assert source.counts().lost[EventKind.DROP] == 0
        while len(source.ring.take()):
            pass
        yield Sample(MEASURING, "netwatch", means[1])
        yield Sample(quantity, "netwatch", means[0] - means[1])


def _events(testbed: Testbed, loaded: LoadedPrograms, pace: int, duration_s: float) -> Iterator[Sample]:
    """Take the ring as the daemon does, while a generator runs, and tell what an event cost and how old it was."""
    name = f"{pace // 1000}k drops/s" if pace else "drops as fast as the generator goes"
    load = Load(pace, 1)
    sender = threading.Thread(
        target=testbed.send if pace else testbed.send_flows, args=(load, duration_s if pace else 2_000_000)
    )
    store = JoinStore(max_pending_events=1 << 18, max_recent_flows=0)
    ages: list[float] = []
    taken = used_ns = 0
    started = time.monotonic()
    with contextlib.closing(EventSource(loaded)) as source:
        sender.start()
        while sender.is_alive():
            time.sleep(_PERIOD_S / 4)
            began = time.thread_time_ns()
            while len(slots := source.ring.take()):
                events = decode(slots).by_kind
                for kind, rows in events.items():
                    store.add(kind, rows)
                    ages.append(float(time.clock_gettime_ns(time.CLOCK_MONOTONIC) - rows["event"]["time_ns"][0]))
                    taken += len(rows)
            used_ns += time.thread_time_ns() - began
        sender.join()
        elapsed_s = time.monotonic() - started
        counts = source.counts()
    made, lost = counts.made[EventKind.DROP], counts.lost[EventKind.DROP]
    for what, unit, value in (
        ("take, decode and hold an event", "ns", used_ns / max(taken, 1)),
        ("age of the oldest event when it is taken", "ms", max(ages) / 1e6),
        ("wake-ups that the programs asked for", "a second", counts.wakes / elapsed_s),
        ("events lost", "%", 100 * lost / max(made, 1)),
    ):
        yield Sample(Quantity("ring", f"{name}: {what}", unit), "netwatch", value)


def bare_tracepoint() -> tuple[int, int]:
    """Attach a program that does nothing where packets are dropped; return its descriptor and the link's."""
    program = load_bare_tracepoint()
    return program, open_tracepoint(program)
