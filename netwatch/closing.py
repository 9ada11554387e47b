"""The end of a run or a replay: close the accounts, print them, and write them to a file.

Law: printed on stderr whatever happens to the file: a ledger that nobody saw is as good as none.
Neighbours: `ledger.py` and `event_ledger.py` have the accounts; `agent.py` and `replay.py` end here.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from netwatch.event_ledger import EventLedger
from netwatch.export import NOT_DELIVERED
from netwatch.ledger import Ledger

log = logging.getLogger(__name__)


def close_ledger(ledger: Ledger, events: EventLedger | None, path: Path | None) -> None:
    """Write off what was not delivered, print the ledger with that of the events, and write both as JSON."""
    for account in ledger.exporters:
        account.write_off(NOT_DELIVERED)
    text, content = ledger.as_text(), ledger.as_json()
    if events:
        text, content = f"{text}\n{events.as_text()}", content | {"events": events.as_json()}
    print(text, file=sys.stderr, flush=True)
    if path:
        try:
            path.write_text(json.dumps(content, indent=2) + "\n")
        except OSError as error:
            log.error("ledger %s cannot be written: %s; it is above", path, error.strerror)
