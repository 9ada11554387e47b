"""Facts about several flows at once: each has its own, whatever is told of the others."""

from __future__ import annotations

import numpy as np

from netwatch.core.enrichment import MAX_HOOKS
from netwatch.core.layout import EventKind
from tests.core.test_join import HOME, WATCHED, Run, Told, rows_of

OBSERVED = 3  # beside HOME, in each row of `rows_of`
MANY = range(100, 170)


def test_further_hooks_of_several_flows() -> None:
    """Hooks that a row has itself are left out, and a flow that has no others has no fact; a record lists 64 in all."""
    run = Run()
    told = {1: [HOME, OBSERVED], 2: [9], 4: [*MANY, HOME]}
    run.add(*(Told(EventKind.HOOK, port, 50, hook=hook) for port, hooks in told.items() for hook in hooks))
    facts = run.store.close(100, WATCHED).join(*rows_of([1, 2, 3, 4])).hooks
    assert facts.rows.tolist() == [1, 3]
    assert facts.values["count"].tolist() == [1, MAX_HOOKS - 2]
    expected = np.zeros((2, MAX_HOOKS), np.uint32)
    expected[0, 0], expected[1, : MAX_HOOKS - 2] = 9, MANY[: MAX_HOOKS - 2]
    assert facts.values["hooks"].tolist() == expected.tolist()
