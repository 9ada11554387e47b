"""Reduce the events of one flow to one row of facts: sums, extremes, the latest, counts by reason.

Law: a reduction depends on what the events say and when they happened, never on when they arrived.
Neighbours: `core/segments.py` has the order, `core/enrichment.py` the rows; `core/join.py` calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netwatch.core.enrichment import DROPS, MAX_DROP_CAUSES, MAX_HOOKS, MORE_HOOKS, OTHER_CAUSES, RTT, TCP
from netwatch.core.layout import TcpHappening
from netwatch.core.rows import pick
from netwatch.core.segments import Segments, distinct_in, is_first_of, places_in, taken

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NS_PER_US = np.uint64(1_000)
_NEVER = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def reduce_drops(events: NDArray[np.void], segments: Segments) -> NDArray[np.void]:
    """Return DROPS of each group."""
    facts = np.zeros(len(segments), DROPS)
    facts["packets"] = segments.reduce(np.add, events["packets"])
    facts["bytes"] = segments.reduce(np.add, events["bytes"])
    latest, reasons = segments.lasts, events["reason"]
    facts["latest_cause"] = facts["cause"][:, 0] = reasons[latest]
    facts["latest_flags"], facts["latest_state"] = events["flags"][latest], events["tcp_state"][latest]
    facts["causes"], facts["cause_packets"][:, 0] = 1, facts["packets"]
    if len(segments) < len(events):
        is_mixed = segments.reduce(np.minimum, reasons) != segments.reduce(np.maximum, reasons)
        if is_mixed.any():
            _count_causes(events, segments, is_mixed, facts)
    return facts


def _count_causes(
    events: NDArray[np.void], segments: Segments, is_mixed: NDArray[np.bool_], facts: NDArray[np.void]
) -> None:
    """Fill in the causes of groups that have several, most packets first; what is beyond the last is summed there."""
    group = segments.numbers
    is_ours = is_mixed[group]
    rows, group = segments.order[is_ours], group[is_ours]
    reasons, packets = events["reason"][rows], events["packets"][rows]
    order = np.lexsort((reasons, group))
    group, reasons, packets = group[order], reasons[order], packets[order]
    starts = np.flatnonzero(is_first_of(group, reasons))
    group, reasons, packets = group[starts], reasons[starts], np.add.reduceat(packets, starts)
    # Descending, by the complement: unsigned numbers have no negative.
    order = np.lexsort((reasons, ~packets, group))
    group, reasons, packets = group[order], reasons[order], packets[order]
    place = places_in(group)
    counts = np.bincount(group, minlength=len(segments))
    is_over = counts[group] > MAX_DROP_CAUSES
    reasons = np.where(is_over & (place >= MAX_DROP_CAUSES - 1), OTHER_CAUSES, reasons)
    place = np.minimum(place, MAX_DROP_CAUSES - 1)
    mixed = np.flatnonzero(is_mixed)
    facts["cause_packets"][mixed] = 0
    facts["causes"][mixed] = np.minimum(counts[mixed], MAX_DROP_CAUSES)
    facts["cause"][group, place] = reasons
    np.add.at(facts["cause_packets"], (group, place), packets)


def reduce_rtt(events: NDArray[np.void], segments: Segments) -> NDArray[np.void]:
    """Return RTT of each group."""
    facts = np.zeros(len(segments), RTT)
    smoothed = events["smoothed_us"].astype(np.uint64) * _NS_PER_US
    minimum = events["minimum_us"].astype(np.uint64) * _NS_PER_US
    lowest = np.minimum(np.where(smoothed == 0, _NEVER, smoothed), np.where(minimum == 0, _NEVER, minimum))
    facts["smoothed_ns"] = smoothed[segments.lasts]
    facts["maximum_ns"] = segments.reduce(np.maximum, smoothed)
    least = segments.reduce(np.minimum, lowest)
    facts["minimum_ns"] = np.where(least == _NEVER, 0, least)
    facts["handshake_ns"] = taken(smoothed, segments.first_where(events["is_handshake"] != 0))
    return facts


def reduce_tcp(events: NDArray[np.void], segments: Segments) -> NDArray[np.void]:
    """Return TCP of each group."""
    facts = np.zeros(len(segments), TCP)
    happening = events["happening"]
    is_retransmission = happening == TcpHappening.RETRANSMITTED
    for name, column in (("retransmitted_packets", "packets"), ("retransmitted_bytes", "bytes")):
        facts[name] = segments.reduce(np.add, np.where(is_retransmission, events[column], 0).astype(np.uint64))
    for name, kind in (("resets_sent", TcpHappening.RESET_SENT), ("resets_received", TcpHappening.RESET_RECEIVED)):
        facts[name] = segments.reduce(np.add, (happening == kind).astype(np.uint32))
    is_change = happening == TcpHappening.CHANGED_STATE
    facts["state"] = taken(events["state"], segments.last_where(is_change))
    connected = segments.last_where(is_change & (events["connect_us"] != 0))
    facts["connect_ns"] = taken(events["connect_us"], connected).astype(np.uint64) * _NS_PER_US
    facts["connect_errno"] = taken(events["error"], segments.last_where(is_change & (events["error"] != 0)))
    return facts


def reduce_dns(events: NDArray[np.void], segments: Segments) -> NDArray[np.void]:
    """Return DNS of each group: the latest message, and how many there were. `events` are DNS_FACT."""
    facts = np.ascontiguousarray(pick(events, segments.lasts)["dns"])
    facts["messages"] = segments.reduce(np.add, events["dns"]["messages"])
    return facts


def reduce_hooks(events: NDArray[np.void], segments: Segments) -> NDArray[np.void]:
    """Return MORE_HOOKS of each group: each hook once, ascending, so many as a record lists."""
    facts = np.zeros(len(segments), MORE_HOOKS)
    group, place, hooks = distinct_in(segments.numbers, events["event"]["hook"][segments.order], MAX_HOOKS)
    facts["hooks"][group, place] = hooks
    facts["count"] = np.bincount(group, minlength=len(segments))
    return facts
