"""Replay: a recording gives what the run gave, byte for byte."""

from __future__ import annotations

import contextlib
import itertools
import re
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from netwatch.config import Config
from netwatch.core.batch import FlowBatch, Message
from netwatch.core.json_lines import format_batch_json
from netwatch.core.layout import EventKind
from netwatch.errors import DeliveryFailed, NetwatchError, OutputClosed, RecordingUnusable
from netwatch.export import NOT_DELIVERED, OUTPUT_CLOSED
from netwatch.ledger import FlowAmount
from netwatch.recording.files import rotated
from netwatch.recording.reader import open_recording
from netwatch.replay import Replay
from tests.tasks.recording_kernel import AGENT_IP, HEADER, SETTINGS, RecordedRun, key_of, record

Turn = Callable[[RecordedRun], object]


@attrs.define(eq=False)
class Printer:
    """An exporter that keeps what a run would have printed."""

    url: str = "fake://printer"
    printed: bytearray = attrs.Factory(bytearray)

    async def __aenter__(self) -> Printer:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    def encode(self, batch: FlowBatch) -> Sequence[Message]:
        return [Message(format_batch_json(batch, AGENT_IP), batch.flows, batch.packets, batch.bytes)]

    async def send(self, message: Message) -> None:
        self.printed += message.payload


def replayed(path: Path, printer: Printer | None = None, config: Config | None = None) -> tuple[bytes, Replay]:
    """Replay on a virtual clock: nothing in it takes time."""
    printer = printer or Printer()
    replay = Replay(path, open_recording(path), config or Config(), [printer])
    trio.run(replay.run, clock=trio.testing.MockClock(autojump_threshold=0))
    return bytes(printer.printed), replay


def connection(port: int) -> tuple[bytes, bytes, int]:
    """Return a connection that is translated to another port."""
    return key_of(port), key_of(port + 9), port


PORTS = st.integers(0, 4)
EVENTS = st.lists(st.tuples(st.sampled_from(EventKind), PORTS, st.integers(0, 9_000)), min_size=1, max_size=4)
TURNS = st.one_of(
    EVENTS.map(lambda events: lambda run: run.tell(*events)),
    st.lists(PORTS, max_size=6).map(lambda ports: lambda run: run.see(ports)),
    PORTS.map(lambda port: lambda run: run.translations.add(*connection(port))),
    PORTS.map(lambda port: lambda run: run.translations.remove(*connection(port)[:2])),
    st.lists(PORTS).map(lambda ports: lambda run: run.translations.replace(map(connection, ports))),
    st.tuples(st.integers(1, 4), st.sampled_from(["eth0", "veth1", "\udcff"])).map(
        lambda link: lambda run: run.rename(*link)
    ),
    st.integers(1, 4).map(lambda ifindex: lambda run: run.registry.remove(ifindex)),
    st.just(lambda run: run.consume()),
    st.just(lambda run: run.look()),
    st.just(lambda run: run.intake.ledger()),
)
EPOCHS = st.lists(st.tuples(st.lists(TURNS, max_size=8), st.lists(TURNS, max_size=8)), max_size=5)


def playing(epochs: Sequence[tuple[Sequence[Turn], Sequence[Turn]]]) -> Callable[[RecordedRun], Awaitable[None]]:
    """Return what happens: before each drain, and three by three while its batches are handed on."""

    async def play(run: RecordedRun) -> None:
        for before, meanwhile in epochs:
            for turn in before:
                turn(run)
            rest = iter(meanwhile)
            run.exported.meanwhile = lambda rest=rest: [turn(run) for turn in itertools.islice(rest, 3)]  # type: ignore[misc]
            await run.drain()

    return play


