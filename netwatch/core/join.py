"""Join drained flows with enrichment events, in bounded memory.

Law: reads no clock, does no I/O, never awaits. Times decide, never the order of arrival. Of each kind, exactly:
`taken = joined + continued + drop-only + unclaimed + not sampled + evicted + held`.
In: events from `consume.py`, rows of a closed epoch from `poll.py`. Out: the facts about those rows, and records of
their own for what found no row.

*What finds no row* waits for the flow's next one until the next drain. Then it leaves: as a continuation where the flow
was exported recently; as a drop-only record where no hook saw the flow and a packet of it was dropped at an interface
that is watched; else it is unclaimed: it is about traffic that nobody asked for, such as that of other interfaces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.enrichment import NOTHING, RECORD_KIND, Enrichment, Facts, RecordKind
from netwatch.core.event_facts import facts_of, head_of, ties_of
from netwatch.core.key_hash import KEY_WORDS, group_keys, hash_words, words_of
from netwatch.core.layout import FLOW_KEY, FLOW_VALUE, HOOK_EGRESS, EventKind
from netwatch.core.overflow import OverflowRows, rows_of_packets
from netwatch.core.recent import RecentFlows, Remembered
from netwatch.core.rows import copied, moved_together, pick
from netwatch.core.segments import Segments
from netwatch.event_ledger import EventEnds
from netwatch.ledger import FlowAmount

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Without another fact these say nothing of a flow that has gone.
_SAY_NOTHING_ALONE = (EventKind.OWNER, EventKind.HOOK, EventKind.FLOW)
_HOME_SILENCE_NS = 1_000_000_000  # HOME_SILENCE_NS of bpf/account.bpf.h: a flow whose home is silent has moved
_KEY_OFFSET = 8  # behind the time, in an event of the ring and in DNS_FACT

Record = tuple["NDArray[np.void]", "NDArray[np.void]", Enrichment]
"""Keys (n,) of FLOW_KEY, values (n,) of FLOW_VALUE, and the facts about them."""
_NO_RECORDS: Record = (np.empty(0, FLOW_KEY), np.empty(0, FLOW_VALUE), NOTHING)


@attrs.define(eq=False)
class JoinStore:
    """Events that wait for their flows, and flows that have been exported."""

    max_pending_events: int
    max_recent_flows: int
    is_packet_sampled: bool = False
    overflow_grace_ns: int = 0
    """How long before the closing time a packet that found the map full must have come to leave with the epoch: so
    that what was told of it right afterwards was told before that time."""
    recent: RecentFlows = attrs.field(init=False)
    lost: FlowAmount = attrs.field(factory=FlowAmount, init=False)
    """Packets among what was evicted, since the last drain."""
    _ends: dict[EventKind, EventEnds] = attrs.field(init=False)
    _pending: deque[tuple[EventKind, NDArray[np.void]]] = attrs.field(factory=deque, init=False)
    _held: int = attrs.field(default=0, init=False)
    _closed_ns: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing."""
        self.recent = RecentFlows(self.max_recent_flows)
        self._ends = {kind: EventEnds() for kind in EventKind}

    def add(self, kind: EventKind, events: NDArray[np.void]) -> None:
        """Take events (n,) of a kind's dtype, which become the store's own; past the limit the oldest are evicted."""
        if not len(events):
            return
        self.count(kind, taken=len(events))
        self.hold(kind, events)

    def ends(self, kind: EventKind) -> EventEnds:
        """Return where the events of a kind ended so far."""
        return self._ends[kind]

    def close(self, closed_ns: int, watched: Collection[int], *, final: bool = False) -> Joining:
        """Begin the join of an epoch that closed at a time; with `final` everything that is held belongs to it.

        `watched` are the indices of the interfaces that are watched.
        """
        eligible: dict[EventKind, NDArray[np.void]] = {}
        for kind, several in self._take_due(closed_ns, final=final).items():
            events = moved_together(several)
            if len(events):
                eligible[kind] = events
                # They are held until `finish` says where they ended; room for others is there at once.
                self._held -= len(events)
        before_ns = None if final else self._closed_ns
        joining = Joining(self, eligible, np.fromiter(watched, np.uint32), before_ns, self.lost)
        self._closed_ns, self.lost = closed_ns, FlowAmount()
        return joining

    def _take_due(self, closed_ns: int, *, final: bool) -> dict[EventKind, list[NDArray[np.void]]]:
        """Take what belongs to an epoch that closed at a time, in the parts in which it came."""
        parts: dict[EventKind, list[NDArray[np.void]]] = {}
        arrived, self._pending = self._pending, deque()
        for kind, events in arrived:
            due_ns = closed_ns - self.overflow_grace_ns if kind is EventKind.FLOW else closed_ns
            is_due = head_of(events)["time_ns"] <= due_ns
            if final or is_due.all():
                parts.setdefault(kind, []).append(events)
            else:
                parts.setdefault(kind, []).append(pick(events, is_due))
                self._pending.append((kind, pick(events, ~is_due)))
        return parts

    def hold(self, kind: EventKind, events: NDArray[np.void], *, is_old: bool = False) -> None:
        """Let events wait, as the newest to arrive or as the oldest."""
        (self._pending.appendleft if is_old else self._pending.append)((kind, events))
        self._held += len(events)
        self.count(kind, held=len(events))
        while self._held > self.max_pending_events:
            self._evict(self._held - self.max_pending_events)

    def _evict(self, count: int) -> None:
        kind, events = self._pending.popleft()
        gone = events[:count]
        if len(gone) < len(events):
            # A copy, because a view would keep all of it.
            self._pending.appendleft((kind, copied(events[count:])))
        self._held -= len(gone)
        self.count(kind, evicted=len(gone), held=-len(gone))
        if kind is EventKind.FLOW:
            self.lost += FlowAmount(0, int(gone["packets"].sum(dtype=np.uint64)), int(gone["bytes"].sum()))

    def count(self, kind: EventKind, **more: int) -> None:
        """Add to where events of a kind ended."""
        ends = self._ends[kind]
        self._ends[kind] = attrs.evolve(ends, **{name: getattr(ends, name) + count for name, count in more.items()})


