"""Pieces of bytes at any places of a buffer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.wire.spans import spans_of


@given(st.binary(min_size=1, max_size=40), st.data())
def test_pieces_that_are_read(content: bytes, data: st.DataObject) -> None:
    """Each piece has the bytes from its place on, whether or not pieces overlap."""
    size = data.draw(st.integers(1, len(content)))
    places = data.draw(st.lists(st.integers(0, len(content) - size), max_size=5))

    pieces = spans_of(np.frombuffer(content, np.uint8), size)[np.array(places, np.intp)]

    assert [piece.tobytes() for piece in pieces] == [content[place : place + size] for place in places]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 13])
def test_pieces_that_are_written(size: int) -> None:
    """Pieces are written whole, in any order, and the bytes between them stay as they were."""
    buffer = np.full(3 * size + 4, 0xEE, np.uint8)
    pieces = np.frombuffer(bytes(range(2 * size)), np.dtype((np.void, size)))

    spans_of(buffer, size)[np.array([2 * size + 3, 1])] = pieces

    gap = b"\xee" * (size + 2)
    assert buffer.tobytes() == b"\xee" + pieces[1].tobytes() + gap + pieces[0].tobytes() + b"\xee"


@pytest.mark.parametrize("place", [3, 4])
def test_piece_beyond_the_end(place: int) -> None:
    """A piece that would end outside of the buffer is refused, also where the buffer is shorter than a piece."""
    for size in (2, 9):
        with pytest.raises(IndexError):
            spans_of(np.zeros(4, np.uint8), size)[np.array([place])] = np.zeros(1, np.dtype((np.void, size)))
