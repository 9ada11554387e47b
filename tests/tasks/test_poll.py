"""The drain and its period, over a fake kernel on a virtual clock."""

from __future__ import annotations

import logging

import attrs
import numpy as np
import pytest
import trio
import trio.testing

from netwatch.core.batch import FlowBatch
from netwatch.core.interfaces import InterfaceRegistry
from netwatch.core.layout import Counter
from netwatch.export import ExportQueue
from netwatch.ledger import Amount, FlowAmount, Ledger, Loss
from netwatch.poll import Drain, own_rows, poll_flows
from tests.tasks.fake_kernel import FakeKernel, flow_rows


class FixedClock:
    """Clocks that stand still."""

    def kernel_ns(self) -> int:
        return 1_000_000

    def wall_offset_ns(self) -> int:
        return 7


def new_drain(kernel: FakeKernel, exporters: int = 1, max_bytes: int = 1 << 20) -> Drain:
    ledger = Ledger()
    queues = [ExportQueue(ledger.open_exporter(f"fake://{n}"), max_bytes) for n in range(exporters)]
    return Drain(kernel, kernel, ledger, InterfaceRegistry(), queues, FixedClock())


def drain_now(drain: Drain) -> None:
    trio.run(drain.run, 0.0)


async def batches(queue: ExportQueue) -> list[FlowBatch]:
    queue.close()
    found = []
    while (batch := await queue.get()) is not None:
        found.append(batch)
    return found


def test_rows_come_out_whole() -> None:
    """Every row of the closed epoch reaches every exporter, in batches that keep their memory."""
    kernel = FakeKernel(chunk_rows=4)
    drain = new_drain(kernel, exporters=2)
    kernel.see(flow_rows(list(range(10)), packets=3))
    drain_now(drain)
    for queue in drain.queues:
        out = trio.run(batches, queue)
        assert [batch.flows for batch in out] == [4, 4, 2]
        assert np.concatenate([batch.keys["src_port"] for batch in out]).tolist() == list(range(10))
        assert {batch.wall_offset_ns for batch in out} == {7}
    assert drain.ledger.drained == FlowAmount(10, 30, 3_000)


def test_epoch_with_every_end() -> None:
    """Each counter has its place in the ledger, and the epoch balances."""
    kernel = FakeKernel()
    drain = new_drain(kernel)
    kernel.see(flow_rows([1, 2]))
    for packets, counter in enumerate((c for c in Counter if c is not Counter.SEEN_ELSEWHERE), 1):
        kernel.end(counter, packets)
    drain_now(drain)
    ledger = drain.ledger
    assert ledger.mismatches == 0
    assert ledger.duplicate == Amount(1, 60)
    assert len(ledger.ignored) == 7
    assert ledger.lost == {
        Loss("kernel", "flow map full"): FlowAmount(0, 9, 540),
        Loss("kernel", "flow map insert failed"): FlowAmount(0, 10, 600),
    }
    assert ledger.balances(ledger.exporters[0]) is False  # two flows are still in flight


def test_audit_finds_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    """Packets that were seen and came out nowhere are an error in the log and a mismatch in the ledger."""
    kernel = FakeKernel()
    drain = new_drain(kernel)
    kernel.see_unaccounted(3)
    with caplog.at_level(logging.ERROR):
        drain_now(drain)
        drain_now(drain)
    assert drain.ledger.mismatches == 1
    assert drain.ledger.drains == 2
    assert "3 packets and 180 bytes are unaccounted for" in caplog.text


def test_rows_without_packets() -> None:
    """A row in which only a home lives on is no flow: it is not exported, and the audit does not miss it."""
    kernel = FakeKernel()
    drain = new_drain(kernel)
    keys, values = flow_rows([1, 2, 3])
    values["packets"][1] = values["bytes"][1] = 0
    kernel.see((keys, values))
    drain_now(drain)
    (batch,) = trio.run(batches, drain.queues[0])
    assert batch.keys["src_port"].tolist() == [1, 3]
    assert drain.ledger.mismatches == 0


def test_home_that_moved() -> None:
    """A hook that became the flow's home is not listed among the observed ones as well."""
    keys, values = flow_rows([1, 2])
    values["home"] = 9
    values["observed"][0, :3] = [5, 9, 6]
    _, own_values = own_rows(keys, values)
    assert own_values["observed"][0].tolist() == [5, 0, 6, 0, 0, 0]
    assert values["observed"][0].tolist() == [5, 9, 6, 0, 0, 0]


def test_the_idle_map_is_cleared_before_it_is_current() -> None:
    """Each drain clears the map of the epoch that it is about to open."""
    kernel = FakeKernel()
    drain = new_drain(kernel)
    for _ in range(3):
        drain_now(drain)
    assert kernel.cleared == [1, 2, 3]


@attrs.define
class SlowDrain:
    """Stands in for a drain that takes a set time."""

    takes_s: float
    starts: list[float] = attrs.Factory(list)
    finished: int = 0

    async def run(self, patience_until: float) -> None:
        """Take the time."""
        self.starts.append(trio.current_time())
        await trio.sleep(self.takes_s)
        self.finished += 1


@pytest.mark.parametrize(("takes_s", "starts"), [(0.25, [1, 2, 3, 4]), (2.5, [1, 3.5])])
def test_period(takes_s: float, starts: list[float]) -> None:
    """The schedule is kept while drains fit into it; a drain that does not fit is followed by the next at once."""
    drain = SlowDrain(takes_s)

    async def main() -> None:
        with trio.move_on_after(4.5):
            await poll_flows(drain, 1.0, 1.0)  # type: ignore[arg-type]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert drain.starts == starts
    assert drain.finished == len(starts)  # the last one was cancelled half way, and finished all the same
