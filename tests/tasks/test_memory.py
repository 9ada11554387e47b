"""What drains leave in memory: nothing, however many there are."""

from __future__ import annotations

import functools
import gc
import ipaddress
import itertools
import sys

import attrs
import numpy as np
import trio

from netwatch.core.batch import FlowBatch
from netwatch.core.layout import EventKind
from netwatch.core.pbflow import PbflowEncoder
from netwatch.recording.recorder import Recorder
from tests.tasks.recording_kernel import AGENT_IP, Exported, RecordedRun

PORTS = 211
FLOWS = 11  # a drain, each with an event of every kind, more than the limits let it keep
WARM_UP_DRAINS, DRAINS = 200, 800
# Less than a reference for each drain: 600 x 8 B = 4,800 B.
MAX_GROWTH_BYTES = 4_000


@attrs.define(eq=False)
class Encoded(Exported):
    """Encodes for a collector, and keeps nothing of it."""

    encoder: PbflowEncoder = attrs.Factory(lambda: PbflowEncoder(ipaddress.ip_address(AGENT_IP)))
    flows: int = 0

    async def put(self, batch: FlowBatch, patience_until: float) -> None:
        """Encode in both ways."""
        await super().put(batch, patience_until)
        self.printed.clear()
        self.flows += sum(message.flows for message in self.encoder.encode(batch))


async def drain(run: RecordedRun, number: int) -> None:
    """Let flows and events come in, and drain; from drain to drain other flows, and the same ones later."""
    ports = [(number * 101 + place) % PORTS for place in range(FLOWS)]
    times_ns = itertools.count(number * 1_000)
    run.see(ports)
    run.rename(2, f"eth{number % 7}")
    for kind in EventKind:
        run.tell(*((kind, port, next(times_ns)) for port in ports))
    run.consume()
    await run.drain()
    run.kernel.cleared.clear()  # the fake one's own diary


def held_bytes() -> int:
    """Return the size of all containers and of the arrays in them: whatever is kept is in one of these.

    Not in it are allocators, and caches that have a limit: to fill them takes more drains than these.
    """
    gc.collect()
    objects = gc.get_objects()
    for cache in objects:
        is_ours = isinstance(cache, functools._lru_cache_wrapper) and cache.__module__.startswith("netwatch.")
        if is_ours and cache.cache_parameters()["maxsize"] is not None:
            cache.cache_clear()
    arrays = {id(held): held.nbytes for held in gc.get_referents(*objects) if isinstance(held, np.ndarray)}
    return sum(map(sys.getsizeof, gc.get_objects())) + sum(arrays.values())


def test_hundreds_of_drains() -> None:
    """After the first ones, which fill what has a limit, not a reference is held more for each drain."""

    async def main() -> None:
        exported, held = Encoded(), []
        run = RecordedRun(Recorder(), exported=exported)
        for number in range(1, DRAINS + 1):
            await drain(run, number)
            if number in (WARM_UP_DRAINS, DRAINS):
                held.append(held_bytes())
        assert exported.flows >= DRAINS * FLOWS
        assert run.ledger.drains == DRAINS
        assert held[1] - held[0] < MAX_GROWTH_BYTES

    trio.run(main)
