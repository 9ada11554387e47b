"""The columns of the wide table."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given

from netwatch.core.batch import FlowBatch
from netwatch.core.batch_records import records_of
from netwatch.core.enrichment import RecordKind
from netwatch.core.fact_cells import FACT_TITLES, QUANTITIES, fact_cells
from netwatch.core.record_facts import (
    DnsFacts,
    DropFacts,
    ProcessFacts,
    RecordFacts,
    RttFacts,
    TcpFacts,
    TranslationFacts,
)
from tests.core.enriched import enriched_batches
from tests.core.flows import Flow, batch_of

REASON, OTHER = "SKB_DROP_REASON_NETFILTER_DROP", "SKB_DROP_REASON_NO_SOCKET"


def columns(facts: RecordFacts) -> dict[str, str]:
    """Return the texts that are not empty, by title."""
    (record,) = records_of(batch_of(Flow()))
    cells = fact_cells(attrs.evolve(record, facts=facts))
    return {title: text for title, text in zip(FACT_TITLES, cells, strict=True) if text}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            RecordFacts(drops=DropFacts(7, 10_234, 0x12, 1, OTHER, ((REASON, 5), (OTHER, 2)))),
            {
                "DROPPED": "7",
                "DROP BYTES": "10.2k",
                "DROP CAUSES": "5 NETFILTER_DROP, 2 NO_SOCKET",
                "LATEST DROP": "NO_SOCKET SA ESTABLISHED",
            },
        ),
        (
            RecordFacts(tcp=TcpFacts(3, 4_500, 3_000_000, 111, 7, 1, 2)),
            {
                "CONNECT": "ECONNREFUSED after 3.0ms",
                "RETRANS": "3",
                "RETRANS BYTES": "4.5k",
                "RESETS": "1 sent, 2 received",
                "STATE": "CLOSE",
            },
        ),
        (
            RecordFacts(source=ProcessFacts(12, "curl", 5, "a1" * 32), destination=ProcessFacts(13, "nginx", 6, "")),
            {"SRC PROCESS": "curl[12]", "SRC CONTAINER": "a1a1a1a1a1a1", "DST PROCESS": "nginx[13]"},
        ),
        (
            RecordFacts(translation=TranslationFacts("10.0.0.1", "10.1.2.3", 443, 80, 3)),
            {"NAT": "dnat 10.1.2.3:80", "ZONE": "3"},
        ),
        (
            RecordFacts(dns=DnsFacts(4711, 0x8183, 20_000_000, 28, 0, "example.org", 2)),
            {
                "DNS QUESTION": "AAAA example.org",
                "DNS ANSWER": "NXDomain",
                "DNS TIME": "20ms",
                "DNS ID": "4711",
                "DNS FLAGS": "qr rd ra",
                "DNS MSGS": "2",
            },
        ),
        (
            RecordFacts(dns=DnsFacts(4711, 0x0100, 0, 1, 110, ".", 1)),
            {
                "DNS QUESTION": "A .",
                "DNS ANSWER": "no answer",
                "DNS ID": "4711",
                "DNS FLAGS": "rd",
                "DNS MSGS": "1",
            },
        ),
        (
            RecordFacts(rtt=RttFacts(1_200_000, 900_000, 20_000_000, 1_000_000)),
            {"RTT": "1.2ms", "RTT MIN": "900µs", "RTT MAX": "20ms", "RTT SYN": "1.0ms"},
        ),
        (RecordFacts(kind=RecordKind.DROP_ONLY), {"KIND": "drop-only"}),
        (RecordFacts(), {}),
    ],
)
def test_facts(facts: RecordFacts, expected: dict[str, str]) -> None:
    """Each fact stands below its title, and nothing below the others."""
    assert columns(facts) == expected


def test_titles() -> None:
    """No title stands twice, and what is aligned on the right is a column."""
    assert len(set(FACT_TITLES)) == len(FACT_TITLES)
    assert set(FACT_TITLES) >= QUANTITIES


@given(enriched_batches())
def test_any_facts(batch: FlowBatch) -> None:
    """There is a text for each title, and none can steer the terminal."""
    for record in records_of(batch):
        cells = fact_cells(record)
        assert len(cells) == len(FACT_TITLES)
        assert all(text.isprintable() for text in cells)
