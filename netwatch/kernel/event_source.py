"""What the kernel has of events beside the ring: drops that still wait for others like them, and the counters.

Law: counters are only read. They grow from the start of the programs, so a reading is a sum, never a difference.
Neighbours: `drop_tables.py` has the drops, `bpf/event.bpf.h` counts; `consume.py` takes the events, `event_ledger.py`
shows the counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netwatch.core.layout import EventCounter, EventKind
from netwatch.event_ledger import KernelEvents
from netwatch.kernel.counters import possible_cpus
from netwatch.kernel.drop_tables import DropTables
from netwatch.kernel.flow_map import BatchReader
from netwatch.kernel.program import LoadedPrograms
from netwatch.kernel.ring import Ring
from netwatch.kernel.syscall import Command, program_stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RING_WAKE = np.dtype([("position", "<u8"), ("count", "<u8")])
_INDEX = np.dtype("<u4")


class EventSource:
    """The ring and what belongs to it. Owns the ring's mapping."""

    def __init__(self, loaded: LoadedPrograms) -> None:
        self.ring = Ring(loaded.maps["ring"])
        self._loaded = loaded
        cpus = possible_cpus()
        self._counters = BatchReader(_INDEX, np.dtype(("<u8", cpus)), len(EventKind) * len(EventCounter))
        self._drops = DropTables(loaded)
        self._wakes = BatchReader(_INDEX, _RING_WAKE, 1)

    def close(self) -> None:
        """Close the ring."""
        self.ring.close()

    async def take_merged_drops(self) -> NDArray[np.void]:
        """Return the drops (n,) of DROP_EVENT that waited for others like them, and are not in the ring."""
        return await self._drops.take()

    def counts(self) -> KernelEvents:
        """Return what the programs have counted so far."""
        (_,) = self._counters.batches(Command.MAP_LOOKUP_BATCH, self._loaded.maps["event_counters"], "event_counters")
        by_kind = self._counters.values.sum(axis=1).reshape(len(EventKind), len(EventCounter)).tolist()
        made, lost, thinned = ({kind: by_kind[kind][what] for kind in EventKind} for what in EventCounter)
        (_,) = self._wakes.batches(Command.MAP_LOOKUP_BATCH, self._loaded.maps["ring_wake"], "ring_wake")
        missed = {name: program_stats(fd)[2] for name, fd in self._loaded.programs.items()}
        return KernelEvents(made, lost, thinned, missed, int(self._wakes.values["count"][0]))
