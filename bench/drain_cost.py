"""What draining and encoding cost for each flow, from a thousand flows to a million: the cost of one must stay flat.

Law: the real programs fill the real maps from real traffic, in rotation as in the daemon; what is timed is the daemon's
own code, by the CPU time of this thread, so that others on the machine do not count. Each number of flows begins with a
turn of the three maps that is not counted: it clears what was there before.
Neighbours: `netwatch/kernel/flow_map.py` drains, `poll.py` copies, `core/pbflow.py` encodes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import attrs

from bench.measure import Quantity, Sample
from bench.plan import Plan
from bench.testbed import FULL_SPEED, Testbed, open_testbed
from netwatch.core.batch import FlowBatch, InterfaceNames
from netwatch.core.direction import Direction
from netwatch.core.layout import FLOW_MAPS
from netwatch.core.pbflow import PbflowEncoder
from netwatch.kernel.attach import attach_tcx
from netwatch.kernel.flow_map import FlowMaps
from netwatch.kernel.program import ProgramSettings, load_programs
from netwatch.poll import own_rows

# A map holds what it was made for; the default is large enough for all but the last (3 x 1,048,576 flows: 610 MB).
_DEFAULT_FLOWS = 131_072
_SIZES = ((_DEFAULT_FLOWS, (1_000, 10_000, 100_000)), (1 << 20, (1_000_000,)))
_MAX_FRAGMENTS = 4_096


@attrs.define
class DrainTime:
    """CPU time of one drain by what was done, and how many flows were read; as many were cleared."""

    read_ns: int = 0
    copy_ns: int = 0
    encode_ns: int = 0
    clear_ns: int = 0
    read: int = 0


def measure(plan: Plan) -> Iterator[Sample]:
    """Drain and encode each number of flows, as often as there are rounds. Of this repository's agent alone."""
    for max_flows, sizes in _SIZES:
        with open_testbed() as testbed, _attached(testbed, max_flows) as maps:
            for flows in sizes:
                for number in range(FLOW_MAPS + plan.rounds):
                    testbed.send_flows(FULL_SPEED, flows)
                    cost = drain(maps, InterfaceNames({testbed.watched.ifindex: testbed.watched.name}))
                    assert cost.read == flows, f"{cost.read} flows of {flows}"
                    if number >= FLOW_MAPS:
                        yield from _samples(cost)


@contextlib.contextmanager
def _attached(testbed: Testbed, max_flows: int) -> Iterator[FlowMaps]:
    with contextlib.closing(load_programs(ProgramSettings(max_flows, _MAX_FRAGMENTS))) as loaded:
        maps = FlowMaps(loaded)
        with testbed.watched.namespace.enter():
            link = attach_tcx(loaded.programs["ingress_ethernet"], testbed.watched.ifindex, Direction.INGRESS)
        try:
            yield maps
        finally:
            os.close(link)


def drain(maps: FlowMaps, names: InterfaceNames) -> DrainTime:
    """Drain as the daemon does, and time each part."""
    encoder = PbflowEncoder(IPv4Address("127.0.0.1"))
    cost = DrainTime()
    began = time.thread_time_ns()
    for _ in maps.clear_idle():
        pass
    # What waits for other processors takes no CPU time; what replaces a map that is too full to be cleared does.
    maps.flip()
    cost.clear_ns = time.thread_time_ns() - began
    chunks = maps.read_closed()
    while True:
        began = time.thread_time_ns()
        chunk = next(chunks, None)
        has_read = time.thread_time_ns()
        cost.read_ns += has_read - began
        if chunk is None:
            return cost
        batch = FlowBatch(*own_rows(*chunk), 0, names)
        has_copied = time.thread_time_ns()
        encoder.encode(batch)
        cost.encode_ns += time.thread_time_ns() - has_copied
        cost.copy_ns += has_copied - has_read
        cost.read += batch.flows


def _samples(cost: DrainTime) -> Iterator[Sample]:
    size = f"{cost.read:,} flows"
    for part, spent_ns in (
        ("read from the kernel", cost.read_ns),
        ("clear or replace in the kernel", cost.clear_ns),
        ("copy", cost.copy_ns),
        ("encode", cost.encode_ns),
    ):
        yield Sample(Quantity("drain", f"{size}: {part}", "ns a flow"), "netwatch", spent_ns / cost.read)
