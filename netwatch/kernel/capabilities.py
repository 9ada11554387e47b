"""Which capabilities netwatch needs, and which of them this process lacks.

Law: reads /proc alone. A process in a user namespace may hold all of them and still be refused by bpf(2), which wants
those of the host; so a refusal is explained by this, never foretold.
Neighbours: `program.py` explains a refused load. Source: capabilities(7).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_NEEDED = {"CAP_NET_ADMIN": 12, "CAP_PERFMON": 38, "CAP_BPF": 39}
_CAP_SYS_ADMIN = 21
# CAP_SYS_ADMIN has always included what Linux 5.8 made CAP_BPF and CAP_PERFMON.
_IN_SYS_ADMIN = frozenset(("CAP_BPF", "CAP_PERFMON"))


def effective_capabilities() -> int:
    """Return the effective set of this process as a bit mask."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0


def missing_capabilities(held: int) -> Sequence[str]:
    """Return the names of those that a bit mask lacks."""
    implied = _IN_SYS_ADMIN if held >> _CAP_SYS_ADMIN & 1 else frozenset()
    return [name for name, bit in _NEEDED.items() if not held >> bit & 1 and name not in implied]
