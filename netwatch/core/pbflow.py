"""Encode batches of flows as pbflow messages.

Law: pure; no Python object and no Python step for a single flow. Every flow of a batch is in one message, whose sums
say so; the order of rows is lost.
Neighbours: `exporters/grpc.py` sends the messages; `core/pbflow_chunk.py` makes the records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.batch import FlowBatch, Message
from netwatch.core.pbflow_chunk import encode_records
from netwatch.core.pbflow_facts import facts_within, sections_of
from netwatch.core.pbflow_order import Chunk, chunk_of
from netwatch.core.pbflow_section import Sections
from netwatch.core.pbflow_tail import IPAddress, TailEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rows worked on at once, whatever the size of the batch: 10,000 take 2 to 3.3 MB at the peak, their message included
# (minimal varints: 4.4 to 6.2 MB), and 4 MB if each has a drop (7.5 MB). If everything were known of each of them, as
# never happens, it would be 14 MB (21 MB).
CHUNK_FLOWS = 10_000


@attrs.frozen
class PbflowEncoder:
    """Makes messages of type pbflow.Records, none of them larger than the limits, or than CHUNK_FLOWS.

    A record that is larger than `max_message_bytes` by itself goes alone. With what Linux allows no record exceeds
    4,096 bytes: 64 interfaces with names of 15 bytes 1.4 kB, a DNS name of 255 bytes, each of them escaped, 1 kB, six
    reasons for drops with names of 64 bytes 0.6 kB, two processes in containers 0.3 kB, the rest 0.5 kB. Without facts
    it is 512 bytes. Not for two threads at once: it remembers the tails of records.
    """

    agent_ip: IPAddress | None
    minimal_varints: bool = False
    max_message_flows: int = attrs.field(default=10_000, validator=attrs.validators.ge(1))
    # Below the 4 MiB that a gRPC receiver accepts by default.
    max_message_bytes: int = attrs.field(default=3_900_000, validator=attrs.validators.ge(1))
    _tails: TailEncoder = attrs.field(init=False, eq=False, repr=False)

    @_tails.default
    def _make_tails(self) -> TailEncoder:
        return TailEncoder.of(self.agent_ip, is_minimal=self.minimal_varints)

    def encode(self, batch: FlowBatch) -> list[Message]:
        """Return messages that together hold every flow of the batch once; none for an empty batch."""
        self._tails.use(batch.interfaces)
        messages: list[Message] = []
        for start in range(0, batch.flows, CHUNK_FLOWS):
            rows = slice(start, start + CHUNK_FLOWS)
            chunk = self._chunk_of(batch, rows)
            payload, ends = encode_records(chunk, batch.wall_offset_ns, is_minimal=self.minimal_varints)
            payload.flags.writeable = False
            for flows, span in self._cuts(ends):
                # A part is copied, so that a queue that holds it does not hold all of the chunk.
                content = payload.data if len(ends) == flows.stop - flows.start else payload[span].tobytes()
                packets, octets = chunk.sums_of(flows)
                messages.append(Message(content, flows.stop - flows.start, packets, octets))
        return messages

    def _chunk_of(self, batch: FlowBatch, rows: slice) -> Chunk:
        keys, values, enrichment = batch.keys[rows], batch.values[rows], batch.enrichment
        if not enrichment:
            return chunk_of(keys, values, self._tails.encode)
        encoded = list(sections_of(enrichment, batch.names, rows, is_minimal=self.minimal_varints))
        sections = Sections.of(encoded, len(keys)) if encoded else None
        return chunk_of(keys, values, self._tails.encode, facts_within(enrichment.hooks, rows), sections)

    def _cuts(self, ends: NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
        """Cut records, given where they end, into messages: yield the flows of each, and the bytes."""
        first, begin = 0, 0
        while first < len(ends):
            fitting = int(ends.searchsorted(begin + self.max_message_bytes, side="right"))
            stop = min(max(fitting, first + 1), first + self.max_message_flows, len(ends))
            end = int(ends[stop - 1])
            yield slice(first, stop), slice(begin, end)
            first, begin = stop, end
