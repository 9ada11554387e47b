"""`netwatch collect` as a process: what it prints, and how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator
from typing import IO

import attrs
import pytest
import trio

from netwatch.core.batch import Message
from netwatch.core.batch_records import records_of
from netwatch.core.json_lines import format_json
from netwatch.core.pbflow import PbflowEncoder
from netwatch.errors import DeliveryFailed
from netwatch.exporters.grpc import GrpcExporter, GrpcSettings
from tests.core.flows import Flow, batch_of

AGENT_IP = "192.0.2.7"
BATCH = batch_of(*(Flow(src_port=port, packets=port, bytes=100 * port) for port in range(1, 1002)))
MESSAGES = PbflowEncoder(ipaddress.ip_address(AGENT_IP), max_message_flows=400).encode(BATCH)
SUM_LINE = (
    f"netwatch: info: received {len(MESSAGES)} messages: {BATCH.flows} flows, {BATCH.packets} packets, "
    f"{BATCH.bytes} bytes"
)
TIMEOUT_S = 120


@attrs.define(eq=False)
class Collect:
    """The command, listening. It prints to a file, which takes any amount while nobody reads."""

    process: subprocess.Popen[str]
    port: int
    output: IO[str]

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[str, list[str]]:
        """Send a signal; return all that it printed, and what else it said."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=TIMEOUT_S)
        self.output.seek(0)
        return self.output.read(), said.splitlines()


@contextlib.contextmanager
def collecting(*options: str, stdout: int | None = None) -> Iterator[Collect]:
    command = [sys.executable, "-m", "netwatch", "collect", "--listen", "127.0.0.1:0", *options]
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, stdout=stdout or output, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stderr
            said = process.stderr.readline()
            listening = re.fullmatch(r"netwatch: info: listening on 127\.0\.0\.1:([0-9]+)\n", said)
            assert listening, said
            yield Collect(process, int(listening[1]), output)
        finally:
            process.kill()


def has_octets(fd: int, least: int) -> bool:
    """Say whether so much can be read from a pipe."""
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0] >= least


def give_up(port: int, message: Message, is_time: Callable[[], bool]) -> None:
    """Send a message to the collector, and give up when it is time, before it has answered."""

    async def main() -> None:
        with trio.fail_after(TIMEOUT_S):
            async with exporter_to(port) as exporter, trio.open_nursery() as nursery:
                nursery.start_soon(exporter.send, message)
                while not is_time():  # noqa: ASYNC110 - it waits for another process
                    await trio.sleep(0.01)
                assert nursery.child_tasks
                nursery.cancel_scope.cancel()

    trio.run(main)


def exporter_to(port: int) -> GrpcExporter:
    return GrpcExporter(f"grpc://127.0.0.1:{port}", GrpcSettings(deadline_s=TIMEOUT_S), PbflowEncoder(None))


def send(port: int, *messages: Message) -> None:
    async def main() -> None:
        with trio.fail_after(2 * TIMEOUT_S):
            async with exporter_to(port) as exporter:
                for message in messages:
                    await exporter.send(message)

    trio.run(main, strict_exception_groups=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_json(number: signal.Signals) -> None:
    """Every flow is a line, the same as stdout prints; a signal ends it with sums on stderr and exit code 0."""
    with collecting("--format", "json") as collect:
        send(collect.port, *MESSAGES)
        output, said = collect.end(number)
        assert collect.process.returncode == 0
    assert sorted(output.splitlines()) == sorted(map(format_json, records_of(BATCH, AGENT_IP)))
    assert said == [SUM_LINE]


def test_acknowledged_is_printed() -> None:
    """What a sender has been told is taken has left the collector: killing it then loses nothing."""
    with collecting("--format", "json") as collect:
        send(collect.port, MESSAGES[0])
        output, _ = collect.end(signal.SIGKILL)
    assert [json.loads(line)["AgentIP"] for line in output.splitlines()] == [AGENT_IP] * MESSAGES[0].flows


@pytest.mark.parametrize("format_", ["table", "wide"])
def test_table(format_: str) -> None:
    """Every flow is a row below a header, in both tables."""
    with collecting("--format", format_) as collect:
        send(collect.port, *MESSAGES)
        output, said = collect.end()
    rows = [line for line in output.splitlines() if not line.startswith("TIME")]
    assert len(rows) == BATCH.flows
    assert all(" TCP " in row for row in rows)
    assert said == [SUM_LINE]


def test_default_format() -> None:
    """JSON lines, where the output is no terminal."""
    with collecting() as collect:
        send(collect.port, MESSAGES[0])
        output, _ = collect.end()
    assert [json.loads(line)["Proto"] for line in output.splitlines()] == [6] * MESSAGES[0].flows


def test_reader_that_is_slow() -> None:
    """A sender waits for its message to be printed: what nobody reads is not taken."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd) as reader, collecting("--format", "json", stdout=write_fd) as collect:
        os.close(write_fd)
        give_up(collect.port, MESSAGES[0], lambda: has_octets(read_fd, 60_000))  # 400 lines are more than a pipe holds
        lines = threading.Thread(target=reader.read)
        lines.start()
        send(collect.port, MESSAGES[1])
        _, said = collect.end()
        lines.join(TIMEOUT_S)
    # The first one was under way, and was printed before the second.
    assert said[0].startswith("netwatch: info: received 2 messages: 800 flows")


def test_something_else_than_flows() -> None:
    """It is refused with a reason, and nothing is printed of it."""
    with collecting() as collect:
        with pytest.raises(DeliveryFailed, match=r"INVALID_ARGUMENT: not a pbflow\.Records message"):
            send(collect.port, Message(b"\xff\xff", 1, 1, 1))
        output, said = collect.end()
    assert output == ""
    assert said == ["netwatch: info: received 0 messages: 0 flows, 0 packets, 0 bytes"]


def test_reader_that_leaves() -> None:
    """`netwatch collect | head` ends when head does, with exit code 0; the sender knows what was not printed."""
    read_fd, write_fd = os.pipe()
    with collecting("--format", "json", stdout=write_fd) as collect:
        os.close(write_fd)
        os.close(read_fd)
        with pytest.raises(DeliveryFailed, match="UNAVAILABLE: the collector is shutting down"):
            send(collect.port, MESSAGES[0])
        _, said = collect.process.communicate(timeout=TIMEOUT_S)
        assert collect.process.returncode == 0
    assert said.splitlines() == [
        "netwatch: info: received 0 messages: 0 flows, 0 packets, 0 bytes",
        "netwatch: info: nobody reads the output any more",
    ]


def test_address_in_use() -> None:
    """One line on stderr that names the address, and exit code 9."""
    with collecting() as collect:
        second = subprocess.run(
            [sys.executable, "-m", "netwatch", "collect", "--listen", f"127.0.0.1:{collect.port}"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        collect.end()
    assert second.returncode == 9
    assert second.stdout == ""
    assert second.stderr.splitlines() == [
        f"netwatch: error: --listen 127.0.0.1:{collect.port}: Address already in use; choose another HOST:PORT"
    ]
