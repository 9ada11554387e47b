"""Decode the slots of the ring: events of each kind as columns.

Law: pure; every record goes to its kind or is counted as unknown. Short events are never walked one by one: only where
a long one stands does a step of Python happen.
Neighbours: `kernel/ring_reader.py` takes the slots, `consume.py` passes the events on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.layout import (
    DNS_EVENT,
    DROP_EVENT,
    EVENT,
    EVENT_BYTES,
    EVENT_HEAD_BYTES,
    EVENT_MAX_SLOTS,
    EVENT_SLOT_BYTES,
    FLOW_EVENT,
    HOOK_EVENT,
    OWNER_EVENT,
    RTT_EVENT,
    TCP_EVENT,
    EventKind,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

LENGTH_MASK = np.uint32((1 << 30) - 1)
_DISCARDED = np.uint32(1 << 30)  # BPF_RINGBUF_DISCARD_BIT

EVENT_TYPES: Mapping[EventKind, np.dtype[np.void]] = {
    EventKind.DROP: DROP_EVENT,
    EventKind.RTT: RTT_EVENT,
    EventKind.DNS: DNS_EVENT,
    EventKind.TCP: TCP_EVENT,
    EventKind.OWNER: OWNER_EVENT,
    EventKind.HOOK: HOOK_EVENT,
    EventKind.FLOW: FLOW_EVENT,
}

_WHOLE = np.dtype((np.void, EVENT_BYTES))
_MESSAGE_OFFSET = EVENT_HEAD_BYTES + DNS_EVENT.fields["message"][1]  # type: ignore[index]
MESSAGE_BYTES = EVENT_MAX_SLOTS * EVENT_SLOT_BYTES - _MESSAGE_OFFSET


@attrs.frozen(eq=False)
class DecodedEvents:
    """Events by kind, each kind (m,) of its dtype; DNS apart, with the bytes of each message (m, MESSAGE_BYTES)."""

    by_kind: Mapping[EventKind, NDArray[np.void]]
    dns_heads: NDArray[np.void]
    dns_messages: NDArray[np.uint8]
    unknown: int = 0


def starts_of_records(lengths: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Say in which slots (n,) a record begins, from the first words of all slots."""
    is_start = np.ones(len(lengths), np.bool_)
    end = 0  # of the last long record
    for begin in np.flatnonzero((lengths & LENGTH_MASK) > EVENT_BYTES).tolist():
        if begin >= end:
            end = begin + slots_of(int(lengths[begin]))
            is_start[begin + 1 : end] = False
    return is_start


def slots_of(length: int) -> int:
    """Return how many slots a record takes, from its first word."""
    return -(-((length & int(LENGTH_MASK)) + EVENT_HEAD_BYTES) // EVENT_SLOT_BYTES)


def decode(slots: NDArray[np.uint8]) -> DecodedEvents:
    """Decode whole records, given as consecutive slots (n, EVENT_SLOT_BYTES)."""
    if not len(slots):
        return DecodedEvents({}, np.empty(0, DNS_EVENT), np.empty((0, MESSAGE_BYTES), np.uint8))
    slots = np.ascontiguousarray(slots)
    lengths = slots.view("<u4")[:, 0]
    heads = np.ndarray((len(slots),), EVENT, slots, EVENT_HEAD_BYTES, (EVENT_SLOT_BYTES,))
    events = np.ndarray((len(slots),), _WHOLE, slots, EVENT_HEAD_BYTES, (EVENT_SLOT_BYTES,))
    is_record = starts_of_records(lengths)
    is_record &= lengths & _DISCARDED == 0
    is_short = is_record & (lengths & LENGTH_MASK == EVENT_BYTES)
    kinds = np.ascontiguousarray(heads["kind"])
    known = 0
    by_kind: dict[EventKind, NDArray[np.void]] = {}
    for kind, dtype in EVENT_TYPES.items():
        if kind is EventKind.DNS:
            continue
        # A number of the column's own type: with another numpy compares in 64 bits.
        rows = np.flatnonzero(is_short & (kinds == np.uint16(kind)))
        if len(rows):
            by_kind[kind] = events[rows].view(dtype)
            known += len(rows)
    dns_rows = np.flatnonzero(is_record & (kinds == np.uint16(EventKind.DNS)))
    sizes = (lengths[dns_rows] & LENGTH_MASK) + EVENT_HEAD_BYTES
    is_whole = sizes % EVENT_SLOT_BYTES == 0
    is_whole &= sizes <= np.minimum(EVENT_MAX_SLOTS, len(slots) - dns_rows) * EVENT_SLOT_BYTES
    dns_rows = dns_rows[is_whole]
    unknown = int(is_record.sum()) - known - len(dns_rows)
    return DecodedEvents(by_kind, events[dns_rows].view(DNS_EVENT), _messages(slots, dns_rows, lengths), unknown)


def cgroups_in(slots: NDArray[np.uint8]) -> list[int]:
    """Return the cgroups of the processes that are told of in these slots, each once, without decoding the rest."""
    if not len(slots):
        return []
    owners = np.ndarray((len(slots),), OWNER_EVENT, slots, EVENT_HEAD_BYTES, (EVENT_SLOT_BYTES,))
    # What a long record goes on in may look like one: then an id is asked for that nobody has.
    cgroups: list[int] = np.unique(owners["owner"]["cgroup_id"][owners["event"]["kind"] == EventKind.OWNER]).tolist()
    return cgroups


def _messages(slots: NDArray[np.uint8], rows: NDArray[np.intp], lengths: NDArray[np.uint32]) -> NDArray[np.uint8]:
    messages = np.zeros((len(rows), MESSAGE_BYTES), np.uint8)
    octets = slots.reshape(-1)
    for place, row in enumerate(rows.tolist()):
        begin = row * EVENT_SLOT_BYTES
        end = begin + min(slots_of(int(lengths[row])), EVENT_MAX_SLOTS) * EVENT_SLOT_BYTES
        message = octets[begin + _MESSAGE_OFFSET : end]
        messages[place, : len(message)] = message
    return messages
