"""The kernel ABI as numpy dtypes: what `bpf/netwatch.h` declares, field by field.

Law: a row here is a row there; `tests/test_layout.py` compiles the header and compares sizes and offsets.
Neighbours: `kernel/` fills arrays of these types, `core/` works on them, `exporters/` read them.
"""

from __future__ import annotations

import enum

import numpy as np

from netwatch.core.direction import Direction

HOOK_EGRESS = 0x8000_0000
MAX_OBSERVED = 6
FLOW_MAPS = 3
COUNTED_EPOCHS = 2
HOOK_SLOTS = 512

FLAG_SYN_ACK = 0x100
FLAG_FIN_ACK = 0x200
FLAG_RST_ACK = 0x400

FLOW_KEY = np.dtype(
    [
        ("src_addr", "u1", (16,)),
        ("dst_addr", "u1", (16,)),
        ("src_port", "<u2"),
        ("dst_port", "<u2"),
        ("protocol", "u1"),
        ("icmp_type", "u1"),
        ("icmp_code", "u1"),
        ("pad", "u1"),
    ]
)

FLOW_VALUE = np.dtype(
    [
        ("packets", "<u8"),
        ("bytes", "<u8"),
        ("last_ns", "<u8"),
        ("flags", "<u8"),
        ("home", "<u8"),
        # Three words of two hooks in C; on a little-endian machine that is six hooks in order.
        ("observed", "<u4", (MAX_OBSERVED,)),
        ("first_ns", "<u8"),
        ("sampling", "<u4"),
        ("eth_type", "<u2"),
        ("src_mac", "u1", (6,)),
        ("dst_mac", "u1", (6,)),
        ("dscp", "u1"),
        ("told", "u1"),
        ("rtt_us", "<u4"),
        ("pad", "u1", (8,)),
    ]
)

TALLY = np.dtype([("packets", "<u8"), ("bytes", "<u8")])

HOOK_TALLY = np.dtype([("tallies", TALLY, (COUNTED_EPOCHS,)), ("hook", "<u4"), ("pad", "<u4")])

FRAGMENT_KEY = np.dtype(
    [
        ("src_addr", "u1", (16,)),
        ("dst_addr", "u1", (16,)),
        ("id", "<u4"),
        ("protocol", "u1"),
        ("pad", "u1", (3,)),
    ]
)

FRAGMENT_VALUE = np.dtype(
    [
        ("seen_ns", "<u8"),
        ("src_port", "<u2"),
        ("dst_port", "<u2"),
        ("protocol", "u1"),
        ("icmp_type", "u1"),
        ("icmp_code", "u1"),
        ("pad", "u1"),
    ]
)

EVENT_SLOT_BYTES = 128
EVENT_HEAD_BYTES = 8
EVENT_BYTES = EVENT_SLOT_BYTES - EVENT_HEAD_BYTES
EVENT_MAX_SLOTS = 3

EVENT = np.dtype(
    [("time_ns", "<u8"), ("key", FLOW_KEY), ("hook", "<u4"), ("kind", "<u2"), ("size_bytes", "<u2")],
)

DROP_EVENT = np.dtype(
    [
        ("event", EVENT),
        ("first_ns", "<u8"),
        ("bytes", "<u8"),
        ("packets", "<u8"),
        ("reason", "<u4"),
        ("flags", "<u2"),
        ("eth_type", "<u2"),
        ("tcp_state", "u1"),
        ("dscp", "u1"),
        ("pad", "u1", (30,)),
    ]
)

RTT_EVENT = np.dtype(
    [
        ("event", EVENT),
        ("smoothed_us", "<u4"),
        ("minimum_us", "<u4"),
        ("is_handshake", "u1"),
        ("pad", "u1", (55,)),
    ]
)

DNS_EVENT = np.dtype(
    [("event", EVENT), ("message_bytes", "<u2"), ("pad", "u1", (6,)), ("message", "u1", (EVENT_BYTES - 64,))]
)

TCP_EVENT = np.dtype(
    [
        ("event", EVENT),
        ("bytes", "<u8"),
        ("packets", "<u4"),
        ("connect_us", "<u4"),
        ("error", "<u2"),
        ("happening", "u1"),
        ("state", "u1"),
        ("old_state", "u1"),
        ("pad", "u1", (43,)),
    ]
)

OWNER = np.dtype([("cgroup_id", "<u8"), ("pid", "<u4"), ("pad", "<u4"), ("command", "u1", (16,))])

OWNER_EVENT = np.dtype([("event", EVENT), ("owner", OWNER), ("end", "u1"), ("pad", "u1", (31,))])

HOOK_EVENT = np.dtype([("event", EVENT), ("pad", "u1", (64,))])

FLOW_EVENT = np.dtype(
    [
        ("event", EVENT),
        ("bytes", "<u8"),
        ("packets", "<u4"),
        ("sampling", "<u4"),
        ("flags", "<u2"),
        ("eth_type", "<u2"),
        ("src_mac", "u1", (6,)),
        ("dst_mac", "u1", (6,)),
        ("dscp", "u1"),
        ("pad", "u1", (31,)),
    ]
)


class Counter(enum.IntEnum):
    """Where a packet can end other than in a flow: `enum counter` in `bpf/netwatch.h`."""

    DUPLICATE = 0
    IGNORED_NOT_SAMPLED = 1
    IGNORED_ETHERTYPE = 2
    IGNORED_TRUNCATED_LINK = 3
    IGNORED_TRUNCATED_IP = 4
    IGNORED_BAD_IP = 5
    IGNORED_TRUNCATED_TRANSPORT = 6
    IGNORED_DEEP_HEADERS = 7
    LOST_MAP_FULL = 8
    LOST_INSERT_FAILED = 9
    IN_RING = 10
    SEEN_ELSEWHERE = 11


class EventKind(enum.IntEnum):
    """What an event tells: `enum event_kind` in `bpf/netwatch.h`."""

    DROP = 0
    RTT = 1
    DNS = 2
    TCP = 3
    OWNER = 4
    HOOK = 5
    FLOW = 6


class EventCounter(enum.IntEnum):
    """What is counted of each kind of event: `enum event_counter`."""

    MADE = 0
    LOST = 1
    THINNED = 2


class TcpHappening(enum.IntEnum):
    """What a TCP event says: `enum tcp_happening`."""

    RETRANSMITTED = 0
    CHANGED_STATE = 1
    RESET_SENT = 2
    RESET_RECEIVED = 3


class FlowEnd(enum.IntEnum):
    """Whose socket an owner event is about: `enum flow_end`."""

    SOURCE = 0
    DESTINATION = 1


def epoch_word(number: int) -> int:
    """Return the word that tells the programs which maps and counters belong to an epoch (EPOCH_* in the header)."""
    return number % FLOW_MAPS | (number - 1) % FLOW_MAPS << 2 | number % COUNTED_EPOCHS << 4 | number << 5


def hook_of(ifindex: int, direction: Direction) -> int:
    """Return the hook number of one direction of an interface."""
    return ifindex | (HOOK_EGRESS if direction is Direction.EGRESS else 0)


def ifindex_of(hook: int) -> int:
    """Return the interface index inside a hook number."""
    return hook & ~HOOK_EGRESS


def direction_of(hook: int) -> Direction:
    """Return the direction inside a hook number."""
    return Direction.EGRESS if hook & HOOK_EGRESS else Direction.INGRESS
