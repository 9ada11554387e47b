"""Packets that found the map full: each in a row of its flow's home, or a duplicate."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.event_facts import ties_of
from netwatch.core.key_hash import group_keys, words_of
from netwatch.core.layout import FLOW_EVENT, FLOW_KEY, FLOW_VALUE, HOOK_EGRESS, MAX_OBSERVED, EventKind
from netwatch.core.overflow import OverflowRows, rows_of_packets
from netwatch.core.segments import Segments

HOOKS = [2, 3, 4, 5, 6, 7, 8, 9, 2 | HOOK_EGRESS]


@attrs.frozen
class Packet:
    """One event, small enough to be shown; `number` makes its contents."""

    port: int
    time_ns: int
    hook: int = 2
    number: int = 1
    packets: int = 1
    bytes: int = 100


PACKETS = st.lists(
    st.builds(
        Packet,
        st.integers(1, 3),
        st.integers(1, 30),
        st.sampled_from(HOOKS),
        st.integers(1, 5),
        # A segmented frame is several packets; both together are beyond 32 bits.
        st.sampled_from([1, 2, 45, (1 << 32) - 1]),
        st.integers(60, 1 << 40),
    ),
    min_size=1,
    max_size=30,
)
HOMES = st.fixed_dictionaries({port: st.sampled_from([0, *HOOKS]) for port in (1, 2, 3)})


def made_of(packets: Sequence[Packet], homes: dict[int, int]) -> OverflowRows:
    """Return the rows, with what is known of each flow's home."""
    events = np.zeros(len(packets), FLOW_EVENT)
    for event, packet in zip(events, packets, strict=True):
        head = event["event"]
        head["time_ns"], head["hook"], head["kind"] = packet.time_ns, packet.hook, EventKind.FLOW
        head["key"]["src_port"] = packet.port
        event["packets"], event["bytes"], event["flags"] = packet.packets, packet.bytes, 1 << packet.number
        for name in ("sampling", "eth_type", "src_mac", "dst_mac", "dscp"):
            event[name] = packet.number
    groups = group_keys(words_of(np.ascontiguousarray(events["event"]["key"])))
    segments = Segments.of(groups.order, groups.of_row, *ties_of(events))
    ports = events["event"]["key"]["src_port"][segments.firsts].tolist()
    return rows_of_packets(events, segments, np.array([homes.get(port, 0) for port in ports], np.uint32))


@given(PACKETS, HOMES)
def test_every_packet_is_in_a_row_or_a_duplicate(packets: list[Packet], homes: dict[int, int]) -> None:
    """In packets and in bytes, exactly; no row is empty, and no flow has two."""
    rows = made_of(packets, homes)
    for name, duplicates in (("packets", rows.duplicate_packets), ("bytes", rows.duplicate_bytes)):
        assert sum(rows.values[name].tolist()) + duplicates == sum(getattr(packet, name) for packet in packets)
    assert (rows.values["packets"] > 0).all()
    ports = rows.keys["src_port"].tolist()
    assert len(set(ports)) == len(ports) == len(rows.values)


@given(PACKETS, HOMES)
def test_row_of_a_home(packets: list[Packet], homes: dict[int, int]) -> None:
    """A row has what was seen at its flow's home, known or that of its first packet, and notes the other hooks."""
    rows = made_of(packets, homes)
    seen = dict(zip(rows.keys["src_port"].tolist(), rows.values, strict=True))
    for port in {packet.port for packet in packets}:
        ours = [packet for packet in packets if packet.port == port]
        first_ns = min(packet.time_ns for packet in ours)
        candidates = [homes[port]] if homes[port] else [packet.hook for packet in ours if packet.time_ns == first_ns]
        if port not in seen:
            # Nothing was seen at its home: which then was known.
            assert homes[port]
            assert homes[port] not in [packet.hook for packet in ours]
            continue
        row = seen[port]
        assert row["home"] in candidates
        at_home = [packet for packet in ours if packet.hook == row["home"]]
        others = sorted({packet.hook for packet in ours} - {int(row["home"])})[:MAX_OBSERVED]
        assert row["packets"] == sum(packet.packets for packet in at_home)
        assert row["bytes"] == sum(packet.bytes for packet in at_home)
        assert row["first_ns"] == min(packet.time_ns for packet in at_home)
        assert row["last_ns"] == max(packet.time_ns for packet in at_home)
        assert row["flags"] == sum({1 << packet.number for packet in at_home})
        assert row["observed"].tolist() == others + [0] * (MAX_OBSERVED - len(others))
        of_first = {packet.number for packet in at_home if packet.time_ns == row["first_ns"]}
        assert int(row["sampling"]) in of_first
        for name in ("eth_type", "dscp", "src_mac", "dst_mac"):
            assert (row[name] == row["sampling"]).all()


@given(PACKETS, HOMES, st.randoms(use_true_random=False))
def test_order_of_arrival_never_matters(packets: list[Packet], homes: dict[int, int], random) -> None:  # type: ignore[no-untyped-def]
    """The same packets in another order are the same rows, also those of equal times."""
    shuffled = packets.copy()
    random.shuffle(shuffled)
    shown = []
    for rows in (made_of(packets, homes), made_of(shuffled, homes)):
        by_port = sorted(zip(rows.keys["src_port"].tolist(), map(bytes, rows.values), strict=True))
        shown.append((by_port, rows.duplicate_packets, rows.duplicate_bytes))
    assert shown[0] == shown[1]


def test_known_home_without_packets() -> None:
    """Packets of a flow at other hooks than its known home are duplicates, and make no row."""
    rows = made_of([Packet(1, 5, hook=3), Packet(1, 6, hook=4, packets=2), Packet(2, 7)], {1: 2})
    assert rows.keys["src_port"].tolist() == [2]
    assert (rows.duplicate_packets, rows.duplicate_bytes) == (3, 200)


def test_more_hooks_than_a_row_has_room_for() -> None:
    """The lowest are noted; the packets of the others are duplicates as well."""
    rows = made_of([Packet(1, time_ns, hook=hook) for time_ns, hook in enumerate([5, 9, 8, 7, 6, 4, 3, 2], 1)], {})
    assert rows.values["home"].tolist() == [5]
    assert rows.values["observed"].tolist() == [[2, 3, 4, 6, 7, 8]]
    assert (rows.values["packets"].tolist(), rows.duplicate_packets) == ([1], 7)


def test_bytes_to_the_last_bit() -> None:
    """Sums are those of whole numbers, however large."""
    size = (1 << 60) + 1
    rows = made_of([Packet(1, 5, bytes=size), Packet(1, 6, bytes=2), Packet(1, 7, hook=3, bytes=size)], {})
    assert (rows.values["bytes"].tolist(), rows.duplicate_bytes) == ([size + 2], size)


def test_none() -> None:
    """No packets are no rows and no duplicates."""
    rows = OverflowRows.none()
    assert (rows.keys.dtype, rows.values.dtype) == (FLOW_KEY, FLOW_VALUE)
    assert (len(rows.keys), len(rows.values), rows.duplicate_packets, rows.duplicate_bytes) == (0, 0, 0, 0)
