"""A section: the fields that some records of a chunk have and others have not, because of a fact about those flows.

It is numbers, after which may come a text, and all of it may be one message. Numbers have one layout for all rows of
a section; with the text each row has its own length. Sections are the end of a record, in order.

Law: pure; what is done for each row is done by numpy alone, and nothing for rows that are not in the section.
Neighbours: `core/pbflow_facts.py` makes sections; `core/pbflow_chunk.py` leaves room for them behind the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from netwatch.core.wire.protobuf import groups_of
from netwatch.core.wire.spans import spans_of
from netwatch.core.wire.template import Part, Records, Template, TemplateBuilder, join
from netwatch.core.wire.texts import Texts
from netwatch.core.wire.varint import Words

_Bytes = NDArray[np.int64] | int
"""Of each row, or of all."""


@attrs.frozen(eq=False)
class Section:
    """Encoded fields of those `rows` of a chunk, ascending: the same front with other numbers, and texts."""

    rows: NDArray[np.intp]
    _front: Part
    _texts: Texts | None

    @classmethod
    def of(
        cls,
        rows: NDArray[np.intp],
        numbers: tuple[Template, Sequence[Words]],
        texts: Texts | None = None,
        message: int | None = None,
        *,
        is_minimal: bool,
    ) -> Section:
        """Encode numbers, given their layout and columns. With `message` all is a field of that number."""
        template, columns = numbers
        parts = [template.fill(columns, is_minimal=is_minimal)]
        if message is not None:
            lengths = np.zeros(len(rows), np.int64) + parts[0].kept_bytes + (texts.sizes if texts else 0)
            begin = _begin_of(message, groups_of(int(lengths.max()).bit_length()))
            parts.insert(0, begin.fill([lengths.astype(np.uint64)], is_minimal=is_minimal))
        return cls(rows, join(parts, len(rows)), texts)

    @property
    def size_bytes(self) -> _Bytes:
        """Room that the section takes in each of its rows."""
        return len(self._front.content) + self._text_bytes

    @property
    def kept_bytes(self) -> _Bytes:
        """How many of these bytes are kept."""
        return self._front.kept_bytes + self._text_bytes

    @property
    def _text_bytes(self) -> _Bytes:
        return self._texts.sizes if self._texts else 0

    def write(self, records: Records, places: NDArray[np.int64]) -> None:
        """Write each row's fields to its place in bytes that are records, one behind the other."""
        for _, words, kept in self._front.columns:
            spans_of(records.content, words.itemsize)[places] = words
            if kept is not None:
                assert records.kept is not None
                spans_of(records.kept, kept.itemsize)[places] = kept
        if self._texts:
            self._texts.write(records.content, places + len(self._front.content))


@attrs.frozen(eq=False)
class Sections:
    """The sections of a chunk, and the sums of their bytes for each row, 0 for rows without any."""

    sections: Sequence[Section]
    size_bytes: NDArray[np.int64]
    kept_bytes: NDArray[np.int64]

    @classmethod
    def of(cls, sections: Sequence[Section], row_count: int) -> Sections:
        """Sum sections up."""
        size_bytes, kept_bytes = np.zeros((2, row_count), np.int64)
        for section in sections:
            size_bytes[section.rows] += section.size_bytes
            kept_bytes[section.rows] += section.kept_bytes
        return cls(sections, size_bytes, kept_bytes)

    def write(self, records: Records, places: NDArray[np.int64]) -> None:
        """Write all sections behind one another, in each row from its place on. Changes `places`."""
        for section in self.sections:
            section.write(records, places[section.rows])
            places[section.rows] += section.size_bytes


@functools.cache
def _begin_of(message: int, length_groups: int) -> Template:
    begin = TemplateBuilder()
    begin.add_length(message, length_groups)
    return begin.build()
