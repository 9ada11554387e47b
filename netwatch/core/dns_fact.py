"""What one DNS message told of the flow that carried it: the event of the ring, read.

Law: a declaration only.
Neighbours: `core/dns.py` makes such rows out of DNS events, and of questions that nobody answered; `core/join.py` takes
them as one more kind of event.
"""

from __future__ import annotations

import numpy as np

from netwatch.core.enrichment import DNS
from netwatch.core.layout import FLOW_KEY

# Begins as every event does: time, then key.
DNS_FACT = np.dtype([("time_ns", "<u8"), ("key", FLOW_KEY), ("dns", DNS)])
