"""The flows of a batch as objects.

Law: pure; a record says what the row and its facts say, and nothing that they do not.
Neighbours: `core/row_columns.py` and `core/fact_columns.py` read the batch; `exporters/stdout.py` shows the records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from netwatch.core.enrichment import RecordKind
from netwatch.core.fact_columns import FactKind, columns_of
from netwatch.core.record import FlowRecord, format_mac
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
from netwatch.core.row_columns import addresses_and_numbers, for_each_sights, mac_pairs

if TYPE_CHECKING:
    from netwatch.core.batch import FlowBatch

_MAKERS = MappingProxyType(
    {
        FactKind.DROPS: DropFacts,
        FactKind.RTT: RttFacts,
        FactKind.DNS: DnsFacts,
        FactKind.TCP: TcpFacts,
        FactKind.SOURCE: ProcessFacts,
        FactKind.DESTINATION: ProcessFacts,
        FactKind.TRANSLATION: TranslationFacts,
        FactKind.KIND: RecordKind,
    }
)


def records_of(batch: FlowBatch, agent_ip: str = "") -> list[FlowRecord]:
    """Make an object of each row, in the batch's order."""
    macs = mac_pairs(batch)
    return list(
        map(
            FlowRecord,
            *addresses_and_numbers(batch),
            [format_mac(pair[:6]) for pair in macs],
            [format_mac(pair[6:]) for pair in macs],
            for_each_sights(batch, lambda sights: sights),
            repeat(agent_ip),
            _facts_of(batch),
        )
    )


def _facts_of(batch: FlowBatch) -> Iterable[RecordFacts]:
    facts_by_row: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for kind, rows, columns in columns_of(batch.enrichment, batch.names):
        for row, fact in zip(rows, map(_MAKERS[kind], *columns), strict=True):
            facts_by_row[row][kind.value] = fact
    if not facts_by_row:
        return repeat(NO_FACTS)
    every = [NO_FACTS] * batch.flows
    for row, facts in facts_by_row.items():
        every[row] = RecordFacts(**facts)
    return every
