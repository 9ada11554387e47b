"""How wide each column of the table is, when the terminal has less room than they need.

Law: pure; together with their gaps the columns fit, in every terminal of 60 characters or more.
Neighbours: `core/table.py` asks, and cuts to these widths.
"""

from __future__ import annotations

from collections.abc import Sequence

from netwatch.core.flow_cells import BYTES, DESTINATION, FLAGS, INTERFACES, PACKETS, PROTO, SOURCE, TIME, TOOK

NOTES = INTERFACES + 1
ARROW = " → "  # between the ends, in the place of a gap

# What stays readable of a cell that must give way. An IPv4 endpoint has 21 characters at most and always stays whole.
_IPV4_ENDPOINT = 21
_LEAST_ENDPOINT = 28
_LEAST_FLAGS = 5
_LEAST_INTERFACES = 12
# "7 dr…" is enough to make somebody look, "7 drop…" to guess, "7 dropped: NETFILTER_DROP…" to know.
_LEAST_NOTES, _FEW_NOTES = 5, 7
_MODEST_NOTES, _GOOD_NOTES, _AMPLE_NOTES = 12, 26, 40
_WIDE = 100  # characters from which on two spaces stand between columns


def gap_of(terminal_width: int) -> int:
    """Return how many spaces stand between columns."""
    return 2 if terminal_width >= _WIDE else 1


def fit_columns(needs: Sequence[int], terminal_width: int) -> tuple[int, ...]:
    """Return the width of each column, 0 where it is left out; notes need 0 where nothing was found.

    Time, protocol, both ends, packets and bytes are always there. Notes, flags, duration and interfaces come in that
    order while there is room. What is left then goes to long addresses first, to notes, to interface lists, and to
    very long notes last.
    """
    gap = gap_of(terminal_width)
    widths = list(needs)
    left = terminal_width - sum(needs[column] for column in (TIME, PROTO, PACKETS, BYTES)) - 4 * gap - len(ARROW)
    least_ends = _least_ends(needs, _LEAST_ENDPOINT)
    widths[NOTES] = _first_notes(needs, left - gap, gap)
    left -= widths[NOTES] + gap if widths[NOTES] else 0
    is_shown = bool(widths[NOTES]) or not needs[NOTES]
    for column, least, most in (
        (FLAGS, _LEAST_FLAGS, needs[FLAGS]),
        (TOOK, needs[TOOK], needs[TOOK]),
        (INTERFACES, _LEAST_INTERFACES, _LEAST_INTERFACES),
    ):
        room = left - least_ends - gap
        is_shown = is_shown and room >= min(least, needs[column])
        widths[column] = min(needs[column], most, room) if is_shown else 0
        left -= widths[column] + gap if is_shown else 0
    ends = max(2, min(needs[SOURCE] + needs[DESTINATION], left))
    widths[SOURCE] = min(needs[SOURCE], max(ends // 2, ends - needs[DESTINATION]))
    widths[DESTINATION] = ends - widths[SOURCE]
    _give(widths, needs, left - ends)
    return tuple(widths)


def _least_ends(needs: Sequence[int], least: int) -> int:
    return min(needs[SOURCE], least) + min(needs[DESTINATION], least)


def _first_notes(needs: Sequence[int], room: int, gap: int) -> int:
    """Return what notes get before all other columns that may be left out."""
    beside_ipv4 = room - _least_ends(needs, _IPV4_ENDPOINT)
    if beside_ipv4 < min(needs[NOTES], _LEAST_NOTES):
        return 0
    most = _GOOD_NOTES if gap > 1 else _MODEST_NOTES
    beside_ends = room - _least_ends(needs, _LEAST_ENDPOINT)
    return min(needs[NOTES], max(min(_FEW_NOTES, beside_ipv4), min(most, beside_ends)))


def _give(widths: list[int], needs: Sequence[int], spare: int) -> None:
    """Spend the rest on the columns at the end, where they are shown."""
    for column, most in ((NOTES, _AMPLE_NOTES), (INTERFACES, needs[INTERFACES]), (NOTES, needs[NOTES])):
        if widths[column] and spare > 0:
            more = max(0, min(spare, min(needs[column], most) - widths[column]))
            widths[column] += more
            spare -= more
