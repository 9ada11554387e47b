"""Which rows hold the same: what becomes text is looked up once for each distinct row, not for each flow.

Law: no two rows that differ are taken for one, and what a row costs does not depend on how many different ones there
are. Rows are sorted by a hash and cut where the rows themselves differ: should two different ones ever share a hash,
they are found several times over, and nothing is wrong.
Neighbours: `core/hook_lists.py` groups rows by their hooks, `core/pbflow_facts.py` facts by what they name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

# Odd numbers without a pattern: the hash of a row is the sum of the products, modulo 2**64.
_MULTIPLIERS = [np.uint64(pow(0x9E37_79B9_7F4A_7C15, power, 1 << 64)) for power in range(1, 72)]


@attrs.frozen(eq=False)
class Distinct:
    """Numbers of different rows: `firsts` has one row for each number, `of_row` the number of each row."""

    firsts: NDArray[np.intp]
    of_row: NDArray[np.intp]


def varying(columns: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return those of the columns, of at least one row, that do not hold the same in all rows."""
    return [column for column in columns if (column != column[0]).any()]


def distinct_of(columns: Sequence[NDArray[Any]], row_count: int) -> Distinct:
    """Give the same number to rows that hold the same in all of some columns of unsigned numbers.

    Each column is read several times: better if it is contiguous. The sort is not stable: any equal row may be first.
    """
    if not columns:
        return Distinct(np.zeros(1, np.intp), np.zeros(row_count, np.intp))
    hashes = np.zeros(row_count, np.uint64)
    for column, multiplier in zip(columns, _MULTIPLIERS, strict=False):
        hashes += column * multiplier
    order = hashes.argsort()
    is_first = np.zeros(row_count, np.bool_)
    is_first[0] = True
    for column in columns:
        ordered = column.take(order)
        is_first[1:] |= ordered[1:] != ordered[:-1]
    of_row = np.empty(row_count, np.intp)
    of_row[order] = is_first.cumsum() - 1
    return Distinct(order[is_first], of_row)
