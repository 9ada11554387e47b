"""The files of a recording, and the task that writes them: what is kept, what ends it, what a reader makes of it."""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import attrs
import msgpack
import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from netwatch.config import Config
from netwatch.errors import ConfigError, RecordingUnusable
from netwatch.recording import frames as all_frames
from netwatch.recording.files import RecordingFiles, rotated
from netwatch.recording.frames import (
    Closed,
    Containers,
    Drained,
    End,
    Frame,
    Interfaces,
    Ring,
    RowsEnd,
    Translated,
    decode_frame,
    decode_header,
    encode_frame,
    encode_header,
    open_envelope,
)
from netwatch.recording.reader import open_recording
from netwatch.recording.recorder import FileRecorder, open_recorder
from netwatch.recording.taps import RecordedTranslations
from netwatch.recording.writer import RecordWriter
from tests.tasks.recording_kernel import HEADER

DRAIN: tuple[Frame, ...] = (Closed(1, 1_000), RowsEnd(), Drained())
NAMES = Interfaces({2: "eth0"})

U64 = st.integers(0, 2**64 - 1)
COUNTS = st.dictionaries(U64, U64, max_size=3)
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "int": st.integers(-(2**63), 2**64 - 1),
    "bool": st.booleans(),
    "Octets": st.binary(max_size=50),
    "Mapping[int, int]": COUNTS,
    "Mapping[str, int]": st.dictionaries(st.text(max_size=5), U64, max_size=3),
    "Mapping[int, str]": st.dictionaries(U64, st.binary(max_size=5).map(os.fsdecode), max_size=3),
    "Mapping[int, Tally]": st.dictionaries(U64, st.lists(U64, min_size=2, max_size=2), max_size=3),
    "Sequence[int]": st.lists(st.integers(0, 65_535), max_size=3),
}


def frames_of(kind: type[Frame]) -> st.SearchStrategy[Frame]:
    return st.builds(kind, *(FIELDS[str(field.type)] for field in attrs.fields(kind)))


@given(st.one_of(*map(frames_of, all_frames._FRAMES.values())))
def test_frame_there_and_back(frame: Frame) -> None:
    """A frame is read as it was written, names that are no UTF-8 included."""
    assert decode_frame(open_envelope(msgpack.unpackb(encode_frame(frame)))) == frame


def test_view_of_memory() -> None:
    """Slots are written as they are, without being copied before."""
    slots = np.arange(256, dtype=np.uint8).reshape(2, 128)
    assert decode_frame(open_envelope(msgpack.unpackb(encode_frame(Ring(slots.data))))) == Ring(slots.tobytes())


@pytest.mark.parametrize("content", [["Ring"], ["Ring", 5], ["Nothing"], [], {}, ["Closed", 1, 2, 3], 7])
def test_frame_of_another_version(content: object) -> None:
    """What is no frame of ours is said to be none, whatever it is."""
    with pytest.raises(ValueError, match="this version"):
        decode_frame(msgpack.packb(content))


def test_header_there_and_back() -> None:
    """A header is read as it was written."""
    assert decode_header(open_envelope(msgpack.unpackb(encode_header(HEADER)))) == HEADER


def write(path: Path, frames: Iterable[Frame], max_bytes: int = 1 << 20) -> None:
    files = RecordingFiles(path, max_bytes, HEADER)
    files.open()
    files.write(frames)
    files.close()


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    """The file is the owner's alone: it says who talked to whom."""
    write(tmp_path / "recording", DRAIN)
    assert (tmp_path / "recording").stat().st_mode & 0o777 == 0o600


def test_older_file(tmp_path: Path) -> None:
    """A recording of another run is replaced."""
    path = tmp_path / "recording"
    write(path, DRAIN * 5)
    write(path, DRAIN)
    assert open_recording(path).drains == 1


