"""Translated connections (NAT), and which flows they are.

Law: a connection is two flows, one in each direction, as each comes to this host; both get what it becomes. Bounded.
Neighbours: `kernel/conntrack.py` tells of connections, `core/standing.py` keeps them, `poll.py` asks for each batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from netwatch.core.enrichment import TRANSLATION, Facts
from netwatch.core.standing import StandingFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@attrs.define(eq=False)
class Translations:
    """Connections by the raw FLOW_KEY of their first direction."""

    max_translations: int
    overruns: int = 0  # how often the kernel had no room for events
    _facts: StandingFacts = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with none: each connection stands as two facts."""
        self._facts = StandingFacts(TRANSLATION, 2 * self.max_translations)

    def __len__(self) -> int:
        return len(self._facts) // 2

    @property
    def forgotten(self) -> int:
        """Connections that were forgotten for room."""
        return self._facts.forgotten // 2

    def add(self, original: bytes, reply: bytes, zone: int) -> None:
        """Take a translated connection: the raw FLOW_KEY of its first direction, and of the other."""
        zone_bytes = zone.to_bytes(2, "little")
        self._facts.add(original, _turned(reply) + zone_bytes)
        self._facts.add(reply, _turned(original) + zone_bytes)

    def remove(self, original: bytes, reply: bytes) -> None:
        """Note that a connection has ended."""
        self._facts.end(original)
        self._facts.end(reply)

    def replace(self, connections: Iterable[tuple[bytes, bytes, int]]) -> None:
        """Take all connections that there are, as `add` does; every other has ended."""
        present = [*connections]
        self._facts.end_others({key for original, reply, _ in present for key in (original, reply)})
        for connection in present:
            self.add(*connection)

    def drained(self) -> None:
        """Note the end of a drain."""
        self._facts.drained()

    def lookup(self, keys: NDArray[np.void]) -> Facts:
        """Return the TRANSLATION of those of the keys (n,) that are translated."""
        return self._facts.lookup(keys)


def _turned(key: bytes) -> bytes:
    """Return a TRANSLATION, but for the zone: where a packet of one direction goes is where the other's come from."""
    return key[16:32] + key[:16] + key[34:36] + key[32:34]
