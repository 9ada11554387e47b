"""What a person is told about a flow in a few words."""

from __future__ import annotations

import attrs
import pytest

from netwatch.core.batch_records import records_of
from netwatch.core.enrichment import RecordKind
from netwatch.core.notes import notes_of
from netwatch.core.record_facts import (
    NO_FACTS,
    DnsFacts,
    DropFacts,
    ProcessFacts,
    RecordFacts,
    RttFacts,
    TcpFacts,
    TranslationFacts,
)
from tests.core.flows import Flow, batch_of

REASON, OTHER = "SKB_DROP_REASON_NETFILTER_DROP", "SKB_DROP_REASON_NO_SOCKET"
TCP = TcpFacts(0, 0, 0, 0, 0, 0, 0)
ANSWER = DnsFacts(1, 0x8180, 20_400_000, 1, 0, "example.org", 1)
CURL, NGINX = ProcessFacts(1234, "curl", 1, ""), ProcessFacts(77, "nginx", 2, "")


def notes(facts: RecordFacts, flow: Flow | None = None) -> str:
    (record,) = records_of(batch_of(flow or Flow()))
    return notes_of(attrs.evolve(record, facts=facts))


def drops(*causes: tuple[str, int], packets: int = 7, latest: str = REASON) -> RecordFacts:
    return RecordFacts(drops=DropFacts(packets, 420, 0, 0, latest, causes))


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (drops((REASON, 7)), "7 dropped: NETFILTER_DROP"),
        (drops((OTHER, 4), (REASON, 2), ("OTHER", 1)), "7 dropped: NO_SOCKET +2"),
        (drops(("OVS_DROP_METER", 1_200), packets=1_200), "1.2k dropped: OVS_DROP_METER"),
        (drops(), "7 dropped: NETFILTER_DROP"),
        (drops(latest=""), "7 dropped"),
        (drops(("\x1b[2J", 7)), "7 dropped: ?[2J"),
    ],
)
def test_drops(facts: RecordFacts, text: str) -> None:
    """How many, and why: the reason of the most, and how many other reasons there are."""
    assert notes(facts) == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"connect_ns": 3_120_000, "connect_errno": 111}, "ECONNREFUSED after 3.1ms"),
        ({"connect_errno": 110}, "ETIMEDOUT"),
        ({"connect_ns": 3_120_000}, "connect 3.1ms"),
        ({"retransmitted_packets": 1}, "1 retransmit"),
        ({"retransmitted_packets": 1_234}, "1.2k retransmits"),
        ({"resets_sent": 1}, "1 reset sent"),
        ({"resets_sent": 3, "resets_received": 2}, "3 resets sent, 2 resets received"),
        ({"state": 1}, ""),
    ],
)
def test_tcp(changes: dict[str, int], text: str) -> None:
    """Why connecting failed and after how long, what had to be sent again, and who gave up."""
    assert notes(RecordFacts(tcp=attrs.evolve(TCP, **changes))) == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "A example.org 20ms"),
        ({"flags": 0x0100, "latency_ns": 0}, "A example.org"),
        ({"flags": 0x8183}, "NXDomain: A example.org 20ms"),
        ({"flags": 0x0100, "latency_ns": 0, "errno": 110}, "no answer: A example.org"),
        ({"flags": 0x0100, "latency_ns": 0, "errno": 5}, "EIO: A example.org"),
        ({"question_type": 65}, "TYPE65 example.org 20ms"),
        ({"question_type": 0, "name": "\x1b]0;x"}, "?]0;x 20ms"),
    ],
)
def test_dns(changes: dict[str, int | str], text: str) -> None:
    """What was asked and how long it took; what went wrong stands before it."""
    assert notes(RecordFacts(dns=attrs.evolve(ANSWER, **changes))) == text


