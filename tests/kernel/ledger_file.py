"""The ledger as the daemon writes it to a file, in the terms in which tests ask.

Neighbours: `netwatch/ledger.py` writes it; `agent_process.py` reads it for runs that end by themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Terms = dict[str, Any]  # the documented JSON form
Losses = dict[tuple[str, str], Terms]


def read_ledger(path: Path) -> Terms:
    """Read it from its file."""
    ledger: Terms = json.loads(path.read_text())
    return ledger


def losses(entries: list[Terms]) -> Losses:
    """Return a list of losses by stage and reason."""
    return {(entry["stage"], entry["reason"]): entry for entry in entries}


def account_of(ledger: Terms, exporter: str) -> tuple[Terms, Losses, bool]:
    """Return what an exporter exported, what it lost, and whether its account balances."""
    (account,) = [one for one in ledger["exporters"] if one["exporter"] == exporter]
    return account["exported"], losses(account["lost"]), account["balances"]
