"""What the kernel calls the numbers of a socket: TCP states and errors.

Law: a number without a name stays a number; nothing is guessed.
Neighbours: `core/json_facts.py`, `core/notes.py` and `core/fact_cells.py` show them; pbflow carries the numbers.
"""

from __future__ import annotations

import errno
from types import MappingProxyType

# include/net/tcp_states.h
_TCP_STATES = MappingProxyType(
    {
        1: "TCP_ESTABLISHED",
        2: "TCP_SYN_SENT",
        3: "TCP_SYN_RECV",
        4: "TCP_FIN_WAIT1",
        5: "TCP_FIN_WAIT2",
        6: "TCP_TIME_WAIT",
        7: "TCP_CLOSE",
        8: "TCP_CLOSE_WAIT",
        9: "TCP_LAST_ACK",
        10: "TCP_LISTEN",
        11: "TCP_CLOSING",
        12: "TCP_NEW_SYN_RECV",
        13: "TCP_BOUND_INACTIVE",
    }
)


def tcp_state_name(state: int) -> str:
    """Return the kernel's name of a TCP state, or its number."""
    return _TCP_STATES.get(state) or str(state)


def error_name(number: int) -> str:
    """Return the name of an errno of this system, or its number."""
    return errno.errorcode.get(number) or str(number)
