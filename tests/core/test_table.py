"""The table: what fits, what gives way, and that nothing breaks the alignment."""

from __future__ import annotations

import time
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.batch import FlowBatch, InterfaceNames
from netwatch.core.layout import Direction, hook_of
from netwatch.core.record import FlowRecord, records_of
from netwatch.core.table import PAGE_ROWS, Table, fit_columns, short_count, short_duration
from tests.core.flows import ETH0, VETH, Flow, batch_of, batches

LONG_IPV6 = Flow(
    src="2001:db8:85a3:8d3:1319:8a2e:370:7348",
    dst="2001:db8:85a3:1234:5678:9abc:def0:7348",
    src_port=54321,
    dst_port=44321,
    eth_type=0x86DD,
)
LONGEST_IPV4 = Flow(src="192.168.100.200", dst="192.168.100.201", src_port=54321, dst_port=44321)


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def lines_of(*flows: Flow, width: int = 160, table: Table | None = None) -> list[str]:
    return (table or Table()).format(records_of(batch_of(*flows)), width).splitlines()


def is_header(line: str) -> bool:
    return line.startswith("TIME")


def test_flow_on_a_wide_terminal() -> None:
    """Everything is there: when, what, from where to where, how much, flags, how long, and which way through what."""
    flow = Flow(bytes=1_234_567, packets=1_234, observed=(hook_of(VETH, Direction.EGRESS),), flags=0x1A)
    assert lines_of(flow) == [
        "TIME      PROTO  SOURCE       → DESTINATION            PKTS  BYTES  FLAGS  TOOK  INTERFACES ↓in ↑out",
        "22:13:26  TCP    10.0.0.1:443 → 192.168.100.200:51234  1.2k   1.2M  SAP    1.2s  eth0↓ veth1a2b↑",
    ]


def test_longest_ipv4_at_80_columns() -> None:
    """The narrowest usual terminal shows any IPv4 endpoint and a connection's flags whole."""
    header, line = lines_of(attrs.evolve(LONGEST_IPV4, bytes=999_900, packets=99_900, flags=0x1F), width=80)
    assert line == "22:13:26 TCP   192.168.100.200:54321 → 192.168.100.201:44321 99.9k  1.0M SAFRP"
    assert header == "TIME     PROTO SOURCE                → DESTINATION            PKTS BYTES FLAGS"


def test_long_ipv6_on_a_wide_terminal() -> None:
    """IPv6 endpoints stand in brackets before their port, whole, beside all other columns."""
    header, line = lines_of(LONG_IPV6)
    assert f"[{LONG_IPV6.src}]:54321 → [{LONG_IPV6.dst}]:44321" in line
    assert "FLAGS  TOOK  INTERFACES" in header
    assert line.endswith("eth0↓")


def test_long_ipv6_at_80_columns() -> None:
    """An address that does not fit loses its middle: network, host and port stay, and so does the alignment."""
    _, first, second = lines_of(LONG_IPV6, Flow(bytes=1), width=80)
    assert "[2001:db8:85…:7348]:54321 → [2001:db8:85…0:7348]:44321" in first
    assert first.index("→") == second.index("→")
    assert len(first) <= 80


def test_rare_ipv6_between_ipv4() -> None:
    """One long address takes the flags from nobody at 100 columns."""
    header, *_ = lines_of(LONG_IPV6, LONGEST_IPV4, width=100)
    assert "FLAGS" in header


def test_icmp_flow() -> None:
    """An ICMP flow shows its message's name in the place of flags, and no port."""
    _, line = lines_of(Flow(protocol=1, icmp_type=3, icmp_code=3, src_port=0, dst_port=0))
    assert "ICMP   10.0.0.1 → 192.168.100.200" in line
    assert "port-unreach" in line


def test_record_that_is_not_ip() -> None:
    """Another agent's record of something that is not IP shows its type and link-layer addresses."""
    _, line = lines_of(Flow(eth_type=0x0806))
    assert "0x0806  02:00:00:00:00:0a → 02:00:00:00:00:0b" in line


def test_order() -> None:
    """The largest flow comes first."""
    _, *lines = lines_of(*(Flow(bytes=count) for count in (1, 300, 20)))
    assert [line.split()[6] for line in lines] == ["300", "20", "1"]


def test_small_drains() -> None:
    """Drains of few flows share a header, until a page is full of them."""
    table = Table()
    lines = [line for _ in range(PAGE_ROWS) for line in lines_of(Flow(), Flow(), table=table)]
    assert [number for number, line in enumerate(lines) if is_header(line)] == [0, PAGE_ROWS + 1]
    assert len(lines) == 2 * PAGE_ROWS + 2


