"""The order in which the flows of a chunk are encoded: those of one kind one after the other.

Records of a kind are equally long up to where their sections begin. A kind has one IP version, one length of tail, and
records with sections or without.

Law: pure; every flow is in one kind, and what is done for each row is done by numpy alone.
Neighbours: `hook_lists.py` groups by hooks, `pbflow_section.py` has the sections; `pbflow_chunk.py` makes the records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from netwatch.core.enrichment import Facts
from netwatch.core.hook_lists import hook_lists_of
from netwatch.core.pbflow_record import is_ipv4
from netwatch.core.pbflow_section import Sections
from netwatch.core.survey import Survey


@attrs.frozen(eq=False)
class Kind:
    """Rows of a chunk, counted in its order."""

    rows: range
    is_ipv4: bool
    has_sections: bool
    tails: Sequence[bytes]


@attrs.frozen(eq=False)
class Chunk:
    """Flows to be taken in `order`; None: as they are. `tail_of_row` is an index into the tails of the row's kind."""

    keys: Survey
    values: Survey
    order: NDArray[np.intp] | None
    kinds: Sequence[Kind]
    tail_of_row: NDArray[np.intp]
    sections: Sections | None

    @property
    def flows(self) -> int:
        """Number of flows."""
        return len(self.tail_of_row)

    def rows(self, rows: slice) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Return keys and values of some rows, in order."""
        if self.order is None:
            return self.keys.rows[rows], self.values.rows[rows]
        indices = self.order[rows]
        return self.keys.rows.take(indices), self.values.rows.take(indices)

    def section_bytes(self, rows: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how many bytes of sections some rows, in order, have, and how many of these are kept: copies."""
        assert self.sections is not None
        some = np.arange(rows.start, rows.stop) if self.order is None else self.order[rows.start : rows.stop]
        return self.sections.size_bytes.take(some), self.sections.kept_bytes.take(some)

    def sums_of(self, rows: slice) -> tuple[int, int]:
        """Return the packets and bytes of some rows, in order."""
        packets, octets = self.values.rows["packets"], self.values.rows["bytes"]
        # All of them, most of the time, and then no matter in which order.
        if rows != slice(0, self.flows):
            some = rows if self.order is None else self.order[rows]
            packets, octets = packets[some], octets[some]
        return int(packets.sum()), int(octets.sum())


def chunk_of(
    keys: NDArray[np.void],
    values: NDArray[np.void],
    tail: Callable[[tuple[int, ...]], bytes],
    more_hooks: Facts | None = None,
    sections: Sections | None = None,
) -> Chunk:
    """Put flows, at least one, in order. `tail` gives the tail that belongs to a list of hooks."""
    surveys = Survey.of(np.ascontiguousarray(keys)), Survey.of(np.ascontiguousarray(values))
    hook_lists, ipv4 = hook_lists_of(surveys[1], more_hooks), is_ipv4(surveys[0])
    extended = _extended(sections)
    if len(hook_lists.lists) == 1 and ipv4 is True and isinstance(extended, bool):
        kind = Kind(range(len(keys)), is_ipv4=True, has_sections=extended, tails=[tail(hook_lists.lists[0])])
        return Chunk(*surveys, None, [kind], hook_lists.of_row, sections)
    tails: dict[int, list[bytes]] = {}
    lengths, places = [], []
    for hooks in hook_lists.lists:
        content = tail(hooks)
        same_length = tails.setdefault(len(content), [])
        lengths.append(len(content))
        places.append(len(same_length))
        same_length.append(content)
    sort_keys = np.array(lengths).take(hook_lists.of_row) * 4 + ipv4
    if extended is not False:
        sort_keys += np.multiply(extended, 2)
    order = _order_of(sort_keys)
    sort_keys = sort_keys.take(order)
    starts = [0, *(np.flatnonzero(sort_keys[1:] != sort_keys[:-1]) + 1).tolist()]
    kinds = [
        Kind(range(start, stop), bool(sort_key & 1), bool(sort_key & 2), tails[sort_key // 4])
        for start, stop, sort_key in zip(starts, [*starts[1:], len(keys)], sort_keys.take(starts).tolist(), strict=True)
    ]
    return Chunk(*surveys, order, kinds, np.array(places, np.intp).take(hook_lists.of_row.take(order)), sections)


def _order_of(sort_keys: NDArray[np.int64]) -> NDArray[np.intp]:
    # Numbers of 16 bits are sorted by radix: 20 us for 8,192 rows. Others take 140 us, and 600 us where a few rows are
    # unlike all the rest.
    is_short = int(sort_keys.max()) < 1 << 16
    return (sort_keys.astype(np.uint16) if is_short else sort_keys).argsort(kind="stable")


def _extended(sections: Sections | None) -> NDArray[np.bool_] | bool:
    """Say which rows have sections; True if all have, False if none has."""
    if sections is None:
        return False
    extended = sections.size_bytes != 0
    return bool(extended[0]) if extended.all() or not extended.any() else extended
