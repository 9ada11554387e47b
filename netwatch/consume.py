"""Consume: take the events out of the ring, decode them, and let them wait for their flows.

Law: nothing here waits for anything downstream. An event is taken `period_s` after it came into an empty ring, or
earlier when a program says that a quarter is full; where nothing is told, nothing is done. What the join store cannot
hold is evicted there and counted.
Neighbours: `kernel/event_source.py` has the ring and the counters, `core/events.py` decodes, `core/dns.py` matches
questions and answers, `core/join.py` holds what waits; `poll.py` takes the ring once more in each drain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NoReturn, Protocol

import attrs
import numpy as np
import trio

from netwatch.core.dns import DnsMatcher
from netwatch.core.events import cgroups_in, decode
from netwatch.core.join import JoinStore
from netwatch.core.known_owners import KnownOwners
from netwatch.core.layout import EventKind
from netwatch.core.rows import pick
from netwatch.event_ledger import EventEnds, EventLedger, KernelEvents

if TYPE_CHECKING:
    from numpy.typing import NDArray


class JoinSettings(Protocol):
    """Those of the settings that decide how events are joined (config.py; a recording has them, too)."""

    # ruff: noqa: D102 - config.py says what each of them is
    @property
    def sampling(self) -> int: ...
    @property
    def sampling_mode(self) -> str: ...
    @property
    def max_pending_events(self) -> int: ...
    @property
    def max_recent_flows(self) -> int: ...
    @property
    def dns_timeout_s(self) -> float: ...
    @property
    def max_dns_questions(self) -> int: ...


_LOOK_AGAIN_S = 1.0
# In a period: then the next event is sure to come soon, and need not wake us for us to begin to wait for the period.
_MANY_SLOTS = 16
# 8,192 slots x 128 B = 1 MB that has been taken and not looked at, and twice as much at the most: the ring gives as
# many in one piece.
_DECODED_SLOTS = 8_192


# From the packet hook to the drop it takes microseconds, if the CPU is not taken away in between. (What is in the flow
# map has the RCU grace period of the flip for that, 8 to 25 ms.)
_OVERFLOW_GRACE_NS = 10_000_000


class EventRing(Protocol):
    """The ring, as it is consumed (kernel/ring.py)."""

    async def wait(self, at_most_s: float) -> None:
        """Wait until something has come into the empty ring, or until it is full enough to be emptied at once."""
        ...

    def take(self, *, lingers: bool = False) -> NDArray[np.uint8]:
        """Return the next complete records, as slots (n, EVENT_SLOT_BYTES); n = 0: none.

        Who lingers comes back by himself: what comes next need not wake him.
        """
        ...


class Events(Protocol):
    """The ring and what belongs to it (kernel/event_source.py)."""

    @property
    def ring(self) -> EventRing:
        """The ring."""
        ...

    async def take_merged_drops(self) -> NDArray[np.void]:
        """Return the drops that wait for others like them, once each; what made room for others is in the ring."""
        ...

    def counts(self) -> KernelEvents:
        """Return what the programs counted."""
        ...


class ContainerNames(Protocol):
    """Which containers there are (kernel/cgroups.py)."""

    def resolve(self, cgroup_ids: Iterable[int]) -> Mapping[int, str]:
        """Return the container ids of cgroups; those that are in none are missing."""
        ...


@attrs.define(eq=False)
class Intake:
    """All that comes out of the ring, on its way into the join store."""

    source: Events
    store: JoinStore
    dns: DnsMatcher
    owners: KnownOwners
    container_names: ContainerNames | None = None
    containers: Mapping[int, str] = attrs.Factory(dict)
    """Of the cgroups whose processes were told, by cgroup id."""
    turns: int = 0
    unknown: int = 0
    made_here: dict[EventKind, int] = attrs.Factory(dict)
    _slots: list[NDArray[np.uint8]] = attrs.field(factory=list, init=False)
    _slots_taken: int = attrs.field(default=0, init=False)

    def take_chunk(self, *, lingers: bool = False) -> int:
        """Take what is in the ring, up to a chunk; return how many slots that were.

        They are decoded when there are _DECODED_SLOTS of them: a turn with ten events costs as much as with a thousand.
        """
        slots = self.source.ring.take(lingers=lingers)
        if len(slots):
            self._slots.append(slots)
            self._slots_taken += len(slots)
            if self.container_names:
                # At once: a container may be gone when its flows are drained.
                self.containers = self.container_names.resolve(cgroups_in(slots))
            if self._slots_taken >= _DECODED_SLOTS:
                self.decode()
        return len(slots)

    def decode(self) -> None:
        """Move what has been taken to the store."""
        if not self._slots:
            return
        decoded = decode(self._slots[0] if len(self._slots) == 1 else np.concatenate(self._slots))
        self._slots, self._slots_taken = [], 0
        self.unknown += decoded.unknown
        for kind, events in decoded.by_kind.items():
            self.store.add(kind, self._take_owners(events) if kind is EventKind.OWNER else events)
        if len(decoded.dns_heads):
            self.store.add(EventKind.DNS, self.dns.add(decoded.dns_heads, decoded.dns_messages))

    def _take_owners(self, events: NDArray[np.void]) -> NDArray[np.void]:
        """Remember the owners that are told once a connection; return those that are told for each row."""
        is_standing = events["event"]["hook"] == 0
        if not is_standing.any():
            return events
        standing = pick(events, is_standing)
        self.owners.take(standing)
        self.store.count(EventKind.OWNER, taken=len(standing), joined=len(standing))
        return pick(events, ~is_standing)

    async def take_all(self, *, lingers: bool = False) -> int:
        """Empty the ring, with a checkpoint for each chunk; return how many slots that were.

        Who lingers leaves what comes in the meantime for his next turn.
        """
        taken = 0
        while more := self.take_chunk(lingers=lingers):
            taken += more
            if lingers and more < _DECODED_SLOTS // 2:
                break
            await trio.lowlevel.checkpoint()
        return taken

    async def close_epoch(self, closed_ns: int) -> None:
        """Take all that was told of a closed epoch: ring, merged drops, questions that nobody answered."""
        await self.take_all()
        drops = await self.source.take_merged_drops()
        if len(drops):
            # Others had to make room meanwhile.
            await self.take_all()
        self.decode()
        for kind, made in ((EventKind.DROP, drops), (EventKind.DNS, self.dns.expire(closed_ns))):
            self.made_here[kind] = self.made_here.get(kind, 0) + len(made)
            self.store.add(kind, made)

    def ledger(self) -> EventLedger:
        """Return where every event went so far."""
        self.decode()
        return EventLedger(self.source.counts(), self.ends(), dict(self.made_here), self.unknown)

    def ends(self) -> Mapping[EventKind, EventEnds]:
        """Return where the events that were taken ended, by kind."""
        return {kind: self.store.ends(kind) for kind in EventKind}


def open_intake(source: Events, settings: JoinSettings, container_names: ContainerNames | None) -> Intake:
    """Return an intake by the settings, with nothing in it."""
    store = JoinStore(
        max_pending_events=settings.max_pending_events,
        max_recent_flows=settings.max_recent_flows,
        is_packet_sampled=settings.sampling > 1 and settings.sampling_mode == "packet",
        overflow_grace_ns=_OVERFLOW_GRACE_NS,
    )
    dns = DnsMatcher(settings.max_dns_questions, int(settings.dns_timeout_s * 1e9))
    return Intake(source, store, dns, KnownOwners(settings.max_recent_flows), container_names)


async def consume_events(intake: Intake, period_s: float) -> NoReturn:
    """Empty the ring again and again, until cancelled; what is in the ring then stays there for the last drain."""
    while True:
        intake.turns += 1
        if await intake.take_all(lingers=True) < _MANY_SLOTS:
            await intake.take_all()
            # An event that a program is still writing ends what can be taken, and those behind it wake nobody.
            await intake.source.ring.wait(_LOOK_AGAIN_S)
        await intake.source.ring.wait(period_s)