@given(epochs=EPOCHS, is_joining=st.booleans())
@settings(max_examples=300)
def test_whatever_happens(epochs: list[tuple[list[Turn], list[Turn]]], is_joining: bool) -> None:
    """Whenever it happens, also in the middle of a drain: the same lines, the same ledgers, and so again."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "recording"
        header = HEADER if is_joining else attrs.evolve(HEADER, settings=attrs.evolve(SETTINGS, enrich=()))
        run = record(path, playing(epochs), header=header)
        printed, replay = replayed(path)
        assert printed == run.exported.printed
        assert replayed(path)[0] == printed
    assert replay.ledger.seen == run.ledger.seen
    assert replay.ledger.drained == run.ledger.drained
    assert replay.ledger.lost == run.ledger.lost
    assert replay.ledger.mismatches == run.ledger.mismatches == 0
    if replay.joiner:
        assert replay.joiner.intake.ledger() == run.intake.ledger()


def test_somebody_looks_in_the_middle_of_a_drain(tmp_path: Path) -> None:
    """What is decoded for the metrics is known to the rows that follow, in the replay as well."""

    def look(run: RecordedRun) -> None:
        run.tell((EventKind.OWNER, 0, 100))  # of no hook: remembered for the connection
        run.consume()
        run.intake.ledger()

    async def play(run: RecordedRun) -> None:
        run.see([9, 8, 7, 6, 0])
        run.exported.meanwhile = lambda: look(run)
        await run.drain()
        run.exported.meanwhile = lambda: None

    run = record(tmp_path / "recording", play)
    assert b'"ProcessId":100' in run.exported.printed.replace(b"Src", b"").replace(b"Dst", b"")
    assert replayed(tmp_path / "recording")[0] == run.exported.printed


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Record some drains."""
    path = tmp_path / "recording"

    async def play(run: RecordedRun) -> None:
        for ports in ([1, 2], [2], [3]):
            run.see(ports)
            run.tell((EventKind.DROP, ports[0], 100))
            await run.drain()

    record(path, play)
    return path


@attrs.define(eq=False)
class Troubled(Printer):
    """An exporter with trouble."""

    trouble: NetwatchError | None = None
    takes_s: float = 0

    async def send(self, message: Message) -> None:
        await trio.sleep(self.takes_s)
        if self.trouble:
            raise self.trouble
        await Printer.send(self, message)


def test_slow_reader(recording: Path) -> None:
    """However long a reader takes, nothing is lost: there is no period of grace while it goes on."""
    assert replayed(recording, Troubled(takes_s=100))[0] == replayed(recording)[0]


def test_nobody_reads(recording: Path) -> None:
    """Where the output is closed, as by `head`, the replay ends, and the ledger says what was lost."""
    _, replay = replayed(recording, Troubled(trouble=OutputClosed("stdout", "Broken pipe")))
    (account,) = replay.ledger.exporters
    assert [*account.lost] == [OUTPUT_CLOSED]
    assert account.in_flight == FlowAmount()


def test_collector_that_is_down(recording: Path) -> None:
    """A grace period after the last record it is given up, and the ledger says what was not delivered."""
    _, replay = replayed(recording, Troubled(trouble=DeliveryFailed("collector", "Connection refused")))
    replay.close_ledger()
    (account,) = replay.ledger.exporters
    assert account.exported == FlowAmount()
    assert [*account.lost] == [NOT_DELIVERED]
    assert replay.ledger.balances(account)


def test_batch_larger_than_the_queue(tmp_path: Path) -> None:
    """A queue set smaller than a batch of the recording does not stop it for ever."""

    async def play(run: RecordedRun) -> None:
        run.kernel.chunk_rows = 8_192
        run.see(range(8_192))
        await run.drain()

    run = record(tmp_path / "recording", play)
    small = Config(max_queue_bytes=65_536, max_message_bytes=65_536)
    assert replayed(tmp_path / "recording", config=small)[0] == run.exported.printed


def test_cut_off_anywhere(recording: Path) -> None:
    """Whatever a crash leaves of it gives the first of the records, or says in one line that there are none."""
    whole = recording.read_bytes()
    full = replayed(recording)[0]
    for size in range(0, len(whole), 7):
        recording.write_bytes(whole[:size])
        with contextlib.suppress(RecordingUnusable):
            assert full.startswith(replayed(recording)[0])
    recording.write_bytes(whole[: len(whole) // 20])
    with pytest.raises(RecordingUnusable, match=re.escape(str(recording))) as refused:
        open_recording(recording)
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_foreign_file(content: bytes) -> None:
    """A file that is no recording is refused, whatever it holds."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "foreign"
        path.write_bytes(content)
        with pytest.raises(RecordingUnusable):
            open_recording(path)


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(RecordingUnusable, match="nowhere"):
        open_recording(tmp_path / "nowhere")


def test_rotation(tmp_path: Path) -> None:
    """Past its limit the oldest half of a recording goes; the rest replays, and what is on the disk is bounded."""
    path = tmp_path / "recording"
    limit = 60_000

    async def play(run: RecordedRun) -> None:
        for turn in range(200):
            run.see([turn, turn + 1])
            await run.drain()

    run = record(path, play, max_bytes=limit)
    assert rotated(path).exists()
    assert path.stat().st_size + rotated(path).stat().st_size <= limit
    printed, replay = replayed(path)
    assert replay.recording.is_continued
    assert printed
    assert run.exported.printed.endswith(printed)
