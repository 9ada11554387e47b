"""Cells: number fields of many rows, tag and padded varint together in one word a row.

Law: a cell is 2, 4 or 8 bytes long, the sizes that numpy stores at once, and its tag is minimal. Columns with cells of
one size are worked on as a stack, which takes fewer calls.
Neighbours: `core/wire/varint.py` has the arithmetic; `core/wire/template.py` gives the cells their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from netwatch.core.wire.protobuf import CONTINUES, GROUP_BITS
from netwatch.core.wire.varint import Spreading, Words, in_each_byte, reduce_to_kept

# In this order, because of the byte that two cells share.
SIZES = (8, 4, 2)
WORD_DTYPES: dict[int, np.dtype[np.unsignedinteger[Any]]] = {
    1: np.dtype("u1"),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    8: np.dtype("<u8"),
}


# A varint has at most ten bytes, padded or not (64 bits), so that the two cells of a long number share it like this.
_FIRST_GROUPS, _SECOND_GROUPS = 6, 4


@attrs.frozen
class Cell:
    """Tag and `groups` groups of seven bits of the numbers in one column, in a word of `size_bytes`.

    A number too long for one cell is in two: the first `goes_on`; the second has no tag and `skipped` the groups in
    the first. With a tag of one byte the last byte of the first cell belongs to the second, and is stored again.
    """

    column: int
    prefix: bytes
    groups: int
    size_bytes: int
    goes_on: bool = False
    skipped: int = 0

    @property
    def value_bytes(self) -> int:
        """Size of the varint, or of its part in this cell."""
        return self.groups if self.goes_on else self.size_bytes - len(self.prefix)

    @property
    def own_bytes(self) -> int:
        """Size of tag and varint."""
        return len(self.prefix) + self.value_bytes

    def take(self, columns: Sequence[Words]) -> Words:
        """Return what of the numbers is in this cell."""
        values = columns[self.column]
        if self.goes_on:
            return values & np.uint64((1 << GROUP_BITS * self.groups) - 1)
        return values >> np.uint64(GROUP_BITS * self.skipped) if self.skipped else values

    def rest(self, columns: Sequence[Words]) -> Words:
        """Return 1 where something of a number is in the next cell."""
        values = columns[self.column]
        rest: Words = (values >> np.uint64(GROUP_BITS * self.groups) != 0).astype(np.uint64)
        return rest


def cells_of(column: int, prefix: bytes, groups: int) -> list[Cell]:
    """Return the smallest cell for numbers of so many groups of seven bits, or the two that the largest need."""
    for size in reversed(SIZES):
        if groups <= size - len(prefix):
            return [Cell(column, prefix, groups, size)]
    return [
        Cell(column, prefix, _FIRST_GROUPS, 8, goes_on=True),
        Cell(column, b"", groups - _FIRST_GROUPS, _SECOND_GROUPS, skipped=_FIRST_GROUPS),
    ]


@attrs.frozen(eq=False)
class CellStack:
    """Cells of one size, those with most groups first, and one row of constants for each."""

    cells: tuple[Cell, ...]
    spreading: Spreading
    shifts: Words
    prefixes: Words
    padded_prefixes: Words
    """With all the bits of the varint that say that it goes on."""
    tag_bytes: Words

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> CellStack:
        """Make a stack of cells of one size."""
        ordered = tuple(sorted(cells, key=lambda cell: -cell.groups))

        def constants(numbers: list[int]) -> Words:
            return np.array(numbers, WORD_DTYPES[ordered[0].size_bytes]).reshape(-1, 1)

        tags = [int.from_bytes(cell.prefix, "little") for cell in ordered]
        shifts = [8 * len(cell.prefix) for cell in ordered]
        continues = [in_each_byte(CONTINUES, cell.value_bytes - (not cell.goes_on)) for cell in ordered]
        return cls(
            ordered,
            Spreading.of([cell.groups for cell in ordered], WORD_DTYPES[ordered[0].size_bytes]),
            constants(shifts),
            prefixes=constants(tags),
            padded_prefixes=constants(
                [tag | goes_on << shift for tag, goes_on, shift in zip(tags, continues, shifts, strict=True)]
            ),
            tag_bytes=constants([in_each_byte(0x01, len(cell.prefix)) for cell in ordered]),
        )

    def encode(self, columns: Sequence[Words], *, is_minimal: bool) -> tuple[Words, Words | None]:
        """Return the words of each cell, a column each, and what a minimal encoding keeps of them; None: not asked."""
        words = np.empty((len(self.cells), len(columns[0])), self.prefixes.dtype)
        for row, cell in zip(words, self.cells, strict=True):
            row[...] = cell.take(columns)
        self.spreading.apply(words)
        kept = self._keep(words, columns) if is_minimal else None
        words <<= self.shifts
        words |= self.prefixes if is_minimal else self.padded_prefixes
        return words, kept

    def _keep(self, words: Words, columns: Sequence[Words]) -> Words:
        """Make minimal varints of spread words; return what is kept of the cells."""
        rests = [(row, cell, cell.rest(columns)) for row, cell in enumerate(self.cells) if cell.goes_on]
        kept = words.copy()
        for row, cell, rest in rests:
            # Something in its last byte keeps all of a varint.
            kept[row] |= rest << np.uint64(8 * cell.value_bytes - 8)
        reduce_to_kept(kept)
        # A byte continues when the next one is kept: the 0x01 of that one, moved down by one bit, is its 0x80.
        one = kept.dtype.type(1)
        words |= kept >> one
        for row, cell, rest in rests:
            words[row] |= rest << np.uint64(8 * cell.value_bytes - 1)
        # The tag is kept where any of the value is.
        tag_kept = (kept & one) * self.tag_bytes
        kept <<= self.shifts
        kept |= tag_kept
        return kept
