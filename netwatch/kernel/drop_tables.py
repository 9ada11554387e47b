"""Drops that wait in the kernel for others like them.

Law: each is taken once. Programs use one half of the tables; `turn` gives them the other and waits until no program can
still hold the first, which is quiet from then on.
Neighbours: `bpf/drops.bpf.h` merges, `event_source.py` asks once in each drain.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np
import trio

from netwatch.core.layout import DROP_EVENT
from netwatch.kernel.counters import possible_cpus
from netwatch.kernel.flow_map import BatchReader
from netwatch.kernel.program import LoadedPrograms, wait_for_programs
from netwatch.kernel.syscall import Command

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HALVES, _SLOTS = 2, 64  # DROP_HALVES, DROP_SLOTS of bpf/maps.bpf.h
_SLOT = np.dtype([("pending", DROP_EVENT), ("turn", "<u8")])


class DropTables:
    """The tables of all CPUs."""

    def __init__(self, loaded: LoadedPrograms) -> None:
        self._loaded = loaded
        # `number` and `used` of struct drop_turn.
        self._turn: NDArray[np.uint64] = np.frombuffer(mmap.mmap(loaded.maps["drop_turn"], mmap.PAGESIZE), np.uint64, 3)
        self._tables = BatchReader(np.dtype("<u4"), np.dtype((_SLOT, (possible_cpus(), _SLOTS))), _HALVES)
        self._turn[0] = 1

    async def take(self) -> NDArray[np.void]:
        """Return the drops (n,) of DROP_EVENT that wait; an RCU grace period later where there are any."""
        turn = int(self._turn[0])
        half = turn % _HALVES
        if self._turn[1 + half] != turn:
            return np.empty(0, DROP_EVENT)
        self._turn[0] = turn + 1
        await trio.to_thread.run_sync(wait_for_programs, self._loaded)
        (_,) = self._tables.batches(Command.MAP_LOOKUP_BATCH, self._loaded.maps["drop_tables"], "drop_tables")
        slots = self._tables.values[half].reshape(-1)
        drops: NDArray[np.void] = slots["pending"][slots["turn"] == turn]
        return drops
