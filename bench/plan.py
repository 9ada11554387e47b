"""How much is measured: the agents, the rounds, and how long each run takes.

Law: every benchmark follows the one plan, so that the figures of a run belong together.
Neighbours: `__main__.py` makes it from the command line.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from bench.daemon import Agent

PERIOD_S = 5.0  # the default of both agents


@attrs.frozen
class Plan:
    """What to do. `seconds` is the duration of traffic, or of waiting, in each run."""

    agents: Sequence[Agent]
    rounds: int = attrs.field(validator=attrs.validators.ge(1))
    seconds: float = attrs.field(validator=attrs.validators.gt(0))
