"""Events of one flow as one row of facts, against the same sums done one by one."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from netwatch.core.enrichment import MAX_DROP_CAUSES, MAX_HOOKS, OTHER_CAUSES
from netwatch.core.layout import DROP_EVENT, HOOK_EVENT, RTT_EVENT, TCP_EVENT, TcpHappening
from netwatch.core.reduce import reduce_drops, reduce_hooks, reduce_rtt, reduce_tcp
from netwatch.core.segments import Segments

GROUPS = st.integers(0, 3)


def segments(groups: list[int]) -> Segments:
    """Return the segments of rows whose times are their numbers."""
    of_row = np.array(groups, np.intp)
    return Segments.of(of_row.argsort(kind="stable"), of_row, np.arange(len(groups)))


@given(st.lists(st.tuples(GROUPS, st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=40))
@settings(max_examples=300)
def test_drops(told: list[tuple[int, int, int]]) -> None:
    """Packets and bytes are sums, the latest is the last, and reasons stand by their packets; the rest is one."""
    events = np.zeros(len(told), DROP_EVENT)
    events["packets"] = [packets for _, packets, _ in told]
    events["bytes"] = events["packets"] * 100
    events["reason"] = [reason for _, _, reason in told]
    found = segments([group for group, _, _ in told])
    facts = reduce_drops(events, found)
    for group, row in zip(found.groups.tolist(), facts, strict=True):
        ours = [(packets, reason) for other, packets, reason in told if other == group]
        counts: Counter[int] = Counter()
        for packets, reason in ours:
            counts[reason] += packets
        assert (row["packets"], row["bytes"]) == (counts.total(), counts.total() * 100)
        assert row["latest_cause"] == ours[-1][1]
        expected = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if len(expected) > MAX_DROP_CAUSES:
            rest = sum(packets for _, packets in expected[MAX_DROP_CAUSES - 1 :])
            expected = [*expected[: MAX_DROP_CAUSES - 1], (OTHER_CAUSES, rest)]
        shown = zip(row["cause"].tolist(), row["cause_packets"].tolist(), strict=True)
        assert [*shown][: row["causes"]] == expected


@given(st.lists(st.tuples(GROUPS, st.integers(0, 9), st.integers(0, 9), st.booleans()), min_size=1, max_size=30))
@settings(max_examples=200)
def test_round_trip_times(told: list[tuple[int, int, int, bool]]) -> None:
    """Smoothed is the last, least and most are of all that are known, the handshake's is the first of its kind."""
    events = np.zeros(len(told), RTT_EVENT)
    for name, column in zip(
        ("smoothed_us", "minimum_us", "is_handshake"), list(zip(*told, strict=True))[1:], strict=True
    ):
        events[name] = column
    found = segments([one[0] for one in told])
    for group, row in zip(found.groups.tolist(), reduce_rtt(events, found), strict=True):
        ours = [one[1:] for one in told if one[0] == group]
        known = [us for smoothed, minimum, _ in ours for us in (smoothed, minimum) if us]
        handshakes = [smoothed for smoothed, _, is_handshake in ours if is_handshake]
        assert row["smoothed_ns"] == ours[-1][0] * 1000
        assert row["maximum_ns"] == max(smoothed for smoothed, _, _ in ours) * 1000
        assert row["minimum_ns"] == min(known, default=0) * 1000
        assert row["handshake_ns"] == (handshakes or [0])[0] * 1000


@given(st.lists(st.tuples(GROUPS, st.sampled_from(TcpHappening), st.integers(0, 9)), min_size=1, max_size=30))
@settings(max_examples=200)
def test_connections(told: list[tuple[int, TcpHappening, int]]) -> None:
    """Retransmissions and resets are counted, the state is that of the last change, and a failure is not forgotten."""
    events = np.zeros(len(told), TCP_EVENT)
    events["happening"] = [happening for _, happening, _ in told]
    for name in ("packets", "state", "error", "connect_us"):
        events[name] = [number for _, _, number in told]
    events["bytes"] = events["packets"].astype(np.uint64) * 60
    found = segments([group for group, _, _ in told])
    for group, row in zip(found.groups.tolist(), reduce_tcp(events, found), strict=True):
        ours = [(happening, number) for other, happening, number in told if other == group]
        sent = sum(number for happening, number in ours if happening is TcpHappening.RETRANSMITTED)
        changes = [number for happening, number in ours if happening is TcpHappening.CHANGED_STATE]
        assert (row["retransmitted_packets"], row["retransmitted_bytes"]) == (sent, sent * 60)
        assert row["resets_sent"] == sum(happening is TcpHappening.RESET_SENT for happening, _ in ours)
        assert row["resets_received"] == sum(happening is TcpHappening.RESET_RECEIVED for happening, _ in ours)
        assert row["state"] == (changes or [0])[-1]
        assert row["connect_errno"] == ([number for number in changes if number] or [0])[-1]
        assert row["connect_ns"] == ([number for number in changes if number] or [0])[-1] * 1000


@given(st.lists(st.tuples(GROUPS, st.integers(1, 100)), min_size=1, max_size=200))
@settings(max_examples=100)
def test_hooks(told: list[tuple[int, int]]) -> None:
    """Each hook stands once, ascending, and no more than a record lists."""
    events = np.zeros(len(told), HOOK_EVENT)
    events["event"]["hook"] = [hook for _, hook in told]
    found = segments([group for group, _ in told])
    for group, row in zip(found.groups.tolist(), reduce_hooks(events, found), strict=True):
        expected = sorted({hook for other, hook in told if other == group})[:MAX_HOOKS]
        assert row["hooks"][: row["count"]].tolist() == expected


def test_retransmitted_bytes_to_the_last_bit() -> None:
    """Sums are those of whole numbers, however large."""
    events = np.zeros(2, TCP_EVENT)
    events["happening"], events["bytes"] = TcpHappening.RETRANSMITTED, [1 << 60, 1]
    assert reduce_tcp(events, segments([0, 0]))["retransmitted_bytes"].tolist() == [(1 << 60) + 1]
