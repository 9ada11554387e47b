"""Flows as a table for a person: one line a flow, aligned, within the width of the terminal or as wide as it takes.

Law: reads no clock and no terminal; the width comes in. No line is wider than that, whatever an address or an
interface name holds, save in the wide table, which says all; nothing in a name can steer the terminal.
Neighbours: `core/flow_cells.py`, `core/notes.py` and `core/fact_cells.py` make the texts, `core/column_widths.py` says
how much of them fits; `exporters/stdout.py` and `netwatch collect` print the lines.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from netwatch.core.column_widths import ARROW, NOTES, fit_columns, gap_of
from netwatch.core.fact_cells import FACT_TITLES, QUANTITIES, fact_cells
from netwatch.core.flow_cells import (
    ARROWS_EXPLAINED,
    BYTES,
    DESTINATION,
    FLOW_TITLES,
    INTERFACES,
    PACKETS,
    SOURCE,
    TOOK,
    Row,
    flow_cells,
)
from netwatch.core.notes import notes_of
from netwatch.core.record import FlowRecord
from netwatch.core.terminal_text import shorten, shorten_endpoint

PAGE_ROWS = 40  # so that a header stays in sight on most terminals

_TITLES: Row = (*FLOW_TITLES, "NOTES")
_WIDE_TITLES: Row = (*FLOW_TITLES[:INTERFACES], FLOW_TITLES[INTERFACES] + ARROWS_EXPLAINED, *FACT_TITLES)
_RIGHT_ALIGNED = frozenset((PACKETS, BYTES, TOOK))
_WIDE_GAP = "  "
_WIDE_RIGHT_ALIGNED = _RIGHT_ALIGNED | {column for column, title in enumerate(_WIDE_TITLES) if title in QUANTITIES}


@attrs.define
class Table:
    """A table that grows page by page; `is_wide` has a column for every fact that there is, and no limit.

    Columns keep their widths from page to page while the rows fit, and the header is repeated when they change or
    PAGE_ROWS have gone by, so that a drain of three flows adds three lines. A column for facts comes with the first
    row that has one.
    """

    is_wide: bool = False
    _needs: tuple[int, ...] = attrs.field(default=(), init=False)
    _widths: tuple[int, ...] = attrs.field(default=(), init=False)
    _terminal_width: int = attrs.field(default=0, init=False)
    _rows_since_header: int = attrs.field(default=PAGE_ROWS, init=False)

    def format(self, records: Sequence[FlowRecord], terminal_width: int) -> str:
        """Return the lines of some flows, largest first, each with its line end. What was dropped counts as size."""
        largest_first = sorted(records, key=_size_of, reverse=True)
        starts = range(0, len(records), PAGE_ROWS)
        return "".join(self._page(largest_first[start : start + PAGE_ROWS], terminal_width) for start in starts)

    def _page(self, records: Sequence[FlowRecord], terminal_width: int) -> str:
        rows = [self._row_of(record) for record in records]
        page_needs = self._needs_of(rows)
        is_due = self._rows_since_header + len(rows) > PAGE_ROWS
        # A header that is due anyway is the time to forget a long address that has gone.
        self._needs = page_needs if is_due else tuple(map(max, self._needs, page_needs))
        before = self._layout()
        self._widths = self._needs if self.is_wide else fit_columns(self._needs, terminal_width)
        self._terminal_width = terminal_width
        lines = [self._line_of(row) for row in rows]
        if is_due or self._layout() != before:
            self._rows_since_header = 0
            lines.insert(0, self._header())
        self._rows_since_header += len(records)
        return "".join(f"{line}\n" for line in lines)

    def _layout(self) -> tuple[int, ...]:
        """Return what a reader sees of the widths: nothing stands behind notes, so they may grow."""
        visible = self._widths if self.is_wide else (*self._widths[:NOTES], *map(bool, self._widths[NOTES:]))
        return self._terminal_width, *visible

    def _row_of(self, record: FlowRecord) -> Row:
        return (*flow_cells(record), *(fact_cells(record) if self.is_wide else (notes_of(record),)))

    def _needs_of(self, rows: Sequence[Row]) -> tuple[int, ...]:
        titles = _WIDE_TITLES if self.is_wide else _TITLES
        longest = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return tuple(
            max(most, len(title)) if most or column < len(FLOW_TITLES) else 0
            for column, (most, title) in enumerate(zip(longest, titles, strict=True))
        )

    def _header(self) -> str:
        if self.is_wide:
            return self._line_of(_WIDE_TITLES)
        explained = f"{_TITLES[INTERFACES]}{ARROWS_EXPLAINED}"
        if self._widths[INTERFACES] >= len(explained):
            return self._line_of((*_TITLES[:INTERFACES], explained, *_TITLES[INTERFACES + 1 :]))
        line = self._line_of(_TITLES)
        is_last = self._widths[INTERFACES] and not self._widths[NOTES]
        return line + ARROWS_EXPLAINED if is_last and len(line + ARROWS_EXPLAINED) <= self._terminal_width else line

    def _line_of(self, row: Row) -> str:
        right_aligned = _WIDE_RIGHT_ALIGNED if self.is_wide else _RIGHT_ALIGNED
        cells = []
        for column, (text, width) in enumerate(zip(row, self._widths, strict=True)):
            if not width:
                continue
            fitted = text
            if len(text) > width:
                fitted = shorten_endpoint(text, width) if column in {SOURCE, DESTINATION} else shorten(text, width)
            cells.append(fitted.rjust(width) if column in right_aligned else fitted.ljust(width))
        cells[SOURCE : DESTINATION + 1] = [f"{cells[SOURCE]}{ARROW}{cells[DESTINATION]}"]
        if self.is_wide:
            return _WIDE_GAP.join(cells).rstrip()
        return (" " * gap_of(self._terminal_width)).join(cells).rstrip()[: self._terminal_width]


def _size_of(record: FlowRecord) -> int:
    return record.bytes + (record.facts.drops.bytes if record.facts.drops else 0)
