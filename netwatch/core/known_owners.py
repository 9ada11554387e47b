"""Owners of connections whose sockets no packet hook sees: those of other network namespaces, such as pods'.

Law: told once, when a connection is established, and remembered until it has ended. Bounded.
Neighbours: `bpf/tcp.bpf.h` tells, `consume.py` passes on, `poll.py` asks for the rows that have no owner of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.enrichment import Enrichment
from netwatch.core.layout import FLOW_KEY, OWNER, FlowEnd
from netwatch.core.standing import StandingFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray


@attrs.define(eq=False)
class KnownOwners:
    """Owners by flow, of the sending and of the receiving end."""

    max_flows: int
    _by_end: dict[FlowEnd, StandingFacts] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with none."""
        self._by_end = {end: StandingFacts(OWNER, self.max_flows) for end in FlowEnd}

    @property
    def forgotten(self) -> int:
        """Owners of one end of a flow that were forgotten for room."""
        return sum(facts.forgotten for facts in self._by_end.values())

    def take(self, events: NDArray[np.void]) -> None:
        """Take OWNER_EVENT (n,) of such connections, in the order of the ring. Nobody (pid 0) ends one."""
        keys, owners = events["event"]["key"].tobytes(), events["owner"].tobytes()
        for row, (end, pid) in enumerate(zip(events["end"].tolist(), events["owner"]["pid"].tolist(), strict=True)):
            facts = self._by_end[FlowEnd(end)]
            key = keys[row * FLOW_KEY.itemsize : (row + 1) * FLOW_KEY.itemsize]
            if pid:
                facts.add(key, owners[row * OWNER.itemsize : (row + 1) * OWNER.itemsize])
            else:
                facts.end(key)

    def drained(self) -> None:
        """Note the end of a drain."""
        for facts in self._by_end.values():
            facts.drained()

    def complete(self, keys: NDArray[np.void], enrichment: Enrichment) -> Enrichment:
        """Return the facts about rows (n,) with the owners that are known where an event brought none."""
        known = {end: facts.lookup(keys) for end, facts in self._by_end.items()}
        if not any(map(len, known.values())):
            return enrichment
        return attrs.evolve(
            enrichment,
            source=enrichment.source.completed_by(known[FlowEnd.SOURCE]),
            destination=enrichment.destination.completed_by(known[FlowEnd.DESTINATION]),
        )
