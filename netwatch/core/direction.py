"""Which way a packet crosses an interface.

Law: imports nothing, so that what removes a killed agent's filters need not load numpy first.
Neighbours: `layout.py` puts a direction into a hook number, `kernel/` attaches by it.
"""

from __future__ import annotations

import enum


class Direction(enum.IntEnum):
    """Which way a packet crosses an interface; the numbers are those of pbflow and IPFIX field 61."""

    INGRESS = 0
    EGRESS = 1
