"""Facts that stand for as long as a connection does, by flow key.

Law: bounded; the oldest is forgotten first, and counted. What has ended stays for the drains that still bring its last
rows. Nothing is looked up while nothing stands.
Neighbours: `core/translations.py` and `core/known_owners.py` keep theirs here; `poll.py` asks for each batch.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.enrichment import Facts
from netwatch.core.key_hash import KeyIndex, hash_words, words_of
from netwatch.core.layout import FLOW_KEY
from netwatch.core.rows import pick

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The row of a flow leaves with the drain after its last packet; one more, because a connection may end during a drain.
_DRAINS_KEPT = 2


@attrs.define(eq=False)
class StandingFacts:
    """Facts of one dtype. Keys and values are raw: of FLOW_KEY, and of the dtype."""

    dtype: np.dtype[np.void]
    max_facts: int
    forgotten: int = 0
    _values: dict[bytes, bytes] = attrs.field(factory=dict, init=False)
    _ending: dict[bytes, int] = attrs.field(factory=dict, init=False)
    _index: tuple[KeyIndex, NDArray[np.void]] | None = attrs.field(default=None, init=False)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, key: bytes, value: bytes) -> None:
        """Let a fact stand; it replaces an older one about the same flow."""
        if self._values.get(key) == value:
            # Again the newest; the index is right as it is.
            self._ending.pop(key, None)
            self._values[key] = self._values.pop(key)
            return
        self._drop(key)
        self._values[key] = value
        self._index = None
        while len(self._values) > self.max_facts:
            self._drop(next(iter(self._values)))
            self.forgotten += 1

    def end(self, key: bytes) -> None:
        """Note that a fact stands no longer, but for the rows that are still to come."""
        if key in self._values:
            self._ending[key] = _DRAINS_KEPT

    def end_others(self, keys: Set[bytes]) -> None:
        """Note that no fact stands any longer but those about these flows."""
        for key in self._values.keys() - self._ending.keys() - keys:
            self.end(key)

    def drained(self) -> None:
        """Note the end of a drain: what no coming drain can need is forgotten."""
        for key, drains_left in list(self._ending.items()):
            if drains_left:
                self._ending[key] = drains_left - 1
            else:
                self._drop(key)

    def lookup(self, keys: NDArray[np.void]) -> Facts:
        """Return the facts about those of the keys (n,) of FLOW_KEY that have one."""
        if not self._values or not len(keys):
            return Facts.none(self.dtype)
        if self._index is None:
            self._index = self._make_index()
        index, values = self._index
        words = words_of(keys)
        found = index.find(words, hash_words(words))
        rows = np.flatnonzero(found >= 0)
        return Facts(rows, pick(values, found[rows]))

    def _drop(self, key: bytes) -> None:
        self._ending.pop(key, None)
        if self._values.pop(key, None) is not None:
            self._index = None

    def _make_index(self) -> tuple[KeyIndex, NDArray[np.void]]:
        words = words_of(np.frombuffer(b"".join(self._values), FLOW_KEY))
        values = np.frombuffer(b"".join(self._values.values()), self.dtype)
        return KeyIndex(words, hash_words(words)), values
