"""The join at its borders: what happens at the very moment that divides two epochs, or two homes of a flow."""

from __future__ import annotations

import numpy as np
import pytest

from netwatch.core.enrichment import RecordKind
from netwatch.core.join import JoinStore
from netwatch.core.layout import EventKind, FlowEnd
from tests.core.test_join import HOME, WATCHED, Run, Told, event_of, kinds, rows_of

SILENCE_NS = 1_000_000_000
LATE_NS = (1 << 60) + 1  # beyond what a floating-point number keeps to the nanosecond: a machine up for 104 days


def test_event_at_the_very_close() -> None:
    """An epoch has what happened up to its close, that moment included: the row has it, and the next one nothing."""
    run = Run()
    run.add(Told(EventKind.DROP, 1, 100))
    run.drain(100, [1])
    assert kinds(run.store, EventKind.DROP) == {"taken": 1, "joined": 1}


def test_last_close() -> None:
    """It takes what happened after it as well: nobody comes later. No other does."""
    for is_final, ends in ((False, {"taken": 2, "held": 2}), (True, {"taken": 2, "unclaimed": 2})):
        run = Run()
        run.add(Told(EventKind.TCP, 1, 100), Told(EventKind.TCP, 1, 150))
        (run.store.close(100, WATCHED, final=True) if is_final else run.store.close(100, WATCHED)).finish()
        assert kinds(run.store, EventKind.TCP) == ends


def test_packets_that_were_not_sampled() -> None:
    """Where packets are sampled, what is told of a flow without a row is of one that was left out; else unclaimed."""
    for is_sampled, ends in ((True, {"taken": 1, "not_sampled": 1}), (False, {"taken": 1, "drop_only": 1})):
        run = Run(JoinStore(10, 10, is_packet_sampled=is_sampled))
        run.drain(40, [2])
        run.add(Told(EventKind.DROP, 1, 50), Told(EventKind.OWNER, 2, 50))
        run.drain(100)
        run.drain(200)
        assert kinds(run.store, EventKind.DROP) == ends
        assert kinds(run.store, EventKind.OWNER) == {"taken": 1, "unclaimed": 1}


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
    keys, values = rows_of([1])
    values["last_ns"] = LATE_NS
    run.store.close(LATE_NS + 1, WATCHED).join(keys, values)
    run.add(Told(EventKind.FLOW, 1, LATE_NS + silent_ns, 5, hook=HOME + 1))
    joining = run.store.close(LATE_NS + 2 * SILENCE_NS, WATCHED)
    _, values = joining.overflow_rows()
    assert values["home"].tolist() == ([home] if home != HOME else [])
    assert joining.duplicate_packets == (5 if home == HOME else 0)


@pytest.mark.parametrize("first", [1, 2])
def test_messages_of_one_time(first: int) -> None:
    """Two that differ in the last octet of a long name alone have an order, whichever of them arrived first."""
    run = Run()
    for octet in (first, 3 - first):
        message = event_of(Told(EventKind.DNS, 1, 50))
        message["dns"]["name_bytes"], message["dns"]["name"] = 255, [*[7] * 254, octet]
        run.store.add(EventKind.DNS, message)
    facts = run.store.close(100, WATCHED).join(*rows_of([1])).dns
    assert (facts.values["messages"].tolist(), facts.values["name"][:, -1].tolist()) == ([2], [2])


@pytest.mark.parametrize("kinds_in_order", [(EventKind.DROP, EventKind.TCP), (EventKind.TCP, EventKind.DROP)])
def test_what_is_told_of_one_flow_leaves_together(kinds_in_order: tuple[EventKind, EventKind]) -> None:
    """One event that has waited through a whole drain takes the others of its flow along, of whatever kind they are."""
    run = Run()
    first, second = kinds_in_order
    run.drain(50, [1])
    run.add(Told(first, 1, 60))
    assert run.drain(100) == []
    run.add(Told(second, 1, 150))
    assert len(run.drain(200)) == 1
    assert kinds(run.store, first) == kinds(run.store, second) == {"taken": 1, "continued": 1}


def test_times_of_a_record_of_its_own() -> None:
    """It begins with the first of the drops that were merged, and ends with the latest event, to the nanosecond."""
    run = Run()
    drop = event_of(Told(EventKind.DROP, 1, LATE_NS + 2))
    drop["first_ns"] = LATE_NS
    run.store.add(EventKind.DROP, drop)
    run.add(Told(EventKind.TCP, 1, LATE_NS + 3))
    _, values, enrichment = run.store.close(LATE_NS + 9, WATCHED, final=True).finish()
    assert enrichment.kinds.values["kind"].tolist() == [RecordKind.DROP_ONLY]
    assert (values["first_ns"].tolist(), values["last_ns"].tolist()) == ([LATE_NS], [LATE_NS + 3])
    assert values["sampling"].tolist() == [1]


def test_owners_of_several_continuations() -> None:
    """Each repeats the owner of its own flow, whichever came first; a flow that is not continued has no part in it."""
    run = Run()
    pids = {port: 10 * port + FlowEnd.SOURCE for port in (1, 2, 3, 4, 5)}
    for port in (3, 1, 5, 4, 2):
        if port != 2:
            run.add(Told(EventKind.OWNER, port, 50, pids[port]))
        run.drain(100, [port])
    run.add(Told(EventKind.HOOK, 5, 150), *(Told(EventKind.DROP, port, 150) for port in (4, 2, 1, 3)))
    run.drain(200)
    keys, _, enrichment = run.store.close(300, WATCHED).finish()
    ports = keys["src_port"].tolist()
    assert sorted(ports) == [1, 2, 3, 4]
    assert enrichment.source.rows.tolist() == [row for row, port in enumerate(ports) if port != 2]
    assert enrichment.kinds.rows.tolist() == [0, 1, 2, 3]
    expected = [pids[port] for port in ports if port != 2]
    assert np.array_equal(enrichment.source.values["pid"], expected)
