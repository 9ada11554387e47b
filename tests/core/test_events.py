"""Slots of the ring as events: each record in its place, whatever stands beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netwatch.core.events import EVENT_TYPES, MESSAGE_BYTES, cgroups_in, decode
from netwatch.core.events import slots_of as slots_taken
from netwatch.core.layout import EVENT_BYTES, EVENT_HEAD_BYTES, EVENT_SLOT_BYTES, OWNER_EVENT, EventKind
from netwatch.kernel.ring_reader import complete_slots

BUSY, DISCARDED = 1 << 31, 1 << 30


def record(kind: int, number: int, slots: int = 1, flags: int = 0, filling: int = 0) -> bytes:
    """Return a record as it lies in the ring; what a longer one goes on in looks like anything."""
    size = slots * EVENT_SLOT_BYTES - EVENT_HEAD_BYTES
    event = np.zeros(1, OWNER_EVENT)
    event["event"]["time_ns"], event["event"]["kind"], event["event"]["size_bytes"] = number, kind, size
    head = (size | flags).to_bytes(4, "little") + bytes(4)
    more = bytes([filling]) * (EVENT_SLOT_BYTES * (slots - 1))
    return head + event.tobytes() + more


def slots_of(records: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(records), np.uint8).reshape(-1, EVENT_SLOT_BYTES)


SHORT = [kind for kind in EventKind if kind is not EventKind.DNS]
RECORDS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(SHORT), st.just(1), st.booleans(), st.just(0)),
        st.tuples(st.just(EventKind.DNS), st.integers(1, 3), st.booleans(), st.sampled_from([0, 0x78, 0xFF])),
        st.tuples(st.just(99), st.just(1), st.booleans(), st.just(0)),
    ),
    max_size=12,
)


@given(RECORDS)
@settings(max_examples=300)
def test_each_record_is_in_one_place(drawn: list[tuple[int, int, bool, int]]) -> None:
    """In order within its kind, discarded ones nowhere, and what is no event counted."""
    records = [
        record(kind, number, slots, DISCARDED if is_discarded else 0, filling)
        for number, (kind, slots, is_discarded, filling) in enumerate(drawn)
    ]
    decoded = decode(slots_of(records))
    kept = [(kind, number) for number, (kind, _, is_discarded, _) in enumerate(drawn) if not is_discarded]
    for kind in SHORT:
        found = decoded.by_kind.get(kind, np.empty(0, EVENT_TYPES[kind]))
        assert found["event"]["time_ns"].tolist() == [number for other, number in kept if other == kind]
    assert decoded.dns_heads["event"]["time_ns"].tolist() == [n for kind, n in kept if kind == EventKind.DNS]
    assert decoded.unknown == sum(kind == 99 for kind, _ in kept)


def test_long_message() -> None:
    """The bytes of a message come whole, through all of its slots, and zeros behind them."""
    for slots in (1, 2, 3):
        decoded = decode(slots_of([record(EventKind.DNS, 1, slots, filling=7), record(EventKind.DROP, 2)]))
        (message,) = decoded.dns_messages
        assert (len(message), message.dtype) == (MESSAGE_BYTES, np.uint8)
        assert (message == 7).sum() == EVENT_SLOT_BYTES * (slots - 1)
        assert decoded.by_kind[EventKind.DROP]["event"]["time_ns"].tolist() == [2]


def with_length(kind: EventKind, length: int, slots: int) -> bytes:
    """Return a record that says it is as long as that, in so many slots."""
    return length.to_bytes(4, "little") + record(kind, 1, slots)[4:]


@pytest.mark.parametrize(
    ("length", "slots"),
    [
        pytest.param(2 * EVENT_SLOT_BYTES - EVENT_HEAD_BYTES - 8, 2, id="not whole slots"),
        pytest.param(4 * EVENT_SLOT_BYTES - EVENT_HEAD_BYTES, 4, id="more slots than an event has"),
        pytest.param(3 * EVENT_SLOT_BYTES - EVENT_HEAD_BYTES, 2, id="more slots than there are"),
    ],
)
def test_long_record_that_no_program_makes(length: int, slots: int) -> None:
    """It is counted as unknown, and the events before it stand."""
    decoded = decode(slots_of([record(EventKind.DROP, 7), with_length(EventKind.DNS, length, slots)]))
    assert decoded.by_kind[EventKind.DROP]["event"]["time_ns"].tolist() == [7]
    assert (len(decoded.dns_heads), len(decoded.dns_messages), decoded.unknown) == (0, 0, 1)


@pytest.mark.parametrize(("length", "slots"), [(0, 1), (120, 1), (121, 2), (248, 2), (249, 3), (120 | DISCARDED, 1)])
def test_slots_of_a_record(length: int, slots: int) -> None:
    """With the eight bytes that the kernel puts before it, a record takes whole slots; flags are no length."""
    assert slots_taken(length) == slots


def test_no_slots() -> None:
    """An empty ring gives columns of the right kind without rows."""
    decoded = decode(np.empty((0, EVENT_SLOT_BYTES), np.uint8))
    assert (decoded.by_kind, len(decoded.dns_heads), decoded.unknown) == ({}, 0, 0)
    assert decoded.dns_heads.dtype == EVENT_TYPES[EventKind.DNS]
    assert (decoded.dns_messages.shape, decoded.dns_messages.dtype) == ((0, MESSAGE_BYTES), np.uint8)


@given(st.binary(max_size=20 * EVENT_SLOT_BYTES))
@settings(max_examples=200)
def test_garbage(content: bytes) -> None:
    """Whatever the ring holds, nothing is raised, and no more comes out than went in."""
    slots = slots_of([content[: len(content) // EVENT_SLOT_BYTES * EVENT_SLOT_BYTES]])
    decoded = decode(slots)
    assert sum(map(len, decoded.by_kind.values())) + len(decoded.dns_heads) + decoded.unknown <= len(slots)
    cgroups_in(slots)
    last, end = complete_slots(slots.view("<u4")[:, 0].copy())
    assert 0 <= last <= end <= len(slots)


def test_cgroups() -> None:
    """Those of the processes are told, each once, without the rest being looked at."""
    event = np.frombuffer(record(EventKind.OWNER, 1), np.uint8).copy()
    event[EVENT_HEAD_BYTES:].view(OWNER_EVENT)["owner"]["cgroup_id"] = 77
    drop = record(EventKind.DROP, 2)
    assert cgroups_in(slots_of([event.tobytes(), drop, event.tobytes()])) == [77]
    assert cgroups_in(slots_of([drop, drop, event.tobytes()])) == [77]


@pytest.mark.parametrize("busy_at", range(5))
def test_record_that_is_being_written(busy_at: int) -> None:
    """It ends what can be taken, wherever it stands, also behind long ones."""
    kinds = [(EventKind.DROP, 1), (EventKind.DNS, 3), (EventKind.DROP, 1), (EventKind.DNS, 2), (EventKind.DROP, 1)]
    records = [
        record(kind, n, slots, BUSY if n == busy_at else 0, filling=0xFF) for n, (kind, slots) in enumerate(kinds)
    ]
    lengths = slots_of(records).view("<u4")[:, 0].copy()
    sizes = [slots for _, slots in kinds[:busy_at]]
    assert complete_slots(lengths) == (sum(sizes[:-1]), sum(sizes))


@pytest.mark.parametrize("seen", range(1, 8))
def test_record_that_is_cut(seen: int) -> None:
    """A record of several slots is taken whole, or not yet."""
    records = [
        record(EventKind.DROP, 0),
        record(EventKind.DNS, 1, 3, filling=9),
        record(EventKind.DNS, 2, 3, filling=9),
    ]
    lengths = slots_of(records).view("<u4")[:seen, 0].copy()
    assert (
        complete_slots(lengths) == {1: (0, 1), 2: (0, 1), 3: (0, 1), 4: (1, 4), 5: (1, 4), 6: (1, 4), 7: (4, 7)}[seen]
    )
    assert EVENT_BYTES == EVENT_SLOT_BYTES - EVENT_HEAD_BYTES
