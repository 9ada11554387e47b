"""Drops that wait in the kernel for others like them.

Law: each is taken once. Programs use one half of the tables; `turn` gives them the other and waits until no program can
still hold the first, which is quiet from then on.
Neighbours: `bpf/drops.bpf.h` merges, `event_source.py` asks once in each drain.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import trio

from netwatch.core.layout import DROP_EVENT
from netwatch.kernel.counters import possible_cpus
from netwatch.kernel.flow_map import BatchReader
from netwatch.kernel.program import LoadedPrograms, wait_for_programs
from netwatch.kernel.syscall import Command, map_update

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HALVES, _SLOTS = 2, 64  # DROP_HALVES, DROP_SLOTS of bpf/maps.bpf.h
_SLOT = np.dtype([("pending", DROP_EVENT), ("turn", "<u8")])
_INDEX = np.dtype("<u4")


class DropTables:
    """The tables of all CPUs."""

    def __init__(self, loaded: LoadedPrograms) -> None:
        self._loaded = loaded
        self._turn = 0
        self._tables = BatchReader(_INDEX, np.dtype((_SLOT, (possible_cpus(), _SLOTS))), _HALVES)
        self._used = BatchReader(_INDEX, np.dtype("<u8"), _HALVES)

    async def take(self) -> NDArray[np.void]:
        """Return the drops (n,) of DROP_EVENT that wait; an RCU grace period later where there are any."""
        half, mark = self._turn % _HALVES, self._turn + 1
        self._read("drop_used", self._used)
        if self._used.values[half] != mark:
            return np.empty(0, DROP_EVENT)
        self._turn += 1
        map_update(self._loaded.maps["drop_turn"], bytes(4), self._turn.to_bytes(8, sys.byteorder))
        await trio.to_thread.run_sync(wait_for_programs, self._loaded)
        self._read("drop_tables", self._tables)
        slots = self._tables.values[half].reshape(-1)
        drops: NDArray[np.void] = slots["pending"][slots["turn"] == mark]
        return drops

    def _read(self, name: str, reader: BatchReader) -> None:
        (_,) = reader.batches(Command.MAP_LOOKUP_BATCH, self._loaded.maps[name], name)
