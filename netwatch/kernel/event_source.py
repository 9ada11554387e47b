"""What the kernel has of events beside the ring: the sums of merged drops, and the counters.

Law: read only. Counters grow from the start of the programs, so a reading is a sum, never a difference.
Neighbours: `bpf/drops.bpf.h` merges, `bpf/event.bpf.h` counts; `consume.py` takes the events, `event_ledger.py` shows
the counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netwatch.core.layout import COUNTED_EPOCHS, DROP_EVENT, EventCounter, EventKind, epoch_word
from netwatch.event_ledger import KernelEvents
from netwatch.kernel.counters import possible_cpus
from netwatch.kernel.flow_map import BatchReader
from netwatch.kernel.program import LoadedPrograms
from netwatch.kernel.ring import Ring
from netwatch.kernel.syscall import Command, program_stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DROP_SLOTS = 256  # DROP_SLOTS of bpf/maps.bpf.h
_DROP_SLOT = np.dtype([("pending", DROP_EVENT), ("opened_ns", "<u8"), ("epoch_word", "<u8")])
_RING_WAKE = np.dtype([("position", "<u8"), ("count", "<u8")])
_INDEX = np.dtype("<u4")


class EventSource:
    """The ring and what belongs to it. Owns the ring's mapping."""

    def __init__(self, loaded: LoadedPrograms) -> None:
        self.ring = Ring(loaded.maps["ring"])
        self._loaded = loaded
        cpus = possible_cpus()
        self._counters = BatchReader(_INDEX, np.dtype(("<u8", cpus)), len(EventKind) * len(EventCounter))
        self._slots = BatchReader(_INDEX, np.dtype((_DROP_SLOT, cpus)), _DROP_SLOTS * COUNTED_EPOCHS)
        self._wakes = BatchReader(_INDEX, _RING_WAKE, 1)
        self._merged = (0, 0)

    def close(self) -> None:
        """Close the ring."""
        self.ring.close()

    def take_merged_drops(self, epoch: int) -> NDArray[np.void]:
        """Return the sums (n,) of DROP_EVENT that a closed epoch left in its slots; once, before the next flip."""
        merged = self._counted()[EventKind.DROP][EventCounter.THINNED]
        before, self._merged = self._merged[0], (self._merged[1], merged)
        # This epoch had begun when the last reading was taken: nothing was merged in it if nothing was since the one
        # before that.
        if merged == before:
            return np.empty(0, DROP_EVENT)
        (count,) = self._slots.batches(Command.MAP_LOOKUP_BATCH, self._loaded.maps["drop_slots"], "drop_slots")
        slots = self._slots.values[:count].reshape(-1)
        is_left = (slots["epoch_word"] == epoch_word(epoch)) & (slots["pending"]["packets"] != 0)
        drops: NDArray[np.void] = slots["pending"][is_left]
        drops["event"]["kind"] = EventKind.DROP
        drops["event"]["size_bytes"] = DROP_EVENT.itemsize
        return drops

    def counts(self) -> KernelEvents:
        """Return what the programs have counted so far."""
        by_kind = self._counted()
        made, lost, thinned = ({kind: by_kind[kind][what] for kind in EventKind} for what in EventCounter)
        (_,) = self._wakes.batches(Command.MAP_LOOKUP_BATCH, self._loaded.maps["ring_wake"], "ring_wake")
        missed = {name: program_stats(fd)[2] for name, fd in self._loaded.programs.items()}
        return KernelEvents(made, lost, thinned, missed, int(self._wakes.values["count"][0]))

    def _counted(self) -> list[list[int]]:
        """Return each EventCounter of each EventKind."""
        (_,) = self._counters.batches(Command.MAP_LOOKUP_BATCH, self._loaded.maps["event_counters"], "event_counters")
        by_kind: list[list[int]] = self._counters.values.sum(axis=1).reshape(len(EventKind), len(EventCounter)).tolist()
        return by_kind
