"""Facts that stand as long as a connection: bounded, found by key, and kept for the drains that still need them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core import standing
from netwatch.core.layout import FLOW_KEY
from netwatch.core.standing import StandingFacts

NUMBER = np.dtype([("number", "<u8")])


def key(number: int) -> bytes:
    one = np.zeros(1, FLOW_KEY)
    one["src_addr"][0, :8] = np.frombuffer(number.to_bytes(8, "little"), "u1")
    return one.tobytes()


def value(number: int) -> bytes:
    return number.to_bytes(8, "little")


def found(facts: StandingFacts, *numbers: int) -> dict[int, int]:
    keys = np.frombuffer(b"".join(map(key, numbers)), FLOW_KEY)
    about = facts.lookup(keys)
    return dict(zip(about.rows.tolist(), about.values["number"].tolist(), strict=True))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1 << 60))), st.lists(st.integers(0, 25)))
def test_the_latest_is_found(added: list[tuple[int, int]], asked: list[int]) -> None:
    """Each key has the fact that was added last, and a key that nothing is known of has none."""
    facts = StandingFacts(NUMBER, 1_000)
    for number, fact in added:
        facts.add(key(number), value(fact))
    known = dict(added)
    assert found(facts, *asked) == {row: known[number] for row, number in enumerate(asked) if number in known}


def test_keys_that_share_a_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash only narrows the search: with the same for all, each key still has its own fact."""
    monkeypatch.setattr(standing, "hash_words", lambda words: np.zeros(len(words), np.uint64))
    facts = StandingFacts(NUMBER, 100)
    for number in range(7):
        facts.add(key(number), value(number + 100))
    assert found(facts, 3, 9, 0, 6) == {0: 103, 2: 100, 3: 106}


@given(st.lists(st.integers(0, 50), max_size=200), st.integers(1, 10))
def test_bound(added: list[int], most: int) -> None:
    """There are never more than the limit; the oldest went first, and each is counted."""
    facts = StandingFacts(NUMBER, most)
    kept: dict[int, int] = {}
    forgotten = 0
    for number in added:
        facts.add(key(number), value(number))
        kept.pop(number, None)
        kept[number] = number
        if len(kept) > most:
            del kept[next(iter(kept))]
            forgotten += 1
        assert len(facts) <= most
    assert set(found(facts, *range(51)).values()) == set(kept)
    assert facts.forgotten == forgotten


def test_end() -> None:
    """What has ended is found by the drains that bring its last rows, then no more; added again, it stands again."""
    facts = StandingFacts(NUMBER, 10)
    facts.add(key(1), value(11))
    facts.add(key(2), value(22))
    facts.end(key(1))
    facts.end(key(3))
    for _ in range(2):
        assert found(facts, 1, 2) == {0: 11, 1: 22}
        facts.drained()
    assert found(facts, 1) == {0: 11}
    facts.drained()
    assert found(facts, 1, 2) == {1: 22}
    facts.end(key(2))
    facts.add(key(2), value(23))
    for _ in range(5):
        facts.drained()
    assert found(facts, 2) == {0: 23}


def test_ended_and_added_again() -> None:
    """What has ended and is told again, the same as before, stands again: it is forgotten by no drain."""
    facts = StandingFacts(NUMBER, 10)
    facts.add(key(1), value(11))
    facts.end(key(1))
    facts.add(key(1), value(11))
    for _ in range(5):
        facts.drained()
    assert found(facts, 1) == {0: 11}
