"""Varints for many rows at once: seven bits to a byte, low bits first, the top bit of a byte says that more follow.

Law: pure arithmetic on whole columns, never a step for a row. A varint may be padded, that is, carry its value in more
bytes than it needs, up to ten: decoders take that for values and for lengths (tried: Go, and Python with and without
upb); tags stay minimal. What is *kept* of it is the minimal varint: a word of the same size with 1 in each byte that is
needed, none where the value is 0.
Neighbours: `core/wire/cells.py` makes fields of these words.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]
"""Unsigned numbers of one width: a column (n,), or a stack of columns (k, n)."""


@functools.cache
def in_each_byte(value: int, size_bytes: int) -> int:
    """Return the number that holds `value` in each of its bytes."""
    return int.from_bytes(bytes((value,)) * size_bytes, "little")


@attrs.frozen(eq=False)
class Spreading:
    """How to put seven bits of each value into each byte of its word, low bits first, top bits clear.

    A stack of columns is done in steps: so many columns, those with values that long, and the bits that move.
    """

    steps: tuple[tuple[int, Any], ...]

    @classmethod
    def of(cls, groups: Sequence[int], dtype: np.dtype[Any]) -> Spreading:
        """Make one for columns whose values have so many groups of seven bits, descending; a word has room for them."""
        steps = []
        for byte in range(1, groups[0]):
            # From the last bit of the byte before, everything moves up by one.
            moving = (1 << 8 * dtype.itemsize) - (1 << 8 * byte - 1)
            steps.append((sum(count > byte for count in groups), dtype.type(moving)))
        return cls(tuple(steps))

    def apply(self, stack: Words) -> None:
        """Spread the words, in place."""
        spare = np.empty_like(stack)
        for count, moving in self.steps:
            columns = stack[:count]
            # On the moving bits alone, x + x.
            np.add(columns, np.bitwise_and(columns, moving, out=spare[:count]), out=columns)


def reduce_to_kept(stack: Words) -> None:
    """Turn spread words into what is kept of them, in place."""
    size = stack.itemsize
    shift = 8
    while shift < 8 * size:
        stack |= stack >> _scalar(stack.dtype, shift)
        shift *= 2
    # Bytes are at most 0x7f here, so adding 0x7f sets the top bit of those that are not 0, and carries nothing.
    stack += _scalar(stack.dtype, in_each_byte(0x7F, size))
    stack >>= _scalar(stack.dtype, 7)
    stack &= _scalar(stack.dtype, in_each_byte(0x01, size))


def count_kept(stack: Words) -> Words:
    """Return the number of bytes that are kept of each word."""
    size = stack.itemsize
    # The top byte of the product is the sum of all bytes.
    counts: Words = stack * _scalar(stack.dtype, in_each_byte(0x01, size))
    counts >>= _scalar(stack.dtype, 8 * (size - 1))
    return counts


# Scalars of the array's own type: numpy takes half as long as for a Python int, which it has to examine.


@functools.cache
def _scalar(dtype: np.dtype[Any], value: int) -> Any:
    return dtype.type(value)
