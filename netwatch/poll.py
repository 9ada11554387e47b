"""Poll: drain the flow maps once a period, audit the epoch, hand the flows on.

Law: what the kernel counted in an epoch equals what comes out of it, packet for packet and byte for byte; each drain
checks that, and a difference is an error in the log and a mismatch in the ledger. A slow collector may delay a drain
(the kernel map goes on aggregating); nothing here waits for one longer than its patience.
Neighbours: `kernel/flow_map.py` and `kernel/counters.py` read the kernel, `export.py` takes the batches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs
import numpy as np
import trio

from netwatch.core.audit import EpochCounters, account_epoch
from netwatch.core.batch import FlowBatch, InterfaceNames
from netwatch.core.interfaces import InterfaceRegistry
from netwatch.export import ExportQueue
from netwatch.ledger import Amount, FlowAmount, Ledger
from netwatch.status import DrainTimes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

log = logging.getLogger(__name__)


class FlowSource(Protocol):
    """The flow maps, as a drain needs them (kernel/flow_map.py)."""

    epoch: int

    def flip(self) -> None:
        """Close the current epoch; blocks for a grace period."""
        ...

    def read_closed(self) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
        """Yield the closed epoch's rows in chunks that the next step overwrites."""
        ...

    def clear_idle(self) -> Iterator[int]:
        """Empty the map that the next flip makes current, in chunks."""
        ...


class CounterSource(Protocol):
    """The kernel's counters (kernel/counters.py)."""

    def read(self, epoch: int) -> EpochCounters:
        """Read what a closed epoch counted; once an epoch."""
        ...


@attrs.define
class DrainStatistics:
    """What the drains were like: rows of the last one and of the largest, and how long they took."""

    last_rows: int = 0
    peak_rows: int = 0
    times: DrainTimes = attrs.Factory(DrainTimes)


@attrs.define(eq=False)
class Drain:
    """All that one drain needs. `wall_offset_ns` tells Unix time minus CLOCK_MONOTONIC."""

    flows: FlowSource
    counters: CounterSource
    ledger: Ledger
    registry: InterfaceRegistry
    queues: Sequence[ExportQueue]
    wall_offset_ns: Callable[[], int]
    statistics: DrainStatistics = attrs.Factory(DrainStatistics)

    async def run(self, patience_until: float) -> None:
        """Close the epoch and hand on all of it; full queues are waited for until `patience_until` (trio time).

        Not to be cancelled: what was read of an epoch and what was not could not be told apart afterwards.
        """
        started = trio.current_time()
        for _ in self.flows.clear_idle():
            await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(self.flows.flip)
        counted = self.counters.read(self.flows.epoch - 1)
        names, offset_ns = self.registry.snapshot(), self.wall_offset_ns()
        rows, drained = 0, FlowAmount()
        for keys, values in self.flows.read_closed():
            rows += len(keys)
            batch = own_batch(keys, values, offset_ns, names)
            drained += FlowAmount(batch.flows, batch.packets, batch.bytes)
            if batch.flows:
                for queue in self.queues:
                    await queue.put(batch, patience_until)
            await trio.lowlevel.checkpoint()
        self._audit(counted, drained)
        self.registry.drained()
        self.statistics.last_rows = rows
        self.statistics.peak_rows = max(self.statistics.peak_rows, rows)
        self.statistics.times = self.statistics.times.added(trio.current_time() - started)

    def _audit(self, counted: EpochCounters, drained: FlowAmount) -> None:
        missing = self.ledger.add_epoch(account_epoch(counted, drained))
        if missing != Amount():
            log.error(
                "audit of epoch %d: %d packets and %d bytes are unaccounted for; please report it",
                *(self.flows.epoch - 1, missing.packets, missing.bytes),
            )


def own_batch(
    keys: NDArray[np.void], values: NDArray[np.void], wall_offset_ns: int, interfaces: InterfaceNames
) -> FlowBatch:
    """Copy rows (n,) of FLOW_KEY and FLOW_VALUE out of the drain's buffers into a batch of their own.

    Rows without packets stay behind: in them a flow's home only lives on. A home that is also among the observed
    hooks, because it moved, is taken out there.
    """
    counted = values["packets"] != 0
    if counted.all():
        keys, values = keys.copy(), values.copy()
    else:
        keys, values = keys[counted], values[counted]
    observed = values["observed"]
    observed[observed == values["home"][:, None]] = 0
    return FlowBatch(keys, values, wall_offset_ns, interfaces)


async def poll_flows(drain: Drain, period_s: float, patience_s: float) -> None:
    """Drain every `period_s`, until cancelled; a drain under way is finished first.

    The schedule is kept, not the distance: a drain that takes long shortens the wait for the next one.
    """
    due = trio.current_time()
    while True:
        due = max(due + period_s, trio.current_time())
        await trio.sleep_until(due)
        with trio.CancelScope(shield=True):
            await drain.run(trio.current_time() + patience_s)
