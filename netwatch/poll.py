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
from netwatch.core.batch_rows import select_rows
from netwatch.core.enrichment import NOTHING, Enrichment, Names
from netwatch.core.interfaces import InterfaceRegistry
from netwatch.core.rows import copied, pick
from netwatch.export import ExportQueue
from netwatch.ledger import Amount, FlowAmount, Ledger, Overflow
from netwatch.status import DrainTimes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from netwatch.consume import Intake
    from netwatch.core.join import Joining
    from netwatch.core.translations import Translations

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


class Clock(Protocol):
    """The two clocks of a drain."""

    def kernel_ns(self) -> int:
        """Return CLOCK_MONOTONIC, by which the programs tell the time."""
        ...

    def wall_offset_ns(self) -> int:
        """Return Unix time minus CLOCK_MONOTONIC."""
        ...


@attrs.define(eq=False)
class Joiner:
    """What a drain needs to join flows with events."""

    intake: Intake
    translations: Translations
    grace_s: float
    names: Callable[[], Names]


@attrs.define(eq=False)
class Drain:
    """All that one drain needs. Without a joiner flows leave as they are."""

    flows: FlowSource
    counters: CounterSource
    ledger: Ledger
    registry: InterfaceRegistry
    queues: Sequence[ExportQueue]
    clock: Clock
    joiner: Joiner | None = None
    chunk_rows: int = 8_192
    statistics: DrainStatistics = attrs.Factory(DrainStatistics)

    async def run(self, patience_until: float, *, is_last: bool = False) -> None:
        """Close the epoch and hand on all of it; full queues are waited for until `patience_until` (trio time).

        With `is_last`, what still waits for its flow leaves as well. Not to be cancelled: what was read of an epoch and
        what was not could not be told apart afterwards.
        """
        started = trio.current_time()
        for _ in self.flows.clear_idle():
            await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(self.flows.flip)
        closed_ns = self.clock.kernel_ns()
        epoch = self.flows.epoch - 1
        counted = self.counters.read(epoch)
        offset_ns, names = self.clock.wall_offset_ns(), self.registry.snapshot()
        joining = await self._begin_join(closed_ns, names, is_last)
        hand_on = _HandOn(self.queues, patience_until, offset_ns, names, self.joiner, self.chunk_rows)
        rows, drained = 0, FlowAmount()
        for chunk in self.flows.read_closed():
            rows += len(chunk[0])
            keys, values = own_rows(*chunk)
            drained += await hand_on(keys, values, joining.join(keys, values) if joining else NOTHING)
        self._audit(counted, drained)
        if joining:
            self.ledger.add_overflow(await self._end_join(joining, hand_on))
        self.registry.drained()
        self.statistics.last_rows = rows
        self.statistics.peak_rows = max(self.statistics.peak_rows, rows)
        self.statistics.times = self.statistics.times.added(trio.current_time() - started)

    async def _begin_join(self, closed_ns: int, names: InterfaceNames, is_last: bool) -> Joining | None:
        if self.joiner is None:
            return None
        # The rows wait in the kernel: the closed map stays as it is until the next drain.
        await trio.sleep(self.joiner.grace_s)
        await self.joiner.intake.close_epoch(closed_ns)
        return self.joiner.intake.store.close(closed_ns, names.by_ifindex, final=is_last)

    async def _end_join(self, joining: Joining, hand_on: _HandOn) -> Overflow:
        """Hand on what came through the ring: flows that found the map full, and facts that found no row."""
        keys, values = joining.overflow_rows()
        drained = await hand_on(keys, values, joining.join(keys, values))
        await hand_on(*joining.finish())
        assert self.joiner is not None
        self.joiner.translations.drained()
        self.joiner.intake.owners.drained()
        return Overflow(drained, Amount(joining.duplicate_packets, joining.duplicate_bytes), joining.lost)

    def _audit(self, counted: EpochCounters, drained: FlowAmount) -> None:
        missing = self.ledger.add_epoch(account_epoch(counted, drained))
        if missing != Amount():
            log.error(
                "audit of epoch %d: %d packets and %d bytes are unaccounted for; please report it",
                *(self.flows.epoch - 1, missing.packets, missing.bytes),
            )


@attrs.frozen(eq=False)
class _HandOn:
    """Makes batches of the rows of one drain, and puts them before each exporter."""

    queues: Sequence[ExportQueue]
    patience_until: float
    wall_offset_ns: int
    interfaces: InterfaceNames
    joiner: Joiner | None
    chunk_rows: int

    async def __call__(self, keys: NDArray[np.void], values: NDArray[np.void], enrichment: Enrichment) -> FlowAmount:
        """Return what was handed on."""
        if self.joiner:
            enrichment = self.joiner.intake.owners.complete(keys, enrichment)
            translated = self.joiner.translations.lookup(keys)
            if len(translated):
                enrichment = attrs.evolve(enrichment, translation=translated)
        names = self.joiner.names() if self.joiner else Names()
        whole = FlowBatch(keys, values, self.wall_offset_ns, self.interfaces, enrichment, names)
        # Rows come in chunks of the reader's size; what came through the ring comes in one piece.
        for start in range(0, whole.flows, self.chunk_rows):
            rows = slice(start, start + self.chunk_rows)
            batch = whole if whole.flows <= self.chunk_rows else select_rows(whole, rows)
            for queue in self.queues:
                await queue.put(batch, self.patience_until)
            await trio.lowlevel.checkpoint()
        return FlowAmount(whole.flows, whole.packets, whole.bytes)


def own_rows(keys: NDArray[np.void], values: NDArray[np.void]) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Copy rows (n,) of FLOW_KEY and FLOW_VALUE out of the drain's buffers.

    Rows without packets stay behind: in them a flow's home only lives on. A home that is also among the observed
    hooks, because it moved, is taken out there.
    """
    counted = values["packets"] != 0
    if counted.all():
        keys, values = copied(keys), copied(values)
    else:
        keys, values = pick(keys, counted), pick(values, counted)
    observed = values["observed"]
    observed[observed == values["home"][:, None]] = 0
    return keys, values


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
