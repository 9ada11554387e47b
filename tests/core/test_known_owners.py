"""Owners that are told once a connection, and known for all its rows."""

from __future__ import annotations

import numpy as np

from netwatch.core.enrichment import NOTHING, Enrichment, Facts
from netwatch.core.known_owners import KnownOwners
from netwatch.core.layout import FLOW_KEY, OWNER, OWNER_EVENT, FlowEnd


def events(*told: tuple[int, FlowEnd, int]) -> np.ndarray:
    made = np.zeros(len(told), OWNER_EVENT)
    for row, (port, end, pid) in zip(made, told, strict=True):
        row["event"]["key"]["src_port"], row["end"], row["owner"]["pid"] = port, end, pid
    return made


def keys(*ports: int) -> np.ndarray:
    rows = np.zeros(len(ports), FLOW_KEY)
    rows["src_port"] = ports
    return rows


def pids(facts: Facts) -> dict[int, int]:
    return dict(zip(facts.rows.tolist(), facts.values["pid"].tolist(), strict=True))


def test_each_end_is_its_own() -> None:
    """Source and destination are told apart, for each flow."""
    owners = KnownOwners(10)
    owners.take(events((1, FlowEnd.SOURCE, 11), (2, FlowEnd.DESTINATION, 22)))
    known = owners.complete(keys(2, 1), NOTHING)
    assert (pids(known.source), pids(known.destination)) == ({1: 11}, {0: 22})


def test_several_of_one_end() -> None:
    """Each flow has its own owner, however many are told together."""
    owners = KnownOwners(10)
    owners.take(events(*((port, FlowEnd.SOURCE, 11 * port) for port in (1, 2, 3, 4))))
    assert pids(owners.complete(keys(4, 3, 2, 1), NOTHING).source) == {0: 44, 1: 33, 2: 22, 3: 11}


def test_what_an_event_brought_stands() -> None:
    """An owner that came with the row is not replaced; only rows without one are completed."""
    owners = KnownOwners(10)
    owners.take(events((1, FlowEnd.SOURCE, 11), (2, FlowEnd.SOURCE, 22)))
    own = np.zeros(1, OWNER)
    own["pid"] = 33
    known = owners.complete(keys(1, 2), Enrichment(source=Facts(np.array([1]), own)))
    assert pids(known.source) == {0: 11, 1: 33}


def test_nobody_ends_it() -> None:
    """A connection that has ended is known until its last rows have been drained."""
    owners = KnownOwners(10)
    owners.take(events((1, FlowEnd.SOURCE, 11), (1, FlowEnd.SOURCE, 0)))
    assert pids(owners.complete(keys(1), NOTHING).source) == {0: 11}
    for _ in range(3):
        owners.drained()
    assert owners.complete(keys(1), NOTHING) is NOTHING


def test_too_many() -> None:
    """The oldest is forgotten for each end, and counted."""
    owners = KnownOwners(1)
    owners.take(events((1, FlowEnd.SOURCE, 11), (2, FlowEnd.SOURCE, 22), (1, FlowEnd.DESTINATION, 33)))
    assert owners.forgotten == 1
    assert pids(owners.complete(keys(1, 2), NOTHING).source) == {1: 22}
