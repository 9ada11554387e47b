"""The table: what fits, what gives way, and that nothing breaks the alignment."""

from __future__ import annotations

import time
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netwatch.core.batch import FlowBatch, InterfaceNames
from netwatch.core.batch_records import records_of
from netwatch.core.direction import Direction
from netwatch.core.enrichment import RecordKind
from netwatch.core.layout import hook_of
from netwatch.core.record import FlowRecord
from netwatch.core.record_facts import DnsFacts, DropFacts, ProcessFacts, RecordFacts, RttFacts
from netwatch.core.table import PAGE_ROWS, Table
from tests.core.enriched import enriched_batches
from tests.core.flows import ETH0, VETH, Flow, batch_of

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


@given(st.lists(enriched_batches(max_flows=8), max_size=3), st.integers(4, 220))
def test_any_flows_in_any_width(drains: list[FlowBatch], width: int) -> None:
    """There is a line for each flow, no line is wider than the terminal, whatever is known, and all are printable."""
    table = Table()
    for batch in drains:
        lines = table.format(records_of(batch), width).splitlines()
        assert len([line for line in lines if not is_header(line)]) == batch.flows
        assert all(len(line) <= width and line.isprintable() for line in lines)


@given(enriched_batches(max_flows=8), st.integers(60, 220))
def test_any_flows_are_aligned(batch: FlowBatch, width: int) -> None:
    """All lines of a page have their ends at the same place."""
    lines = Table().format(records_of(batch), width).splitlines()
    assert len({line.index("→") for line in lines}) <= 1


@given(st.lists(enriched_batches(max_flows=8), max_size=3))
def test_any_flows_in_the_wide_table(drains: list[FlowBatch]) -> None:
    """There is a line for each flow, all are printable, and nothing is cut off."""
    table = Table(is_wide=True)
    for batch in drains:
        lines = table.format(records_of(batch), 80).splitlines()
        assert len([line for line in lines if not is_header(line)]) == batch.flows
        assert all(line.isprintable() and "…" not in line for line in lines)


def test_record_of_many_interfaces() -> None:
    """A list of seven interfaces that does not fit is cut at its end: the flow's home stays."""
    (record,) = records_of(batch_of(LONGEST_IPV4))
    seen: FlowRecord = attrs.evolve(record, interfaces=tuple((f"veth{n}", Direction.EGRESS) for n in range(7)))
    _, line = Table().format([seen], 110).splitlines()
    assert line.endswith("veth0↑ veth1↑ veth2…")
    assert len(line) == 110


def record_of(flow: Flow, facts: RecordFacts) -> FlowRecord:
    (record,) = records_of(batch_of(flow))
    return attrs.evolve(record, facts=facts)


DROPPED = RecordFacts(
    drops=DropFacts(7, 420, 2, 0, "SKB_DROP_REASON_NETFILTER_DROP", (("SKB_DROP_REASON_NETFILTER_DROP", 7),)),
    source=ProcessFacts(1234, "curl", 0, ""),
)
MEASURED = RecordFacts(rtt=RttFacts(1_200_000, 900_000, 5_000_000, 0))


def test_notes_at_120_columns() -> None:
    """What enrichment found stands at the end of a line, behind the columns of every flow."""
    records = [record_of(Flow(bytes=900), DROPPED), record_of(Flow(), MEASURED), *records_of(batch_of(Flow(bytes=1)))]
    ends = "10.0.0.1:443 → 192.168.100.200:51234     3"
    assert Table().format(records, 120).splitlines() == [
        "TIME      PROTO  SOURCE       → DESTINATION            PKTS  BYTES  FLAGS  TOOK  INTERFACES  NOTES",
        f"22:13:26  TCP    {ends}   1.5k  SA     1.2s  eth0↓       rtt 1.2ms",
        f"22:13:26  TCP    {ends}    900  SA     1.2s  eth0↓       7 dropped: NETFILTER_DROP…",
        f"22:13:26  TCP    {ends}      1  SA     1.2s  eth0↓",
    ]


def test_notes_beside_interfaces() -> None:
    """With more room, interfaces stand between, with their arrows explained where the column is that wide."""
    way = tuple((f"veth{number}", Direction.EGRESS) for number in range(3))
    header, line = Table().format([attrs.evolve(record_of(Flow(), DROPPED), interfaces=way)], 160).splitlines()
    assert header.endswith("TOOK  INTERFACES ↓in ↑out   NOTES")
    assert line.endswith("1.2s  veth0↑ veth1↑ veth2↑  7 dropped: NETFILTER_DROP, curl→")


