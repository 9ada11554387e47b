"""Events sorted by the flow that they are about: the frame of every reduction.

Law: the order within a flow is that of time, and of content where times are equal, never of arrival; so no reduction
depends on it.
Neighbours: `core/reduce.py` reduces by these segments, `core/join.py` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@attrs.frozen(eq=False)
class Segments:
    """Rows (n,) by group: `groups` (m,) are the numbers of those that occur; `starts` where each begins in `order`."""

    order: NDArray[np.intp]
    groups: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, grouped: NDArray[np.intp], of_row: NDArray[np.intp], *ties: NDArray[Any]) -> Segments:
        """Make them of rows already in order of their groups; `ties`, the most important first, order each group.

        The groups ascend.
        """
        groups = of_row[grouped]
        is_first = is_first_of(groups)
        starts = np.flatnonzero(is_first)
        order = grouped
        if ties and len(starts) < len(groups):
            order = _ordered(grouped, is_first, ties)
        return cls(order, groups[starts], starts)

    def __len__(self) -> int:
        return len(self.groups)

    def at(self, places: NDArray[np.intp]) -> Segments:
        """Return those of the groups at some places (k,), in the order in which they are asked for."""
        begins = self.starts[places]
        if len(self) == len(self.order):
            return Segments(self.order[begins], self.groups[places], np.arange(len(places)))
        sizes = np.append(self.starts, len(self.order))[places + 1] - begins
        starts = sizes.cumsum() - sizes
        rows = np.arange(sizes.sum()) + np.repeat(begins - starts, sizes)
        return Segments(self.order[rows], self.groups[places], starts)

    @property
    def sizes(self) -> NDArray[np.intp]:
        """How many rows each group has, (m,)."""
        return np.diff(self.starts, append=len(self.order))

    @property
    def numbers(self) -> NDArray[np.intp]:
        """Which group, counted from 0, each row of `order` is in, (n,)."""
        return np.repeat(np.arange(len(self)), self.sizes)

    @property
    def lasts(self) -> NDArray[np.intp]:
        """The last row of each group, (m,)."""
        lasts: NDArray[np.intp] = self.order[self.starts + self.sizes - 1]
        return lasts

    @property
    def firsts(self) -> NDArray[np.intp]:
        """The first row of each group, (m,)."""
        return self.order[self.starts]

    def reduce(self, operation: np.ufunc, column: NDArray[Any]) -> NDArray[Any]:
        """Return the operation over each group's part of a column (n,)."""
        ordered = column[self.order]
        if len(self.groups) == len(self.order):
            return ordered
        reduced: NDArray[Any] = operation.reduceat(ordered, self.starts)
        return reduced

    def first_where(self, condition: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the first row of each group that meets a condition (n,); -1: none."""
        beyond = len(self.order)
        places = np.where(condition[self.order], np.arange(beyond), beyond)
        if not len(self.groups):
            return places
        first = np.minimum.reduceat(places, self.starts)
        return np.where(first == beyond, -1, self.order[np.minimum(first, beyond - 1)])

    def last_where(self, condition: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the last row of each group that meets a condition (n,); -1: none."""
        places = np.where(condition[self.order], np.arange(len(self.order)), -1)
        if not len(self.groups):
            return places
        last = np.maximum.reduceat(places, self.starts)
        return np.where(last < 0, -1, self.order[last])


def _ordered(grouped: NDArray[np.intp], is_first: NDArray[np.bool_], ties: Sequence[NDArray[Any]]) -> NDArray[np.intp]:
    """Return rows in order within their groups. They mostly are: events leave the ring nearly in order of time."""
    times = ties[0][grouped]
    is_wrong = ~is_first[1:] & (times[1:] <= times[:-1])
    if not is_wrong.any():
        return grouped
    # Only the groups in which two stand the wrong way around, or at the same time.
    group = is_first.cumsum() - 1
    is_affected = np.zeros(group[-1] + 1, np.bool_)
    is_affected[group[1:][is_wrong]] = True
    places = np.flatnonzero(is_affected[group])
    rows = grouped[places]
    order = grouped.copy()
    order[places] = rows[np.lexsort((*(tie[rows] for tie in reversed(ties)), group[places]))]
    return order


def is_first_of(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which rows of sorted columns (n,) differ from the row before."""
    is_first = np.zeros(len(columns[0]), np.bool_)
    is_first[:1] = True
    for column in columns:
        is_first[1:] |= column[1:] != column[:-1]
    return is_first


def places_in(groups: NDArray[Any]) -> NDArray[np.intp]:
    """Return the place of each row within its group, given the sorted groups (n,)."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def distinct_in(
    groups: NDArray[np.intp], column: NDArray[Any], at_most: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]:
    """Return group, place and value of the distinct values of each group, ascending, no more than fit."""
    order = np.lexsort((column, groups))
    groups, column = groups[order], column[order]
    is_first = is_first_of(groups, column)
    groups, column = groups[is_first], column[is_first]
    places = places_in(groups)
    fits = places < at_most
    return groups[fits], places[fits], column[fits]


def taken(column: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """Return column values at rows, 0 where the row is -1."""
    values: NDArray[Any] = column[np.maximum(rows, 0)] if len(column) else np.zeros(len(rows), column.dtype)
    return np.where(rows < 0, np.zeros(1, column.dtype), values)
