"""Encoded texts of many rows at once: each distinct one is encoded once, and copied to where rows have it.

Law: pure; a text is bytes of any length, empty or not. What it costs beside the copies grows with the number of
distinct texts and of different lengths, not of rows.
Neighbours: `core/pbflow_text.py` encodes what the texts say, `core/pbflow_section.py` says where they go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from netwatch.core.wire.spans import spans_of


@attrs.frozen(eq=False)
class Texts:
    """One text for each row: distinct texts behind one another, where each begins, and how many bytes a row has."""

    sizes: NDArray[np.int64]
    _content: NDArray[np.uint8]
    _begins: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[bytes], of_row: NDArray[np.intp]) -> Texts:
        """Take distinct texts; `of_row` has the number of each row's text."""
        sizes = np.array(list(map(len, texts)), np.int64)
        content = np.frombuffer(b"".join(texts) or b"\0", np.uint8)
        return cls(sizes.take(of_row), content, (sizes.cumsum() - sizes).take(of_row))

    def write(self, buffer: NDArray[np.uint8], places: NDArray[np.int64]) -> None:
        """Copy the text of each row to its place."""
        for size, rows in self._rows_by_size():
            spans_of(buffer, size)[places[rows]] = spans_of(self._content, size)[self._begins[rows]]

    def _rows_by_size(self) -> Iterator[tuple[int, slice | NDArray[np.intp]]]:
        order = self.sizes.argsort()
        ordered = self.sizes.take(order)
        starts = (np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist()
        some_rows: Sequence[slice | NDArray[np.intp]] = np.split(order, starts) if starts else [slice(None)]
        for size, rows in zip(ordered.take([0, *starts]).tolist(), some_rows, strict=True):
            if size:
                yield size, rows
