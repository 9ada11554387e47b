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


@attrs.frozen(eq=False)
class _Level:
    """A table of rows by some bits of their hashes; -1: none. Of several that want a place one has it."""

    places: NDArray[np.intp]
    salt: np.uint64
    shift: np.uint64

    @classmethod
    def of(cls, rows: NDArray[np.intp], hashes: NDArray[np.uint64], depth: int) -> _Level:
        """Place rows (m,), given the hashes of all rows."""
        bits = max(4, (2 * len(rows) - 1).bit_length())
        level = cls(np.full(1 << bits, -1, np.intp), _SALTS[depth], np.uint64(64 - bits))
        level.places[level.place_of(hashes[rows])] = rows
        return level

    def place_of(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return where rows with such hashes would be."""
        places: NDArray[np.uint64] = (hashes * self.salt) >> self.shift
        return places

    def row_at(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the row that is there, or -1."""
        return self.places[self.place_of(hashes)]


# Odd numbers without a pattern: each level looks at other bits. With half of the places free, a level leaves a fifth.
_SALTS = tuple(
    np.uint64(salt)
    for salt in (
        *(0x0000_0000_0000_0001, 0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9),
        *(0xD6E8_FEB8_6659_FD93, 0xFF51_AFD7_ED55_8CCD, 0xC4CE_B9FE_1A85_EC53, 0xBF58_476D_1CE4_E5B9),
    )
)


@attrs.frozen(eq=False)
class KeyIndex:
    """Distinct keys: `words` (n, KEY_WORDS), `hashes` (n,). Made once, then asked."""

    words: NDArray[np.uint64]
    hashes: NDArray[np.uint64]
    _levels: list[_Level] = attrs.field(init=False, factory=list)
    # Keys that share a place on every level: those that share a hash, which nobody makes but on purpose.
    _others: dict[bytes, int] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        """Give each key a place."""
        rows = np.arange(len(self.words))
        for depth in range(len(_SALTS)):
            if not len(rows):
                return
            level = _Level.of(rows, self.hashes, depth)
            self._levels.append(level)
            rows = rows[level.row_at(self.hashes[rows]) != rows]
        self._others.update((self.words[row].tobytes(), row) for row in rows.tolist())

    def find(self, words: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return where each key (m, KEY_WORDS) stands, or -1."""
        found = np.full(len(words), -1, np.intp)
        asked = np.arange(len(words))
        for level in self._levels:
            candidates = level.row_at(hashes[asked])
            # Nobody at its place: then it is on no other level either.
            taken = np.flatnonzero(candidates >= 0)
            asked, candidates = asked[taken], candidates[taken]
            is_same = are_same(self.words, candidates, words, asked)
            found[asked[is_same]] = candidates[is_same]
            asked = asked[~is_same]
            if not len(asked):
                return found
        for row in asked.tolist() if self._others else ():
            found[row] = self._others.get(words[row].tobytes(), -1)
        return found


def are_same(
    some: NDArray[np.uint64], rows: NDArray[np.intp], others: NDArray[np.uint64], other_rows: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Say which keys are the same: row by row of two lists of rows. All five words decide."""
    differing = some.take(rows, axis=0)
    differing ^= others.take(other_rows, axis=0)
    # A column at a time: 4 ns a key, where all(axis=1) takes 14.
    bits = differing[:, 0]
    for column in range(1, KEY_WORDS):
        bits |= differing[:, column]
    is_same: NDArray[np.bool_] = bits == 0
    return is_same


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
    speaker = _speakers_of(words, hashes)
    is_speaker = speaker == np.arange(len(words))
    if is_speaker.all():
        return KeyGroups(KeyIndex(words, hashes), speaker, speaker)
    of_row = (is_speaker.cumsum() - 1)[speaker]
    return KeyGroups(KeyIndex(words[is_speaker], hashes[is_speaker]), _order_of(of_row), of_row)


def _order_of(groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the order of small numbers, by their halves: numpy sorts 16 bits in a fifth of the time of 64."""
    low = (groups & 0xFFFF).astype(np.uint16).argsort(kind="stable")
    if len(groups) <= 1 << 16:
        return low
    return low[(groups[low] >> 16).astype(np.uint16).argsort(kind="stable")]


def _speakers_of(words: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return for each row one of those with its key, the same for all of them."""
    speaker = np.arange(len(words))
    rows = speaker.copy()
    for depth in range(len(_SALTS)):
        if not len(rows):
            return speaker
        candidates = _Level.of(rows, hashes, depth).row_at(hashes[rows])
        # Most have the place for themselves, and are their own.
        is_other = candidates != rows
        rows, candidates = rows[is_other], candidates[is_other]
        is_same = are_same(words, candidates, words, rows)
        speaker[rows[is_same]] = candidates[is_same]
        rows = rows[~is_same]
    first: dict[bytes, int] = {}
    for row in rows.tolist():
        speaker[row] = first.setdefault(words[row].tobytes(), row)
    return speaker
