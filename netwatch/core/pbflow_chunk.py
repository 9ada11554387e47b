"""Make the records of a chunk of flows: a serialized pbflow.Records, and where each entry of it ends.

A record is header, body, network, tail, and for some flows sections. The body has one layout for all flows of a chunk,
the network field has two, and the tail is the same for all flows seen at the same hooks. So records of a kind are
equally long, begin as copies of a blank, and get their columns stored into many rows at once. Where sections follow,
that is done beside the output, and the records are then copied to where their own length puts them.

Law: pure; what is done for each row is done by numpy alone.
Neighbours: `pbflow_order.py` puts the rows of a kind together; `pbflow_record.py`, `pbflow_tail.py` and
`pbflow_facts.py` know the fields; `wire/template.py` stores columns.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from netwatch.core.pbflow_order import Chunk, Kind
from netwatch.core.pbflow_record import RecordLayout
from netwatch.core.wire.protobuf import WIRE_BYTES, encode_varint, groups_of, tag
from netwatch.core.wire.spans import spans_of
from netwatch.core.wire.template import Part, Records, Template, TemplateBuilder, join

_ENTRIES = 1  # pbflow.Records

# 2,048 x (40 + 96 B of row, 120 B of words, 150 B of record) = 830 kB: about what a core's own cache holds.
_ROWS_AT_ONCE = 2048


def encode_records(
    chunk: Chunk, wall_offset_ns: int, *, is_minimal: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the serialized records of a chunk, in its order, and where each of them ends."""
    layout = RecordLayout.of(chunk.keys, chunk.values)
    runs = _runs_of(chunk, layout, is_minimal=is_minimal)
    content = np.empty(runs[-1].end_byte, np.uint8)
    kept = np.ones_like(content) if is_minimal else None
    output = _Output(Records(content, kept), np.empty(chunk.flows, np.int64))
    for start in range(0, chunk.flows, _ROWS_AT_ONCE):
        keys, values = chunk.rows(slice(start, start + _ROWS_AT_ONCE))
        body = layout.body_of(keys, values, wall_offset_ns, is_minimal=is_minimal)
        clipped = [(run, rows) for run in runs if (rows := run.clip(range(start, start + len(keys))))]
        if len(clipped) > 1:
            body = join([body], len(keys))
        networks = {
            ipv4: layout.network_of(keys, values, is_ipv4=ipv4, is_minimal=is_minimal)
            for ipv4 in {run.is_ipv4 for run, _ in clipped}
        }
        for run, rows in clipped:
            of_parts = slice(rows.start - start, rows.stop - start)
            run.write(rows, chunk.tail_of_row, (body, networks[run.is_ipv4]), of_parts, output)
    if chunk.sections:
        chunk.sections.write(output.records, _places_of_sections(chunk, runs))
    if kept is not None:
        content = content[kept.view(np.bool_)]
    return content, output.lengths.cumsum()


@attrs.frozen(eq=False)
class _Output:
    """The records of a chunk, one after the other in one row of memory, and what is kept of each."""

    records: Records
    lengths: NDArray[np.int64]


@attrs.frozen(eq=False)
class _Extension:
    """Where each record of a run begins in the output, and how many bytes of sections are kept of it."""

    begins: NDArray[np.int64]
    kept_bytes: NDArray[np.int64]


