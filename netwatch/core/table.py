"""Flows as a table for a person: one line a flow, aligned, within the width of the terminal.

Law: reads no clock and no terminal; the width comes in. No line is wider than that, whatever an address or an
interface name holds, and nothing in a name can steer the terminal.
Neighbours: `core/record.py` makes the records, `exporters/stdout.py` and `netwatch collect` print the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import attrs

from netwatch.core.layout import Direction
from netwatch.core.protocol_names import flag_letters, icmp_name, protocol_name
from netwatch.core.record import ICMP_PROTOCOLS, IP_ETHERTYPES, PROTOCOLS_WITH_PORTS, TCP, FlowRecord

PAGE_ROWS = 40  # so that a header stays in sight on most terminals

Row = tuple[str, ...]
"""The text of each column, in the order of _TITLES."""

_TITLES: Row = ("TIME", "PROTO", "SOURCE", "DESTINATION", "PKTS", "BYTES", "FLAGS", "TOOK", "INTERFACES")
_TIME, _PROTO, _SOURCE, _DESTINATION, _PACKETS, _BYTES, _FLAGS, _TOOK, _INTERFACES = range(len(_TITLES))
_RIGHT_ALIGNED = frozenset((_PACKETS, _BYTES, _TOOK))
_ARROWS = {Direction.INGRESS: "↓", Direction.EGRESS: "↑"}

# What stays readable of a cell that must give way. An IPv4 endpoint has 21 characters at most and always stays whole.
_LEAST_ENDPOINT = 28
_LEAST_FLAGS = 5
_LEAST_INTERFACES = 12
_ARROWS_EXPLAINED = " ↓in ↑out"
_WIDE = 100  # characters from which on two spaces stand between columns


@attrs.define
class Table:
    """A table that grows page by page.

    Columns keep their widths from page to page while the rows fit, and the header is repeated when they change or
    PAGE_ROWS have gone by, so that a drain of three flows adds three lines.
    """

    _needs: tuple[int, ...] = ()
    _terminal_width: int = 0
    _rows_since_header: int = PAGE_ROWS

    def format(self, records: Sequence[FlowRecord], terminal_width: int) -> str:
        """Return the lines of some flows, largest first, each with its line end."""
        largest_first = sorted(records, key=lambda record: record.bytes, reverse=True)
        starts = range(0, len(records), PAGE_ROWS)
        return "".join(self._page(largest_first[start : start + PAGE_ROWS], terminal_width) for start in starts)

    def _page(self, records: Sequence[FlowRecord], terminal_width: int) -> str:
        rows = [_row_of(record) for record in records]
        page_needs = tuple(max(map(len, column)) for column in zip(*rows, _TITLES, strict=True))
        needs = tuple(map(max, self._needs or page_needs, page_needs))
        is_due = self._rows_since_header + len(rows) > PAGE_ROWS
        if is_due or needs != self._needs or terminal_width != self._terminal_width:
            # A header that is due anyway is the time to forget a long address that has gone.
            self._needs = page_needs if is_due else needs
            self._terminal_width, self._rows_since_header = terminal_width, 0
            rows.insert(0, _TITLES)
        self._rows_since_header += len(records)
        widths = fit_columns(self._needs, terminal_width)
        lines = [_line_of(row, widths, terminal_width) for row in rows]
        if rows[0] is _TITLES and widths[_INTERFACES] and len(lines[0] + _ARROWS_EXPLAINED) <= terminal_width:
            lines[0] += _ARROWS_EXPLAINED
        return "".join(f"{line}\n" for line in lines)


def fit_columns(needs: Sequence[int], terminal_width: int) -> tuple[int, ...]:
    """Return the width of each column, 0 where it is left out.

    Time, protocol, both ends, packets and bytes are always there. Flags, duration and interfaces come in that order
    while there is room; what is left then goes to long addresses first and to interface lists last.
    """
    gap = _gap(terminal_width)
    widths = list(needs)
    left = terminal_width - sum(needs[column] for column in (_TIME, _PROTO, _PACKETS, _BYTES)) - 4 * gap - len(" → ")
    source, destination = needs[_SOURCE], needs[_DESTINATION]
    least_ends = min(source, _LEAST_ENDPOINT) + min(destination, _LEAST_ENDPOINT)
    is_shown = True
    for column, least, most in (
        (_FLAGS, _LEAST_FLAGS, needs[_FLAGS]),
        (_TOOK, needs[_TOOK], needs[_TOOK]),
        (_INTERFACES, _LEAST_INTERFACES, _LEAST_INTERFACES),
    ):
        room = left - least_ends - gap
        is_shown = is_shown and room >= min(least, needs[column])
        widths[column] = min(needs[column], most, room) if is_shown else 0
        left -= widths[column] + gap if is_shown else 0
    ends = max(2, min(source + destination, left))
    widths[_SOURCE] = min(source, max(ends // 2, ends - destination))
    widths[_DESTINATION] = ends - widths[_SOURCE]
    if widths[_INTERFACES]:
        widths[_INTERFACES] = min(needs[_INTERFACES], widths[_INTERFACES] + left - ends)
    return tuple(widths)


def short_count(count: int) -> str:
    """Return a count in at most five characters: 999, 1.2k, 34.5M; powers of 1,000."""
    if count < 1000:
        return str(count)
    scaled = float(count)
    for unit in "kMGTPE":
        scaled /= 1000
        if scaled < 99.95:
            return f"{scaled:.1f}{unit}"
        if scaled < 999.5:
            return f"{scaled:.0f}{unit}"
    return ">999E"


def short_duration(duration_ms: int) -> str:
    """Return a duration in at most six characters: 12ms, 3.4s, 5m06s, 7h08m, 9d10h."""
    if duration_ms < 1000:
        return f"{max(duration_ms, 0)}ms"
    if duration_ms < 60_000:
        return f"{duration_ms // 1000}.{duration_ms % 1000 // 100}s"
    minutes, seconds = divmod(duration_ms // 1000, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h" if days < 100 else f"{min(days, 99_999)}d"


def _row_of(record: FlowRecord) -> Row:
    flags = ""
    if record.eth_type not in IP_ETHERTYPES:
        protocol, source, destination = f"0x{record.eth_type:04x}", record.src_mac, record.dst_mac
    else:
        protocol = protocol_name(record.protocol)
        source, destination = record.src_addr, record.dst_addr
        if record.protocol in PROTOCOLS_WITH_PORTS:
            source, destination = _endpoint(source, record.src_port), _endpoint(destination, record.dst_port)
        if record.protocol == TCP:
            flags = flag_letters(record.flags)
        elif record.protocol in ICMP_PROTOCOLS:
            flags = icmp_name(record.protocol, record.icmp_type, record.icmp_code)
    return (
        _clock_time(record.end_ms),
        protocol,
        source,
        destination,
        short_count(record.packets),
        short_count(record.bytes),
        flags,
        short_duration(record.end_ms - record.start_ms),
        " ".join(f"{_harmless(name)}{_ARROWS[direction]}" for name, direction in record.interfaces),
    )


def _line_of(row: Row, widths: Sequence[int], terminal_width: int) -> str:
    gap = " " * _gap(terminal_width)
    cells = []
    for column, (text, width) in enumerate(zip(row, widths, strict=True)):
        if not width:
            continue
        fitted = text if len(text) <= width else _shorten(text, width, is_end=column in {_SOURCE, _DESTINATION})
        cells.append(fitted.rjust(width) if column in _RIGHT_ALIGNED else fitted.ljust(width))
    cells[_SOURCE : _DESTINATION + 1] = [f"{cells[_SOURCE]} → {cells[_DESTINATION]}"]
    return gap.join(cells).rstrip()[:terminal_width]


def _shorten(text: str, width: int, *, is_end: bool) -> str:
    """Cut a text to a width: an endpoint in its middle, because network, host and port tell it from others."""
    tail = width // 2 if is_end else 0
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _harmless(name: str) -> str:
    # The kernel allows escape sequences in an interface name, and the owner of a container may choose one.
    return "".join(char if "!" <= char <= "~" else "?" for char in name)


def _clock_time(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000).strftime("%H:%M:%S")
    except (OverflowError, ValueError, OSError):  # another agent's record may say anything
        return "?"


def _gap(terminal_width: int) -> int:
    return 2 if terminal_width >= _WIDE else 1
