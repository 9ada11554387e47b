"""What the rows of a batch have in common, so that nobody needs to look at each of them: the OR of all rows.

Law: pure; one pass over all columns together. A column's OR is as wide as its widest number, and a column whose AND
is the same as its OR holds one number only.
Neighbours: the modules of the pbflow encoder.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

# Rows of a few words are slow to reduce one by one; so many of them side by side are long enough.
_LANES = 64


@attrs.frozen(eq=False)
class Survey:
    """Rows of a structured dtype made of 64-bit words, contiguous and at least one, and the OR of all of them."""

    rows: NDArray[np.void]
    _any_bits: dict[str, Any]

    @classmethod
    def of(cls, rows: NDArray[np.void]) -> Survey:
        """Look at the rows."""
        words = rows.view("<u8").reshape(len(rows), -1)
        whole = len(words) // _LANES * _LANES
        if whole:
            side_by_side = words[:whole].reshape(-1, _LANES * words.shape[1])
            words = np.concatenate((np.bitwise_or.reduce(side_by_side).reshape(_LANES, -1), words[whole:]))
        union = np.bitwise_or.reduce(words).view(rows.dtype)[0]
        return cls(rows, dict(zip(rows.dtype.names or (), union.item(), strict=True)))

    def bits(self, name: str) -> int:
        """Return how many bits the widest number of a column has."""
        return int(self._any_bits[name]).bit_length()

    def words(self, name: str, dtype: str) -> list[tuple[NDArray[Any], int]]:
        """Return a column read as words of another dtype, a column each, with the OR of each."""
        columns = self.rows[name]
        if columns.ndim == 1:
            return [(columns, int(self._any_bits[name]))]
        return list(zip(columns.view(dtype).T, self._any_bits[name].view(dtype).tolist(), strict=True))


def is_uniform(column: NDArray[Any], any_bits: int) -> bool:
    """Say whether all rows of a column, whose OR is given, hold the same number."""
    return not any_bits or int(np.bitwise_and.reduce(column)) == any_bits
