"""Protobuf messages of many rows at once: the bytes that all rows share, and the places where columns go.

Law: all rows of a template have the same length, so that a column is one strided store. A template holds no rows: it
is declared once and encodes any number of batches. For minimal varints the rows are just as wide; what to keep of
them is written beside, and the rest is cut out of all rows in one go.
Neighbours: `core/wire/cells.py` encodes numbers; `core/pbflow_record.py` says which fields there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from netwatch.core.wire.cells import SIZES, WORD_DTYPES, Cell, CellStack, cells_of
from netwatch.core.wire.protobuf import GROUP_BITS, WIRE_BYTES, WIRE_VARINT, tag
from netwatch.core.wire.varint import Words, count_kept


@attrs.frozen(eq=False)
class Records:
    """Memory for records of one length, a row each, and a 1 for each byte that is kept: all of them, at first."""

    content: NDArray[np.uint8]
    kept: NDArray[np.uint8] | None


_Column = tuple[int, NDArray[Any], NDArray[Any] | None]
"""An offset, what to store there for each row, and what is kept of it; None: all."""


@attrs.frozen(eq=False)
class Part:
    """A template with its columns: a part of some records.

    `content` has zeros where columns go. `kept_bytes` is how many bytes a minimal encoding keeps of each row, or one
    number where that is the same for all.
    """

    content: bytes
    kept_bytes: NDArray[np.int64] | int
    columns: Sequence[_Column]

    def kept_in(self, rows: slice) -> NDArray[np.int64] | int:
        """Return `kept_bytes` of some of the rows."""
        return self.kept_bytes if isinstance(self.kept_bytes, int) else self.kept_bytes[rows]

    def write(self, rows: slice, records: Records, base: int) -> None:
        """Store the columns of some of the rows into as many records, in which the part begins at byte `base`."""
        for offset, words, kept in self.columns:
            _view(records.content, base + offset, words.dtype)[...] = words[rows]
            if kept is not None:
                assert records.kept is not None
                _view(records.kept, base + offset, kept.dtype)[...] = kept[rows]


def join(parts: Sequence[Part], row_count: int) -> Part:
    """Return parts that follow one another as one, with at most one column: that pays if it is written in pieces."""
    content = b"".join([part.content for part in parts])
    if not content:
        return Part(b"", 0, [])
    whole = np.dtype((np.void, len(content)))
    shape = (row_count, len(content))
    rows, kept = np.frombuffer(content, whole).repeat(row_count), None
    records = Records(rows.view(np.uint8).reshape(shape), None)
    if not all(isinstance(part.kept_bytes, int) for part in parts):
        kept = np.frombuffer(b"\1" * len(content), whole).repeat(row_count)
        records = Records(records.content, kept.view(np.uint8).reshape(shape))
    base, kept_bytes = 0, parts[0].kept_bytes
    for part in parts:
        part.write(slice(None), records, base)
        base += len(part.content)
    for part in parts[1:]:
        kept_bytes = kept_bytes + part.kept_bytes
    return Part(content, kept_bytes, [(0, rows, kept)])


def _view(matrix: NDArray[np.uint8], offset: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a column to store words of `dtype` in, aligned or not; numbers become little-endian."""
    row_count, row_bytes = matrix.shape
    stored = dtype if dtype.kind == "V" else WORD_DTYPES[dtype.itemsize]
    return np.ndarray((row_count,), stored, matrix, offset, (row_bytes,))


@attrs.frozen
class _Message:
    """An embedded message: where its length goes, and which cells are in it."""

    length_offset: int
    cells: range


