"""What a table says of every flow, one text for each column.

Law: pure; a text cannot steer the terminal, whatever an interface is called.
Neighbours: `core/table.py` lays the texts out; `core/notes.py` and `core/fact_cells.py` say what enrichment found.
"""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType

from netwatch.core.direction import Direction
from netwatch.core.protocol_names import flag_letters, icmp_name, protocol_name
from netwatch.core.quantities import short_count, short_duration
from netwatch.core.record import ICMP_PROTOCOLS, IP_ETHERTYPES, PROTOCOLS_WITH_PORTS, TCP, FlowRecord
from netwatch.core.terminal_text import endpoint, harmless

Row = tuple[str, ...]
"""The text of each column."""

FLOW_TITLES: Row = ("TIME", "PROTO", "SOURCE", "DESTINATION", "PKTS", "BYTES", "FLAGS", "TOOK", "INTERFACES")
TIME, PROTO, SOURCE, DESTINATION, PACKETS, BYTES, FLAGS, TOOK, INTERFACES = range(len(FLOW_TITLES))
ARROWS_EXPLAINED = " ↓in ↑out"
_ARROWS = MappingProxyType({Direction.INGRESS: "↓", Direction.EGRESS: "↑"})


def flow_cells(record: FlowRecord) -> Row:
    """Return the texts of the columns in FLOW_TITLES."""
    flags = ""
    if record.eth_type not in IP_ETHERTYPES:
        protocol, source, destination = f"0x{record.eth_type:04x}", record.src_mac, record.dst_mac
    else:
        protocol = protocol_name(record.protocol)
        source, destination = record.src_addr, record.dst_addr
        if record.protocol in PROTOCOLS_WITH_PORTS:
            source, destination = endpoint(source, record.src_port), endpoint(destination, record.dst_port)
        if record.protocol == TCP:
            flags = flag_letters(record.flags)
        elif record.protocol in ICMP_PROTOCOLS:
            flags = icmp_name(record.protocol, record.icmp_type, record.icmp_code)
    return (
        _clock_time(record.end_ms),
        protocol,
        source,
        destination,
        short_count(record.packets),
        short_count(record.bytes),
        flags,
        short_duration(record.end_ms - record.start_ms),
        " ".join(f"{harmless(name)}{_ARROWS[direction]}" for name, direction in record.interfaces),
    )


def _clock_time(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000).strftime("%H:%M:%S")
    except (OverflowError, ValueError, OSError):  # another agent's record may say anything
        return "?"
