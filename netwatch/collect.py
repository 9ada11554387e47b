"""`netwatch collect`: receive flows by gRPC and print them, until Ctrl-C or SIGTERM.

Law: a message is acknowledged when all its lines are written. The end waits for the message that is being printed, so
that its sender does not send it again.
Neighbours: `exporters/collector.py` receives, `exporters/pbflow_reader.py` reads, `core/json_lines.py` and
`core/table.py` make the text, `output.py` writes it; `cli.py` calls run().
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs
import trio

from netwatch.core.json_lines import format_json
from netwatch.core.record import FlowRecord
from netwatch.core.table import Table
from netwatch.errors import OutputClosed
from netwatch.exporters.collector import serve
from netwatch.exporters.pbflow_reader import read_records
from netwatch.output import Output

if TYPE_CHECKING:
    from netwatch.config import OutputFormat

log = logging.getLogger(__name__)

# 128 records x 40 us to read and format are 5 ms between checkpoints.
_PART_RECORDS = 128


def run(listen: str, output_format: OutputFormat | None) -> int:
    """Receive until a signal comes and return the exit code. Raises AddressUnavailable, possibly in a group."""
    if output_format is None:
        output_format = "table" if os.isatty(1) else "json"
    try:
        trio.run(collect, listen, Printer(output_format))
    except* OutputClosed:
        log.info("nobody reads the output any more")
    return 0


@attrs.define
class Received:
    """What was printed, and how many messages it came in."""

    messages: int = 0
    flows: int = 0
    packets: int = 0
    bytes: int = 0


@attrs.define(eq=False)
class _Message:
    records: Iterable[FlowRecord]
    is_printed: bool = False
    is_over: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class Printer:
    """Prints records to standard output, as JSON lines or as a table, and counts them."""

    format: OutputFormat
    output: Output = attrs.field(factory=lambda: Output("stdout", 1))
    received: Received = attrs.field(factory=Received)
    _table: Table = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the table that the format names."""
        self._table = Table(is_wide=self.format == "wide")

    async def print_message(self, records: Iterable[FlowRecord]) -> None:
        """Write all records. Raises OutputClosed and DeliveryFailed; cancelled, a line may be cut off."""
        remaining: Iterator[FlowRecord] = iter(records)
        while part := list(itertools.islice(remaining, _PART_RECORDS)):
            rest = memoryview(self._text(part).encode())
            while rest:
                rest = rest[await self.output.write(rest) :]
            self.received.flows += len(part)
            self.received.packets += sum(record.packets for record in part)
            self.received.bytes += sum(record.bytes for record in part)
            await trio.lowlevel.checkpoint()
        self.received.messages += 1

    def _text(self, records: list[FlowRecord]) -> str:
        if self.format == "json":
            return "".join(f"{format_json(record)}\n" for record in records)
        return self._table.format(records, self.output.width())


async def collect(listen: str, printer: Printer) -> None:
    """Receive and print until SIGINT or SIGTERM.

    Raises AddressUnavailable, and OutputClosed or DeliveryFailed where printing fails, in groups.
    """
    # No room between receiving and printing: a sender waits until its message has been printed.
    to_printer, messages = trio.open_memory_channel[_Message](0)

    async def receive(content: bytes) -> None:
        message = _Message(read_records(content))
        await to_printer.send(message)
        await message.is_over.wait()
        if not message.is_printed:
            raise trio.BrokenResourceError

    is_listening = False
    printer.output.open()
    try:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_print_messages, messages, printer)
                async with trio.open_nursery() as serving:
                    addresses = await serving.start(serve, listen, receive)
                    is_listening = True
                    log.info("listening on %s", ", ".join(map(str, addresses)))
                    await anext(aiter(signals))
                    serving.cancel_scope.cancel()
                nursery.cancel_scope.cancel()
    finally:
        printer.output.close()
        if is_listening:
            received = printer.received
            log.info(
                "received %d messages: %d flows, %d packets, %d bytes",
                *(received.messages, received.flows, received.packets, received.bytes),
            )


async def _print_messages(messages: trio.MemoryReceiveChannel[_Message], printer: Printer) -> None:
    async with messages:
        async for message in messages:
            try:
                await printer.print_message(message.records)
                message.is_printed = True
            finally:
                message.is_over.set()
