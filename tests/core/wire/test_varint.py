"""Varints of whole columns, against those of one number at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.wire.protobuf import encode_varint, groups_of
from netwatch.core.wire.varint import Spreading, count_kept, in_each_byte, reduce_to_kept

DTYPES = [np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8")]


def spread_one(value: int) -> int:
    """Put seven bits into each byte, the slow way."""
    return sum((value >> 7 * byte & 0x7F) << 8 * byte for byte in range(10))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
def test_spread_columns(dtype: np.dtype, data: st.DataObject) -> None:
    """Each value has seven bits in each byte of its word, whatever the widths of the columns beside it."""
    groups = sorted(data.draw(st.lists(st.integers(1, dtype.itemsize), min_size=1, max_size=4)), reverse=True)
    columns = [
        data.draw(st.lists(st.integers(0, (1 << 7 * count) - 1), min_size=3, max_size=3), label=f"{count} groups")
        for count in groups
    ]
    stack = np.array(columns, dtype)

    Spreading.of(groups, dtype).apply(stack)

    assert stack.tolist() == [[spread_one(value) for value in column] for column in columns]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(data=st.data())
def test_kept_bytes(dtype: np.dtype, data: st.DataObject) -> None:
    """The bytes kept of a word are those of its minimal varint, and none of 0."""
    values = data.draw(st.lists(st.integers(0, (1 << 7 * dtype.itemsize) - 1), min_size=1, max_size=5))
    stack = np.array([[spread_one(value) for value in values]], dtype)

    reduce_to_kept(stack)

    sizes = [len(encode_varint(value)) if value else 0 for value in values]
    assert stack.tolist() == [[in_each_byte(1, size) for size in sizes]]
    assert count_kept(stack).tolist() == [sizes]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_limits_of_each_length(dtype: np.dtype) -> None:
    """The last value of each length, and the first of the next, are spread and counted right."""
    values = [limit for bits in range(7, 7 * dtype.itemsize, 7) for limit in ((1 << bits) - 1, 1 << bits)]
    stack = np.array([values], dtype)

    Spreading.of([dtype.itemsize], dtype).apply(stack)
    spread = stack.tolist()
    reduce_to_kept(stack)

    assert spread == [[spread_one(value) for value in values]]
    assert count_kept(stack).tolist() == [[groups_of(value.bit_length()) for value in values]]
