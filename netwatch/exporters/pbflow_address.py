"""Addresses in pbflow messages, as text.

Law: pure; what is no address is no text.
Neighbours: `exporters/pbflow_reader.py` and `exporters/pbflow_facts.py`.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from netwatch.core.record import format_address

if TYPE_CHECKING:
    from netwatch.exporters.pbflow_pb2 import IP

_IPV6_BYTES = 16


def address_text(ip: IP) -> str:
    """Return the text of an address; nothing where there is none."""
    match ip.WhichOneof("ip_family"):
        case "ipv4":
            return str(ipaddress.IPv4Address(ip.ipv4))
        case "ipv6" if len(ip.ipv6) == _IPV6_BYTES:
            return format_address(ip.ipv6)
    return ""
