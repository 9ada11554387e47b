"""What the recording in the repository must give, byte for byte; `make golden` renews it and shows what has changed.

Law: what is checked in is what `netwatch replay` prints and what its gRPC exporter encodes, at UTC, on no terminal.
`hosts.pbflow.hex` has every byte of every message, a record a line; `hosts.pbflow.txt` is the same as protobuf's own
library reads it, for people.
See also: `test_golden.py` compares; `make_recording.py` makes the recording.
"""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import trio
import trio.testing
from google.protobuf import text_format

from netwatch.address import agent_address
from netwatch.config import Config
from netwatch.core.batch import FlowBatch, Message
from netwatch.exporters import Exporter, pbflow_pb2
from netwatch.exporters.opening import open_exporter
from netwatch.recording.reader import open_recording
from netwatch.replay import Replay

DATA = Path(__file__).with_name("data")
RECORDING = DATA / "hosts.netwatch"
TEXTS = {"hosts.json": "json", "hosts.table": "table", "hosts.wide": "wide"}
PBFLOW_HEX, PBFLOW_TEXT = "hosts.pbflow.hex", "hosts.pbflow.txt"
NAMES = (*TEXTS, PBFLOW_HEX, PBFLOW_TEXT)
_ENTRIES_TAG = 0x0A  # pbflow.Records: field 1, with a length


def printed(output: str) -> bytes:
    """Return what `netwatch replay` prints in a format, as a user would get it in a pipe."""
    command = (sys.executable, "-m", "netwatch", "replay", str(RECORDING), "--format", output)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NETWATCH_")}
    return subprocess.run(command, check=True, capture_output=True, env=environment | {"TZ": "UTC"}).stdout


@attrs.define(eq=False)
class _Kept:
    """The gRPC exporter without its network: `messages` are what it would send."""

    exporter: Exporter
    url: str = "grpc://kept"
    messages: list[bytes] = attrs.Factory(list)

    async def __aenter__(self) -> _Kept:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    def encode(self, batch: FlowBatch) -> Sequence[Message]:
        return self.exporter.encode(batch)

    async def send(self, message: Message) -> None:
        self.messages.append(bytes(message.payload))


def pbflow_messages() -> list[bytes]:
    """Return the messages that a collector would get."""
    recording = open_recording(RECORDING)
    kept = _Kept(open_exporter("grpc://127.0.0.1:2055", Config(), agent_address(recording.header.agent_ip)))
    replay = Replay(RECORDING, recording, Config(), [kept])
    trio.run(replay.run, clock=trio.testing.MockClock(autojump_threshold=0))
    return kept.messages


def records_in(message: bytes) -> Iterator[bytes]:
    """Cut a message into its records, each with its tag and its length."""
    begin = 0
    while begin < len(message):
        assert message[begin] == _ENTRIES_TAG
        end, length, shift = begin + 1, 0, 0
        while True:
            octet = message[end]
            length |= (octet & 0x7F) << shift
            end, shift = end + 1, shift + 7
            if octet < 0x80:
                break
        yield message[begin : end + length]
        begin = end + length


def as_hex(messages: Sequence[bytes]) -> str:
    """Write messages down: a headline each, then its records, a line each."""
    lines = []
    for number, message in enumerate(messages, 1):
        lines.append(f"# message {number}: {len(message)} bytes")
        lines += [record.hex() for record in records_in(message)]
    return "\n".join(lines) + "\n"


def from_hex(text: str) -> list[bytes]:
    """Return the messages that were written down."""
    messages: list[bytes] = []
    for line in text.splitlines():
        if line.startswith("#"):
            messages.append(b"")
        else:
            messages[-1] += bytes.fromhex(line)
    return messages


def decoded(messages: Sequence[bytes]) -> pbflow_pb2.Records:
    """Return all records as protobuf's own library reads them."""
    records = pbflow_pb2.Records()
    for message in messages:
        records.MergeFromString(message)
    return records


def outputs() -> dict[str, bytes]:
    """Return what has to be in each file."""
    messages = pbflow_messages()
    texts = {name: printed(output) for name, output in TEXTS.items()}
    text = text_format.MessageToString(decoded(messages))
    return texts | {PBFLOW_HEX: as_hex(messages).encode(), PBFLOW_TEXT: text.encode()}


def main() -> None:
    """Renew the files, and print what has changed."""
    for name, content in outputs().items():
        path = DATA / name
        before = path.read_text() if path.exists() else ""
        after = content.decode()
        difference = difflib.unified_diff(before.splitlines(), after.splitlines(), f"{name} before", name, lineterm="")
        sys.stdout.write("".join(f"{line}\n" for line in difference))
        path.write_bytes(content)
        sys.stdout.write(f"{name}: {'as it was' if before == after else 'renewed'}\n")


if __name__ == "__main__":
    main()
