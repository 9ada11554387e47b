"""The join at its borders: what happens at the very moment that divides two epochs, or two homes of a flow."""

from __future__ import annotations

import pytest

from netwatch.core.layout import EventKind
from tests.core.test_join import HOME, WATCHED, Run, Told, kinds

SILENCE_NS = 1_000_000_000


def test_event_at_the_very_close() -> None:
    """An epoch has what happened up to its close, that moment included: the row has it, and the next one nothing."""
    run = Run()
    run.add(Told(EventKind.DROP, 1, 100))
    run.drain(100, [1])
    assert kinds(run.store, EventKind.DROP) == {"taken": 1, "joined": 1}


@pytest.mark.parametrize("is_late", [False, True])
def test_event_at_the_very_close_whose_row_has_left(is_late: bool) -> None:
    """It leaves with the drain after the one that it belonged to, whether it came before that one or after it."""
    run = Run()
    run.drain(50, [1])
    if not is_late:
        run.add(Told(EventKind.DROP, 1, 100))
    assert run.drain(100) == []
    if is_late:
        run.add(Told(EventKind.DROP, 1, 100))
    assert len(run.drain(200)) == 1
    assert kinds(run.store, EventKind.DROP) == {"taken": 1, "continued": 1}


@pytest.mark.parametrize(("silent_ns", "home"), [(SILENCE_NS - 1, HOME), (SILENCE_NS, HOME + 1)])
def test_packet_without_room_after_a_silence(silent_ns: int, home: int) -> None:
    """A flow whose home has been silent for a second has moved to the hook where it is seen now; not before."""
    run = Run()
    run.drain(100, [1])  # its last packet was at 0
    run.add(Told(EventKind.FLOW, 1, silent_ns, 5, hook=HOME + 1))
    joining = run.store.close(2 * SILENCE_NS, WATCHED)
    _, values = joining.overflow_rows()
    assert values["home"].tolist() == ([home] if home != HOME else [])
    assert joining.duplicate_packets == (5 if home == HOME else 0)
