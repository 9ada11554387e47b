"""Text that is safe on a terminal, and fits where it must.

Law: what comes out of `harmless` is printable ASCII: it cannot steer the terminal, and each character takes one place.
Neighbours: all that `core/table.py` shows goes through here.
"""

from __future__ import annotations


def harmless(name: str) -> str:
    """Return a name that somebody else chose, with a question mark for each character that is not printable ASCII.

    The kernel allows escape sequences in an interface name, a process may call itself anything, and the owner of a
    container chooses both.
    """
    return "".join(char if " " <= char <= "~" else "?" for char in name)


def endpoint(address: str, port: int) -> str:
    """Return address and port; an IPv6 address in brackets (RFC 3986 3.2.2)."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def shorten(text: str, width: int) -> str:
    """Cut a text that is longer than the width at its end, but not behind what announces more."""
    return f"{text[: width - 1].rstrip(' :,')}…"


def shorten_endpoint(text: str, width: int) -> str:
    """Cut an endpoint that is longer than the width in its middle: network, host and port tell it from others."""
    tail = width // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
