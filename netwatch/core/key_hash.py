"""Flow keys as words: hash, compare and find them by whole columns.

Law: a hash only narrows the search; keys are equal where all five words are.
Neighbours: `core/join.py` groups events with it, `core/recent.py` finds flows that have been exported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.layout import FLOW_KEY

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY_WORDS = FLOW_KEY.itemsize // 8

# 2^64 divided by the golden ratio: each multiplication carries every bit upwards, each shift brings the top down.
_MULTIPLIER = np.uint64(0x9E37_79B9_7F4A_7C15)
_SHIFT = np.uint64(32)


def words_of(keys: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return contiguous keys (n,) as words (n, KEY_WORDS), a view."""
    return keys.view("<u8").reshape(-1, KEY_WORDS)


def hash_words(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash (n,) of each row of words."""
    hashes = words[:, 0] * _MULTIPLIER
    for column in range(1, KEY_WORDS):
        hashes ^= hashes >> _SHIFT
        hashes ^= words[:, column]
        hashes *= _MULTIPLIER
    hashes ^= hashes >> _SHIFT
    return hashes


def reversed_words(keys: NDArray[np.void]) -> NDArray[np.void]:
    """Return the keys of the other direction."""
    turned = keys.copy()
    for here, there in (("src_addr", "dst_addr"), ("src_port", "dst_port")):
        turned[here], turned[there] = keys[there], keys[here]
    return turned


@attrs.frozen(eq=False)
class KeyIndex:
    """Distinct keys, in ascending order of their hashes: `words` (n, KEY_WORDS), `hashes` (n,)."""

    words: NDArray[np.uint64]
    hashes: NDArray[np.uint64]

    def find(self, words: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return where each key (m, KEY_WORDS) stands, or -1."""
        found = np.full(len(words), -1, np.intp)
        if not len(self.hashes):
            return found
        places = np.searchsorted(self.hashes, hashes)
        rows = np.flatnonzero(self.hashes[np.minimum(places, len(self.hashes) - 1)] == hashes)
        places = places[rows]
        # A second round only where two keys share a hash.
        while len(rows):
            is_same = (self.words[places] == words[rows]).all(axis=1)
            found[rows[is_same]] = places[is_same]
            rows, places = rows[~is_same], places[~is_same] + 1
            is_left = places < len(self.hashes)
            rows, places = rows[is_left], places[is_left]
            is_left = self.hashes[places] == hashes[rows]
            rows, places = rows[is_left], places[is_left]
        return found


@attrs.frozen(eq=False)
class KeyGroups:
    """Rows grouped by their keys. `order` has the rows group by group, `of_row` the group of each row."""

    index: KeyIndex
    order: NDArray[np.intp]
    of_row: NDArray[np.intp]

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.index.hashes)


def group_keys(words: NDArray[np.uint64]) -> KeyGroups:
    """Group rows of words (n, KEY_WORDS); rows of a group stay in their order."""
    hashes = hash_words(words)
    order = hashes.argsort(kind="stable")
    is_first = _first_of_group(words, order)
    sorted_hashes = hashes[order]
    # Two keys with one hash may stand mixed; then a new group begins although its hash does not.
    if (is_first[1:] & (sorted_hashes[1:] == sorted_hashes[:-1])).any():
        order = np.lexsort((*words.T, hashes))
        is_first = _first_of_group(words, order)
    of_row = np.empty(len(words), np.intp)
    of_row[order] = is_first.cumsum() - 1
    firsts = order[is_first]
    return KeyGroups(KeyIndex(words[firsts], hashes[firsts]), order, of_row)


def _first_of_group(words: NDArray[np.uint64], order: NDArray[np.intp]) -> NDArray[np.bool_]:
    is_first = np.ones(len(order), np.bool_)
    ordered = words[order]
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return is_first
