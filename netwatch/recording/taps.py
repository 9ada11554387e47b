"""What a drain and the intake ask the kernel, with each answer recorded.

Law: a tap gives the answer on as it came. It records in the loop, when the answer is given, so the frames have the
order in which everything happened; and it keeps no view of a buffer that will be used again.
Neighbours: `poll.py` and `consume.py` declare what they ask for; `playback.py` is the other end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from netwatch.core.audit import EpochCounters
from netwatch.core.batch import InterfaceNames
from netwatch.core.interfaces import InterfaceRegistry
from netwatch.core.layout import Counter, EventKind
from netwatch.core.translations import Translations
from netwatch.recording.frames import (
    Closed,
    Containers,
    Counted,
    Drained,
    Frame,
    Interfaces,
    Looked,
    Merged,
    Named,
    Offset,
    Ring,
    Rows,
    RowsEnd,
    Tally,
    Translated,
    TranslationEnded,
    TranslationsReplaced,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from netwatch.consume import ContainerNames, EventRing, Events
    from netwatch.core.enrichment import Names
    from netwatch.event_ledger import KernelEvents
    from netwatch.ledger import Amount
    from netwatch.poll import Clock, CounterSource, FlowSource

Put = Callable[[Frame], None]

# 8,192 x 82 B = 0.7 MB: no frame is larger than a chunk of rows.
_CONNECTIONS_IN_FRAME = 8_192


@attrs.define(eq=False)
class RecordedFlows:
    """A FlowSource."""

    source: FlowSource
    put: Put
    epoch: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin where the source is."""
        self.epoch = self.source.epoch

    def flip(self) -> None:
        """Close the epoch. In a thread: the clock's frame says that it was."""
        self.source.flip()
        self.epoch = self.source.epoch

    def read_closed(self) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
        """Yield the rows of the source."""
        for keys, values in self.source.read_closed():
            self.put(Rows(keys.tobytes(), values.tobytes()))
            yield keys, values
        self.put(RowsEnd())

    def clear_idle(self) -> Iterator[int]:
        """Clear the source's map."""
        return self.source.clear_idle()


@attrs.define(eq=False)
class RecordedClock:
    """A Clock, which a drain asks right after the flip."""

    source: Clock
    flows: RecordedFlows
    put: Put

    def kernel_ns(self) -> int:
        """Return the source's CLOCK_MONOTONIC."""
        closed_ns = self.source.kernel_ns()
        self.put(Closed(self.flows.epoch - 1, closed_ns))
        return closed_ns

    def wall_offset_ns(self) -> int:
        """Return the source's offset."""
        offset_ns = self.source.wall_offset_ns()
        self.put(Offset(offset_ns))
        return offset_ns


@attrs.define(eq=False)
class RecordedCounters:
    """A CounterSource."""

    source: CounterSource
    put: Put

    def read(self, epoch: int) -> EpochCounters:
        """Return the source's counters."""
        counted = self.source.read(epoch)
        self.put(Counted(_tallies(counted.seen), _tallies(counted.ends), _tallies(counted.ethertypes)))
        return counted


def _tallies(amounts: Mapping[int, Amount] | Mapping[Counter, Amount]) -> dict[int, Tally]:
    return {int(number): (amount.packets, amount.bytes) for number, amount in amounts.items()}


def _by_number(counts: Mapping[EventKind, int]) -> dict[int, int]:
    return {int(kind): count for kind, count in counts.items()}


@attrs.define(eq=False)
class RecordedRing:
    """An EventRing."""

    source: EventRing
    put: Put

    async def wait(self, at_most_s: float) -> None:
        """Wait for the source."""
        await self.source.wait(at_most_s)

    def take(self, *, lingers: bool = False) -> NDArray[np.uint8]:
        """Return the source's slots."""
        slots = self.source.take(lingers=lingers)
        if len(slots):
            self.put(Ring(slots.data))
        return slots


@attrs.define(eq=False)
class RecordedEvents:
    """Events."""

    source: Events
    put: Put
    ring: EventRing = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Record the ring as well."""
        self.ring = RecordedRing(self.source.ring, self.put)

    async def take_merged_drops(self) -> NDArray[np.void]:
        """Return the source's, and record what was counted until then."""
        drops = await self.source.take_merged_drops()
        counts = self.source.counts()
        made, lost, thinned = map(_by_number, (counts.made, counts.lost, counts.thinned))
        self.put(Merged(drops.tobytes(), made, lost, thinned, dict(counts.missed), counts.wakes))
        return drops

    def counts(self) -> KernelEvents:
        """Return the source's counters. The intake asks when it has decoded all that it took."""
        self.put(Looked())
        return self.source.counts()


@attrs.define(eq=False)
class RecordedContainers:
    """ContainerNames."""

    source: ContainerNames
    put: Put
    _before: Mapping[int, str] = attrs.field(factory=dict, init=False)

    def resolve(self, cgroup_ids: Iterable[int]) -> Mapping[int, str]:
        """Return the source's names."""
        containers = self.source.resolve(cgroup_ids)
        if containers is not self._before and containers != self._before:
            self._before = dict(containers)
            self.put(Containers(self._before))
        return containers


@attrs.define(eq=False)
class RecordedInterfaces(InterfaceRegistry):
    """An InterfaceRegistry, which also hears of the end of each drain."""

    put: Put = attrs.field(kw_only=True)
    _before: InterfaceNames | None = attrs.field(default=None, init=False)

    def snapshot(self) -> InterfaceNames:
        """Return the names as they are now."""
        names = super().snapshot()
        if names is not self._before and names != self._before:
            self.put(Interfaces(dict(names.by_ifindex)))
        self._before = names
        return names

    def drained(self) -> None:
        """Note the end of a drain."""
        super().drained()
        self.put(Drained())


@attrs.define(eq=False)
class RecordedTranslations(Translations):
    """Translations."""

    put: Put = attrs.field(kw_only=True)

    def add(self, original: bytes, reply: bytes, zone: int) -> None:
        """Take a translated connection."""
        super().add(original, reply, zone)
        self.put(Translated(original, reply, zone))

    def remove(self, original: bytes, reply: bytes) -> None:
        """Note that a connection has ended."""
        super().remove(original, reply)
        self.put(TranslationEnded(original, reply))

    def replace(self, connections: Iterable[tuple[bytes, bytes, int]]) -> None:
        """Take all connections that there are."""
        present = [*connections]
        for begin in range(0, len(present) or 1, _CONNECTIONS_IN_FRAME):
            end = begin + _CONNECTIONS_IN_FRAME
            columns = [*zip(*present[begin:end], strict=True)] or [(), (), ()]
            originals, replies = b"".join(columns[0]), b"".join(columns[1])
            self.put(TranslationsReplaced(originals, replies, columns[2], end < len(present)))
        # It adds them one by one, which is told already.
        put, self.put = self.put, lambda _: None
        try:
            super().replace(present)
        finally:
            self.put = put


@attrs.frozen(eq=False)
class RecordedNames:
    """What a drain's joiner asks for the names of each batch."""

    source: Callable[[], Names]
    put: Put

    def __call__(self) -> Names:
        """Return the source's names."""
        names = self.source()
        self.put(Named())
        return names