@pytest.mark.parametrize("flow", [attrs.evolve(LONGEST_IPV4, packets=99_900), LONG_IPV6])
def test_notes_at_80_columns(flow: Flow) -> None:
    """However long the addresses are, the narrowest usual terminal says that something is wrong."""
    header, line = Table().format([record_of(flow, DROPPED)], 80).splitlines()
    assert header.endswith("NOTES")
    assert line.endswith((" 7 drop…", " 7 dropp…"))
    assert len(line) <= 80


def test_long_notes() -> None:
    """What does not fit is cut off at the end."""
    _, line = Table().format([record_of(LONGEST_IPV4, DROPPED)], 104).splitlines()
    assert line.endswith("7 dropped: NETFILTER_DROP…")
    assert len(line) <= 104


def test_notes_that_grow() -> None:
    """Nothing stands behind notes: longer ones do not bring a new header, the first ones do."""
    table = Table()
    headers = 0
    for facts in (RecordFacts(), MEASURED, DROPPED, MEASURED, RecordFacts()):
        lines = table.format([record_of(LONGEST_IPV4, facts)], 160).splitlines()
        headers += sum(map(is_header, lines))
    assert headers == 2


def test_order_by_what_was_dropped() -> None:
    """A flow of which much was dropped is a large one, even if nothing of it got through."""
    facts = attrs.evolve(DROPPED, kind=RecordKind.DROP_ONLY)
    records = [record_of(Flow(bytes=419), RecordFacts()), record_of(Flow(bytes=0, packets=0), facts)]
    _, first, second = Table().format(records, 160).splitlines()
    assert "7 dropped" in first
    assert "419" in second


def test_wide_table() -> None:
    """Every fact has a column of its own, however narrow the terminal is; those without any are not there."""
    dns = RecordFacts(dns=DnsFacts(9, 0x8180, 20_000_000, 1, 0, "example.org", 1))
    records = [record_of(Flow(bytes=900), DROPPED), record_of(Flow(bytes=1), dns)]
    ends = "10.0.0.1:443 → 192.168.100.200:51234     3"
    assert Table(is_wide=True).format(records, 80).splitlines() == [
        "TIME      PROTO  SOURCE       → DESTINATION            PKTS  BYTES  FLAGS  TOOK  INTERFACES ↓in ↑out  "
        "DROPPED  DROP BYTES  DROP CAUSES       LATEST DROP       SRC PROCESS  "
        "DNS QUESTION   DNS ANSWER  DNS TIME  DNS ID  DNS FLAGS  DNS MSGS",
        f"22:13:26  TCP    {ends}    900  SA     1.2s  eth0↓                      "
        "7         420  7 NETFILTER_DROP  NETFILTER_DROP S  curl[1234]",
        f"22:13:26  TCP    {ends}      1  SA     1.2s  eth0↓                "
        f"{'':70}A example.org  NoError         20ms       9  qr rd ra          1",
    ]


def test_columns_of_the_wide_table() -> None:
    """A column comes with the first row that fills it, under a new header, and stays to the end of the page."""
    table = Table(is_wide=True)
    pages = [table.format([record_of(Flow(), facts)], 80).splitlines() for facts in (RecordFacts(), MEASURED, DROPPED)]
    assert [len(page) for page in pages] == [2, 2, 2]
    assert "RTT" not in pages[0][0]
    assert "RTT MAX" in pages[2][0]
    assert len(table.format([record_of(Flow(), RecordFacts())], 80).splitlines()) == 1


def test_process_that_steers_the_terminal() -> None:
    """A process or a container that is called like a terminal command gets question marks, in both tables."""
    facts = RecordFacts(source=ProcessFacts(1, "\x1b[2J", 0, "\x1b]0;"), dns=DnsFacts(1, 0, 0, 1, 0, "\x9b2J", 1))
    for is_wide in (False, True):
        text = Table(is_wide).format([record_of(Flow(), facts)], 160)
        assert text.replace("\n", "").isprintable()
        assert "?[2J" in text
        assert "?2J" in text
