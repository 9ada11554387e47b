"""Grouping rows by the hooks where they were seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core import distinct
from netwatch.core.enrichment import MAX_HOOKS, MORE_HOOKS, Facts
from netwatch.core.hook_lists import hook_lists_of
from netwatch.core.layout import FLOW_VALUE, HOOK_EGRESS
from netwatch.core.survey import Survey

hooks = st.sampled_from([1, 2, 1 | HOOK_EGRESS, 0x7FFF_FFFF, 0xFFFF_FFFF])
rows_of_hooks = st.lists(st.lists(hooks, min_size=1, max_size=7).map(tuple), min_size=1, max_size=70)


def lists_of(rows: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the list that each row was found to have."""
    values = np.zeros(len(rows), FLOW_VALUE)
    for value, (home, *observed) in zip(values, rows, strict=True):
        value["home"] = home
        value["observed"][: len(observed)] = observed
    found = hook_lists_of(Survey.of(values))
    return [found.lists[number] for number in found.of_row]


@given(rows_of_hooks)
def test_any_hooks(rows: list[tuple[int, ...]]) -> None:
    """Every row has its own list: home first, then the others in their order."""
    assert lists_of(rows) == rows


@given(rows_of_hooks)
def test_hashes_that_collide(rows: list[tuple[int, ...]]) -> None:
    """If all lists had the same hash, each row would still have its own list."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distinct, "_MULTIPLIERS", [np.uint64(0)] * 4)
        assert lists_of(rows) == rows


def test_each_list_is_found_once() -> None:
    """There are as many lists as there are different ones, not as there are rows."""
    values = np.zeros(1000, FLOW_VALUE)
    values["home"] = np.arange(1000) % 5 + 1
    values["observed"][:, 0] = np.arange(1000) % 3

    found = hook_lists_of(Survey.of(values))

    assert len(found.lists) == 15
    assert len(set(found.lists)) == 15


def test_free_places_between_hooks() -> None:
    """A free place is skipped, wherever it is."""
    values = np.zeros(1, FLOW_VALUE)
    values["home"] = 3
    values["observed"] = [0, 5, 0, 0, 7, 0]

    assert hook_lists_of(Survey.of(values)).lists == ((3, 5, 7),)


more_hooks = st.lists(st.none() | st.lists(hooks, max_size=64), min_size=1, max_size=70)


@given(rows_of_hooks, more_hooks)
def test_rows_with_more_hooks(rows: list[tuple[int, ...]], more: list[list[int] | None]) -> None:
    """What does not fit into a row is appended to its list, up to 64 in all, and to no other."""
    values = np.zeros(len(rows), FLOW_VALUE)
    for value, (home, *observed) in zip(values, rows, strict=True):
        value["home"] = home
        value["observed"][: len(observed)] = observed
    longer = {row: some for row, some in enumerate(more[: len(rows)]) if some is not None}
    facts = Facts(np.array(list(longer), np.intp), np.zeros(len(longer), MORE_HOOKS))
    for fact, some in zip(facts.values, longer.values(), strict=True):
        fact["count"], fact["hooks"][: len(some)] = len(some), some

    found = hook_lists_of(Survey.of(values), facts)

    assert [found.lists[number] for number in found.of_row] == [
        (*hooks, *longer.get(row, ()))[:MAX_HOOKS] for row, hooks in enumerate(rows)
    ]
