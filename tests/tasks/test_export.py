"""The export queue and its task, on a virtual clock."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from netwatch.core.backoff import Backoff
from netwatch.core.batch import FlowBatch, InterfaceNames
from netwatch.errors import OutputClosed
from netwatch.export import NOT_DELIVERED, OUTPUT_CLOSED, QUEUE_FULL, ExportQueue, export_flows
from netwatch.ledger import ExporterLedger, FlowAmount
from tests.tasks.fake_collector import FakeCollector
from tests.tasks.fake_kernel import flow_rows

FLOW_BYTES = 144


def batch_of(flows: int) -> FlowBatch:
    return FlowBatch(*flow_rows(list(range(flows))), 0, InterfaceNames({2: "eth0"}))


def new_queue(max_flows: int = 1_000) -> ExportQueue:
    return ExportQueue(ExporterLedger("fake://collector"), max_flows * FLOW_BYTES)


def backoff() -> Backoff:
    return Backoff(0.1, 30.0, random.Random(1))


def on_virtual_clock(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0), strict_exception_groups=True)


def test_collector_that_fails_at_first() -> None:
    """A failed send is tried again, with growing pauses, until it succeeds; nothing is lost and nothing sent twice."""
    collector = FakeCollector(failing=range(6))
    queue = new_queue()

    async def main() -> None:
        await queue.put(batch_of(10), 0)
        queue.close()
        await export_flows(queue, collector, backoff())

    on_virtual_clock(main)
    assert [message.flows for message in collector.delivered] == [10]
    assert queue.account.exported == queue.account.accepted == FlowAmount(10, 10, 1_000)
    assert queue.account.lost == {}
    assert queue.errors == 6
    pauses = [after - before for before, after in zip(collector.attempts, collector.attempts[1:], strict=False)]
    assert len(pauses) == 6
    assert all(0.5 * 0.1 * 2**n <= pause <= 1.5 * 0.1 * 2**n for n, pause in enumerate(pauses))


def test_failure_between_two_messages_of_a_batch() -> None:
    """Only the message that failed is sent again, so the collector gets each flow once."""
    collector = FakeCollector(flows_per_message=4, failing=[1])
    queue = new_queue()

    async def main() -> None:
        await queue.put(batch_of(10), 0)
        queue.close()
        await export_flows(queue, collector, backoff())

    on_virtual_clock(main)
    assert [message.flows for message in collector.delivered] == [4, 4, 2]
    assert queue.account.exported.flows == 10


def test_after_an_outage() -> None:
    """A collector that has delivered again and then fails is tried again after the shortest pause, not the longest."""
    collector = FakeCollector(failing=[*range(6), 7])
    queue = new_queue()

    async def main() -> None:
        for _ in range(2):
            await queue.put(batch_of(10), 0)
        queue.close()
        await export_flows(queue, collector, backoff())

    on_virtual_clock(main)
    assert [message.flows for message in collector.delivered] == [10, 10]
    (*_, failed_again, tried_again) = collector.attempts
    assert 0.05 <= tried_again - failed_again <= 0.15


def waits_of_three_batches(
    queue: ExportQueue, collector: FakeCollector, patience_s: float, end: Callable[[trio.Nursery], None]
) -> list[float]:
    """Put three batches of ten flows beside the exporting task, then end it; return how long each had to wait."""
    waited: list[float] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(export_flows, queue, collector, backoff())
            for _ in range(3):
                started = trio.current_time()
                await queue.put(batch_of(10), started + patience_s)
                waited.append(trio.current_time() - started)
                await trio.testing.wait_all_tasks_blocked()
            end(nursery)

    on_virtual_clock(main)
    return waited


def test_nobody_waits_for_a_collector_that_fails() -> None:
    """From its first failure on, a full queue makes room at once: a drain is not held up by an outage."""
    collector = FakeCollector(failing=range(1_000))
    queue = new_queue(max_flows=20)
    assert waits_of_three_batches(queue, collector, 100, lambda nursery: nursery.cancel_scope.cancel()) == [0, 0, 0]
    assert queue.account.lost == {QUEUE_FULL: FlowAmount(10, 10, 1_000)}


def test_queue_full_while_the_collector_is_down() -> None:
    """The oldest batch is lost and counted; the newest stay. Nobody waits for a collector that does not deliver."""
    queue = new_queue(max_flows=30)
    queue.is_moving = False

    async def main() -> None:
        for _ in range(5):
            await queue.put(batch_of(10), math.inf)

    on_virtual_clock(main)
    assert queue.account.lost == {QUEUE_FULL: FlowAmount(20, 20, 2_000)}
    assert queue.size_bytes == 30 * FLOW_BYTES
    assert queue.account.in_flight.flows == 30


def test_queue_full_while_the_collector_is_slow() -> None:
    """A collector that delivers is waited for, as long as the patience lasts, and nothing is lost."""
    collector = FakeCollector(delay_s=1.0)
    queue = new_queue(max_flows=20)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(export_flows, queue, collector, backoff())
            for _ in range(10):
                await queue.put(batch_of(10), trio.current_time() + 5)
            queue.close()

    on_virtual_clock(main)
    assert collector.flows == 100
    assert queue.account.lost == {}
    assert queue.size_bytes == 0


def test_patience_runs_out() -> None:
    """A collector too slow for the patience costs the oldest batch that waits, never the one being sent."""
    collector = FakeCollector(delay_s=10.0)
    queue = new_queue(max_flows=20)
    assert waits_of_three_batches(queue, collector, 2, lambda _: queue.close()) == [0, 0, 2]
    assert queue.account.lost == {QUEUE_FULL: FlowAmount(10, 10, 1_000)}
    assert collector.flows == 20


def test_message_that_is_refused_for_good() -> None:
    """It stands before the others until room is needed; then it is the oldest, is lost, and they are delivered."""
    collector = FakeCollector(failing=range(8))
    queue = new_queue(max_flows=30)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(export_flows, queue, collector, backoff())
            for _ in range(3):
                await queue.put(batch_of(10), 0)
            await trio.sleep(5)
            collector.failing = ()
            await queue.put(batch_of(9), 0)
            queue.close()

    on_virtual_clock(main)
    assert queue.account.lost == {QUEUE_FULL: FlowAmount(10, 10, 1_000)}
    assert [message.flows for message in collector.delivered] == [10, 10, 9]
    assert queue.size_bytes == 0


def test_output_closed() -> None:
    """Where the reader has gone for good, all that was and all that comes is lost, with the reason."""
    collector = FakeCollector(failing=[0], error=OutputClosed("stdout", "closed"))
    queue = new_queue()

    async def main() -> None:
        await queue.put(batch_of(10), 0)
        with pytest.raises(OutputClosed):
            await export_flows(queue, collector, backoff())
        queue.abandon(OUTPUT_CLOSED)
        await queue.put(batch_of(5), math.inf)
        assert await queue.get() is None

    on_virtual_clock(main)
    assert queue.account.lost == {OUTPUT_CLOSED: FlowAmount(15, 15, 1_500)}
    assert queue.account.in_flight == FlowAmount()


@attrs.frozen
class Step:
    """Something that happens to the queue."""

    flows: int
    pause_s: float


STEPS = st.lists(st.builds(Step, st.integers(1, 40), st.sampled_from([0.0, 0.05, 0.3, 2.0])), max_size=20)


@settings(max_examples=60)
@given(
    steps=STEPS,
    failures=st.integers(0, 12),
    delay_s=st.sampled_from([0.0, 0.1, 1.0]),
    flows_per_message=st.integers(1, 50),
    cancel_after_s=st.one_of(st.just(math.inf), st.floats(0, 5)),
)
def test_any_history(
    steps: list[Step], failures: int, delay_s: float, flows_per_message: int, cancel_after_s: float
) -> None:
    """Whatever happens, and whenever it is cancelled: accepted = exported + lost, and the bound holds throughout."""
    collector = FakeCollector(flows_per_message=flows_per_message, failing=range(failures), delay_s=delay_s)
    queue = new_queue(max_flows=60)
    put = 0

    async def feed() -> None:
        nonlocal put
        for step in steps:
            await queue.put(batch_of(step.flows), trio.current_time() + 0.2)
            put += step.flows
            assert queue.size_bytes <= queue.max_bytes + 40 * FLOW_BYTES  # the batch being sent is never evicted
            await trio.sleep(step.pause_s)
        queue.close()

    async def main() -> None:
        with trio.move_on_after(cancel_after_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(export_flows, queue, collector, backoff())
                nursery.start_soon(feed)
        queue.account.write_off(NOT_DELIVERED)

    on_virtual_clock(main)
    account = queue.account
    assert account.exported.flows == collector.flows
    assert account.in_flight == FlowAmount()
    assert account.accepted.flows >= put
    if cancel_after_s == math.inf:
        assert (
            account.accepted.flows == put == account.exported.flows + account.lost.get(QUEUE_FULL, FlowAmount()).flows
        )
