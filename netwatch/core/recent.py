"""Flows that have been exported: what of them is worth knowing when something is told of them later.

Law: bounded; the oldest are forgotten first, and counted. A flow costs one packed copy; it is looked for only when an
event finds no row.
Neighbours: `core/join.py` adds the rows of each drain and asks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.enrichment import Facts
from netwatch.core.key_hash import KEY_WORDS, KeyIndex, group_keys
from netwatch.core.layout import FLOW_VALUE, MAX_OBSERVED, OWNER
from netwatch.core.rows import copied, joined, pick
from netwatch.core.segments import Segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a continuation repeats: 60 B, and 40 B of key.
_REMEMBERED = np.dtype(
    [
        ("last_ns", "<u8"),
        ("home", "<u4"),
        ("observed", "<u4", (MAX_OBSERVED,)),
        ("sampling", "<u4"),
        ("flags", "<u2"),
        ("eth_type", "<u2"),
        ("src_mac", "u1", (6,)),
        ("dst_mac", "u1", (6,)),
        ("dscp", "u1"),
        ("pad", "u1", (3,)),
    ]
)
_CHUNK_FLOWS = 8_192
_COLUMNS = [name for name in _REMEMBERED.names or () if name != "pad"]


@attrs.define(eq=False)
class _Chunk:
    words: NDArray[np.uint64]
    values: NDArray[np.void]
    source: Facts
    destination: Facts
    _index: KeyIndex | None = None
    _rows: NDArray[np.intp] = attrs.field(factory=lambda: np.empty(0, np.intp))

    def followed_by(self, other: _Chunk) -> _Chunk:
        """Return both as one. Of a flow that is in both, the row of the other counts."""
        before = len(self.words)
        source, destination = (
            Facts(np.concatenate((mine.rows, theirs.rows + before)), joined((mine.values, theirs.values)))
            for mine, theirs in ((self.source, other.source), (self.destination, other.destination))
        )
        words = np.concatenate((self.words, other.words))
        return _Chunk(words, joined((self.values, other.values)), source, destination)

    def find(self, words: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the latest row of each key, or -1."""
        if self._index is None:
            # The last first: of equal keys the index finds the first.
            groups = group_keys(self.words[::-1])
            self._rows = len(self.words) - 1 - Segments.of(groups.order, groups.of_row).firsts
            self._index = groups.index
        found = self._index.find(words, hashes)
        return np.where(found < 0, -1, self._rows[found])


@attrs.frozen(eq=False)
class Remembered:
    """What was found: `rows` (k,) of those that were asked for, and for each FLOW_VALUE without packets, and owners."""

    rows: NDArray[np.intp]
    values: NDArray[np.void]
    source: Facts
    destination: Facts


@attrs.define(eq=False)
class RecentFlows:
    """The most recent rows, at most `max_flows`."""

    max_flows: int
    forgotten: int = 0
    _chunks: deque[_Chunk] = attrs.field(factory=deque, init=False)
    _flows: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        return self._flows

    def remember(self, keys: NDArray[np.void], values: NDArray[np.void], source: Facts, destination: Facts) -> None:
        """Add the rows (n,) of a chunk that has left."""
        if not len(keys) or not self.max_flows:
            self.forgotten += len(keys)
            return
        kept = slice(max(0, len(keys) - self.max_flows), None)
        keys, values = keys[kept], values[kept]
        remembered = np.zeros(len(keys), _REMEMBERED)
        for name in _COLUMNS:
            remembered[name] = values[name]
        words = copied(keys).view("<u8").reshape(-1, KEY_WORDS)
        chunk = _Chunk(words, remembered, _shifted(source, kept.start), _shifted(destination, kept.start))
        # On a quiet host drains are small: each for itself they would be thousands to look through.
        if self._chunks and len(self._chunks[-1].words) + len(words) <= min(_CHUNK_FLOWS, self.max_flows // 8):
            chunk = self._chunks.pop().followed_by(chunk)
        self._chunks.append(chunk)
        self.forgotten += kept.start
        self._flows += len(keys)
        while self._flows > self.max_flows:
            gone = len(self._chunks.popleft().words)
            self._flows -= gone
            self.forgotten += gone

    def find(self, words: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> Remembered:
        """Look for keys (n, KEY_WORDS), the latest rows first."""
        missing = np.arange(len(words))
        rows, values = [missing[:0]], [np.empty(0, _REMEMBERED)]
        owners: tuple[list[Facts], list[Facts]] = ([], [])
        for chunk in reversed(self._chunks):
            if not len(missing):
                break
            places = chunk.find(words[missing], hashes[missing])
            is_here = places >= 0
            here, places = missing[is_here], places[is_here]
            missing = missing[~is_here]
            rows.append(here)
            values.append(pick(chunk.values, places))
            for found, facts in zip(owners, (chunk.source, chunk.destination), strict=True):
                found.append(_about(facts.at(places), here))
        return Remembered(np.concatenate(rows), _as_values(joined(values)), *map(_joined, owners))


def _as_values(remembered: NDArray[np.void]) -> NDArray[np.void]:
    values = np.zeros(len(remembered), FLOW_VALUE)
    for name in _COLUMNS:
        values[name] = remembered[name]
    return values


def _shifted(facts: Facts, by: int) -> Facts:
    is_kept = facts.rows >= by
    return facts if not by else Facts(facts.rows[is_kept] - by, pick(facts.values, is_kept))


def _about(facts: Facts, rows: NDArray[np.intp]) -> Facts:
    """Return facts about the numbers of `rows` as facts about these."""
    return Facts(rows[facts.rows], facts.values)


def _joined(parts: list[Facts]) -> Facts:
    if not parts:
        return Facts.none(OWNER)
    rows = np.concatenate([part.rows for part in parts])
    order = rows.argsort()
    return Facts(rows[order], pick(joined([part.values for part in parts]), order))
