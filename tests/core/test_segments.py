"""Rows by group and by time, against lists that are sorted one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.segments import Segments, taken

# Few numbers, so that times and contents are often the same; the highest would overflow if it were signed.
SMALL = st.sampled_from([0, 1, 2, 3, (1 << 64) - 1])
ROW = st.tuples(st.integers(0, 5), SMALL, SMALL)
ROWS = st.lists(ROW, max_size=40)
Row = tuple[int, int, int]


def segments_of(rows: Sequence[Row]) -> Segments:
    """Return the segments of rows of a group, a time and a content."""
    of_row = np.array([group for group, _, _ in rows], np.intp)
    times, contents = (np.array([row[column] for row in rows], np.uint64) for column in (1, 2))
    return Segments.of(of_row.argsort(kind="stable"), of_row, times, contents)


def naive(rows: Sequence[Row]) -> dict[int, list[int]]:
    """Return the rows of each group, in order."""
    groups: dict[int, list[int]] = {}
    for row in sorted(range(len(rows)), key=lambda row: (*rows[row], row)):
        groups.setdefault(rows[row][0], []).append(row)
    return groups


@given(ROWS)
def test_groups_and_their_order(rows: list[Row]) -> None:
    """Groups ascend, and the rows of each are in order of time, then of content."""
    segments, expected = segments_of(rows), naive(rows)
    assert segments.groups.tolist() == list(expected)
    assert len(segments) == len(expected)
    assert segments.order.tolist() == [row for group in expected.values() for row in group]
    assert segments.sizes.tolist() == [len(group) for group in expected.values()]
    assert segments.firsts.tolist() == [group[0] for group in expected.values()]
    assert segments.lasts.tolist() == [group[-1] for group in expected.values()]


@given(ROWS, st.randoms(use_true_random=False))
def test_order_of_arrival_never_matters(rows: list[Row], random) -> None:  # type: ignore[no-untyped-def]
    """The same rows in another order are the same segments."""
    shuffled = rows.copy()
    random.shuffle(shuffled)
    some, others = segments_of(rows), segments_of(shuffled)
    assert [rows[row] for row in some.order] == [shuffled[row] for row in others.order]
    assert some.starts.tolist() == others.starts.tolist()


@given(ROWS, st.data())
def test_at_places(rows: list[Row], data: st.DataObject) -> None:
    """Some of the groups, in any order, with all that they have."""
    segments, expected = segments_of(rows), naive(rows)
    places = data.draw(st.permutations(range(len(segments))))[: data.draw(st.integers(0, len(segments)))]
    some = segments.at(np.array(places, np.intp))
    assert some.groups.tolist() == [list(expected)[place] for place in places]
    assert [some.order[begin:][:size].tolist() for begin, size in zip(some.starts, some.sizes, strict=True)] == [
        expected[group] for group in some.groups.tolist()
    ]


@given(ROWS)
def test_without_ties(rows: list[Row]) -> None:
    """Where nothing orders them, the rows of a group stay as they came."""
    of_row = np.array([group for group, _, _ in rows], np.intp)
    segments = Segments.of(of_row.argsort(kind="stable"), of_row)
    assert segments.order.tolist() == sorted(range(len(rows)), key=lambda row: rows[row][0])


@pytest.mark.parametrize("operation", [np.add, np.minimum, np.maximum, np.bitwise_or])
@given(rows=ROWS)
def test_reductions(operation: np.ufunc, rows: list[Row]) -> None:
    """A reduction is over each group's rows and no other's."""
    column = np.array([content for _, _, content in rows], np.uint64)
    reduced = segments_of(rows).reduce(operation, column)
    assert reduced.dtype == column.dtype
    assert reduced.tolist() == [int(operation.reduce(column[group])) for group in naive(rows).values()]


@given(st.lists(st.tuples(ROW, st.booleans()), max_size=40))
def test_first_and_last_that_meet_a_condition(told: list[tuple[Row, bool]]) -> None:
    """The earliest and the latest of each group that do, and -1 where none does."""
    rows = [row for row, _ in told]
    condition = np.array([is_met for _, is_met in told], np.bool_)
    segments = segments_of(rows)
    meeting = [[row for row in group if condition[row]] for group in naive(rows).values()]
    assert segments.first_where(condition).tolist() == [group[0] if group else -1 for group in meeting]
    assert segments.last_where(condition).tolist() == [group[-1] if group else -1 for group in meeting]


@given(st.lists(st.integers(1, 9), max_size=8), st.data())
def test_values_at_rows(column: list[int], data: st.DataObject) -> None:
    """A value at its row, and 0 at -1."""
    rows = data.draw(st.lists(st.integers(-1, len(column) - 1), max_size=8))
    values = taken(np.array(column, np.uint16), np.array(rows, np.intp))
    assert values.dtype == np.uint16
    assert values.tolist() == [0 if row < 0 else column[row] for row in rows]
