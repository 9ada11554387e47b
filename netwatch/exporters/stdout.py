"""The `stdout` exporter: flows as a table for a person, or as JSON lines for a program.

Law: only whole lines, none twice. A message that was cut off is continued where it stopped; if its turn never comes
again, at least its broken line is completed before the next message begins.
Neighbours: `core/json_lines.py` and `core/table.py` make the text, `output.py` writes it, `export.py` retries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, overload

import attrs
import numpy as np
import trio

from netwatch.core.batch import FlowBatch, Message
from netwatch.core.batch_records import records_of
from netwatch.core.batch_rows import select_rows
from netwatch.core.json_lines import format_batch_json
from netwatch.core.table import PAGE_ROWS, Table
from netwatch.output import Output

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netwatch.config import OutputFormat

# 128 lines of about 370 bytes are 47 KB: less than the 64 KiB that a pipe holds, and 0.4 ms of encoding. With every
# fact that there is a line has 1 KB, and a message takes three writes and 1.3 ms.
_JSON_ROWS = 128
_LINE_END = b"\n"


@attrs.define(eq=False)
class StdoutExporter:
    """Prints flows. `fd` stays open and keeps its flags."""

    format: OutputFormat
    agent_ip: str
    fd: int = 1
    url: str = attrs.field(default="stdout", init=False)
    _output: Output = attrs.field(init=False)
    _table: Table = attrs.field(init=False)
    # The message under way, what is still to be written of it, and whether that continues a line.
    _message: Message | None = attrs.field(default=None, init=False)
    _rest: memoryview = attrs.field(default=memoryview(b""), init=False)
    _is_inside_line: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Name the output by the URL."""
        self._output = Output(self.url, self.fd)
        self._table = Table(is_wide=self.format == "wide")

    async def __aenter__(self) -> StdoutExporter:
        self._output.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._output.close()

    def encode(self, batch: FlowBatch) -> Sequence[Message]:
        """Turn a batch into messages that are formatted when they are reached: one after the other, once.

        Text costs some microseconds a flow, 30 ms for a batch of 10,000. A table is sorted by bytes, those that the
        kernel dropped included, largest first, and as wide as the terminal is then.
        """
        if self.format == "json":
            return _Slices(batch, _JSON_ROWS, lambda part: format_batch_json(part, self.agent_ip))
        return _Slices(batch, PAGE_ROWS, self._format_page, _largest_first(batch))

    async def send(self, message: Message) -> None:
        """Write one message.

        Returns when the pipe, the terminal or the file has all of it. Raises OutputClosed where nobody will read it,
        DeliveryFailed where writing failed and may be tried again. Cancelled or failed, it remembers how much was
        written, and the same message goes on from there.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if message is not self._message:
            self._rest = memoryview(self._end_of_broken_line() + message.payload)
            self._message = message
        while self._rest:
            written = await self._output.write(self._rest)
            self._is_inside_line = self._rest[written - 1 : written] != _LINE_END
            self._rest = self._rest[written:]
        self._message = None
        # Nothing can be cancelled any more: the message has been delivered.
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _end_of_broken_line(self) -> bytes:
        return bytes(self._rest).partition(_LINE_END)[0] + _LINE_END if self._is_inside_line else b""

    def _format_page(self, part: FlowBatch) -> bytes:
        return self._table.format(records_of(part, self.agent_ip), self._output.width()).encode()


def _largest_first(batch: FlowBatch) -> NDArray[np.intp]:
    sizes = batch.values["bytes"].copy()
    drops = batch.enrichment.drops
    sizes[drops.rows] += drops.values["bytes"]
    return np.argsort(sizes, kind="stable")[::-1]


class _Slices(Sequence[Message]):
    """The messages of a batch, of at most `size` rows each, made when they are asked for; rows in `order` if given."""

    def __init__(
        self,
        batch: FlowBatch,
        size: int,
        encode: Callable[[FlowBatch], bytes],
        order: NDArray[np.intp] | None = None,
    ) -> None:
        self._batch, self._size, self._encode, self._order = batch, size, encode, order
        self._starts = range(0, batch.flows, size)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Message: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...

    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        start = self._starts[index]
        rows = slice(start, start + self._size)
        chosen = rows if self._order is None else self._order[rows]
        part = select_rows(self._batch, chosen)
        return Message(self._encode(part), part.flows, part.packets, part.bytes)