@attrs.frozen(eq=False)
class _Run:
    """The records of one kind, and where they are in the output. `record_bytes` is without sections."""

    rows: range
    is_ipv4: bool
    begin_byte: int
    end_byte: int
    record_bytes: int
    tail_bytes: int
    header: Template
    blanks: NDArray[np.void]
    extension: _Extension | None

    def clip(self, rows: range) -> range:
        """Return those of the rows that are of this kind."""
        return range(max(rows.start, self.rows.start), min(rows.stop, self.rows.stop))

    def write(
        self, rows: range, tail_of_row: NDArray[np.intp], parts: Sequence[Part], of_parts: slice, output: _Output
    ) -> None:
        """Write the records of some rows. `of_parts` are the same rows as counted in `parts`, body and network."""
        own, some = slice(rows.start - self.rows.start, rows.stop - self.rows.start), slice(rows.start, rows.stop)
        records = self._records_for(own, output.records)
        # mode: the default one copies the output back and forth, to leave it as it was should an index be wrong.
        blanks = records.content.reshape(-1).view(self.blanks.dtype)
        self.blanks.take(tail_of_row[some], out=blanks, mode="clip")
        base = len(self.header.content)
        for part in parts:
            part.write(of_parts, records, base)
            base += len(part.content)
        lengths = sum((part.kept_in(of_parts) for part in parts), self.tail_bytes)
        if self.extension:
            lengths = lengths + self.extension.kept_bytes[own]
        if isinstance(lengths, int):
            output.lengths[some] = self.record_bytes
        else:
            header = self.header.fill([lengths.astype(np.uint64)], is_minimal=records.kept is not None)
            header.write(slice(None), records, 0)
            output.lengths[some] = header.kept_bytes + lengths
        if self.extension:
            _spread(records, output.records, self.extension.begins[own])

    def _records_for(self, own: slice, output: Records) -> Records:
        """Return memory for some of the records: in the output, if they are there one after the other."""
        shape = (own.stop - own.start, self.record_bytes)
        if self.extension:
            kept = None if output.kept is None else np.ones(shape, np.uint8)
            return Records(np.empty(shape, np.uint8), kept)
        span = slice(self.begin_byte + own.start * self.record_bytes, self.begin_byte + own.stop * self.record_bytes)
        kept = None if output.kept is None else output.kept[span].reshape(shape)
        return Records(output.content[span].reshape(shape), kept)


def _spread(records: Records, output: Records, begins: NDArray[np.int64]) -> None:
    """Copy records to where each of them begins."""
    for source, target in ((records.content, output.content), (records.kept, output.kept)):
        if source is not None and target is not None:
            size_bytes = source.shape[1]
            spans_of(target, size_bytes)[begins] = source.view(np.dtype((np.void, size_bytes)))[:, 0]


def _places_of_sections(chunk: Chunk, runs: Sequence[_Run]) -> NDArray[np.int64]:
    """Return for each row of a chunk, not in order, where its sections begin in the output; for others anything."""
    places = np.zeros(chunk.flows, np.int64)
    for run in runs:
        if run.extension:
            rows = slice(run.rows.start, run.rows.stop)
            places[rows if chunk.order is None else chunk.order[rows]] = run.extension.begins + run.record_bytes
    return places


def _runs_of(chunk: Chunk, layout: RecordLayout, *, is_minimal: bool) -> list[_Run]:
    runs: list[_Run] = []
    begin_byte = 0
    for kind in chunk.kinds:
        runs.append(_run_of(kind, chunk, layout, begin_byte, is_minimal=is_minimal))
        begin_byte = runs[-1].end_byte
    return runs


def _run_of(kind: Kind, chunk: Chunk, layout: RecordLayout, begin_byte: int, *, is_minimal: bool) -> _Run:
    middle = layout.body.content + layout.networks[kind.is_ipv4].content
    tail_bytes = len(kind.tails[0])
    content_bytes = len(middle) + tail_bytes
    if kind.has_sections:
        size_bytes, kept_bytes = chunk.section_bytes(kind.rows)
        header = _length_header(groups_of((content_bytes + int(size_bytes.max())).bit_length()))
    elif is_minimal:
        header = _length_header(groups_of(content_bytes.bit_length()))
    else:
        header = _constant_header(content_bytes)
    before_tail = header.content + middle
    record_bytes = len(before_tail) + tail_bytes
    extension, end_byte = None, begin_byte + len(kind.rows) * record_bytes
    if kind.has_sections:
        size_bytes += record_bytes
        ends = begin_byte + size_bytes.cumsum()
        extension, end_byte = _Extension(ends - size_bytes, kept_bytes), int(ends[-1])
    blanks = np.frombuffer(b"".join([before_tail + tail for tail in kind.tails]), np.dtype((np.void, record_bytes)))
    return _Run(kind.rows, kind.is_ipv4, begin_byte, end_byte, record_bytes, tail_bytes, header, blanks, extension)


# One for each length that occurs: a few hundred bytes each.
@functools.lru_cache(maxsize=256)
def _constant_header(length: int) -> Template:
    """Return tag and length of records that are so long."""
    header = TemplateBuilder()
    header.add_constant(tag(_ENTRIES, WIRE_BYTES) + encode_varint(length))
    return header.build()


@functools.cache
def _length_header(length_groups: int) -> Template:
    """Return tag and length of records that each have their own length."""
    header = TemplateBuilder()
    header.add_length(_ENTRIES, length_groups)
    return header.build()
