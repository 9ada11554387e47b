"""How long to wait before the next attempt.

Law: reads no clock; the caller waits. Delays double from `min_s` to `max_s`, each with jitter of a half up or down, so
that agents which lost the same collector do not come back to it all at once.
Neighbours: `export.py` waits between sends.
"""

from __future__ import annotations

import random

import attrs


@attrs.define
class Backoff:
    """Exponential backoff with jitter."""

    min_s: float
    max_s: float
    _random: random.Random = attrs.field(factory=random.Random)
    _failures: int = attrs.field(default=0, init=False)

    def failed(self) -> float:
        """Count a failure and return how long to wait, in seconds."""
        # Past 2^60 a float would still be right, but nobody waits for it.
        delay = self.min_s * 2.0 ** min(self._failures, 60)
        self._failures += 1
        return min(self.max_s, delay * self._random.uniform(0.5, 1.5))

    def succeeded(self) -> None:
        """Begin again from `min_s`."""
        self._failures = 0