@pytest.mark.parametrize("name", ["missing/recording", ".", "fifo"])
def test_file_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    """The run ends before it begins, with a line that names the file."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="name another"):
        RecordingFiles(tmp_path / name, 1 << 20, HEADER).open()


def test_both_files(tmp_path: Path) -> None:
    """After one rotation nothing is missing: both files are read, and names that stand in both are told once."""
    path = tmp_path / "recording"
    told = [NAMES, Containers({7: "c"}), *DRAIN, Ring(bytes(3_000)), *DRAIN, Ring(bytes(2_500)), *DRAIN, End()]
    write(path, told, max_bytes=10_000)
    recording = open_recording(path)
    assert recording.paths == (rotated(path), path)
    assert [*recording.frames()] == told[:-1]
    assert recording.has_end
    assert not recording.is_continued


def test_beginning_that_is_gone(tmp_path: Path) -> None:
    """What is left of a drain whose beginning is gone is passed over; the names are known all the same."""
    path = tmp_path / "recording"
    told = [NAMES, *DRAIN, *[Ring(bytes(1_000)), Closed(2, 5_000), Ring(bytes(900)), Drained()] * 30, End()]
    write(path, told, max_bytes=10_000)
    recording = open_recording(path)
    played = [*recording.frames()]
    assert recording.is_continued
    assert played[0] == NAMES
    rest = played[1:]
    assert rest == told[-1 - len(rest) : -1]
    assert rest[-1] == Drained()
    assert rest.count(Drained()) == recording.drains


def test_file_of_another_run_beside_it(tmp_path: Path) -> None:
    """FILE.1 counts only where FILE goes on from it."""
    path = tmp_path / "recording"
    write(path, [Ring(bytes(3_000)), *DRAIN, Ring(bytes(3_000)), *DRAIN * 2], max_bytes=10_000)
    other = RecordingFiles(rotated(path), 1 << 20, attrs.evolve(HEADER, run=b"another"))
    other.open()
    other.write(DRAIN * 3)
    recording = open_recording(path)
    assert recording.paths == (path,)
    assert recording.is_continued


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2, "netwatch": "9.9.9"}, "newer format 2.*use netwatch 9.9.9"),
        ({"layout": 0}, "laid out as in netwatch 0.0.0"),
        ({"format": "another"}, "is no recording of netwatch"),
        ({"settings": {}}, "says too little"),
    ],
)
def test_other_version(tmp_path: Path, change: dict[str, object], says: str) -> None:
    """A file of another version names the version that can read it."""
    path = tmp_path / "recording"
    write(path, DRAIN)
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(path.read_bytes())
    header = msgpack.unpackb(open_envelope(next(unpacker)), strict_map_key=False) | change
    path.write_bytes(all_frames._enveloped(header) + b"".join(map(encode_frame, DRAIN)))
    with pytest.raises(RecordingUnusable, match=says):
        open_recording(path)


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    """A flipped bit ends it there: what stands behind is not replayed as if nothing were missing."""
    path = tmp_path / "recording"
    write(path, [*DRAIN, Ring(bytes(500)), *DRAIN])
    octets = bytearray(path.read_bytes())
    octets[-200] ^= 1
    path.write_bytes(octets)
    recording = open_recording(path)
    assert recording.drains == 1
    assert recording.damaged == f"frame 4 of {path}"


def test_zeros_behind_it(tmp_path: Path) -> None:
    """What a power cut leaves of a file that was being extended is no frame."""
    path = tmp_path / "recording"
    write(path, DRAIN)
    path.write_bytes(path.read_bytes() + bytes(4_096))
    assert open_recording(path).drains == 1


@attrs.define(eq=False)
class FakeFiles:
    """Takes frames when it may; fails if it is to."""

    path: Path = Path("recording")
    error: OSError | None = None
    may_write: threading.Event = attrs.Factory(threading.Event)
    written: list[Frame] = attrs.Factory(list)
    is_closed: bool = False

    def write(self, frames: Iterable[Frame]) -> None:
        assert self.may_write.wait(10)
        if self.error:
            raise self.error
        self.written += frames

    def close(self) -> None:
        self.is_closed = True


def writer_to(files: FakeFiles, max_waiting_bytes: int = 1_000) -> RecordWriter:
    return RecordWriter(files, max_waiting_bytes)  # type: ignore[arg-type]


def test_all_is_written(caplog: pytest.LogCaptureFixture) -> None:
    """Closing waits for all that was given, writes the end behind it, and says nothing."""
    files = FakeFiles()
    files.may_write.set()
    given = [Ring(bytes([number])) for number in range(50)]

    async def main() -> None:
        writer = writer_to(files)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write)
            for frame in given:
                writer.put(frame)
                await trio.lowlevel.checkpoint()
            await writer.close(math.inf)
        writer.put(RowsEnd())

    trio.run(main)
    assert files.written == [*given, End()]
    assert files.is_closed
    assert caplog.messages == []


def test_slow_disk(caplog: pytest.LogCaptureFixture) -> None:
    """Who gives frames never waits: past the limit the recording ends with one line, and at its last whole frame."""
    files = FakeFiles()

    async def main() -> None:
        writer = writer_to(files)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write)
            for _ in range(1_000):
                writer.put(Ring(bytes(100)))
                await trio.lowlevel.checkpoint()
            files.may_write.set()
        await writer.close(math.inf)

    trio.run(main)
    assert len(files.written) <= 10
    assert files.is_closed
    (message,) = caplog.messages
    assert "recording recording ended early: the disk is too slow" in message


def test_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    """An error ends the recording with one line, and nothing else."""
    files = FakeFiles(error=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    files.may_write.set()

    async def main() -> None:
        writer = writer_to(files)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write)
            for _ in range(100):
                writer.put(Ring(b"1"))
                await trio.lowlevel.checkpoint()
        writer.put(RowsEnd())
        await writer.close(math.inf)

    trio.run(main)
    assert files.is_closed
    (message,) = caplog.messages
    assert "ended early: No space left on device; the capture goes on" in message


def test_disk_that_hangs_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """The stop waits until its deadline, says so, and goes on."""
    files = FakeFiles()

    async def main() -> None:
        writer = writer_to(files)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write)
            writer.put(RowsEnd())
            await writer.close(trio.current_time() + 3)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.05))
    files.may_write.set()
    assert caplog.messages == ["recording recording has no end: the disk is too slow"]


def test_limit_of_the_file_size(tmp_path: Path) -> None:
    """The bytes of both files stay within the limit, whatever is written."""
    path = tmp_path / "recording"
    files = RecordingFiles(path, 20_000, HEADER)
    files.open()
    for size in range(0, 6_000, 7):
        files.write([NAMES, Ring(bytes(size))])
        before = rotated(path).stat().st_size if rotated(path).exists() else 0
        assert path.stat().st_size + before <= 20_000
    files.close()


def test_recorder_of_a_run_that_records_nothing() -> None:
    """Nothing is put between the run and its kernel."""
    recorder = open_recorder(Config(), {}, "192.0.2.7")
    source = object()
    assert recorder.events(source) is source  # type: ignore[arg-type, comparison-overlap]
    assert recorder.containers(source) is source  # type: ignore[arg-type, comparison-overlap]
    assert not isinstance(recorder, FileRecorder)


def test_recorder_of_a_run_that_records(tmp_path: Path) -> None:
    """Its file is there from the start, and knows the settings of the run."""
    path = tmp_path / "recording"
    recorder = open_recorder(Config(record=path, sampling=7, max_recent_flows=9), {2: "NO_SOCKET"}, "192.0.2.7")
    assert isinstance(recorder, FileRecorder)
    recorder.writer.files.write(DRAIN)
    header = open_recording(path).header
    assert (header.settings.sampling, header.settings.max_recent_flows) == (7, 9)
    assert (header.agent_ip, header.drop_reasons) == ("192.0.2.7", {2: "NO_SOCKET"})
    recorder.writer.files.close()


def test_many_translations_at_once() -> None:
    """A whole table of conntrack is recorded once, in frames of bounded size."""
    put: list[Frame] = []
    translations = RecordedTranslations(20_000, put=put.append)
    connections = [(number.to_bytes(40), (2**64 + number).to_bytes(40), 1) for number in range(9_000)]
    translations.replace(connections)
    translations.add(*connections[0])
    assert len(put) == 3
    assert max(len(encode_frame(frame)) for frame in put) < 1 << 20
    assert put[-1] == Translated(*connections[0])
    assert len(translations) == 9_000
