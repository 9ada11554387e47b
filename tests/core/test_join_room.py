"""The join where there is no more room: how many go, and which."""

from __future__ import annotations

import numpy as np

from netwatch.core.join import JoinStore
from netwatch.core.layout import EventKind
from tests.core.test_join import Run, Told, event_of, kinds


def test_many_that_come_together() -> None:
    """So many go as there is no room for, the first of them, and the others stay."""
    run = Run(JoinStore(3, 10))
    run.store.add(
        EventKind.DROP, np.concatenate([event_of(Told(EventKind.DROP, port, 50)) for port in (1, 2, 3, 4, 5)])
    )
    assert kinds(run.store, EventKind.DROP) == {"taken": 5, "evicted": 2, "held": 3}
    run.drain(100, [1, 2, 3, 4, 5])
    assert [record[0] for record in run.records if record[2] != "None"] == [3, 4, 5]


def test_what_has_waited_goes_first() -> None:
    """What found no row in the last drain is older than what came meanwhile, and makes room for it."""
    run = Run(JoinStore(2, 10))
    run.add(Told(EventKind.DROP, 1, 50), Told(EventKind.DROP, 2, 150))
    assert run.drain(100) == []
    run.add(Told(EventKind.DROP, 3, 160))
    run.drain(200, [1, 2, 3])
    assert kinds(run.store, EventKind.DROP) == {"taken": 3, "evicted": 1, "joined": 2}
    assert [record[0] for record in run.records if record[2] != "None"] == [2, 3]
