"""What is known of columns without looking at every row again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.layout import FLOW_KEY, FLOW_VALUE
from netwatch.core.survey import Survey, is_uniform

# Around the number of rows that are reduced side by side.
ROW_COUNTS = (1, 2, 63, 64, 65, 128, 200)


@pytest.mark.parametrize("row_count", ROW_COUNTS)
@given(number=st.integers(0, (1 << 64) - 1), seed=st.randoms(use_true_random=False))
def test_widest_number(row_count: int, number: int, seed: object) -> None:
    """The widest number of a column is found wherever it is, and no other column is thought to be as wide."""
    values = np.zeros(row_count, FLOW_VALUE)
    values["packets"][seed.randrange(row_count)] = number

    survey = Survey.of(values)

    assert survey.bits("packets") == number.bit_length()
    assert survey.bits("bytes") == 0


@given(st.lists(st.integers(0, 3), min_size=1, max_size=130))
def test_uniform_column(numbers: list[int]) -> None:
    """A column is uniform if all its numbers are the same."""
    values = np.zeros(len(numbers), FLOW_VALUE)
    values["home"] = numbers

    ((column, any_bits),) = Survey.of(values).words("home", "<u8")

    assert is_uniform(column, any_bits) == (len(set(numbers)) == 1)


def test_columns_of_words() -> None:
    """A column of several bytes is read as words, each with the OR of its own."""
    keys = np.zeros(3, FLOW_KEY)
    keys["src_addr"][:, 10:12] = 0xFF
    keys["src_addr"][1, 15] = 0x40
    keys["src_addr"][2, 15] = 0x02

    words = Survey.of(keys).words("src_addr", "<u4")

    assert [any_bits for _, any_bits in words] == [0, 0, 0xFFFF0000, 0x42000000]
    assert [column.tolist() for column, _ in words[2:]] == [[0xFFFF0000] * 3, [0, 0x40000000, 0x02000000]]
