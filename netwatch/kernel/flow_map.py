"""The flow maps in rotation, and the exact drain.

Law: no update is lost and none is read twice. Programs write to the map that the epoch names. A drain flips the epoch,
waits until no program can still hold the old one, and only then reads the quiet map, in batches over reused buffers.
The map is emptied a turn later, because programs look there for a flow's home until the next flip.
Neighbours: `poll.py` drives it, `bpf/maps.bpf.h` describes the maps, `counters.py` reads what the audit needs.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from netwatch.core.layout import FLOW_KEY, FLOW_MAPS, FLOW_VALUE, epoch_word
from netwatch.errors import KernelCallFailed
from netwatch.kernel.compile import FLOW_MAP_NAMES
from netwatch.kernel.program import LoadedPrograms, place_flow_map
from netwatch.kernel.syscall import Attr, Command, create_hash, map_update, max_entries

if TYPE_CHECKING:
    from numpy.typing import NDArray

# 8,192 rows x 144 B = 1.2 MB of buffers, and 4 ms in the kernel; rows in batches of 1,000 take twice as long each.
CHUNK_ROWS = 8_192
# Deleting a row takes 500 ns, making a map 75 ns for each that it has room for. And a map in which rows were deleted in
# the order of their hashes hands out their memory in that order, all over the place: a new flow takes 250 ns longer.
_ROWS_WORTH_A_MAP = 6
ROW_BYTES = FLOW_KEY.itemsize + FLOW_VALUE.itemsize
_COUNT_OFFSET = 32  # of `count` in the batch member of union bpf_attr


class BatchReader:
    """Reads a hash map in batches into its own buffers: `keys` and `values`, whose first rows are the last batch."""

    def __init__(self, key_type: np.dtype[Any], value_type: np.dtype[Any], rows: int) -> None:
        self.keys: NDArray[Any] = np.zeros(rows, key_type)
        self.values: NDArray[Any] = np.zeros(rows, value_type)
        self._tokens = np.zeros(2, "<u8")
        self._attr = Attr()
        self._rows = rows

    def batches(self, command: Command, map_fd: int, name: str) -> Iterator[int]:
        """Yield the number of rows in the buffers after each batch, until the map ends.

        The buffers are overwritten by the next step. Raises KernelCallFailed; with LOOKUP_AND_DELETE nothing was
        deleted then that was not yielded before.
        """
        into, out = self._tokens.ctypes.data, self._tokens.ctypes.data + 8
        keys, values = self.keys.ctypes.data, self.values.ctypes.data
        token = 0
        while True:
            self._attr.pack("=QQQQIIQQ", token, out, keys, values, self._rows, map_fd, 0, 0)
            try:
                self._attr.call(command)
                is_last = False
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise KernelCallFailed(command.name, name, errno.errorcode.get(error.errno or 0, "?")) from error
                is_last = True
            count = self._attr.u32(_COUNT_OFFSET)
            if count:
                yield count
            if is_last:
                return
            self._tokens[0] = self._tokens[1]
            token = into


class FlowMaps:
    """The three flow maps and the epoch."""

    def __init__(self, loaded: LoadedPrograms, chunk_rows: int = CHUNK_ROWS) -> None:
        self._loaded = loaded
        self._reader = BatchReader(FLOW_KEY, FLOW_VALUE, chunk_rows)
        self._rows = [0] * FLOW_MAPS
        self._max_flows = max_entries(loaded.maps[FLOW_MAP_NAMES[0]])
        self._filters = _map_filters(loaded.maps["flow_filter"])
        self.epoch = 0
        self._write_epoch()

    def _write_epoch(self) -> None:
        word = struct.pack("=Q", epoch_word(self.epoch))
        map_update(self._loaded.maps["epoch"], bytes(4), word)

    def flip(self) -> None:
        """Close the current epoch and open the next.

        Blocks until every program that may have read the old epoch has ended: an RCU grace period, 8 to 25 ms
        measured; twice that and the time to make a map where `clear_idle` left it to be replaced. Must follow
        `clear_idle` of the same turn.
        """
        number = (self.epoch + 1) % FLOW_MAPS
        if self._rows[number]:
            self._replace(number)
        self._filters[number] = 0
        self.epoch += 1
        self._write_epoch()
        place_flow_map(self._loaded, number)

    def read_closed(self) -> Iterator[tuple[NDArray[np.void], NDArray[np.void]]]:
        """Yield the rows of the epoch that `flip` closed, as views (n,) of FLOW_KEY and FLOW_VALUE.

        A view is valid until the next step. Rows without packets (a home that lives on) are among them.
        """
        number = (self.epoch - 1) % FLOW_MAPS
        self._rows[number] = 0
        for count in self._batches(Command.MAP_LOOKUP_BATCH, number):
            self._rows[number] += count
            yield self._reader.keys[:count], self._reader.values[:count]

    def clear_idle(self) -> Iterator[int]:
        """Empty the map that the next flip makes current, batch by batch; yield the rows deleted by each.

        A map with many rows is left to `flip`, which replaces it.
        """
        number = (self.epoch + 1) % FLOW_MAPS
        if 0 < self._rows[number] <= self._max_flows // _ROWS_WORTH_A_MAP:
            yield from self._batches(Command.MAP_LOOKUP_AND_DELETE_BATCH, number)
            self._rows[number] = 0

    def _replace(self, number: int) -> None:
        """Put a new map in the place of an old one that no program uses, under the same descriptor."""
        name = FLOW_MAP_NAMES[number]
        try:
            fresh = create_hash(name, FLOW_KEY.itemsize, FLOW_VALUE.itemsize, self._max_flows)
        except OSError:
            # No memory for a fourth map: slower, and as good.
            for _ in self._batches(Command.MAP_LOOKUP_AND_DELETE_BATCH, number):
                pass
        else:
            os.dup2(fresh, self._loaded.maps[name], inheritable=False)
            os.close(fresh)
            place_flow_map(self._loaded, number)
        self._rows[number] = 0

    def _batches(self, command: Command, number: int) -> Iterator[int]:
        name = FLOW_MAP_NAMES[number]
        return self._reader.batches(command, self._loaded.maps[name], name)


def _map_filters(map_fd: int) -> NDArray[np.uint64]:
    """Return the filters of the flow maps as shared memory, shape (FLOW_MAPS, words)."""
    memory = mmap.mmap(map_fd, max_entries(map_fd) * 8)
    return np.frombuffer(memory, np.uint64).reshape(FLOW_MAPS, -1)
