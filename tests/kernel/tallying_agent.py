"""A daemon whose flows are too many to keep: each line is looked at when it comes, and counted.

Law: a line is counted by what it says itself, so their order does not matter; none is kept but the first odd ones.
Neighbours: `agent_process.py` keeps all lines, which takes 2 kB a flow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.kernel.agent_process import AgentProcess

_ODD_KEPT = 10


class Tally(list[str]):
    """Counts the lines that are appended, by what `kind_of` says of each: "" is odd. The first odd ones are kept."""

    def __init__(self, kind_of: Callable[[str], str]) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.odd: list[str] = []
        self._kind_of = kind_of

    def append(self, line: str, /) -> None:
        """Count a line."""
        kind = self._kind_of(line)
        self.counts[kind] += 1
        if not kind and len(self.odd) < _ODD_KEPT:
            self.odd.append(line)


class TallyingAgent(AgentProcess):
    """A daemon whose result has no flows, once they are tallied."""

    def tally(self, kind_of: Callable[[str], str]) -> Tally:
        """Count the flows from now on; there must have been none."""
        assert self._output.lines == [], "flows came before they could be counted"
        tally = Tally(kind_of)
        self._output.lines = tally
        return tally
