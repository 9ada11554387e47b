"""The ledger of events: where each thing that a program had to tell went.

Law: for each kind, `made = lost in the ring + taken + in the ring`, and
`taken = joined + continued + drop-only + unclaimed + not sampled + evicted + held`, exactly. What a program thinned out
was never made: its sums are in another event, or it would have said nothing new.
Neighbours: `kernel/event_source.py` reads what the programs counted, `core/join.py` counts the rest; `ledger.py` is the
same for packets.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from netwatch.core.layout import EventKind

_TITLES = {
    EventKind.DROP: "drops",
    EventKind.RTT: "round-trip times",
    EventKind.DNS: "DNS messages",
    EventKind.TCP: "TCP connections",
    EventKind.OWNER: "processes",
    EventKind.HOOK: "further interfaces",
    EventKind.FLOW: "packets without room in the map",
}
_NONE: Mapping[EventKind, int] = {}


@attrs.frozen
class KernelEvents:
    """What the programs counted since the start: by kind; `missed` by program, `wakes` of user space."""

    made: Mapping[EventKind, int] = _NONE
    lost: Mapping[EventKind, int] = _NONE
    thinned: Mapping[EventKind, int] = _NONE
    missed: Mapping[str, int] = attrs.Factory(dict)
    wakes: int = 0


@attrs.frozen
class EventEnds:
    """Where the events of one kind ended that user space took. `held` ones still wait for their flow."""

    taken: int = 0
    joined: int = 0
    continued: int = 0
    drop_only: int = 0
    unclaimed: int = 0
    not_sampled: int = 0
    evicted: int = 0
    held: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether every event that was taken is in one of the places."""
        ends = self.joined + self.continued + self.drop_only + self.unclaimed + self.not_sampled
        return self.taken == ends + self.evicted + self.held


@attrs.frozen
class EventLedger:
    """All events of a run, at one moment. `unknown` were records in the ring that are no event: a bug."""

    kernel: KernelEvents
    ends: Mapping[EventKind, EventEnds]
    made_here: Mapping[EventKind, int] = attrs.Factory(dict)
    """Those that never were in the ring: drops left in their slots by an epoch, questions that nobody answered."""
    unknown: int = 0

    def made(self, kind: EventKind) -> int:
        """Return how many events there were to tell, lost ones included."""
        return self.kernel.made.get(kind, 0) + self.made_here.get(kind, 0)

    def in_ring(self, kind: EventKind) -> int:
        """Return how many events have been made and not yet taken: 0 at the end of a run, or a bug."""
        return self.made(kind) - self.kernel.lost.get(kind, 0) - self.ends[kind].taken

    @property
    def balances(self) -> bool:
        """Whether, at the end of a run, every event is accounted for."""
        return not self.unknown and all(
            ends.is_complete and not ends.held and not self.in_ring(kind) for kind, ends in self.ends.items()
        )

    def as_json(self) -> dict[str, object]:
        """Return it in the documented JSON form."""
        return {
            "kinds": [
                {
                    "kind": kind.name.lower(),
                    "made": self.made(kind),
                    "lost": self.kernel.lost.get(kind, 0),
                    "thinned": self.kernel.thinned.get(kind, 0),
                    "made_here": self.made_here.get(kind, 0),
                }
                | attrs.asdict(ends)
                for kind, ends in self.ends.items()
            ],
            "missed": {name: count for name, count in self.kernel.missed.items() if count},
            "unknown": self.unknown,
            "balances": self.balances,
        }

    def as_text(self) -> str:
        """Return it for a person: one line a kind that occurred, the verdict last."""
        columns = ("made", "thinned", "joined", "continued", "drop-only", "unclaimed", "lost")
        lines = ["events".ljust(34) + "".join(column.rjust(11) for column in columns)]
        for kind, ends in self.ends.items():
            numbers = self._numbers(kind, ends)
            if any(numbers):
                lines.append(f"  {_TITLES[kind]:<32}" + "".join(f"{number:>11,}" for number in numbers))
        lines += [f"  missed: program {name} was running already: {n:,}" for name, n in self.kernel.missed.items() if n]
        return "\n".join([*lines, f"  events: {'balance' if self.balances else 'DO NOT BALANCE'}"])

    def _numbers(self, kind: EventKind, ends: EventEnds) -> tuple[int, ...]:
        thinned, lost = self.kernel.thinned.get(kind, 0), self.kernel.lost.get(kind, 0) + ends.evicted
        unclaimed = ends.unclaimed + ends.not_sampled
        return self.made(kind), thinned, ends.joined, ends.continued, ends.drop_only, unclaimed, lost
