"""Translated connections (NAT), and which flows they are.

Law: bounded; the oldest is forgotten first, and counted. A connection that has ended stays for the drains that still
bring its last rows. Nothing is looked up while nothing is translated.
Neighbours: `kernel/conntrack.py` tells of connections, `poll.py` asks for the rows of each batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.enrichment import TRANSLATION, Facts
from netwatch.core.key_hash import KeyIndex, hash_words, words_of
from netwatch.core.layout import FLOW_KEY
from netwatch.core.rows import pick

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The row of a flow leaves with the drain after its last packet; one more, because a connection may end during a drain.
_DRAINS_KEPT = 2


@attrs.define
class _Connection:
    reply: bytes
    zone: int
    drains_left: int | None = None


@attrs.define(eq=False)
class Translations:
    """Connections by the key of their first direction; each direction as it comes to this host, as conntrack has it."""

    max_translations: int
    forgotten: int = 0
    _connections: dict[bytes, _Connection] = attrs.field(factory=dict, init=False)
    _index: tuple[KeyIndex, NDArray[np.void]] | None = attrs.field(default=None, init=False)

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, original: bytes, reply: bytes, zone: int) -> None:
        """Take a translated connection: the raw FLOW_KEY of its first direction, and of the other."""
        self._connections.pop(original, None)
        self._connections[original] = _Connection(reply, zone)
        self._index = None
        while len(self._connections) > self.max_translations:
            del self._connections[next(iter(self._connections))]
            self.forgotten += 1

    def remove(self, original: bytes) -> None:
        """Note that a connection has ended."""
        connection = self._connections.get(original)
        if connection:
            connection.drains_left = _DRAINS_KEPT

    def drained(self) -> None:
        """Note the end of a drain: what no coming drain can need is forgotten."""
        gone = []
        for original, connection in self._connections.items():
            if connection.drains_left is not None:
                connection.drains_left -= 1
                if connection.drains_left < 0:
                    gone.append(original)
        for original in gone:
            del self._connections[original]
            self._index = None

    def lookup(self, keys: NDArray[np.void]) -> Facts:
        """Return the TRANSLATION of those of the keys (n,) that are translated."""
        if not self._connections:
            return Facts.none(TRANSLATION)
        if self._index is None:
            self._index = self._make_index()
        index, values = self._index
        words = words_of(keys)
        found = index.find(words, hash_words(words))
        rows = np.flatnonzero(found >= 0)
        return Facts(rows, pick(values, found[rows]))

    def _make_index(self) -> tuple[KeyIndex, NDArray[np.void]]:
        originals = np.frombuffer(b"".join(self._connections), FLOW_KEY)
        replies = np.frombuffer(b"".join(each.reply for each in self._connections.values()), FLOW_KEY)
        zones = np.array([each.zone for each in self._connections.values()], np.uint16)
        keys = np.concatenate((originals, replies))
        values = np.zeros(len(keys), TRANSLATION)
        # Where a packet of one direction goes is where the other's come from.
        for name, other in (("src", "dst"), ("dst", "src")):
            for part in ("addr", "port"):
                values[f"{name}_{part}"] = np.concatenate((replies[f"{other}_{part}"], originals[f"{other}_{part}"]))
        values["zone"] = np.concatenate((zones, zones))
        words = words_of(keys)
        hashes = hash_words(words)
        order = hashes.argsort(kind="stable")
        return KeyIndex(words[order], hashes[order]), pick(values, order)
