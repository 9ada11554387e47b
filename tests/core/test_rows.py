"""Rows of structured arrays are moved whole, and stay what they were."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from netwatch.core.layout import DROP_EVENT, FLOW_VALUE
from netwatch.core.rows import copied, joined, moved_together, pick

ROWS = st.sampled_from([DROP_EVENT, FLOW_VALUE]).flatmap(
    lambda dtype: st.binary(min_size=0, max_size=5 * dtype.itemsize).map(
        lambda octets: np.frombuffer(octets[: len(octets) // dtype.itemsize * dtype.itemsize], dtype)
    )
)


@given(ROWS)
def test_copied(rows: np.ndarray) -> None:
    """The same rows in memory of their own."""
    copy = copied(rows)
    assert (copy.dtype, copy.tobytes()) == (rows.dtype, rows.tobytes())
    assert not np.shares_memory(copy, rows)
    assert copy.flags.writeable


@given(ROWS, st.integers(1, 4))
def test_joined(rows: np.ndarray, parts: int) -> None:
    """One after the other; a part alone is not copied."""
    together = joined([rows] * parts)
    assert (together.dtype, together.tobytes()) == (rows.dtype, rows.tobytes() * parts)
    assert np.shares_memory(together, rows) == (parts == 1 and len(rows) > 0)


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_moved_together(parts: list[np.ndarray]) -> None:
    """The same, and the parts are gone."""
    parts = [part for part in parts if part.dtype == parts[0].dtype]
    dtype, octets = parts[0].dtype, b"".join(part.tobytes() for part in parts)
    together = moved_together(parts)
    assert (together.dtype, together.tobytes(), parts) == (dtype, octets, [])


@given(ROWS, st.data())
def test_pick(rows: np.ndarray, data: st.DataObject) -> None:
    """What indexing gives, by numbers and by truth values."""
    is_picked = data.draw(npst.arrays(np.bool_, len(rows)))
    for index in (is_picked, np.flatnonzero(is_picked)[::-1]):
        picked = pick(rows, index)
        assert (picked.dtype, picked.tobytes()) == (rows.dtype, rows[index].tobytes())
