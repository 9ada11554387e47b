"""Flows that were exported: bounded, the oldest forgotten first, the latest row of each found."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core import key_hash, recent
from netwatch.core.enrichment import Facts
from netwatch.core.key_hash import hash_words, words_of
from netwatch.core.layout import FLOW_KEY, FLOW_VALUE, OWNER
from netwatch.core.recent import RecentFlows

REPEATED = ("last_ns", "home", "observed", "sampling", "flags", "eth_type", "src_mac", "dst_mac", "dscp")


@attrs.frozen
class Row:
    """An exported row, small enough to be shown; 0: no owner at that end."""

    port: int
    number: int = 1
    source: int = 0
    destination: int = 0


NO_OWNERS = Facts.none(OWNER)
DRAINS = st.lists(
    st.lists(st.builds(Row, st.integers(0, 12), st.integers(1, 250), st.integers(0, 2), st.integers(0, 2)), max_size=9),
    max_size=12,
)


def keys_of(ports: list[int]) -> np.ndarray:
    keys = np.zeros(len(ports), FLOW_KEY)
    keys["src_port"] = ports
    return keys


def values_of(numbers: list[int]) -> np.ndarray:
    """Return rows in which everything is filled in, from one number each."""
    values = np.zeros(len(numbers), FLOW_VALUE)
    for name in FLOW_VALUE.names or ():
        values[name] = np.array(numbers).reshape(-1, *[1] * len(FLOW_VALUE[name].shape))
    return values


def owners_of(pids: list[int]) -> Facts:
    rows = np.flatnonzero(pids)
    owners = np.zeros(len(rows), OWNER)
    owners["pid"] = np.array(pids, np.uint32)[rows]
    return Facts(rows, owners)


def remember(flows: RecentFlows, rows: list[Row]) -> None:
    flows.remember(
        keys_of([row.port for row in rows]),
        values_of([row.number for row in rows]),
        owners_of([row.source for row in rows]),
        owners_of([row.destination for row in rows]),
    )


def found(flows: RecentFlows, ports: list[int]) -> dict[int, Row]:
    """Return what is found of each of the ports that are asked for, by its place; check what it is made of."""
    words = words_of(keys_of(ports))
    remembered = flows.find(words, key_hash.hash_words(words))
    sources, destinations = (
        dict(zip(facts.rows.tolist(), facts.values["pid"].tolist(), strict=True))
        for facts in (remembered.source, remembered.destination)
    )
    assert sources.keys() | destinations.keys() <= set(remembered.rows.tolist())
    for facts in (remembered.source, remembered.destination):
        assert facts.rows.tolist() == sorted(facts.rows.tolist())
    numbers = remembered.values["last_ns"].tolist()
    expected = np.zeros(len(numbers), FLOW_VALUE)
    for name in REPEATED:
        expected[name] = values_of(numbers)[name]
    assert remembered.values.tobytes() == expected.tobytes()
    return {
        place: Row(ports[place], number, sources.get(place, 0), destinations.get(place, 0))
        for place, number in zip(remembered.rows.tolist(), numbers, strict=True)
    }


@given(DRAINS, st.integers(0, 60), st.lists(st.integers(0, 14), max_size=10))
def test_latest_row_is_found(drains: list[list[Row]], most: int, asked: list[int]) -> None:
    """After each drain: at most the limit, the oldest forgotten and counted, and of the rest the latest is found."""
    flows = RecentFlows(most)
    told: list[Row] = []
    for rows in drains:
        remember(flows, rows)
        told += rows
        assert len(flows) <= most
        assert len(flows) + flows.forgotten == len(told)
        latest = {row.port: row for row in told[flows.forgotten :]}
        assert found(flows, asked) == {place: latest[port] for place, port in enumerate(asked) if port in latest}


@given(DRAINS, st.lists(st.integers(0, 14), max_size=10))
def test_keys_that_share_a_hash(drains: list[list[Row]], asked: list[int]) -> None:
    """A hash only narrows the search: with the same for all keys each still has its own row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_hash, "hash_words", lambda words: np.zeros(len(words), np.uint64))
        flows = RecentFlows(1_000)
        for rows in drains:
            remember(flows, rows)
        latest = {row.port: row for rows in drains for row in rows}
        assert found(flows, asked) == {place: latest[port] for place, port in enumerate(asked) if port in latest}


def test_nothing_is_forgotten_below_the_limit() -> None:
    """As many as the limit are all there, in however many drains they came."""
    flows = RecentFlows(100)
    for port in range(100):
        remember(flows, [Row(port)])
    assert (len(flows), flows.forgotten) == (100, 0)
    assert len(found(flows, list(range(100)))) == 100


def test_drain_of_more_than_the_limit() -> None:
    """Its last rows are kept, with their own owners; the others are counted as forgotten."""
    flows = RecentFlows(3)
    remember(flows, [Row(port, source=port, destination=port % 2) for port in range(1, 9)])
    assert (len(flows), flows.forgotten) == (3, 5)
    assert found(flows, [5, 6, 7, 8]) == {1: Row(6, source=6), 2: Row(7, source=7, destination=1), 3: Row(8, source=8)}


def test_small_drains_are_put_together() -> None:
    """A thousand small drains are looked through as a few: a quiet host does not slow its events down."""
    flows = RecentFlows(80_000)
    for port in range(1_000):
        remember(flows, [Row(port)])
    assert len(flows._chunks) == 1
    assert len(found(flows, list(range(1_000)))) == 1_000


def test_found_again_after_a_drain_was_added() -> None:
    """Rows that are put together with those already looked through are found, too."""
    flows = RecentFlows(1_000)
    remember(flows, [Row(1, 5), Row(2, 6)])
    assert found(flows, [1, 2, 3]) == {0: Row(1, 5), 1: Row(2, 6)}
    remember(flows, [Row(3, 7), Row(1, 8)])
    assert found(flows, [1, 2, 3]) == {0: Row(1, 8), 1: Row(2, 6), 2: Row(3, 7)}


def test_rows_of_the_caller_may_change() -> None:
    """What is remembered is a copy: the caller's arrays are its own again."""
    flows = RecentFlows(10)
    keys, values = keys_of([1]), values_of([5])
    flows.remember(keys, values, NO_OWNERS, NO_OWNERS)
    keys["src_port"], values["last_ns"] = 2, 9
    assert found(flows, [1, 2]) == {0: Row(1, 5)}


def test_nothing_is_remembered() -> None:
    """With a limit of zero nothing is, and all are counted; where nothing is known, nothing is found."""
    flows = RecentFlows(0)
    remember(flows, [Row(1), Row(2)])
    assert (len(flows), flows.forgotten) == (0, 2)
    assert found(flows, [1]) == found(RecentFlows(5), [1, 2]) == found(RecentFlows(5), []) == {}


def test_memory_of_a_flow() -> None:
    """A flow costs what its comment says: 60 B, and 40 B of key."""
    assert recent._REMEMBERED.itemsize == 60
    assert words_of(keys_of([1])).nbytes == 40
    assert hash_words(words_of(keys_of([1]))).nbytes == 8
