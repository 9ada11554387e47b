"""The stdout exporter on real pipes: whole lines, none twice, whatever the reader does."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import get_args

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from netwatch.config import OutputFormat
from netwatch.core.batch import FlowBatch, Message
from netwatch.core.json_lines import format_batch_json
from netwatch.core.table import PAGE_ROWS
from netwatch.errors import OutputClosed
from netwatch.exporters import Exporter
from netwatch.exporters.stdout import StdoutExporter
from tests.core.enriched import enriched
from tests.core.flows import Flow, batch_of

AGENT_IP = "192.0.2.7"
SMALLEST_PIPE_BYTES = 4096


@attrs.define(eq=False)
class Pipe:
    """A pipe that holds about ten JSON lines."""

    write_fd: int
    read_fd: int
    arrived: bytes = b""

    def read(self) -> None:
        """Take what is in the pipe now."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.read_fd, 1 << 16):
                self.arrived += data


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE_BYTES)
    os.set_blocking(read_fd, False)
    pipe = Pipe(write_fd, read_fd)
    yield pipe
    os.close(write_fd)
    if pipe.read_fd >= 0:
        os.close(read_fd)


def flows(count: int) -> FlowBatch:
    return batch_of(*(Flow(src_port=port, bytes=port + 1) for port in range(count)))


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(120):
            await main()

    trio.run(bounded, strict_exception_groups=True)


async def send_until_blocked(exporter: Exporter, message: Message) -> None:
    """Send as far as the reader lets us, then give up."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exporter.send, message)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def send_while_reading(exporter: Exporter, message: Message, pipe: Pipe) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exporter.send, message)
        while nursery.child_tasks:
            await trio.testing.wait_all_tasks_blocked()
            pipe.read()


def ports_of(text: bytes) -> list[int]:
    assert text.endswith(b"\n")
    return [json.loads(line)["SrcPort"] for line in text.splitlines()]


def test_json_to_a_pipe(pipe: Pipe) -> None:
    """A batch leaves in its order, one line a flow, and nothing else."""
    batch = flows(300)

    async def main() -> None:
        async with StdoutExporter("json", AGENT_IP, pipe.write_fd) as exporter:
            for message in exporter.encode(batch):
                await send_while_reading(exporter, message, pipe)

    run(main)
    assert pipe.arrived == format_batch_json(batch, AGENT_IP)


def test_table_to_a_pipe(pipe: Pipe) -> None:
    """Without a terminal a table is 120 wide; the largest flow of the whole batch comes first."""
    batch = flows(PAGE_ROWS + 1)

    async def main() -> None:
        async with StdoutExporter("table", AGENT_IP, pipe.write_fd) as exporter:
            for message in exporter.encode(batch):
                await send_while_reading(exporter, message, pipe)

    run(main)
    lines = pipe.arrived.decode().splitlines()
    assert [number for number, line in enumerate(lines) if line.startswith("TIME")] == [0, PAGE_ROWS + 1]
    assert len(lines) == batch.flows + 2
    assert f"10.0.0.1:{PAGE_ROWS}" in lines[1]
    assert "10.0.0.1:0" in lines[-1]
    assert all(len(line) <= 120 for line in lines)


def printed(format_: OutputFormat, batch: FlowBatch) -> list[str]:
    """Return the lines of a batch as the exporter would print them."""
    messages = StdoutExporter(format_, AGENT_IP).encode(batch)
    return b"".join(bytes(message.payload) for message in messages).decode().splitlines()


def test_facts_of_a_batch_in_parts() -> None:
    """A batch is cut into messages, and every flow keeps its own facts, in JSON and in both tables."""
    count = 300
    batch = enriched(flows(count), rtt={row: {"smoothed_ns": row * 1_000} for row in range(1, count, 2)})
    expected = {port: port * 1_000 if port % 2 else None for port in range(count)}
    fields = map(json.loads, printed("json", batch))
    assert {line["SrcPort"]: line.get("TimeFlowRttNs") for line in fields} == expected
    formats: tuple[OutputFormat, ...] = ("table", "wide")
    for format_ in formats:
        rows = [line for line in printed(format_, batch) if not line.startswith("TIME")]
        assert len(rows) == count
        for row in rows:
            port = int(row.partition("10.0.0.1:")[2].split()[0])
            assert row.endswith(f" {port}µs" if port % 2 else "↓")


def test_wide_table_to_a_pipe() -> None:
    """The wide table has columns for facts, and takes no notice of the width that the others have."""
    label = b"example" * 9
    batch = enriched(flows(1), dns={0: {"name_bytes": 64, "name": bytes((63,)) + label}})
    header, line = printed("wide", batch)
    assert "DNS QUESTION" in header
    assert label.decode() in line
    assert len(line) > 120


def test_order_by_what_was_dropped() -> None:
    """Among the rows of a batch, what was dropped counts as size."""
    batch = enriched(flows(PAGE_ROWS + 10), drops={0: {"packets": 1, "bytes": 5_000}})
    assert "1 dropped" in printed("table", batch)[1]


@given(st.integers(0, 400))
def test_sums_of_messages(count: int) -> None:
    """What the messages say of themselves adds up to the batch, in every format."""
    batch = flows(count)
    for format_ in get_args(OutputFormat):
        messages = StdoutExporter(format_, AGENT_IP).encode(batch)
        assert sum(message.flows for message in messages) == batch.flows
        assert sum(message.packets for message in messages) == batch.packets
        assert sum(message.bytes for message in messages) == batch.bytes
        assert len(messages) == len(messages[:])


def test_reader_that_stops_for_a_while(pipe: Pipe) -> None:
    """A message that was cut off goes on where it stopped when it is sent again: no flow is missing or comes twice."""
    batch = flows(100)

    async def main() -> None:
        async with StdoutExporter("json", AGENT_IP, pipe.write_fd) as exporter:
            (message,) = exporter.encode(batch)
            for _ in range(3):
                await send_until_blocked(exporter, message)
                pipe.read()
            assert 0 < len(pipe.arrived) < len(message.payload)
            await send_while_reading(exporter, message, pipe)

    run(main)
    assert ports_of(pipe.arrived) == list(range(100))


def test_message_given_up(pipe: Pipe) -> None:
    """When another message follows one that was cut off inside a line, that line is completed first."""
    first, second = flows(100), batch_of(Flow(src_port=9999))

    async def main() -> None:
        async with StdoutExporter("json", AGENT_IP, pipe.write_fd) as exporter:
            (cut,) = exporter.encode(first)
            await send_until_blocked(exporter, cut)
            pipe.read()
            assert not pipe.arrived.endswith(b"\n")
            complete_lines = pipe.arrived.count(b"\n")
            (following,) = exporter.encode(second)
            await send_while_reading(exporter, following, pipe)
            assert ports_of(pipe.arrived) == [*range(complete_lines + 1), 9999]

    run(main)


def test_several_messages_given_up(pipe: Pipe) -> None:
    """The broken line is completed also when the message after it did not get a byte out."""
    cut, starved, last = flows(100), batch_of(Flow(src_port=8888)), batch_of(Flow(src_port=9999))

    async def main() -> None:
        async with StdoutExporter("json", AGENT_IP, pipe.write_fd) as exporter:
            for batch in (cut, starved):
                (message,) = exporter.encode(batch)
                await send_until_blocked(exporter, message)
            pipe.read()
            complete_lines = pipe.arrived.count(b"\n")
            (message,) = exporter.encode(last)
            await send_while_reading(exporter, message, pipe)
            assert ports_of(pipe.arrived) == [*range(complete_lines + 1), 9999]

    run(main)


def test_cancelled_after_the_last_byte(pipe: Pipe) -> None:
    """A message that is written is delivered: a cancellation at that moment is too late to deny it."""
    is_delivered = False

    async def main() -> None:
        nonlocal is_delivered

        async def cancel() -> None:
            scope.cancel()

        async with StdoutExporter("json", AGENT_IP, pipe.write_fd) as exporter:
            (message,) = exporter.encode(flows(1))
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel)  # runs when this task first lets others run: at the end of send
                    await exporter.send(message)
                    is_delivered = True
            assert scope.cancel_called

    run(main)
    pipe.read()
    assert ports_of(pipe.arrived) == [0]
    assert is_delivered


def test_cancelled_before_the_first_byte(pipe: Pipe) -> None:
    """A sender that is cancelled already writes nothing."""

    async def main() -> None:
        async with StdoutExporter("json", AGENT_IP, pipe.write_fd) as exporter:
            (message,) = exporter.encode(flows(1))
            with trio.CancelScope() as scope:
                scope.cancel()
                await exporter.send(message)

    run(main)
    pipe.read()
    assert pipe.arrived == b""


def test_reader_gone(pipe: Pipe) -> None:
    """The reader's end is a clean end: an error of its own, naming the output, that asks for exit code 0."""
    os.close(pipe.read_fd)
    pipe.read_fd = -1

    async def main() -> None:
        async with StdoutExporter("json", AGENT_IP, pipe.write_fd) as exporter:
            (message,) = exporter.encode(flows(1))
            with pytest.raises(OutputClosed, match="stdout: Broken pipe") as raised:
                await exporter.send(message)
            assert raised.value.exit_code == 0

    run(main)