@pytest.mark.parametrize(
    ("source", "destination", "text"),
    [
        (CURL, NGINX, "curl→nginx"),
        (CURL, None, "curl→"),
        (None, NGINX, "→nginx"),
        (ProcessFacts(9, "", 0, ""), None, "pid 9→"),
        (ProcessFacts(0, "", 5, ""), None, ""),
        (ProcessFacts(9, "a b\n\u202eé", 0, ""), None, "a b???→"),
    ],
)
def test_processes(source: ProcessFacts | None, destination: ProcessFacts | None, text: str) -> None:
    """Who sends to whom, as far as it is known; one without a name by its number."""
    assert notes(RecordFacts(source=source, destination=destination)) == text


@pytest.mark.parametrize(
    ("protocol", "after", "text"),
    [
        (6, TranslationFacts("10.0.0.1", "10.1.2.3", 443, 80, 0), "dnat 10.1.2.3:80"),
        (6, TranslationFacts("192.0.2.1", "192.168.100.200", 61002, 51234, 0), "snat 192.0.2.1:61002"),
        (6, TranslationFacts("10.0.0.1", "192.168.100.200", 443, 80, 0), "dnat 192.168.100.200:80"),
        (17, TranslationFacts("192.0.2.1", "2001:db8::1", 1, 53, 0), "snat 192.0.2.1:1 dnat [2001:db8::1]:53"),
        (1, TranslationFacts("10.0.0.1", "10.1.2.3", 443, 51234, 0), "dnat 10.1.2.3"),
        (6, TranslationFacts("10.0.0.1", "192.168.100.200", 443, 51234, 3), ""),
    ],
)
def test_translation(protocol: int, after: TranslationFacts, text: str) -> None:
    """The ends that NAT has changed, and into what; no ports where the protocol has none."""
    assert notes(RecordFacts(translation=after), Flow(protocol=protocol)) == text


@pytest.mark.parametrize(
    ("rtt", "text"),
    [
        (RttFacts(1_230_000, 1, 9_000_000, 5), "rtt 1.2ms"),
        (RttFacts(0, 0, 0, 850_999), "rtt 850µs"),
        (RttFacts(0, 1, 1, 0), ""),
    ],
)
def test_rtt(rtt: RttFacts, text: str) -> None:
    """The smoothed time, or the handshake's while there is no other."""
    assert notes(RecordFacts(rtt=rtt)) == text


@pytest.mark.parametrize(
    ("kind", "text"),
    [(RecordKind.FLOW, ""), (RecordKind.CONTINUATION, "continuation"), (RecordKind.DROP_ONLY, "drop-only")],
)
def test_kind(kind: RecordKind, text: str) -> None:
    """Why a record has no packets."""
    assert notes(RecordFacts(kind=kind)) == text


def test_nothing_found() -> None:
    """There is nothing to say of a flow without facts."""
    assert notes(NO_FACTS) == ""


def test_order() -> None:
    """Bad news first: what was dropped, failed and sent again; then who, where to, what and how quickly."""
    everything = RecordFacts(
        drops=drops((REASON, 7)).drops,
        rtt=RttFacts(1_200_000, 0, 0, 0),
        dns=attrs.evolve(ANSWER, flags=0x8182),
        tcp=attrs.evolve(TCP, connect_errno=111, retransmitted_packets=3, resets_received=1),
        source=CURL,
        destination=NGINX,
        translation=TranslationFacts("10.0.0.1", "10.1.2.3", 443, 80, 0),
        kind=RecordKind.CONTINUATION,
    )
    assert notes(everything) == (
        "7 dropped: NETFILTER_DROP, ECONNREFUSED, ServFail: A example.org 20ms, 3 retransmits, 1 reset received, "
        "curl→nginx, dnat 10.1.2.3:80, rtt 1.2ms, continuation"
    )


def test_good_news() -> None:
    """An answer that came and a connection that was made stand behind the process."""
    good = RecordFacts(dns=ANSWER, tcp=attrs.evolve(TCP, connect_ns=3_000_000), source=CURL, rtt=RttFacts(5, 0, 0, 0))
    assert notes(good) == "curl→, A example.org 20ms, rtt 5ns, connect 3.0ms"
