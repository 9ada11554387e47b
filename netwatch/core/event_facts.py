"""From events to facts: what is reduced how, and which flows a fact is about.

Law: each kind of event is read here alone; the join itself does not know what an event says.
Neighbours: `core/reduce.py` does the sums, `core/join.py` asks which rows the facts belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from netwatch.core.enrichment import MAX_HOOKS, Enrichment, Facts
from netwatch.core.layout import EventKind, FlowEnd
from netwatch.core.reduce import reduce_dns, reduce_drops, reduce_hooks, reduce_rtt, reduce_tcp
from netwatch.core.rows import copied, pick
from netwatch.core.segments import Segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

_REDUCTIONS: Mapping[EventKind, tuple[str, Callable[[NDArray[np.void], Segments], NDArray[np.void]]]] = {
    EventKind.DROP: ("drops", reduce_drops),
    EventKind.RTT: ("rtt", reduce_rtt),
    EventKind.DNS: ("dns", reduce_dns),
    EventKind.TCP: ("tcp", reduce_tcp),
    EventKind.HOOK: ("hooks", reduce_hooks),
}
_END_NAMES = {FlowEnd.SOURCE: "source", FlowEnd.DESTINATION: "destination"}


def head_of(events: NDArray[np.void]) -> NDArray[np.void]:
    """Return what holds `time_ns` and `key`: events of the ring have a head, DNS_FACT begins with them itself."""
    return events["event"] if "event" in (events.dtype.names or ()) else events


def ties_of(events: NDArray[np.void]) -> tuple[NDArray[Any], ...]:
    """Return the columns that put the events of one flow in order: time, and where that is the same, every byte."""
    size = events.dtype.itemsize
    words = np.ndarray((len(events), size // 4), "<u4", np.ascontiguousarray(events), 0, (size, 4))
    return head_of(events)["time_ns"], *words.T


@attrs.frozen(eq=False)
class _Kind:
    """What is told of groups by one kind of event: `place_of_group` has where a group is in the segments, or -1."""

    place_of_group: NDArray[np.intp]
    segments: Segments
    reduce: Callable[[Segments], NDArray[np.void]]


@attrs.frozen(eq=False)
class EventFacts:
    """Facts about groups, by the field of Enrichment that they go into. They are made when they are asked for."""

    _kinds: Mapping[str, _Kind]

    def about(self, groups: NDArray[np.intp], rows: NDArray[np.intp], values: NDArray[np.void]) -> Enrichment:
        """Return the facts of groups (k,) as facts about rows (k,), ascending, of a chunk of FLOW_VALUE."""
        chosen: dict[str, Facts] = {}
        for name, kind in self._kinds.items():
            places = kind.place_of_group[groups]
            has_fact = np.flatnonzero(places >= 0)
            if len(has_fact):
                chosen[name] = Facts(rows[has_fact], kind.reduce(kind.segments.at(places[has_fact])))
        if "hooks" in chosen:
            chosen["hooks"] = _without_own(chosen["hooks"], values)
        return Enrichment(**chosen)


def facts_of(
    events: Mapping[EventKind, NDArray[np.void]], segments: Mapping[EventKind, Segments], group_count: int
) -> EventFacts:
    """Return what the events of each kind, given in segments of so many groups, tell."""
    facts: dict[str, _Kind] = {}

    def add(name: str, segments: Segments, reduce: Callable[[Segments], NDArray[np.void]]) -> None:
        place_of_group = np.full(group_count, -1, np.intp)
        place_of_group[segments.groups] = np.arange(len(segments))
        facts[name] = _Kind(place_of_group, segments, reduce)

    for kind, (name, reduce) in _REDUCTIONS.items():
        if kind in events:
            add(name, segments[kind], partial(reduce, events[kind]))
    if EventKind.OWNER in events:
        owners = events[EventKind.OWNER]
        for end, name in _END_NAMES.items():
            add(name, _part(segments[EventKind.OWNER], owners["end"] == end), partial(_latest_owners, owners))
    return EventFacts(facts)


def _latest_owners(events: NDArray[np.void], segments: Segments) -> NDArray[np.void]:
    return np.ascontiguousarray(pick(events, segments.lasts)["owner"])


def _part(segments: Segments, condition: NDArray[np.bool_]) -> Segments:
    """Return the segments of the rows (n,) that meet a condition."""
    of_row = np.empty(len(condition), np.intp)
    of_row[segments.order] = np.repeat(segments.groups, segments.sizes)
    return Segments.of(segments.order[condition[segments.order]], of_row)


def _without_own(facts: Facts, values: NDArray[np.void]) -> Facts:
    """Take out the hooks that the row itself has, and close the gaps."""
    rows = pick(values, facts.rows)
    own = np.concatenate((rows["home"].astype(np.uint32)[:, None], rows["observed"]), axis=1)
    hooks = facts.values["hooks"].copy()
    hooks[(hooks[:, :, None] == own[:, None, :]).any(axis=2)] = 0
    # Zeros to the end; the others stay ascending, as many as a record lists beside the row's own.
    hooks = np.where(hooks == 0, np.uint32(0xFFFF_FFFF), hooks)
    hooks.sort(axis=1)
    room = MAX_HOOKS - np.count_nonzero(own, axis=1)
    is_hook = (hooks != 0xFFFF_FFFF) & (np.arange(MAX_HOOKS) < room[:, None])
    left = copied(facts.values)
    left["hooks"], left["count"] = np.where(is_hook, hooks, 0), is_hook.sum(axis=1)
    is_left = left["count"] != 0
    return Facts(facts.rows[is_left], pick(left, is_left))
