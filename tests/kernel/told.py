"""What a run has told: its flows by their fields, and its ledgers, which have to close first.

Law: a run whose packets, exporters or events do not balance is looked at no further.
Neighbours: `agent_process.py` makes the results; the tests of enrichment compare them with what they brought about.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.kernel.agent_process import AgentResult, FlowLine


def assert_accounted(result: AgentResult) -> dict[str, Any]:
    """Assert that every packet and every event of a run is accounted for; return its ledger."""
    assert result.exit_code == 0, result.log
    ledger = result.ledger
    assert ledger is not None, result.log
    assert ledger["audits"]["mismatches"] == 0, result.log
    assert all(exporter["balances"] for exporter in ledger["exporters"]), ledger
    assert ledger["events"]["balances"], ledger["events"]
    return ledger


def events_of(ledger: dict[str, Any], name: str) -> dict[str, int]:
    """Return where the events of a kind ended."""
    (counts,) = (kind for kind in ledger["events"]["kinds"] if kind["kind"] == name)
    return {field: value for field, value in counts.items() if field != "kind"}


def chosen(flows: Iterable[FlowLine], **fields: object) -> list[FlowLine]:
    """Return the flows whose fields have these values; a field that is missing has none."""
    return [flow for flow in flows if all(flow.get(name) == value for name, value in fields.items())]


def total(flows: Iterable[FlowLine], field: str) -> int:
    """Add up a field of the flows that have it."""
    return sum(flow.get(field, 0) for flow in flows)