@attrs.frozen(eq=False)
class Template:
    """The layout of a part of a record, made by a TemplateBuilder."""

    content: bytes
    fixed: tuple[tuple[int, int], ...]  # offset and column
    offsets: tuple[int, ...]  # of each cell
    stacks: tuple[tuple[CellStack, tuple[int, ...]], ...]  # with the number of each of its cells
    messages: tuple[_Message, ...]

    def fill(self, columns: Sequence[Words], *, is_minimal: bool) -> Part:
        """Encode columns, in the order in which their fields were declared."""
        placed: list[_Column] = [(offset, columns[column], None) for offset, column in self.fixed]
        cuts: dict[int, NDArray[np.int64]] = {}
        for stack, numbers in self.stacks:
            words, kept = stack.encode(columns, is_minimal=is_minimal)
            if kept is None:
                placed += [(self.offsets[number], words[row], None) for row, number in enumerate(numbers)]
                continue
            placed += [(self.offsets[number], words[row], kept[row]) for row, number in enumerate(numbers)]
            own_bytes = np.array([cell.own_bytes for cell in stack.cells], np.int64).reshape(-1, 1)
            cuts |= zip(numbers, own_bytes - count_kept(kept).astype(np.int64), strict=True)
        for message in self.messages if is_minimal else ():
            lengths = np.full(len(columns[0]), self.content[message.length_offset], np.int64)
            for number in message.cells:
                lengths -= cuts[number]
            placed.append((message.length_offset, lengths.astype(np.uint8), None))
        return Part(self.content, len(self.content) - sum(cuts.values()), placed)


@attrs.define(eq=False)
class TemplateBuilder:
    """Declares the fields of a template, in order. Each number or fixed field takes the next column."""

    _content: bytearray = attrs.Factory(bytearray)
    _column_count: int = 0
    _fixed: list[tuple[int, int]] = attrs.Factory(list)
    _cells: list[Cell] = attrs.Factory(list)
    _offsets: list[int] = attrs.Factory(list)
    _messages: list[_Message] = attrs.Factory(list)

    def add_constant(self, content: bytes) -> None:
        """Append bytes that all rows share."""
        self._content += content

    def add_fixed(self, size_bytes: int) -> None:
        """Append the bytes of a column of words, little-endian."""
        self._fixed.append((len(self._content), self._take_column()))
        self._content += bytes(size_bytes)

    def add_varint(self, field: int, groups: int) -> None:
        """Append a number field of so many groups of seven bits; with none there is no field: that is proto3's 0."""
        self._add_cells(self._take_column(), tag(field, WIRE_VARINT), groups)

    def add_length(self, field: int, groups: int) -> None:
        """Append the tag of a message that is not part of the template, and a column of its lengths."""
        self._add_cells(self._take_column(), tag(field, WIRE_BYTES), groups)

    @contextlib.contextmanager
    def message(self, field: int) -> Iterator[None]:
        """Append what is declared inside as a message field, empty or not, of at most 127 bytes."""
        self._content += tag(field, WIRE_BYTES) + b"\0"
        begin, first_cell = len(self._content), len(self._cells)
        yield
        length = len(self._content) - begin
        assert length < 1 << GROUP_BITS, "its length takes one byte"
        self._content[begin - 1] = length
        if len(self._cells) > first_cell:
            self._messages.append(_Message(begin - 1, range(first_cell, len(self._cells))))

    def build(self) -> Template:
        """Return what was declared."""
        stacks = []
        for size in SIZES:
            numbers = [number for number, cell in enumerate(self._cells) if cell.size_bytes == size]
            numbers.sort(key=lambda number: -self._cells[number].groups)
            if numbers:
                stacks.append((CellStack.of([self._cells[number] for number in numbers]), tuple(numbers)))
        return Template(
            bytes(self._content), tuple(self._fixed), tuple(self._offsets), tuple(stacks), tuple(self._messages)
        )

    def _take_column(self) -> int:
        self._column_count += 1
        return self._column_count - 1

    def _add_cells(self, column: int, prefix: bytes, groups: int) -> None:
        for cell in cells_of(column, prefix, groups) if groups else ():
            self._cells.append(cell)
            self._offsets.append(len(self._content))
            self._content += bytes(cell.own_bytes)
