"""Flow keys grouped and found by columns, against a dict that walks them one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core import key_hash
from netwatch.core.key_hash import KEY_WORDS, KeyIndex, are_same, group_keys, hash_words, words_of
from netwatch.core.layout import FLOW_KEY

Hash = Callable[[np.ndarray], np.ndarray]

# Words that differ in their lowest bit, in their highest, and in a few between.
WORD = st.sampled_from([0, 1, 2, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1])
KEY = st.tuples(*[WORD] * KEY_WORDS)
KEYS = st.lists(KEY, max_size=60)


def laid_out(keys: Sequence[tuple[int, ...]]) -> np.ndarray:
    return np.array(keys, np.uint64).reshape(-1, KEY_WORDS)


def one_hash(words: np.ndarray) -> np.ndarray:
    """All keys share it."""
    return np.full(len(words), 7, np.uint64)


def three_hashes(words: np.ndarray) -> np.ndarray:
    """Many keys share each."""
    return words[:, 0] % np.uint64(3)


def numbered(count: int) -> np.ndarray:
    words = np.zeros((count, KEY_WORDS), np.uint64)
    words[:, 0] = np.arange(count)
    return words


@pytest.fixture(params=[hash_words, one_hash, three_hashes])
def hash_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Hash:
    """Hash as the program does, and as an attacker would like it to."""
    chosen: Hash = request.param
    monkeypatch.setattr(key_hash, "hash_words", chosen)
    return chosen


def check_groups(keys: Sequence[tuple[int, ...]]) -> None:
    groups = group_keys(laid_out(keys))
    expected: dict[tuple[int, ...], list[int]] = {}
    for row, key in enumerate(keys):
        expected.setdefault(key, []).append(row)
    assert groups.count == len(expected)
    group_of_key = {tuple(words): group for group, words in enumerate(groups.index.words.tolist())}
    assert [group_of_key[key] for key in keys] == groups.of_row.tolist()
    in_order = [row for key in group_of_key for row in expected[key]]
    assert groups.order.tolist() == in_order


@pytest.mark.parametrize("hash_function", [hash_words, one_hash, three_hashes])
@given(keys=KEYS)
def test_rows_of_a_key_are_a_group(hash_function: Hash, keys: list[tuple[int, ...]]) -> None:
    """Each distinct key is one group, whatever the hash; its rows stay in their order, side by side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_hash, "hash_words", hash_function)
        check_groups(keys)


@pytest.mark.parametrize("hash_function", [hash_words, one_hash, three_hashes])
@given(known=st.lists(KEY, unique=True, max_size=60), asked=KEYS)
def test_key_is_found_where_it_stands(
    hash_function: Hash, known: list[tuple[int, ...]], asked: list[tuple[int, ...]]
) -> None:
    """A key that is there is found at its row, any other nowhere, whatever the hash."""
    words, wanted = laid_out(known), laid_out(asked + known)
    found = KeyIndex(words, hash_function(words)).find(wanted, hash_function(wanted))
    row_of_key = {key: row for row, key in enumerate(known)}
    assert found.tolist() == [row_of_key.get(key, -1) for key in asked + known]


def test_many_keys(hash_of: Hash) -> None:
    """Also with more keys than any table has places for the colliding ones, each is found, and no other."""
    words = numbered(2_000)
    index = KeyIndex(words[::2], hash_of(words[::2]))
    expected = np.where(np.arange(2_000) % 2 == 0, np.arange(2_000) // 2, -1)
    assert (index.find(words, hash_of(words)) == expected).all()


@pytest.mark.parametrize("rows", [(1 << 16) - 1, 1 << 16, (1 << 16) + 1, 150_000])
def test_more_rows_than_sixteen_bits_count(rows: int) -> None:
    """Past 65,536 rows, and past as many groups, rows still stand group by group and in their order."""
    numbers = np.random.default_rng(1).integers(0, rows, rows)
    groups = group_keys(numbered(rows)[numbers])
    assert (groups.of_row[groups.order] == np.sort(groups.of_row)).all()
    assert (groups.order == groups.of_row.argsort(kind="stable")).all()
    assert (groups.index.words[groups.of_row, 0] == numbers).all()
    assert groups.count == len(np.unique(numbers))


def test_more_groups_than_sixteen_bits_count() -> None:
    """The order is right as soon as there are more than 65,536 groups, and not only where there are twice as many."""
    numbers = np.arange(100_000)
    numbers[-1] = 0
    groups = group_keys(numbered(100_000)[numbers])
    assert groups.count == 99_999
    assert (groups.order == groups.of_row.argsort(kind="stable")).all()


def test_no_keys() -> None:
    """Of nothing there are no groups, and nothing is found in it."""
    nothing = np.empty((0, KEY_WORDS), np.uint64)
    groups = group_keys(nothing)
    assert (groups.count, len(groups.order), len(groups.of_row)) == (0, 0, 0)
    assert groups.index.find(numbered(3), hash_words(numbered(3))).tolist() == [-1, -1, -1]


def test_keys_inside_events() -> None:
    """Words that lie apart, as in events, are grouped as those that lie together, and are left as they are."""
    apart = np.zeros((6, 16), np.uint64)
    apart[:, 1 : 1 + KEY_WORDS] = numbered(6) % np.uint64(2)
    before = apart.copy()
    groups = group_keys(apart[:, 1 : 1 + KEY_WORDS])
    assert groups.count == 2
    assert len(set(groups.of_row[::2].tolist())) == len(set(groups.of_row[1::2].tolist())) == 1
    assert (apart == before).all()


@pytest.mark.parametrize("octet", range(FLOW_KEY.itemsize))
def test_every_octet_counts(octet: int) -> None:
    """Keys that differ in a single octet are not the same, and have another hash."""
    keys = np.zeros(2, FLOW_KEY)
    keys.view("u1").reshape(2, -1)[1, octet] = 1
    words = words_of(keys)
    assert are_same(words, np.array([0, 1, 0]), words, np.array([0, 1, 1])).tolist() == [True, True, False]
    assert len(set(hash_words(words).tolist())) == 2
