"""Which flows were seen at the same hooks: interface names are strings, so they are looked up once a list, not a flow.

Law: no list is given to a row that has another, and what a row costs does not depend on how many lists there are.
Rows are sorted by a hash of their hooks and cut where the hooks themselves differ: should two lists ever share a hash,
they are found several times over, and nothing is wrong.
Neighbours: `core/pbflow_chunk.py` writes what follows from a list into each of its rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.layout import MAX_OBSERVED
from netwatch.core.survey import Survey, is_uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Odd numbers without a pattern: the hash of a list is the sum of the products, modulo 2**64.
_MULTIPLIERS = (0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0xD6E8_FEB8_6659_FD93)
assert len(_MULTIPLIERS) == 1 + MAX_OBSERVED // 2  # home, and two observed hooks to a word


@attrs.frozen(eq=False)
class HookLists:
    """The lists of some rows: each begins with the home. `of_row` has the number of each row's list."""

    lists: tuple[tuple[int, ...], ...]
    of_row: NDArray[np.intp]


def hook_lists_of(values: Survey) -> HookLists:
    """Group rows of dtype FLOW_VALUE by their hooks."""
    words = values.words("home", "<u8") + values.words("observed", "<u8")
    # Most columns hold one number on most hosts; the rest is read several times, so it should not lie 96 bytes apart.
    columns = [np.ascontiguousarray(column) for column, any_bits in words if not is_uniform(column, any_bits)]
    if not columns:
        return HookLists(tuple(_hooks(values.rows[:1])), np.zeros(len(values.rows), np.intp))
    hashes = np.zeros(len(values.rows), np.uint64)
    for column, multiplier in zip(columns, _MULTIPLIERS, strict=False):
        hashes += column * np.uint64(multiplier)
    order = hashes.argsort()
    is_first = np.zeros(len(order), np.bool_)
    is_first[0] = True
    for column in columns:
        ordered = column.take(order)
        is_first[1:] |= ordered[1:] != ordered[:-1]
    of_row = np.empty(len(order), np.intp)
    of_row[order] = is_first.cumsum() - 1
    return HookLists(tuple(_hooks(values.rows.take(order[is_first]))), of_row)


def _hooks(values: NDArray[np.void]) -> list[tuple[int, ...]]:
    homes, observed = values["home"].tolist(), values["observed"].tolist()
    return [(home, *filter(None, others)) for home, others in zip(homes, observed, strict=True)]
