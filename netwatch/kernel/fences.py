"""Memory fences, for what is shared with programs in the kernel that run on other processors.

Law: Python says nothing of the order in which its loads and stores reach memory, so whoever reads a mapping that the
kernel writes puts these between.
Why membarrier(2): Python has no fence, a library's would have to be installed, and a lock's acquire and release let
earlier stores pass later loads. MEMBARRIER_CMD_GLOBAL_EXPEDITED runs smp_mb() in its caller at entry and at exit
(membarrier_global_expedited() in kernel/sched/membarrier.c), whatever threads there are; where one processor is
online it does nothing, and nothing is needed. It interrupts only processes that have registered for it: we do not.
It takes about 1 us.
Neighbours: `ring_reader.py` says which order it needs, and why that suffices.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable

import attrs

from netwatch.errors import KernelUnsupported

_SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365}
_GLOBAL_EXPEDITED = 1 << 1
# "Reads are not reordered with other reads", "writes are not reordered with older reads": Intel SDM volume 3, Memory
# Ordering in P6 and More Recent Processor Families. A read may still overtake an older write.
_KEEPS_LOADS_IN_ORDER = {"x86_64"}

_libc = ctypes.CDLL(None, use_errno=True)


@attrs.frozen
class Fences:
    """`after_loads`: loads before it are done before any load or store behind it. `full`: stores before it, too."""

    after_loads: Callable[[], None]
    full: Callable[[], None]


def fences_of(machine: str, membarrier: Callable[[int], int]) -> Fences:
    """Return the fences of a machine, by its name and the system call. Raises KernelUnsupported."""
    number = _SYS_MEMBARRIER.get(machine, -1)
    refused = membarrier(number)

    def fence() -> None:
        said = membarrier(number)
        assert not said, os.strerror(said)

    if machine in _KEEPS_LOADS_IN_ORDER:
        # Where a filter of system calls forbids it, an event may wait for the next look, a second, instead of waking.
        return Fences(_nothing, _nothing if refused else fence)
    if refused:
        said = f"{os.strerror(refused)} on {machine}"
        raise KernelUnsupported(
            "membarrier(2)", said, "needs CONFIG_MEMBARRIER=y, and a seccomp profile that allows it"
        )
    return Fences(fence, fence)


def fences() -> Fences:
    """Return those of this machine. Raises KernelUnsupported."""
    return fences_of(platform.machine(), _membarrier)


def _membarrier(number: int) -> int:
    """Do the system call; return 0 or its errno."""
    return ctypes.get_errno() if _libc.syscall(number, _GLOBAL_EXPEDITED, 0, 0) < 0 else 0


def _nothing() -> None:
    pass
