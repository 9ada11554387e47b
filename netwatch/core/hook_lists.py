"""Which flows were seen at the same hooks: interface names are strings, so they are looked up once a list, not a flow.

Law: no list is given to a row that has another, and none is longer than MAX_HOOKS.
Neighbours: `core/distinct.py` finds equal rows; `core/pbflow_chunk.py` writes what follows from a list into each row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.distinct import distinct_of, varying
from netwatch.core.enrichment import MAX_HOOKS, Facts
from netwatch.core.survey import Survey, is_uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray


@attrs.frozen(eq=False)
class HookLists:
    """The lists of some rows: each begins with the home. `of_row` has the number of each row's list."""

    lists: tuple[tuple[int, ...], ...]
    of_row: NDArray[np.intp]


def hook_lists_of(values: Survey, more: Facts | None = None) -> HookLists:
    """Group rows of dtype FLOW_VALUE by their hooks; some rows have `more` of them, of dtype MORE_HOOKS."""
    words = values.words("home", "<u8") + values.words("observed", "<u8")
    # Most columns hold one number on most hosts; the rest is read several times, so it should not lie 96 bytes apart.
    columns = [np.ascontiguousarray(column) for column, any_bits in words if not is_uniform(column, any_bits)]
    distinct = distinct_of(columns, len(values.rows))
    found = HookLists(tuple(_hooks(values.rows.take(distinct.firsts))), distinct.of_row)
    return _lengthened(found, more) if more else found


def _lengthened(found: HookLists, more: Facts) -> HookLists:
    """Give longer lists to the rows that have more hooks. A list that no row has any more stays where it was."""
    of_row, counts = found.of_row.copy(), more.values["count"]
    before = of_row.take(more.rows)
    hooks = more.values["hooks"][:, : int(counts.max())]
    distinct = distinct_of(varying([before.astype(np.uint64), counts, *hooks.T]), len(more))
    lists = [
        (*found.lists[number], *filter(None, following[:count]))[:MAX_HOOKS]
        for number, count, following in zip(
            before.take(distinct.firsts).tolist(),
            counts.take(distinct.firsts).tolist(),
            hooks.take(distinct.firsts, axis=0).tolist(),
            strict=True,
        )
    ]
    of_row[more.rows] = distinct.of_row + len(found.lists)
    return HookLists((*found.lists, *lists), of_row)


def _hooks(values: NDArray[np.void]) -> list[tuple[int, ...]]:
    homes, observed = values["home"].tolist(), values["observed"].tolist()
    return [(home, *filter(None, others)) for home, others in zip(homes, observed, strict=True)]
