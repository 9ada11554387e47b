"""Distinct texts in the places of those that have them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.wire.texts import Texts


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_any_texts(texts: list[bytes], rows: list[tuple[int, int]], random: object) -> None:
    """Each row's text is where the row wants it, in whatever order, and nothing else is touched."""
    numbers = [number % len(texts) for number, _ in rows]
    order = list(range(len(rows)))
    random.shuffle(order)
    expected, places = b"", [0] * len(rows)
    for row in order:
        expected += b"." * rows[row][1]
        places[row] = len(expected)
        expected += texts[numbers[row]]
    buffer = np.full(len(expected) + 1, ord("."), np.uint8)

    placed = Texts.of(texts, np.array(numbers, np.intp))
    placed.write(buffer, np.array(places, np.int64))

    assert buffer.tobytes() == expected + b"."
    assert placed.sizes.tolist() == [len(texts[number]) for number in numbers]


def test_nothing_but_empty_texts() -> None:
    """A text of no bytes takes no place, not even in an empty buffer."""
    texts = Texts.of([b""], np.zeros(3, np.intp))

    texts.write(np.empty(0, np.uint8), np.zeros(3, np.int64))

    assert texts.sizes.tolist() == [0, 0, 0]
