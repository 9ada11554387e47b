"""A daemon whose flows are too many to keep: each line is looked at when it comes, and counted.

Law: what is told of a line is decided by the line alone, so the order does not matter; no line is kept but the first odd ones.
Neighbours: `agent_process.py` keeps all lines, which takes 2 kB a flow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Self, SupportsIndex

from tests.kernel.agent_process import AgentProcess

_ODD_KEPT = 10


class Tally(list[str]):
    """Counts lines by what `kind_of` says of each. Of those that are of kind "" it keeps the first, to be shown."""

    def __init__(self, kind_of: Callable[[str], str]) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.odd: list[str] = []
        self._kind_of = kind_of

    def append(self, line: str, /) -> None:
        """Count a line; keep none."""
        kind = self._kind_of(line)
        self.counts[kind] += 1
        if not kind and len(self.odd) < _ODD_KEPT:
            self.odd.append(line)

    def extend(self, lines: Iterable[str], /) -> None:
        """Count lines."""
        for line in lines:
            self.append(line)

    def insert(self, _: SupportsIndex, line: str, /) -> None:
        """Count a line."""
        self.append(line)


class TallyingAgent(AgentProcess):
    """A daemon that is started before there is traffic; its flows are counted from there on."""

    def tally(self, kind_of: Callable[[str], str]) -> Tally:
        """Count the flows from now on. Fails where some have come already."""
        assert self._output.lines == [], "flows came before they could be counted"
        tally = Tally(kind_of)
        self._output.lines = tally
        return tally

    def __enter__(self) -> Self:
        return super().__enter__()