_ROOT = Path(__file__).parents[2]
_PRINT_FLOWS = """
import signal, sys, trio
from netwatch.errors import OutputClosed
from netwatch.exporters.stdout import StdoutExporter
from tests.core.enriched import enriched
from tests.core.flows import Flow, batch_of

async def print_flows():
    async with StdoutExporter("json", "192.0.2.7") as exporter:
        while True:
            for message in exporter.encode(batch_of(*[Flow()] * 1000)):
                await exporter.send(message)

async def main():
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(print_flows)
            async for _ in signals:
                nursery.cancel_scope.cancel()

try:
    trio.run(main)
except* OutputClosed:
    print("closed", file=sys.stderr)
"""


def print_flows(stdout: int) -> subprocess.Popen[bytes]:
    """Start a process that prints flows on its standard output until SIGTERM."""
    return subprocess.Popen([sys.executable, "-c", _PRINT_FLOWS], cwd=_ROOT, stdout=stdout, stderr=subprocess.PIPE)


def test_head() -> None:
    """Piped into `head -1`, a process ends as soon as it has printed enough, without a traceback."""
    read_fd, write_fd = os.pipe()
    with print_flows(write_fd) as writer:
        os.close(write_fd)
        head = subprocess.run(["head", "-1"], stdin=read_fd, capture_output=True, check=True)
        os.close(read_fd)
        _, errors = writer.communicate(timeout=120)
    assert len(ports_of(head.stdout)) == 1
    assert (writer.returncode, errors) == (0, b"closed\n")


def test_end_while_nobody_reads() -> None:
    """A process whose reader has stopped still ends when it is told to: nothing holds the interpreter."""
    read_fd, write_fd = os.pipe()
    with print_flows(write_fd) as writer:
        # Full: a pipe can be written to while it has room for 4,096 octets.
        while select.select([], [write_fd], [], 0)[1]:
            assert writer.poll() is None
            time.sleep(0.01)
        os.close(write_fd)
        writer.terminate()
        _, errors = writer.communicate(timeout=120)
    os.close(read_fd)
    assert (writer.returncode, errors) == (0, b"")
