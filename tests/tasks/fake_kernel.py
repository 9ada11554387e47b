"""A kernel made of lists, for tests of the tasks: flow maps in rotation and counters by epoch, as `bpf/` keeps them."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np
from numpy.typing import NDArray

from netwatch.core.audit import EpochCounters
from netwatch.core.layout import FLOW_KEY, FLOW_VALUE, Counter
from netwatch.ledger import Amount

Rows = tuple[NDArray[np.void], NDArray[np.void]]


def flow_rows(ports: list[int], packets: int = 1, packet_bytes: int = 100) -> Rows:
    """Rows of flows that differ in their source port, as a drain reads them."""
    keys, values = np.zeros(len(ports), FLOW_KEY), np.zeros(len(ports), FLOW_VALUE)
    keys["src_port"], keys["protocol"] = ports, 17
    values["packets"], values["bytes"], values["home"] = packets, packets * packet_bytes, 2
    values["first_ns"] = values["last_ns"] = 1_000
    return keys, values


@attrs.define
class FakeKernel:
    """FlowSource and CounterSource in one. Tests write with `see`; `forget` makes the kernel lie to the audit."""

    chunk_rows: int = 4
    epoch: int = 0
    cleared: list[int] = attrs.Factory(list)
    _rows: dict[int, list[Rows]] = attrs.Factory(dict)
    _seen: dict[int, Amount] = attrs.Factory(dict)
    _ends: dict[int, dict[Counter, Amount]] = attrs.Factory(dict)

    def see(self, rows: Rows) -> None:
        """Let packets come in that make these rows."""
        self._rows.setdefault(self.epoch, []).append(rows)
        self._count(int(rows[1]["packets"].sum()), int(rows[1]["bytes"].sum()))

    def end(self, counter: Counter, packets: int) -> None:
        """Let packets come in that end in a counter."""
        ends = self._ends.setdefault(self.epoch, {})
        ends[counter] = ends.get(counter, Amount()) + Amount(packets, packets * 60)
        self._count(packets, packets * 60)

    def see_unaccounted(self, packets: int) -> None:
        """Count packets as seen that end nowhere: what a bug would do."""
        self._count(packets, packets * 60)

    def _count(self, packets: int, size_bytes: int) -> None:
        self._seen[self.epoch] = self._seen.get(self.epoch, Amount()) + Amount(packets, size_bytes)

    def flip(self) -> None:
        """Close the epoch."""
        self.epoch += 1

    def read_closed(self) -> Iterator[Rows]:
        """Yield the closed epoch's rows through one buffer that the next step overwrites, as the reader does."""
        keys, values = np.zeros(self.chunk_rows, FLOW_KEY), np.zeros(self.chunk_rows, FLOW_VALUE)
        for row_keys, row_values in self._rows.pop(self.epoch - 1, []):
            for start in range(0, len(row_keys), self.chunk_rows):
                count = len(row_keys[start : start + self.chunk_rows])
                keys[:count], values[:count] = (part[start : start + count] for part in (row_keys, row_values))
                yield keys[:count], values[:count]

    def clear_idle(self) -> Iterator[int]:
        """Note that the map of the coming epoch was cleared."""
        self.cleared.append(self.epoch + 1)
        yield 0

    def read(self, epoch: int) -> EpochCounters:
        """Return what an epoch counted."""
        seen = self._seen.pop(epoch, None)
        return EpochCounters({2: seen} if seen else {}, self._ends.pop(epoch, {}), {})
