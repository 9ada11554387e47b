"""The kernel's counters of a closed epoch.

Law: nothing is reset. A counter only grows, one half of each for even epochs and one for odd; what an epoch counted is
the difference of two readings of its half, taken while the other half is in use.
Neighbours: `bpf/count.bpf.h` counts, `poll.py` audits the drained rows against these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netwatch.core.audit import EpochCounters
from netwatch.core.layout import COUNTED_EPOCHS, HOOK_SLOTS, HOOK_TALLY, TALLY, Counter
from netwatch.kernel.flow_map import BatchReader
from netwatch.kernel.program import LoadedPrograms
from netwatch.kernel.syscall import Command
from netwatch.ledger import Amount

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HASH_ENTRIES = {"hook_overflow": 4_096, "ethertypes": 1_024}  # as in bpf/maps.bpf.h


def possible_cpus() -> int:
    """Return for how many CPUs the kernel keeps per-CPU values."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


class KernelCounters:
    """Reads the counters of closed epochs."""

    def __init__(self, loaded: LoadedPrograms) -> None:
        self._loaded = loaded
        cpus = possible_cpus()
        index = np.dtype("<u4")
        self._counters = BatchReader(index, np.dtype((TALLY, cpus)), len(Counter) * COUNTED_EPOCHS)
        self._hooks = BatchReader(index, np.dtype((HOOK_TALLY, cpus)), HOOK_SLOTS)
        self._overflow = BatchReader(index, np.dtype((HOOK_TALLY, cpus)), _HASH_ENTRIES["hook_overflow"])
        self._ethertypes = BatchReader(index, np.dtype((TALLY, cpus)), _HASH_ENTRIES["ethertypes"])
        self._before: tuple[dict[tuple[str, int], Amount], ...] = tuple({} for _ in range(COUNTED_EPOCHS))

    def read(self, epoch: int) -> EpochCounters:
        """Read what a closed epoch counted. Call once an epoch, after the flip and before the next."""
        parity = epoch % COUNTED_EPOCHS
        seen = self._since("hook", self._read_hooks(parity), parity)
        ends = self._since("counter", self._read_tallies("counters", self._counters, parity), parity)
        types = self._since("ethertype", self._read_tallies("ethertypes", self._ethertypes, parity), parity)
        counters = {Counter(index): amount for index, amount in ends.items()}
        elsewhere = counters.pop(Counter.SEEN_ELSEWHERE, None)
        if elsewhere:
            seen[0] = elsewhere
        return EpochCounters(seen, counters, types)

    def _since(self, kind: str, now: Mapping[int, Amount], parity: int) -> dict[int, Amount]:
        """Return what was added since the last reading of this half, and keep the new one."""
        before = self._before[parity]
        added = {}
        for index, amount in now.items():
            difference = amount - before.get((kind, index), Amount())
            before[kind, index] = amount
            if difference != Amount():
                added[index] = difference
        return added

    def _read_tallies(self, name: str, reader: BatchReader, parity: int) -> dict[int, Amount]:
        sums: dict[int, Amount] = {}
        for count in reader.batches(Command.MAP_LOOKUP_BATCH, self._loaded.maps[name], name):
            keys = reader.keys[:count]
            mine = keys % COUNTED_EPOCHS == parity
            values = reader.values[:count][mine]
            packets, size_bytes = values["packets"].sum(axis=1), values["bytes"].sum(axis=1)
            rows = zip((keys[mine] // COUNTED_EPOCHS).tolist(), packets.tolist(), size_bytes.tolist(), strict=True)
            sums |= {index: Amount(*row) for index, *row in rows if row != [0, 0]}
        return sums

    def _read_hooks(self, parity: int) -> dict[int, Amount]:
        sums: dict[int, Amount] = {}
        for name, reader in (("hooks", self._hooks), ("hook_overflow", self._overflow)):
            for count in reader.batches(Command.MAP_LOOKUP_BATCH, self._loaded.maps[name], name):
                values = reader.values[:count]
                hooks = values["hook"] if name == "hooks" else np.broadcast_to(reader.keys[:count, None], values.shape)
                for hook, amount in _sum_by(hooks, values["tallies"][..., parity]):
                    sums[hook] = sums.get(hook, Amount()) + amount
        return sums


def _sum_by(hooks: NDArray[Any], tallies: NDArray[Any]) -> list[tuple[int, Amount]]:
    """Sum tallies of the same shape by hook; hook 0 is a free slot."""
    found, where = np.unique(hooks, return_inverse=True)
    packets, size_bytes = np.zeros(len(found), "<u8"), np.zeros(len(found), "<u8")
    np.add.at(packets, where.ravel(), tallies["packets"].ravel())
    np.add.at(size_bytes, where.ravel(), tallies["bytes"].ravel())
    rows = zip(found.tolist(), packets.tolist(), size_bytes.tolist(), strict=True)
    return [(hook, Amount(*row)) for hook, *row in rows if hook]
