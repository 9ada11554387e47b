"""The drain with a join: what is told of flows leaves with them, and what has ended is forgotten."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import trio
import trio.testing

from netwatch.consume import Intake, open_intake
from netwatch.core.backoff import Backoff
from netwatch.core.batch import FlowBatch
from netwatch.core.enrichment import Names
from netwatch.core.interfaces import InterfaceRegistry
from netwatch.core.layout import DROP_EVENT, FLOW_EVENT, OWNER_EVENT, Counter, EventKind, FlowEnd
from netwatch.core.translations import Translations
from netwatch.export import ExportQueue, export_flows
from netwatch.ledger import Amount, FlowAmount, Ledger
from netwatch.poll import Drain, Joiner
from tests.tasks.fake_collector import FakeCollector
from tests.tasks.fake_kernel import FakeKernel, flow_rows
from tests.tasks.test_consume import FakeEvents, Settings

PORT = 1_031
HOME = 2
SECOND_NS = 1_000_000_000


@attrs.define
class SecondsClock:
    """Each epoch is closed a second after the one before."""

    now_ns: int = 0

    def kernel_ns(self) -> int:
        self.now_ns += SECOND_NS
        return self.now_ns

    def wall_offset_ns(self) -> int:
        return 0


@attrs.define(eq=False)
class Run:
    """Drains over a kernel made of lists; `batches` are those that the last one handed on."""

    kernel: FakeKernel = attrs.Factory(FakeKernel)
    ledger: Ledger = attrs.Factory(Ledger)
    translations: Translations = attrs.field(factory=lambda: Translations(10))
    intake: Intake = attrs.field(factory=lambda: open_intake(FakeEvents(), Settings(), None))
    queue: ExportQueue = attrs.field(init=False)
    drain: Drain = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.queue = ExportQueue(self.ledger.open_exporter("fake://collector"), 1 << 20)
        joiner = Joiner(self.intake, self.translations, 0.0, Names)
        registry = InterfaceRegistry()
        self.drain = Drain(self.kernel, self.kernel, self.ledger, registry, [self.queue], SecondsClock(), joiner)

    def drain_now(self, *ports: int, is_last: bool = False) -> list[FlowBatch]:
        """Let packets of flows come in, drain, and return what was handed on."""
        if ports:
            self.kernel.see(flow_rows([*ports]))
        begun = len(self.queue._batches)

        async def main() -> None:
            await self.drain.run(0.0, is_last=is_last)

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        return [batch for batch in list(self.queue._batches)[begun:] if batch.flows]


def told(dtype: np.dtype[np.void], *times_ns: int, hook: int = HOME) -> np.ndarray:
    """Return events about the flow of PORT."""
    events = np.zeros(len(times_ns), dtype)
    events["event"]["time_ns"], events["event"]["hook"] = times_ns, hook
    events["event"]["key"] = flow_rows([PORT])[0][0]
    return events


def key(port: int) -> bytes:
    return bytes(flow_rows([port])[0].tobytes())


@pytest.mark.parametrize("what", ["owner", "translation"])
def test_connection_that_has_ended(what: str) -> None:
    """Its owner and its translation are with its last rows; then another connection may have its ports."""
    run = Run()
    if what == "owner":
        events = told(OWNER_EVENT, 1, 2, hook=0)
        events["end"], events["owner"]["pid"] = FlowEnd.SOURCE, [42, 0]
        run.intake.owners.take(events)
    else:
        run.translations.add(key(PORT), key(PORT + 1), 0)
        run.translations.remove(key(PORT), key(PORT + 1))
    known = []
    for _ in range(6):
        (batch,) = run.drain_now(PORT)
        known.append(len(batch.enrichment.source if what == "owner" else batch.enrichment.translation))
    assert known[:2] == [1, 1]
    assert known[4:] == [0, 0]


def test_largest_drain() -> None:
    """The number of rows of the largest drain stays, whatever comes after it."""
    run = Run()
    for rows in (5, 11, 3):
        run.drain_now(*range(rows))
        assert run.drain.statistics.last_rows == rows
    assert run.drain.statistics.peak_rows == 11


def test_packets_without_room_at_two_hooks() -> None:
    """What went through the ring and was seen elsewhere before is a duplicate, and the ledger balances with it."""
    run = Run()
    events = np.concatenate((told(FLOW_EVENT, 1, 2, 3), told(FLOW_EVENT, 4, 5, hook=HOME + 1)))
    events["packets"], events["bytes"] = 1, 60
    run.kernel.end(Counter.IN_RING, len(events))
    run.intake.store.add(EventKind.FLOW, events)
    run.drain_now(is_last=True)

    async def export() -> None:
        run.queue.close()
        await export_flows(run.queue, FakeCollector(), Backoff(0.1, 1.0))

    trio.run(export)
    (account,) = run.ledger.exporters
    assert run.ledger.mismatches == 0
    assert run.ledger.duplicate == Amount(2, 120)
    assert account.exported == FlowAmount(1, 3, 180)
    assert run.ledger.balances(account)


def test_packet_without_room_that_is_dropped_across_the_close() -> None:
    """A packet that found the map full just before the close, and was dropped just after it, is one record."""
    run = Run()
    packet, drop = told(FLOW_EVENT, SECOND_NS - 1_000), told(DROP_EVENT, SECOND_NS + 4_000)
    packet["packets"] = drop["packets"] = 1
    run.intake.store.add(EventKind.FLOW, packet)
    run.intake.store.add(EventKind.DROP, drop)
    assert run.drain_now() == []
    (batch,) = run.drain_now()
    assert (batch.flows, batch.packets) == (1, 1)
    assert batch.enrichment.drops.values["packets"].tolist() == [1]
    assert run.drain_now() == run.drain_now(is_last=True) == []
