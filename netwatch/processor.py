"""Whether this processor can run what netwatch is made of, asked before numpy ends the process with SIGILL.

Invariant: imports the standard library only. Where the processor does not say what it has, it is taken to have it.
Source: numpy's wheels are built for x86-64-v2 (System V ABI, AMD64 supplement, 3.1.1); names are those of
/proc/cpuinfo, from arch/x86/include/asm/cpufeatures.h.
"""

from __future__ import annotations

import platform
from pathlib import Path

_X86_64_V2 = ("cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2")


def missing_features(machine: str = "", cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Return which features of x86-64-v2 this processor lacks; none on other architectures."""
    if (machine or platform.machine()) != "x86_64":
        return []
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return [feature for feature in _X86_64_V2 if feature not in value.split()]
    return []
