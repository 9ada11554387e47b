"""Make the records of a chunk of flows: a serialized pbflow.Records, and where each entry of it ends.

A record is header, body, network and tail. The body has one layout for all flows of a chunk, the network field has two,
and the tail is the same for all flows seen at the same hooks. So rows are taken in order of their kind, which is IP
version and length of tail: records of a kind are equally long, begin as copies of a blank, and get their columns stored
into many rows at once.

Law: pure; what is done for each row is done by numpy alone.
Neighbours: `hook_lists.py` groups by hooks, `pbflow_record.py` and `pbflow_tail.py` know the fields, `wire/template.py`
stores columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from netwatch.core.hook_lists import hook_lists_of
from netwatch.core.pbflow_record import RecordLayout, is_ipv4
from netwatch.core.survey import Survey
from netwatch.core.wire.protobuf import WIRE_BYTES, encode_varint, groups_of, tag
from netwatch.core.wire.template import Part, Records, Template, TemplateBuilder

_ENTRIES = 1  # pbflow.Records

# 2,048 x (40 + 96 B of row, 120 B of words, 150 B of record) = 830 kB: about what a core's own cache holds.
_ROWS_AT_ONCE = 2048


@attrs.frozen(eq=False)
class Kind:
    """Rows of a chunk, counted in its order, whose records are equally long."""

    rows: range
    is_ipv4: bool
    tails: Sequence[bytes]


@attrs.frozen(eq=False)
class Chunk:
    """Flows to be taken in `order`; None: as they are. `tail_of_row` is an index into the tails of the row's kind."""

    keys: Survey
    values: Survey
    order: NDArray[np.intp] | None
    kinds: Sequence[Kind]
    tail_of_row: NDArray[np.intp]

    @property
    def flows(self) -> int:
        """Number of flows."""
        return len(self.tail_of_row)

    def rows(self, rows: slice) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Return keys and values of some rows, in order."""
        if self.order is None:
            return self.keys.rows[rows], self.values.rows[rows]
        indices = self.order[rows]
        return self.keys.rows.take(indices), self.values.rows.take(indices)

    def sums_of(self, rows: slice) -> tuple[int, int]:
        """Return the packets and bytes of some rows, in order."""
        packets, octets = self.values.rows["packets"], self.values.rows["bytes"]
        # All of them, most of the time, and then no matter in which order.
        if rows != slice(0, self.flows):
            some = rows if self.order is None else self.order[rows]
            packets, octets = packets[some], octets[some]
        return int(packets.sum()), int(octets.sum())


def chunk_of(keys: NDArray[np.void], values: NDArray[np.void], tail: Callable[[tuple[int, ...]], bytes]) -> Chunk:
    """Put flows, at least one, in order. `tail` gives the tail that belongs to a list of hooks."""
    surveys = Survey.of(np.ascontiguousarray(keys)), Survey.of(np.ascontiguousarray(values))
    hook_lists, ipv4 = hook_lists_of(surveys[1]), is_ipv4(surveys[0])
    if len(hook_lists.lists) == 1 and ipv4 is True:
        kind = Kind(range(len(keys)), is_ipv4=True, tails=[tail(hook_lists.lists[0])])
        return Chunk(*surveys, None, [kind], hook_lists.of_row)
    tails: dict[int, list[bytes]] = {}
    lengths, places = [], []
    for hooks in hook_lists.lists:
        content = tail(hooks)
        same_length = tails.setdefault(len(content), [])
        lengths.append(len(content))
        places.append(len(same_length))
        same_length.append(content)
    sort_keys = np.array(lengths).take(hook_lists.of_row) * 2 + ipv4
    order = sort_keys.argsort()
    sort_keys = sort_keys.take(order)
    starts = [0, *(np.flatnonzero(sort_keys[1:] != sort_keys[:-1]) + 1).tolist()]
    kinds = [
        Kind(range(start, stop), bool(sort_keys[start] % 2), tails[int(sort_keys[start]) // 2])
        for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True)
    ]
    return Chunk(*surveys, order, kinds, np.array(places, np.intp).take(hook_lists.of_row.take(order)))


def encode_records(
    chunk: Chunk, wall_offset_ns: int, *, is_minimal: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the serialized records of a chunk, in its order, and where each of them ends."""
    layout = RecordLayout.of(chunk.keys, chunk.values)
    runs = _runs_of(chunk.kinds, layout, is_minimal=is_minimal)
    content = np.empty(sum(len(run.rows) * run.record_bytes for run in runs), np.uint8)
    output = _Output(content, np.ones_like(content) if is_minimal else None, np.empty(chunk.flows, np.int64))
    for start in range(0, chunk.flows, _ROWS_AT_ONCE):
        keys, values = chunk.rows(slice(start, start + _ROWS_AT_ONCE))
        body = layout.body_of(keys, values, wall_offset_ns, is_minimal=is_minimal)
        clipped = [(run, rows) for run in runs if (rows := run.clip(range(start, start + len(keys))))]
        if len(clipped) > 1:
            body = body.joined(len(keys))
        networks = {
            ipv4: layout.network_of(keys, values, is_ipv4=ipv4, is_minimal=is_minimal)
            for ipv4 in {run.is_ipv4 for run, _ in clipped}
        }
        for run, rows in clipped:
            of_parts = slice(rows.start - start, rows.stop - start)
            run.write(rows, chunk.tail_of_row, (body, networks[run.is_ipv4]), of_parts, output)
    if output.kept is not None:
        content = content[output.kept.view(np.bool_)]
    return content, output.lengths.cumsum()


