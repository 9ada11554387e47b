"""The address by which collectors know this agent (AgentIP).

Law: no packet is sent to find it: connecting a UDP socket only asks the routing table.
"""

from __future__ import annotations

import ipaddress
import socket

# Addresses for documentation (RFC 5737, RFC 3849): routed like any address of the Internet, used by nobody.
_FAR_AWAY = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))

AgentAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def agent_address(configured: str | None) -> AgentAddress:
    """Return the configured address, or the source address of the default route; loopback where there is none."""
    if configured:
        return ipaddress.ip_address(configured)
    for family, destination in _FAR_AWAY:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((destination, 9))
                return ipaddress.ip_address(probe.getsockname()[0])
        except OSError:
            continue
    return ipaddress.IPv4Address("127.0.0.1")
