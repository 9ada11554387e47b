"""Rows of flows that found the flow map full: their packets came one by one, through the ring.

Law: one packet, one count, as in the map: packets count at the flow's home, that of its last exported row, or else
the hook of its first packet; the others are duplicates that note their hook. Every packet is in a row or a duplicate.
Neighbours: `core/join.py` groups the events, `bpf/account.bpf.h` makes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.layout import FLOW_KEY, FLOW_VALUE, MAX_OBSERVED
from netwatch.core.segments import Segments, distinct_in

if TYPE_CHECKING:
    from numpy.typing import NDArray


@attrs.frozen(eq=False)
class OverflowRows:
    """Keys and values (n,) of the flows, and what was seen of their packets at other hooks than their homes."""

    keys: NDArray[np.void]
    values: NDArray[np.void]
    duplicate_packets: int = 0
    duplicate_bytes: int = 0

    @classmethod
    def none(cls) -> OverflowRows:
        """Return no rows."""
        return cls(np.empty(0, FLOW_KEY), np.empty(0, FLOW_VALUE))


def rows_of_packets(events: NDArray[np.void], segments: Segments, homes: NDArray[np.uint32]) -> OverflowRows:
    """Make rows of FLOW_EVENT (n,) in segments; `homes` (m,) of each, 0 where none is known."""
    heads = events["event"]
    homes = np.where(homes == 0, heads["hook"][segments.firsts], homes)
    home_of_event = np.empty(len(events), np.uint32)
    home_of_event[segments.order] = np.repeat(homes, segments.sizes)
    is_home = heads["hook"] == home_of_event
    values = np.zeros(len(segments), FLOW_VALUE)
    for name in ("packets", "bytes"):
        values[name] = segments.reduce(np.add, np.where(is_home, events[name], 0).astype(np.uint64))
    values["flags"] = segments.reduce(np.bitwise_or, np.where(is_home, events["flags"], 0).astype(np.uint64))
    times = heads["time_ns"]
    values["last_ns"] = segments.reduce(np.maximum, np.where(is_home, times, 0))
    values["first_ns"] = segments.reduce(np.minimum, np.where(is_home, times, np.iinfo(np.uint64).max))
    values["home"] = homes
    # -1, so any packet's, where none was seen at the home: that row does not stay.
    first_home = segments.first_where(is_home)
    for name in ("eth_type", "sampling", "dscp", "src_mac", "dst_mac"):
        values[name] = events[name][first_home]
    _note_hooks(heads["hook"], is_home, segments, values)
    counted = values["packets"] != 0
    keys = np.ascontiguousarray(heads["key"][segments.firsts][counted])
    duplicate = {name: int(events[name][~is_home].astype(np.uint64).sum()) for name in ("packets", "bytes")}
    return OverflowRows(keys, values[counted], duplicate["packets"], duplicate["bytes"])


def _note_hooks(
    hooks: NDArray[np.uint32], is_home: NDArray[np.bool_], segments: Segments, values: NDArray[np.void]
) -> None:
    """Put the other hooks of each flow into its row, ascending, as many as fit."""
    is_other = ~is_home[segments.order]
    group, place, others = distinct_in(segments.numbers[is_other], hooks[segments.order][is_other], MAX_OBSERVED)
    values["observed"][group, place] = others