@attrs.frozen(eq=False)
class _Output:
    """The records of a chunk, one after the other; which of their bytes are kept (None: all); lengths after that."""

    content: NDArray[np.uint8]
    kept: NDArray[np.uint8] | None
    lengths: NDArray[np.int64]


@attrs.frozen(eq=False)
class _Run:
    """The records of one kind, and where they begin in the output."""

    rows: range
    is_ipv4: bool
    begin_byte: int
    record_bytes: int
    tail_bytes: int
    header: Template
    blanks: NDArray[np.void]

    def clip(self, rows: range) -> range:
        """Return those of the rows that are of this kind."""
        return range(max(rows.start, self.rows.start), min(rows.stop, self.rows.stop))

    def write(
        self, rows: range, tail_of_row: NDArray[np.intp], parts: Sequence[Part], of_parts: slice, output: _Output
    ) -> None:
        """Write the records of some rows. `of_parts` are the same rows as counted in `parts`, body and network."""
        begin = self.begin_byte + (rows.start - self.rows.start) * self.record_bytes
        span = slice(begin, begin + len(rows) * self.record_bytes)
        some = slice(rows.start, rows.stop)
        # mode: the default one copies the output back and forth, to leave it as it was should an index be wrong.
        self.blanks.take(tail_of_row[some], out=output.content[span].view(self.blanks.dtype), mode="clip")
        shape = (len(rows), self.record_bytes)
        kept = None if output.kept is None else output.kept[span].reshape(shape)
        records = Records(output.content[span].reshape(shape), kept)
        base = len(self.header.content)
        for part in parts:
            part.write(of_parts, records, base)
            base += len(part.content)
        lengths = sum((part.kept_in(of_parts) for part in parts), self.tail_bytes)
        if isinstance(lengths, int):
            output.lengths[some] = self.record_bytes
        else:
            header = self.header.fill([lengths.astype(np.uint64)], is_minimal=True)
            header.write(slice(None), records, 0)
            output.lengths[some] = header.kept_bytes + lengths


def _runs_of(kinds: Sequence[Kind], layout: RecordLayout, *, is_minimal: bool) -> list[_Run]:
    runs, begin_byte = [], 0
    for kind in kinds:
        tail_bytes = len(kind.tails[0])
        middle = layout.body.content + layout.networks[kind.is_ipv4].content
        header = _header_of(len(middle) + tail_bytes, is_minimal=is_minimal)
        before_tail = header.content + middle
        record_bytes = len(before_tail) + tail_bytes
        blanks = np.frombuffer(b"".join([before_tail + tail for tail in kind.tails]), np.dtype((np.void, record_bytes)))
        runs.append(_Run(kind.rows, kind.is_ipv4, begin_byte, record_bytes, tail_bytes, header, blanks))
        begin_byte += len(kind.rows) * record_bytes
    return runs


# One for each length that occurs: a few hundred bytes each.
@functools.lru_cache(maxsize=256)
def _header_of(length: int, *, is_minimal: bool) -> Template:
    """Return tag and length of records that are so long, or, where each has its own length, at most so long."""
    header = TemplateBuilder()
    if is_minimal:
        header.add_length(_ENTRIES, groups_of(length.bit_length()))
    else:
        header.add_constant(tag(_ENTRIES, WIRE_BYTES) + encode_varint(length))
    return header.build()
