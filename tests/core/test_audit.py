"""The audit of an epoch: each of the kernel's counters in its one place, under the name that people see."""

from __future__ import annotations

import pytest

from netwatch.core.audit import EpochCounters, account_epoch
from netwatch.core.layout import Counter
from netwatch.ledger import Amount, FlowAmount, Loss

HOOK = 2
DRAINED = FlowAmount(1, 2, 120)


@pytest.mark.parametrize("counter", [counter for counter in Counter if counter is not Counter.SEEN_ELSEWHERE])
def test_counter(counter: Counter) -> None:
    """Whatever one packet ended in, the epoch balances, and one place has it: 3 packets of 180 bytes."""
    amount = Amount(3, 180)
    counted = EpochCounters({HOOK: amount + DRAINED.amount}, {counter: amount}, {})
    epoch = account_epoch(counted, DRAINED)
    assert epoch.missing == Amount()
    assert epoch.seen == {HOOK: Amount(5, 300)}
    places = [epoch.duplicate, epoch.in_ring, *epoch.ignored.values(), *(lost.amount for lost in epoch.lost.values())]
    assert [place for place in places if place != Amount()] == [amount]


def test_names() -> None:
    """What is ignored has its reason, by the name of the Ethernet type; what is lost where and why."""
    one = Amount(1, 60)
    ends = {Counter.IGNORED_BAD_IP: one, Counter.LOST_MAP_FULL: one}
    epoch = account_epoch(EpochCounters({HOOK: Amount(4, 240)}, ends, {0x0806: one, 0x88CC: one}), FlowAmount())
    assert epoch.ignored == {"malformed IP header": one, "not IP: ARP (0x0806)": one, "not IP: LLDP (0x88cc)": one}
    assert epoch.lost == {Loss("kernel", "flow map full"): FlowAmount(0, 1, 60)}
