"""Numbers of rows that hold the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core import distinct
from netwatch.core.distinct import distinct_of, varying

columns = st.integers(1, 70).flatmap(
    lambda width: st.lists(st.lists(st.sampled_from([0, 1, 2**64 - 1]), min_size=width, max_size=width), min_size=1)
)


def found(rows: list[list[int]]) -> list[list[int]]:
    """Return the row that each row was found to be like."""
    table = np.array(rows, np.uint64)
    numbered = distinct_of(varying(list(table.T)), len(rows))
    return table[numbered.firsts][numbered.of_row].tolist()


@given(columns)
def test_any_rows(rows: list[list[int]]) -> None:
    """Every row has the number of rows that are like it, also with more columns than there are multipliers."""
    assert found(rows) == rows


@given(columns)
def test_hashes_that_collide(rows: list[list[int]]) -> None:
    """If all rows had the same hash, none would be taken for another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distinct, "_MULTIPLIERS", [np.uint64(0)] * 3)
        assert found(rows) == rows


def test_each_is_found_once() -> None:
    """There are as many numbers as there are different rows."""
    numbers = np.arange(1000, dtype=np.uint64)

    numbered = distinct_of([numbers % 5, numbers % 3], 1000)

    assert len(numbered.firsts) == 15
    assert len(set(zip(numbers[numbered.firsts] % 5, numbers[numbered.firsts] % 3, strict=True))) == 15


def test_all_alike() -> None:
    """Columns that hold one number need not be looked at: all rows are the first one."""
    assert varying([np.full(4, 7, np.uint32)]) == []

    numbered = distinct_of([], 4)

    assert (numbered.firsts.tolist(), numbered.of_row.tolist()) == ([0], [0, 0, 0, 0])
