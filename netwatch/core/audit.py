"""The audit of an epoch: the kernel's counters in the ledger's terms.

Law: every counter has exactly one place: seen, duplicate, ignored for a reason, or lost for a reason.
Neighbours: `kernel/counters.py` reads the counters, `poll.py` adds the result to the ledger, which checks the sum.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from netwatch.core.ethertypes import ethertype_name
from netwatch.core.layout import Counter
from netwatch.ledger import Amount, EpochCount, FlowAmount, Loss

_IGNORED = {
    Counter.IGNORED_NOT_SAMPLED: "not sampled",
    Counter.IGNORED_ETHERTYPE: "not IP: other types",
    Counter.IGNORED_TRUNCATED_LINK: "truncated link header",
    Counter.IGNORED_TRUNCATED_IP: "truncated IP header",
    Counter.IGNORED_BAD_IP: "malformed IP header",
    Counter.IGNORED_TRUNCATED_TRANSPORT: "truncated transport header",
    Counter.IGNORED_DEEP_HEADERS: "too many headers",
}
_LOST = {
    Counter.LOST_MAP_FULL: Loss("kernel", "flow map full"),
    Counter.LOST_INSERT_FAILED: Loss("kernel", "flow map insert failed"),
}
KERNEL_LOSSES = tuple(_LOST.values())


@attrs.frozen
class EpochCounters:
    """What was counted in one epoch; only what is not zero."""

    seen: Mapping[int, Amount]  # by hook
    ends: Mapping[Counter, Amount]
    ethertypes: Mapping[int, Amount]


def account_epoch(counted: EpochCounters, drained: FlowAmount) -> EpochCount:
    """Put the kernel's counters and the drained sum into the ledger's terms."""
    ends = counted.ends
    ignored = {reason: ends[counter] for counter, reason in _IGNORED.items() if counter in ends}
    ignored |= {f"not IP: {ethertype_name(kind)}": amount for kind, amount in counted.ethertypes.items()}
    lost = {
        loss: FlowAmount(0, ends[counter].packets, ends[counter].bytes)
        for counter, loss in _LOST.items()
        if counter in ends
    }
    handed_on = ends.get(Counter.IN_RING, Amount())
    return EpochCount(counted.seen, ends.get(Counter.DUPLICATE, Amount()), ignored, lost, drained, handed_on)
