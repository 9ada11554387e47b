"""Find flow keys among others: all of an array at once.

Law: two keys are the same where all their 40 bytes are; a hash says where to look, never what is found. What a key
costs does not depend on the keys: those that no level has room for are sorted, so that nobody can make a table slow
by choosing addresses and ports.
Neighbours: `core/event_index.py` groups events by it, `core/recent.py` looks flows up.

A table is a cascade of arrays that are addressed by hash. At each level the last of the keys with one address has it,
and with it all that are equal to it; the others go one level deeper. To sort the hashes would cost more than all this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from netwatch.core.layout import FLOW_KEY

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY_WORDS = FLOW_KEY.itemsize // 8

# Odd numbers without a pattern.
_MULTIPLIERS = tuple(
    map(
        np.uint64,
        (
            *(0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0xD6E8_FEB8_6659_FD93),
            *(0xFF51_AFD7_ED55_8CCD, 0xC4CE_B9FE_1A85_EC53, 0x94D0_49BB_1331_11EB, 0xBF58_476D_1CE4_E5B9),
        ),
    )
)
_HALF = np.uint64(32)

# With four places for each key one in nine goes a level deeper: of 100,000 keys 2 reach the sixth level.
_MAX_LEVELS = len(_MULTIPLIERS)
_PLACES_PER_KEY = 4


def words_of(keys: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return keys (n,) of 40 bytes as words (n, KEY_WORDS), contiguous; a copy where the keys are not."""
    whole = np.ascontiguousarray(keys.view(f"V{FLOW_KEY.itemsize}"))
    return whole.view(np.uint64).reshape(-1, KEY_WORDS)


def hash_words(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash (n,) of keys given as words (n, KEY_WORDS)."""
    # Between two words the upper half goes into the lower: a product alone carries upwards only, and the addresses of
    # IPv4 are in upper halves.
    hashes = words[:, 0] * _MULTIPLIERS[0]
    upper = np.empty_like(hashes)
    for number in range(1, KEY_WORDS):
        np.right_shift(hashes, _HALF, out=upper)
        hashes ^= upper
        hashes += words[:, number]
        hashes *= _MULTIPLIERS[number]
    np.right_shift(hashes, _HALF, out=upper)
    hashes ^= upper
    return hashes


@attrs.frozen(eq=False)
class KeyTable:
    """Keys as words (n, KEY_WORDS). `latest` (n,) has, for each of them, the number of the last one equal to it."""

    words: NDArray[np.uint64]
    latest: NDArray[np.intp]
    _levels: tuple[NDArray[np.int32], ...]
    _rest: NDArray[np.intp]

    @classmethod
    def of(cls, words: NDArray[np.uint64]) -> KeyTable:
        """Make a table of keys; a copy is not made, so they must not change."""
        latest = np.arange(len(words))
        levels: list[NDArray[np.int32]] = []
        left, hashes = latest.copy(), hash_words(words)
        while len(left) and len(levels) < _MAX_LEVELS:
            level = np.full(1 << (len(left) * _PLACES_PER_KEY - 1).bit_length(), -1, np.int32)
            places = _places(hashes, len(levels), level)
            # numpy, "Assigning values to indexed arrays": of values for one place the last remains.
            level[places] = left
            winners = level.take(places)
            others = np.flatnonzero(winners != left)
            is_same = _are_equal(words, winners[others], words, left[others])
            latest[left[others[is_same]]] = winners[others[is_same]]
            deeper = others[~is_same]
            left, hashes = left[deeper], hashes[deeper]
            levels.append(level)
        if len(left):
            groups = _groups(words[left])
            last = np.empty(len(left), np.intp)
            last[groups] = left
            latest[left] = last[groups]
        return cls(words, latest, tuple(levels), left)

    def find(self, words: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return for each of other keys (m, KEY_WORDS) the number of the last one here that equals it; -1: none."""
        found = np.full(len(words), -1)
        left, hashes = np.arange(len(words)), hash_words(words)
        for depth, level in enumerate(self._levels):
            candidates = level.take(_places(hashes, depth, level))
            is_taken = candidates >= 0
            if not is_taken.all():
                left, hashes, candidates = left[is_taken], hashes[is_taken], candidates[is_taken]
            is_same = _are_equal(self.words, candidates, words, left)
            found[left[is_same]] = candidates[is_same]
            if is_same.all():
                return found
            left, hashes = left[~is_same], hashes[~is_same]
        if len(self._rest) and len(left):
            groups = _groups(np.concatenate((self.words[self._rest], words[left])))
            last = np.full(len(groups), -1)
            last[groups[: len(self._rest)]] = self._rest
            found[left] = last[groups[len(self._rest) :]]
        return found


def _places(hashes: NDArray[np.uint64], depth: int, level: NDArray[np.int32]) -> NDArray[np.intp]:
    bits = len(level).bit_length() - 1
    places = hashes * _MULTIPLIERS[depth]
    places >>= np.uint64(64 - bits)
    # Less than 2**63, so that the same bytes are indices.
    return places.view(np.int64)


def _are_equal(
    ours: NDArray[np.uint64], our_rows: NDArray[np.integer], theirs: NDArray[np.uint64], their_rows: NDArray[np.integer]
) -> NDArray[np.bool_]:
    differences = ours.take(our_rows, axis=0)
    differences ^= theirs.take(their_rows, axis=0)
    # Column by column: reducing rows of five costs three times as much.
    union = differences[:, 0]
    for number in range(1, KEY_WORDS):
        union |= differences[:, number]
    is_same: NDArray[np.bool_] = union == 0
    return is_same


def _groups(words: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Sort keys, and give each a number: equal ones the same."""
    order = np.lexsort(words.T)
    is_new = np.zeros(len(words), np.bool_)
    is_new[1:] = ~_are_equal(words, order[1:], words, order[:-1])
    groups = np.empty(len(words), np.intp)
    groups[order] = is_new.cumsum()
    return groups