class Joining:
    """The join of one closed epoch: `join` for each chunk of its rows, then `overflow_rows`, then `finish`."""

    def __init__(
        self,
        store: JoinStore,
        events: dict[EventKind, NDArray[np.void]],
        watched: NDArray[np.uint32],
        before_ns: int | None,
        lost: FlowAmount,
    ) -> None:
        self._store, self._watched, self._before_ns = store, watched, before_ns
        self.lost = lost
        self._events = events
        words = [_key_words(events[kind]) for kind in events]
        self._groups = group_keys(np.concatenate(words) if words else np.empty((0, KEY_WORDS), np.uint64))
        self._segments = self._segment()
        self._facts = facts_of(events, self._segments, self._groups.count)
        self._is_joined = np.zeros(self._groups.count, np.bool_)
        self._overflow = self._make_overflow()

    @property
    def duplicate_packets(self) -> int:
        """Packets that found the map full, seen at another hook than their flow's home."""
        return self._overflow.duplicate_packets

    @property
    def duplicate_bytes(self) -> int:
        """Their bytes."""
        return self._overflow.duplicate_bytes

    def overflow_rows(self) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Return the rows of flows that found the map full: to be joined as a chunk of their own."""
        return self._overflow.keys, self._overflow.values

    def join(self, keys: NDArray[np.void], values: NDArray[np.void]) -> Enrichment:
        """Return the facts about rows (n,) of the closed epoch, which are remembered as exported."""
        enrichment = NOTHING
        if self._groups.count and len(keys):
            words = words_of(keys)
            group_of_row = self._groups.index.find(words, hash_words(words))
            # Once: a flow may have a row in the map and another of packets that found it full.
            rows = np.flatnonzero((group_of_row >= 0) & ~self._is_joined[group_of_row])
            if len(rows):
                groups = group_of_row[rows]
                self._is_joined[groups] = True
                enrichment = self._facts.about(groups, rows, values)
        self._store.recent.remember(keys, values, enrichment.source, enrichment.destination)
        return enrichment

    def finish(self) -> Record:
        """Count what was joined, keep what may still find its row, and return records of the rest."""
        for kind, segments in self._segments.items():
            self._count(kind, segments, self._is_joined, "joined")
            if kind is not EventKind.FLOW:
                self._store.count(kind, held=-len(self._events[kind]))
        if self._is_joined.all():
            return _NO_RECORDS
        is_leaving = ~self._is_joined & self._is_due()
        self._keep(~self._is_joined & ~is_leaving)
        groups = np.flatnonzero(is_leaving)
        index = self._groups.index
        remembered = self._store.recent.find(index.words[groups], index.hashes[groups])
        is_recent = np.zeros(self._groups.count, np.bool_)
        is_recent[groups[remembered.rows]] = True
        says_something = np.zeros(self._groups.count, np.bool_)
        for kind, segments in self._segments.items():
            if kind not in _SAY_NOTHING_ALONE:
                says_something[segments.groups] = True
        is_dropped = self._is_dropped()
        is_continued = is_recent & says_something
        is_drop_only = is_leaving & ~is_recent & is_dropped & (not self._store.is_packet_sampled)
        for kind, segments in self._segments.items():
            self._count(kind, segments, is_continued, "continued")
            self._count(kind, segments, is_drop_only, "drop_only")
            rest = is_leaving & ~is_continued & ~is_drop_only
            not_sampled = rest & ~is_recent & self._store.is_packet_sampled
            self._count(kind, segments, not_sampled, "not_sampled")
            self._count(kind, segments, rest & ~not_sampled, "unclaimed")
        return self._records(is_continued, is_drop_only, groups, remembered)

    def _segment(self) -> dict[EventKind, Segments]:
        """Put the events of each kind in order of their flows, and of time within a flow."""
        segments, begin = {}, 0
        for kind, events in self._events.items():
            end = begin + len(events)
            order = self._groups.order
            grouped = order[(order >= begin) & (order < end)] - begin
            of_row = self._groups.of_row[begin:end]
            segments[kind] = Segments.of(grouped, of_row, *ties_of(events))
            begin = end
        return segments

    def _make_overflow(self) -> OverflowRows:
        events = self._events.get(EventKind.FLOW)
        if events is None:
            return OverflowRows.none()
        segments = self._segments[EventKind.FLOW]
        index = self._groups.index
        remembered = self._store.recent.find(index.words[segments.groups], index.hashes[segments.groups])
        homes = np.zeros(len(segments), np.uint32)
        begins = head_of(events)["time_ns"][segments.firsts[remembered.rows]].astype(np.int64)
        is_fresh = begins - remembered.values["last_ns"].astype(np.int64) < _HOME_SILENCE_NS
        homes[remembered.rows[is_fresh]] = remembered.values["home"][is_fresh]
        # Each packet is in a row from here on, whatever becomes of the facts about its flow.
        self._store.count(EventKind.FLOW, joined=len(events), held=-len(events))
        return rows_of_packets(events, segments, homes)

    def _is_due(self) -> NDArray[np.bool_]:
        """Say which flows have something that has waited through a whole drain: all of it leaves together."""
        is_due = np.full(self._groups.count, self._before_ns is None)
        if self._before_ns is not None:
            for kind, segments in self._segments.items():
                if kind is not EventKind.FLOW:
                    earliest = segments.reduce(np.minimum, head_of(self._events[kind])["time_ns"])
                    is_due[segments.groups] |= earliest <= self._before_ns
        return is_due

    def _is_dropped(self) -> NDArray[np.bool_]:
        """Say of which flows the latest drop was at a watched interface."""
        is_dropped = np.zeros(self._groups.count, np.bool_)
        if EventKind.DROP in self._segments:
            segments, events = self._segments[EventKind.DROP], self._events[EventKind.DROP]
            ifindex = head_of(events)["hook"][segments.lasts] & ~np.uint32(HOOK_EGRESS)
            is_dropped[segments.groups] = np.isin(ifindex, self._watched)
        return is_dropped

    def _keep(self, is_kept: NDArray[np.bool_]) -> None:
        for kind, events in self._events.items():
            if kind is EventKind.FLOW:
                continue
            segments = self._segments[kind]
            rows = segments.order[np.repeat(is_kept[segments.groups], segments.sizes)]
            if len(rows):
                self._store.hold(kind, pick(events, rows), is_old=True)

    def _count(self, kind: EventKind, segments: Segments, is_chosen: NDArray[np.bool_], end: str) -> None:
        if kind is not EventKind.FLOW:
            count = int(segments.sizes[is_chosen[segments.groups]].sum())
            self._store.count(kind, **{end: count})

    def _records(
        self,
        is_continued: NDArray[np.bool_],
        is_drop_only: NDArray[np.bool_],
        groups: NDArray[np.intp],
        remembered: Remembered,
    ) -> Record:
        chosen = np.flatnonzero(is_continued | is_drop_only)
        if not len(chosen):
            return _NO_RECORDS
        row_of_group = np.full(self._groups.count, -1, np.intp)
        row_of_group[chosen] = np.arange(len(chosen))
        values = np.zeros(len(chosen), FLOW_VALUE)
        rows = row_of_group[groups[remembered.rows]]
        is_used = rows >= 0
        values[rows[is_used]] = remembered.values[is_used]
        self._fill_drop_only(row_of_group, is_drop_only, values)
        self._fill_times(row_of_group, values)
        enrichment = self._facts.about(chosen, np.arange(len(chosen)), values)
        known = {
            name: getattr(enrichment, name).completed_by(_moved(facts, row_of_group[groups]))
            for name, facts in (("source", remembered.source), ("destination", remembered.destination))
        }
        kinds = np.zeros(len(chosen), RECORD_KIND)
        kinds["kind"] = np.where(is_drop_only[chosen], RecordKind.DROP_ONLY, RecordKind.CONTINUATION)
        enrichment = attrs.evolve(enrichment, kinds=Facts(np.arange(len(chosen)), kinds), **known)
        keys = self._groups.index.words[chosen].reshape(-1).view(FLOW_KEY)
        return keys, values, enrichment

    def _fill_drop_only(
        self, row_of_group: NDArray[np.intp], is_drop_only: NDArray[np.bool_], values: NDArray[np.void]
    ) -> None:
        if not is_drop_only.any():
            return
        segments, events = self._segments[EventKind.DROP], self._events[EventKind.DROP]
        chosen = is_drop_only[segments.groups]
        rows, latest = row_of_group[segments.groups[chosen]], pick(events, segments.lasts[chosen])
        values["home"][rows] = latest["event"]["hook"]
        values["sampling"][rows] = 1
        for name in ("flags", "eth_type", "dscp"):
            values[name][rows] = latest[name]

    def _fill_times(self, row_of_group: NDArray[np.intp], values: NDArray[np.void]) -> None:
        """Set when the first and the last thing happened."""
        first, last = np.full(len(values), np.iinfo(np.uint64).max), np.zeros(len(values), np.uint64)
        for kind, segments in self._segments.items():
            if kind is EventKind.FLOW:
                continue
            events = self._events[kind]
            begins = events["first_ns"] if kind is EventKind.DROP else head_of(events)["time_ns"]
            rows = row_of_group[segments.groups]
            is_chosen = rows >= 0
            rows = rows[is_chosen]
            first[rows] = np.minimum(first[rows], segments.reduce(np.minimum, begins)[is_chosen])
            ends = segments.reduce(np.maximum, head_of(events)["time_ns"])[is_chosen]
            last[rows] = np.maximum(last[rows], ends)
        values["first_ns"], values["last_ns"] = first, last


def _key_words(events: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return the keys (n, KEY_WORDS) of events."""
    size = events.dtype.itemsize
    return np.ndarray((len(events), KEY_WORDS), "<u8", np.ascontiguousarray(events), _KEY_OFFSET, (size, 8))


def _moved(facts: Facts, row_of: NDArray[np.intp]) -> Facts:
    """Return facts about other rows: of those that have one (-1: none)."""
    rows = row_of[facts.rows]
    has_row = np.flatnonzero(rows >= 0)
    order = has_row[rows[has_row].argsort()]
    return Facts(rows[order], pick(facts.values, order))
