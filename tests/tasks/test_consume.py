"""The consuming task, over a ring made of lists, on a virtual clock."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Awaitable, Callable

import attrs
import numpy as np
import trio
import trio.testing

from netwatch.consume import Intake, consume_events, open_intake
from netwatch.core.layout import DROP_EVENT, EVENT_SLOT_BYTES, EventKind
from netwatch.event_ledger import KernelEvents
from tests.core.test_events import record, slots_of

PERIOD_S = 0.1


@attrs.define(eq=False)
class FakeRing:
    """A ring: what is put is taken in chunks of `most` records, and the first into an empty ring wakes."""

    most: int = 4
    records: deque[bytes] = attrs.field(factory=deque)
    taken_at: list[float] = attrs.Factory(list)
    woken: trio.Event = attrs.Factory(trio.Event)

    def put(self, *records: bytes, asks: bool = False) -> None:
        if not self.records or asks:
            self.woken.set()
        self.records.extend(records)

    async def wait(self, at_most_s: float) -> None:
        with trio.move_on_after(at_most_s):
            await self.woken.wait()
            self.woken = trio.Event()

    def take(self, *, lingers: bool = False) -> np.ndarray:
        some = [self.records.popleft() for _ in range(min(self.most, len(self.records)))]
        if some:
            self.taken_at.append(trio.current_time())
        return slots_of(some) if some else np.empty((0, EVENT_SLOT_BYTES), np.uint8)


@attrs.define(eq=False)
class FakeEvents:
    """The ring, and nothing beside it."""

    ring: FakeRing = attrs.Factory(FakeRing)

    async def take_merged_drops(self) -> np.ndarray:
        return np.empty(0, DROP_EVENT)

    def counts(self) -> KernelEvents:
        return KernelEvents()


@attrs.frozen
class Settings:
    """What decides over the join."""

    sampling: int = 1
    sampling_mode: str = "packet"
    max_pending_events: int = 100
    max_recent_flows: int = 100
    dns_timeout_s: float = 5.0
    max_dns_questions: int = 10


def on_virtual_clock(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a test on a clock that jumps ahead when everybody waits."""

    @functools.wraps(test)
    def run() -> None:
        trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))

    return run


def new_intake(ring: FakeRing) -> Intake:
    return open_intake(FakeEvents(ring), Settings(), None)


def taken(intake: Intake) -> int:
    intake.decode()
    return intake.store.ends(EventKind.DROP).taken


@on_virtual_clock
async def test_after_a_period() -> None:
    """Events gather for a period after the first, and are then taken together, in chunks; till then nothing is done."""
    ring = FakeRing()
    intake = new_intake(ring)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume_events, intake, PERIOD_S)
        await trio.sleep(50.05)
        ring.put(*(record(EventKind.DROP, number) for number in range(10)))
        began = trio.current_time()
        await trio.sleep(PERIOD_S / 2)
        assert ring.taken_at == []
        await trio.sleep(PERIOD_S)
        nursery.cancel_scope.cancel()
    assert taken(intake) == 10
    assert all(abs(at - began - PERIOD_S) < 0.01 for at in ring.taken_at)
    # Once a second it looks whether a record that was being written has held others up.
    assert intake.turns < 70


@on_virtual_clock
async def test_when_asked() -> None:
    """A ring that asks is emptied at once."""
    ring = FakeRing()
    intake = new_intake(ring)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume_events, intake, 5.0)
        await trio.sleep(0.01)
        ring.put(record(EventKind.DROP, 1))
        await trio.sleep(0.01)
        ring.put(record(EventKind.DROP, 2), asks=True)
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert taken(intake) == 2
    assert ring.taken_at[0] < 0.1


@on_virtual_clock
async def test_nothing_wakes() -> None:
    """What stood behind a record that was being written is taken a second later, without a wake-up."""
    ring = FakeRing()
    intake = new_intake(ring)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume_events, intake, PERIOD_S)
        await trio.sleep(0.01)
        ring.records.append(record(EventKind.DROP, 1))
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    assert taken(intake) == 1


@on_virtual_clock
async def test_what_stays_for_the_last_drain() -> None:
    """Cancelled, it leaves the ring as it is; the drain takes the rest."""
    ring = FakeRing()
    intake = new_intake(ring)
    with trio.move_on_after(0.05):
        await consume_events(intake, PERIOD_S)
    ring.put(*(record(EventKind.DROP, number) for number in range(9)))
    await intake.close_epoch(1_000)
    assert taken(intake) == 9
    assert not ring.records


@on_virtual_clock
async def test_what_is_no_event() -> None:
    """It is counted, and the ledger does not balance."""
    ring = FakeRing()
    intake = new_intake(ring)
    ring.put(record(99, 1))
    await intake.take_all()
    ledger = intake.ledger()
    assert ledger.unknown == 1
    assert not ledger.balances