def test_large_drain() -> None:
    """The header comes again after every page."""
    lines = lines_of(*[Flow()] * (2 * PAGE_ROWS + 1))
    assert [number for number, line in enumerate(lines) if is_header(line)] == [0, PAGE_ROWS + 1, 2 * PAGE_ROWS + 2]


def test_window_that_changes_its_size() -> None:
    """A new width gets a new header, with the columns that now fit."""
    table = Table()
    narrow = lines_of(LONGEST_IPV4, width=80, table=table)
    wide = lines_of(LONGEST_IPV4, width=160, table=table)
    assert "TOOK" not in narrow[0]
    assert "TOOK" in wide[0]


def test_flow_wider_than_the_ones_before() -> None:
    """Columns grow under a new header, and stay grown for the short flows that follow."""
    table = Table()
    lines_of(Flow(), table=table)
    header, long = lines_of(LONG_IPV6, table=table)
    (short,) = lines_of(Flow(), table=table)
    assert is_header(header)
    assert short.index("→") == long.index("→") == header.index("→")


def test_drains_that_are_wide_in_different_columns() -> None:
    """Columns that have grown for one flow and for another settle: headers do not come with every drain."""
    table = Table()
    wide_source, wide_destination = attrs.evolve(LONG_IPV6, dst="::1"), attrs.evolve(LONG_IPV6, src="::1")
    lines = [line for flow in (wide_source, wide_destination) * 5 for line in lines_of(flow, table=table)]
    assert [number for number, line in enumerate(lines) if is_header(line)] == [0, 2]


def test_long_address_that_has_gone() -> None:
    """The next page has no room for an address that only the one before it had."""
    table = Table()
    lines_of(LONG_IPV6, *[Flow()] * (PAGE_ROWS - 1), table=table)
    header, line = lines_of(Flow(), table=table)
    assert is_header(header)
    assert "10.0.0.1:443 → 192" in line


def test_interface_name_with_an_escape_sequence() -> None:
    """A container's owner who names an interface after a terminal command gets question marks."""
    table = Table().format(records_of(batch_of(Flow(), interfaces=InterfaceNames({ETH0: "\x1b[2J\u202eé"}))), 160)
    assert "?[2J??↓" in table


def test_time_beyond_the_calendar() -> None:
    """Another agent's record with an impossible time is shown all the same."""
    (record,) = records_of(batch_of(Flow()))
    _, line = Table().format([attrs.evolve(record, end_ms=1 << 80)], 160).splitlines()
    assert line.split()[:2] == ["?", "TCP"]


def test_no_flows() -> None:
    """Nothing gives nothing, not even a header."""
    assert Table().format([], 160) == ""


@given(st.lists(batches(max_flows=8), max_size=3), st.integers(4, 220))
def test_any_flows_in_any_width(drains: list[FlowBatch], width: int) -> None:
    """There is a line for each flow, no line is wider than the terminal, and all are printable."""
    table = Table()
    for batch in drains:
        lines = table.format(records_of(batch), width).splitlines()
        assert len([line for line in lines if not is_header(line)]) == batch.flows
        assert all(len(line) <= width and line.isprintable() for line in lines)


@given(batches(max_flows=8), st.integers(60, 220))
def test_any_flows_are_aligned(batch: FlowBatch, width: int) -> None:
    """All lines of a page have their ends at the same place."""
    lines = Table().format(records_of(batch), width).splitlines()
    assert len({line.index("→") for line in lines}) <= 1


# Of time, protocol, both ends, packets, bytes, flags, duration, interfaces.
_LIMITS = ((8, 8), (5, 7), (6, 47), (11, 47), (4, 5), (5, 5), (5, 17), (4, 6), (10, 120))
NEEDS = st.tuples(*(st.integers(least, most) for least, most in _LIMITS))


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


def test_record_of_many_interfaces() -> None:
    """A list of seven interfaces that does not fit is cut at its end: the flow's home stays."""
    (record,) = records_of(batch_of(LONGEST_IPV4))
    seen: FlowRecord = attrs.evolve(record, interfaces=tuple((f"veth{n}", Direction.EGRESS) for n in range(7)))
    _, line = Table().format([seen], 110).splitlines()
    assert line.endswith("veth0↑ veth1↑ veth2…")
    assert len(line) == 110
