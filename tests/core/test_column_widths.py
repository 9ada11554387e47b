"""Which columns fit, and how wide."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.column_widths import NOTES, fit_columns
from netwatch.core.flow_cells import DESTINATION, FLAGS, INTERFACES, SOURCE, TOOK

# Of time, protocol, both ends, packets, bytes, flags, duration, interfaces; notes may be nothing at all.
_LIMITS = ((8, 8), (5, 7), (6, 47), (11, 47), (4, 5), (5, 5), (5, 17), (4, 6), (10, 120))
NEEDS = st.tuples(*(st.integers(least, most) for least, most in _LIMITS), st.one_of(st.just(0), st.integers(5, 300)))


@given(NEEDS, st.integers(60, 220))
def test_any_columns(needs: tuple[int, ...], width: int) -> None:
    """No column is wider than it needs, the first six are always there, and all together fit with their gaps."""
    widths = fit_columns(needs, width)
    gap = 2 if width >= 100 else 1
    shown = [column for column in widths if column]
    assert all(0 <= got <= need for got, need in zip(widths, needs, strict=True))
    assert all(widths[:6])
    assert sum(shown) + gap * (len(shown) - 2) + len(" → ") <= width


@given(NEEDS, st.integers(60, 219))
def test_one_more_column_of_terminal(needs: tuple[int, ...], width: int) -> None:
    """A wider terminal never shows fewer columns, save where the gaps double."""
    if width + 1 != 100:
        narrow, wide = fit_columns(needs, width), fit_columns(needs, width + 1)
        assert {column for column, shown in enumerate(narrow) if shown} <= {
            column for column, shown in enumerate(wide) if shown
        }


@given(NEEDS, st.integers(60, 220))
def test_no_notes(needs: tuple[int, ...], width: int) -> None:
    """Where nothing was found, notes take nothing from the others."""
    assert fit_columns((*needs[:NOTES], 0), width)[NOTES] == 0


@given(NEEDS, st.integers(80, 220))
def test_notes_come_first(needs: tuple[int, ...], width: int) -> None:
    """From 80 characters on there are notes whenever there is something to say; the rest is left out before them."""
    widths = fit_columns((*needs[:NOTES], needs[NOTES] or 20), width)
    assert widths[NOTES] >= 5
    if not widths[FLAGS]:
        assert widths[TOOK] == widths[INTERFACES] == 0


@given(NEEDS, st.integers(80, 220))
def test_ipv4_endpoints_stay_whole(needs: tuple[int, ...], width: int) -> None:
    """An IPv4 endpoint is never cut, however much there is to say, beside one as long."""
    short = (*needs[:SOURCE], min(needs[SOURCE], 21), min(needs[DESTINATION], 21), *needs[DESTINATION + 1 :])
    assert fit_columns(short, width)[SOURCE : DESTINATION + 1] == short[SOURCE : DESTINATION + 1]
