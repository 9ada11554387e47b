"""What events told of the flows of a batch, as columns.

Law: columns only; each kind of fact has its own, for the rows that have one, so a flow without facts costs nothing.
Neighbours: `core/join.py` makes it, `core/batch.py` carries it; `core/fact_columns.py` and the pbflow encoder show it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.layout import OWNER
from netwatch.core.rows import joined, pick

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The kernel has a hundred reasons, a flow meets one or two. What is beyond the sixth is summed under OTHER_CAUSES.
MAX_DROP_CAUSES = 6
OTHER_CAUSES = 0xFFFF_FFFF
MAX_HOOKS = 64  # that a record lists, its home included


class RecordKind(enum.IntEnum):
    """What a record is."""

    FLOW = 0
    CONTINUATION = 1  # facts about a flow whose row had been exported already: no packets, no bytes
    DROP_ONLY = 2  # packets that were dropped before any hook saw them


KIND_WORDS = MappingProxyType(
    {RecordKind.FLOW: "", RecordKind.CONTINUATION: "continuation", RecordKind.DROP_ONLY: "drop-only"}
)

DROPS = np.dtype(
    [
        ("packets", "<u8"),
        ("bytes", "<u8"),
        ("latest_cause", "<u4"),
        ("latest_flags", "<u2"),
        ("latest_state", "u1"),  # TCP_* of the kernel; 0: no socket
        ("causes", "u1"),  # how many of the following are filled, most packets first
        ("cause", "<u4", (MAX_DROP_CAUSES,)),
        ("cause_packets", "<u8", (MAX_DROP_CAUSES,)),
    ]
)

RTT = np.dtype([("smoothed_ns", "<u8"), ("minimum_ns", "<u8"), ("maximum_ns", "<u8"), ("handshake_ns", "<u8")])
"""0: not known."""

MAX_DNS_NAME_BYTES = 255

DNS = np.dtype(
    [
        ("latency_ns", "<u8"),  # of the answer; 0 for a question
        ("messages", "<u4"),  # how many questions and answers this row is the latest of
        ("id", "<u2"),
        ("flags", "<u2"),  # the second word of the header; its low four bits are the response code
        ("question_type", "<u2"),
        ("errno", "<u2"),  # ETIMEDOUT (110): nobody answered
        ("name_bytes", "u1"),
        ("name", "u1", (MAX_DNS_NAME_BYTES,)),  # RFC 1035 3.1: length and label, in turn; without the root's zero
    ]
)

TCP = np.dtype(
    [
        ("retransmitted_packets", "<u8"),
        ("retransmitted_bytes", "<u8"),
        ("connect_ns", "<u8"),  # until established, or until it failed; 0: not known
        ("resets_sent", "<u4"),
        ("resets_received", "<u4"),
        ("connect_errno", "<u2"),  # 0: did not fail
        ("state", "u1"),  # the latest; 0: no change was seen
        ("pad", "u1", (5,)),
    ]
)

TRANSLATION = np.dtype(
    [("src_addr", "u1", (16,)), ("dst_addr", "u1", (16,)), ("src_port", "<u2"), ("dst_port", "<u2"), ("zone", "<u2")]
)
"""Addresses and ports after NAT; IPv4 as ::ffff:a.b.c.d."""

MORE_HOOKS = np.dtype([("count", "<u4"), ("hooks", "<u4", (MAX_HOOKS,))])
"""Hooks beyond those in the row, in ascending order."""


@attrs.frozen(eq=False)
class Facts:
    """A kind of fact: `values` (m,) of its dtype, for the rows (m,) of the batch, ascending, none twice."""

    rows: NDArray[np.intp]
    values: NDArray[np.void]

    @classmethod
    def none(cls, dtype: np.dtype[np.void]) -> Facts:
        """Return facts about nothing."""
        return cls(np.empty(0, np.intp), np.empty(0, dtype))

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, rows: NDArray[np.intp]) -> Facts:
        """Return the facts about some rows (k,), in any order, as facts about 0 to k - 1."""
        if not len(self):
            return self
        places = self.rows.searchsorted(rows)
        places[places == len(self)] = 0  # behind the last one: any place does, because its row is another
        is_told = self.rows[places] == rows
        return Facts(np.flatnonzero(is_told), pick(self.values, places[is_told]))

    def completed_by(self, others: Facts) -> Facts:
        """Return these, and those of the others that are about rows which have none here."""
        is_new = ~np.isin(others.rows, self.rows)
        rows = np.concatenate((self.rows, others.rows[is_new]))
        order = rows.argsort()
        return Facts(rows[order], pick(joined((self.values, pick(others.values, is_new))), order))


RECORD_KIND = np.dtype([("kind", "u1")])


def _read_only(names: Mapping[int, str]) -> Mapping[int, str]:
    return MappingProxyType(dict(names))


@attrs.frozen(eq=False, kw_only=True)
class Enrichment:
    """All facts about a batch. `kinds` has the rows that are no ordinary flow."""

    drops: Facts = attrs.field(factory=lambda: Facts.none(DROPS))
    rtt: Facts = attrs.field(factory=lambda: Facts.none(RTT))
    dns: Facts = attrs.field(factory=lambda: Facts.none(DNS))
    tcp: Facts = attrs.field(factory=lambda: Facts.none(TCP))
    source: Facts = attrs.field(factory=lambda: Facts.none(OWNER))
    destination: Facts = attrs.field(factory=lambda: Facts.none(OWNER))
    translation: Facts = attrs.field(factory=lambda: Facts.none(TRANSLATION))
    hooks: Facts = attrs.field(factory=lambda: Facts.none(MORE_HOOKS))
    kinds: Facts = attrs.field(factory=lambda: Facts.none(RECORD_KIND))

    def facts(self) -> tuple[Facts, ...]:
        """Return each kind of fact, in the order of the fields."""
        return (
            *(self.drops, self.rtt, self.dns, self.tcp, self.source, self.destination),
            *(self.translation, self.hooks, self.kinds),
        )

    @property
    def size_bytes(self) -> int:
        """Memory that the columns hold, in bytes."""
        return sum(facts.rows.nbytes + facts.values.nbytes for facts in self.facts())

    def __bool__(self) -> bool:
        return any(map(len, self.facts()))


NOTHING = Enrichment()


@attrs.frozen
class Names:
    """Text for the numbers in facts: drop reasons of the running kernel, containers by cgroup."""

    drop_reasons: Mapping[int, str] = attrs.field(converter=_read_only, factory=dict)
    containers: Mapping[int, str] = attrs.field(converter=_read_only, factory=dict)

    def drop_reason(self, cause: int) -> str:
        """Return a reason's name; its number in words where no name is known."""
        if cause == OTHER_CAUSES:
            return "OTHER"
        return self.drop_reasons.get(cause) or f"REASON_{cause}"


NO_NAMES = Names()
