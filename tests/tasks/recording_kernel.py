"""A run over a kernel made of lists, recorded: what happens, and what happens while a batch is handed on.

Law: what comes out is what `run` would have exported; every turn of events is one that the tasks of a run can take.
Neighbours: `fake_kernel.py` has the flow maps, `test_replay.py` in the directory above replays.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import attrs
import numpy as np
import trio
from numpy.typing import NDArray

from netwatch.consume import Intake, open_intake
from netwatch.core.batch import FlowBatch, InterfaceNames
from netwatch.core.enrichment import Names
from netwatch.core.events import EVENT_TYPES
from netwatch.core.interfaces import InterfaceRegistry
from netwatch.core.json_lines import format_batch_json
from netwatch.core.layout import DROP_EVENT, EVENT_BYTES, EVENT_SLOT_BYTES, FLOW_KEY, EventKind
from netwatch.core.link import Link
from netwatch.core.translations import Translations
from netwatch.event_ledger import KernelEvents
from netwatch.ledger import Ledger
from netwatch.poll import Drain, Joiner
from netwatch.recording.files import RecordingFiles
from netwatch.recording.frames import Header, RecordedSettings
from netwatch.recording.recorder import FileRecorder, Recorder
from netwatch.recording.writer import RecordWriter
from tests.tasks.fake_kernel import FakeKernel, flow_rows

AGENT_IP = "192.0.2.7"
DROP_REASONS = {2: "SKB_DROP_REASON_NO_SOCKET", 3: "SKB_DROP_REASON_NETFILTER_DROP"}
SETTINGS = RecordedSettings(
    enrich=("drops", "process", "nat"),
    sampling=1,
    sampling_mode="packet",
    max_pending_events=6,
    max_recent_flows=8,
    max_dns_questions=4,
    dns_timeout_s=1e-6,
    max_translations=4,
)
HEADER = Header(
    run=b"a run",
    number=0,
    netwatch="0.0.0",
    kernel="6.6.0",
    agent_ip=AGENT_IP,
    settings=SETTINGS,
    drop_reasons=DROP_REASONS,
)

_QUESTION = b"\0\7\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1"  # id 7, for a.


def key_of(port: int) -> bytes:
    """Return the key that `flow_rows` gives a port."""
    return bytes(flow_rows([port])[0].tobytes())


def slots_of(events: Iterable[tuple[EventKind, int, int]]) -> NDArray[np.uint8]:
    """Lay events out as the ring has them, each a kind, the port of its flow, and its time."""
    events = list(events)
    slots = np.zeros((len(events), EVENT_SLOT_BYTES), np.uint8)
    for slot, (kind, port, time_ns) in zip(slots, events, strict=True):
        slot[:4].view("<u4")[0] = EVENT_BYTES
        event = slot[8:].view(EVENT_TYPES[kind])[0]
        event["event"]["key"] = np.frombuffer(key_of(port), FLOW_KEY)[0]
        event["event"]["time_ns"], event["event"]["kind"] = time_ns, kind
        event["event"]["hook"], event["event"]["size_bytes"] = port, EVENT_BYTES
        match kind:
            case EventKind.DROP:
                event["packets"], event["bytes"], event["reason"] = 1, time_ns, 2 + port % 3
                event["first_ns"] = time_ns
            case EventKind.OWNER:
                event["owner"]["cgroup_id"], event["owner"]["pid"], event["end"] = port, time_ns, time_ns % 2
            case EventKind.FLOW:
                event["packets"], event["bytes"] = 1, 60
            case EventKind.DNS:
                event["message_bytes"] = len(_QUESTION)
                event["message"][: len(_QUESTION)] = list(_QUESTION)
    return slots


@attrs.define
class FakeRing:
    """Chunks that were put there."""

    chunks: deque[NDArray[np.uint8]] = attrs.Factory(deque)

    async def wait(self, at_most_s: float) -> NoReturn:
        await trio.sleep_forever()

    def take(self, *, lingers: bool = False) -> NDArray[np.uint8]:
        return self.chunks.popleft() if self.chunks else np.empty((0, EVENT_SLOT_BYTES), np.uint8)


@attrs.define
class FakeEvents:
    """Events, with a merged drop in every other drain."""

    ring: FakeRing = attrs.Factory(FakeRing)
    taken: int = 0

    async def take_merged_drops(self) -> NDArray[np.void]:
        drops = np.zeros(self.taken % 2, DROP_EVENT)
        self.taken += 1
        drops["event"]["key"], drops["packets"], drops["event"]["time_ns"] = np.frombuffer(key_of(1), FLOW_KEY), 5, 1
        return drops

    def counts(self) -> KernelEvents:
        return KernelEvents(dict.fromkeys(EventKind, self.taken), {}, {}, {"drop": 1}, self.taken)


@attrs.define
class FakeContainers:
    """Knows a cgroup from the second time on that it is asked for."""

    asked: set[int] = attrs.Factory(set)

    def resolve(self, cgroup_ids: Iterable[int]) -> Mapping[int, str]:
        known = {number: f"container{number}" for number in self.asked}
        self.asked |= set(cgroup_ids)
        return known


@attrs.define
class FakeClock:
    """Each epoch is closed 1,000 ns after the one before."""

    now_ns: int = 0
    offset_ns: int = 1_700_000_000_000_000_000

    def kernel_ns(self) -> int:
        self.now_ns += 1_000
        return self.now_ns

    def wall_offset_ns(self) -> int:
        self.offset_ns += 1
        return self.offset_ns


@attrs.define(eq=False)
class Exported:
    """An ExportQueue that prints at once, and lets something happen while it is waited for."""

    meanwhile: Callable[[], object] = lambda: None
    printed: bytearray = attrs.Factory(bytearray)

    async def put(self, batch: FlowBatch, _: float) -> None:
        self.printed += format_batch_json(batch, AGENT_IP)
        self.meanwhile()


@attrs.define(eq=False)
class RecordedRun:
    """A run. What a test calls are what other tasks do; `drain` is a drain."""

    recorder: Recorder
    is_joining: bool = True
    exported: Exported = attrs.Factory(Exported)
    kernel: FakeKernel = attrs.field(factory=FakeKernel, init=False)
    ledger: Ledger = attrs.field(factory=Ledger, init=False)
    intake: Intake = attrs.field(init=False)
    translations: Translations = attrs.field(init=False)
    registry: InterfaceRegistry = attrs.field(init=False)
    _events: FakeEvents = attrs.field(factory=FakeEvents, init=False)
    _drain: Drain = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Wire it as the agent does."""
        recorder = self.recorder
        flows, counters, clock = recorder.sources(self.kernel, self.kernel, FakeClock())
        self.intake = open_intake(recorder.events(self._events), SETTINGS, recorder.containers(FakeContainers()))
        self.translations = recorder.translations(SETTINGS.max_translations)
        names = recorder.names(lambda: Names(DROP_REASONS, self.intake.containers))
        joiner = Joiner(self.intake, self.translations, 0.0, names) if self.is_joining else None
        self.registry = recorder.registry()
        queues: list[Exported] = [self.exported]
        self._drain = Drain(flows, counters, self.ledger, self.registry, queues, clock, joiner)  # type: ignore[arg-type]

    def see(self, ports: Sequence[int]) -> None:
        """Let packets of flows come in."""
        self.kernel.see(flow_rows([*ports]))

    def tell(self, *events: tuple[EventKind, int, int]) -> None:
        """Put events into the ring, and leave them there."""
        self._events.ring.chunks.append(slots_of(events))

    def consume(self) -> None:
        """Take a chunk out of the ring, as the consuming task does."""
        self.intake.take_chunk()

    def rename(self, ifindex: int, name: str) -> None:
        """Give an interface a name."""
        self.registry.add(Link(ifindex, name, 1, True))

    def look(self) -> InterfaceNames:
        """Take the names, as the metrics do."""
        return self.registry.snapshot()

    async def drain(self, *, is_last: bool = False) -> None:
        """Drain."""
        await self._drain.run(0.0, is_last=is_last)


def record(
    path: Path,
    play: Callable[[RecordedRun], Awaitable[object]],
    *,
    header: Header = HEADER,
    max_bytes: int = 1 << 30,
) -> RecordedRun:
    """Record a run: what `play` does with it, then the last drain."""

    async def main() -> RecordedRun:
        files = RecordingFiles(path, max_bytes, header)
        files.open()
        writer = RecordWriter(files)
        run = RecordedRun(FileRecorder(writer), bool(header.settings.enrich))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write)
            await play(run)
            await run.drain(is_last=True)
            await writer.close(math.inf)
        return run

    return trio.run(main)
