"""Counts and times in few characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.quantities import short_count, short_duration, short_time


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (1249, "1.2k"),
        (99_949, "99.9k"),
        (99_950, "100k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (3_400_000, "3.4M"),
        (2**64 - 1, "18.4E"),
        (10**22, ">999E"),
    ],
)
def test_count(count: int, text: str) -> None:
    """A count keeps two or three digits, and rounding never makes it a digit longer."""
    assert short_count(count) == text


@given(st.integers(1000, 2**64 - 1))
def test_any_count(count: int) -> None:
    """A count fits its column, and its last digit is right."""
    text = short_count(count)
    assert len(text) <= 5
    shown = float(text[:-1]) * 1000 ** " kMGTPE".index(text[-1])
    assert shown == pytest.approx(count, rel=0.05)


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (-5, "0ms"),
        (0, "0ms"),
        (999, "999ms"),
        (1_000, "1.0s"),
        (59_999, "59.9s"),
        (60_000, "1m00s"),
        (3_599_999, "59m59s"),
        (3_600_000, "1h00m"),
        (86_399_999, "23h59m"),
        (86_400_000, "1d00h"),
        (100 * 86_400_000 - 1, "99d23h"),
        (100 * 86_400_000, "100d"),
        (1 << 60, "99999d"),
    ],
)
def test_duration(duration_ms: int, text: str) -> None:
    """A duration has two units, the larger one first; a record that ends before it began took no time."""
    assert short_duration(duration_ms) == text
    assert len(text) <= 6


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "0ns"),
        (999, "999ns"),
        (1_000, "1µs"),
        (999_999, "999µs"),
        (1_000_000, "1.0ms"),
        (9_999_999, "9.9ms"),
        (10_000_000, "10ms"),
        (999_999_999, "999ms"),
        (1_000_000_000, "1.0s"),
        (131 * 10**9, "2m11s"),
        (2**64 - 1, "99999d"),
    ],
)
def test_time(time_ns: int, text: str) -> None:
    """A time of a packet's way has the unit that suits it; from a second on it reads as a duration."""
    assert short_time(time_ns) == text if time_ns < 2**60 else len(short_time(time_ns)) <= 7


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_any_two_times(one: int, other: int) -> None:
    """The larger of two times never looks like the smaller one."""
    assert (_nanoseconds(short_time(one)) <= _nanoseconds(short_time(other))) or one > other


def _nanoseconds(text: str) -> float:
    for unit, factor in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise AssertionError(text)
