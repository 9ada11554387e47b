"""Addresses to listen on, as an operator writes them.

Law: no name is resolved here; a host that is left out is loopback, because nothing of a host's traffic is public.
Neighbours: `kinds.py`, `cli.py` (`collect --listen`), the metrics server and the collector.
"""

from __future__ import annotations

import attrs

LOOPBACK = "127.0.0.1"


@attrs.frozen
class Address:
    """A host, without brackets, and a port; 0 takes any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> Address:
    """Read HOST:PORT, [IPV6]:PORT, :PORT or PORT. Raises ValueError saying what is expected."""
    text = text.strip()
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets: [::1]:PORT")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"expected HOST:PORT with a port from 0 to 65535, or a port alone, which means {LOOPBACK}")
    if (bracketed and ":" not in host) or any(char.isspace() or char in "/[]@\0" for char in host):
        raise ValueError("expected HOST:PORT, where HOST is a name or an address")
    return Address(host or LOOPBACK, int(port))
