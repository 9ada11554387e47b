"""What is measured, and what many noisy measurements of it come to.

Law: pure. A figure is never told without its spread: the middle of the samples, and the least and the largest.
Neighbours: each benchmark yields samples, `report.py` prints what they come to.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import attrs

Agent = TypeVar("Agent")


@attrs.frozen
class Quantity:
    """Something to measure. Less is better; `goal` is the most that it should be."""

    benchmark: str
    name: str
    unit: str
    goal: float | None = None


@attrs.frozen
class Sample:
    """One measurement of a quantity of one agent."""

    quantity: Quantity
    agent: str
    value: float


@attrs.frozen
class Result:
    """All samples of a quantity of one agent, in the order in which they were taken."""

    quantity: Quantity
    agent: str
    samples: tuple[float, ...] = attrs.field(validator=attrs.validators.min_len(1))

    @property
    def median(self) -> float:
        """The middle: one round that something else disturbed does not move it."""
        return statistics.median(self.samples)

    @property
    def least(self) -> float:
        """The least sample."""
        return min(self.samples)

    @property
    def most(self) -> float:
        """The largest sample."""
        return max(self.samples)

    @property
    def meets_goal(self) -> bool | None:
        """Whether the median is within the goal; None where there is no goal."""
        return None if self.quantity.goal is None else self.median <= self.quantity.goal


def collect_results(samples: Iterable[Sample]) -> list[Result]:
    """Group samples by quantity and agent, in the order of their first appearance."""
    grouped: dict[tuple[Quantity, str], list[float]] = {}
    for sample in samples:
        grouped.setdefault((sample.quantity, sample.agent), []).append(sample.value)
    return [Result(quantity, agent, tuple(values)) for (quantity, agent), values in grouped.items()]


def ratio(ours: Result, theirs: Result) -> float | None:
    """Return our median in terms of theirs; None where theirs is zero."""
    return ours.median / theirs.median if theirs.median else None


def alternate(agents: Sequence[Agent], rounds: int) -> Iterator[tuple[int, Agent]]:
    """Yield each round's number with every agent by turns; the one that begins changes with each round.

    What drifts during the run (the clock of the CPU, the neighbours of a virtual machine) then meets all alike.
    """
    for number in range(rounds):
        turn = number % len(agents)
        for agent in (*agents[turn:], *agents[:turn]):
            yield number, agent
