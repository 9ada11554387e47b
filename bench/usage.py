"""What a process has used, read from outside: CPU time and memory.

Law: reading costs the process nothing. The sum of CPU time is exact (CLOCK_PROCESS_CPUTIME_ID of the process, threads
that have ended included); its split into user and system is the kernel's, which samples at every tick: 4 ms at 250 Hz,
so 100 ms of user time are known to some 15 %.
Source: proc_pid_stat(5); clock_getcpuclockid(3), whose clock number is (~pid << 3) | CPUCLOCK_SCHED.
"""

from __future__ import annotations

import time
from pathlib import Path

import attrs

from bench.machine import fields

_CPUCLOCK_SCHED = 2
_UTIME, _STIME = 11, 12  # counted from the field behind the command's closing parenthesis


@attrs.frozen
class CpuTime:
    """CPU time of a process; `total_s` is exact, the ticks are the kernel's samples."""

    total_s: float
    user_ticks: int
    system_ticks: int

    def __sub__(self, before: CpuTime) -> CpuTime:
        return CpuTime(
            self.total_s - before.total_s,
            self.user_ticks - before.user_ticks,
            self.system_ticks - before.system_ticks,
        )

    @property
    def user_s(self) -> float:
        """The part of the exact time that the samples found in user mode."""
        ticks = self.user_ticks + self.system_ticks
        return self.total_s * self.user_ticks / ticks if ticks else 0.0


@attrs.frozen
class Memory:
    """Resident memory of a process, now and at its peak."""

    resident_mib: float
    peak_mib: float


def cpu_time(pid: int) -> CpuTime:
    """Read the CPU time of a running process."""
    total_s = time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    return CpuTime(total_s, *parse_ticks(Path(f"/proc/{pid}/stat").read_text()))


def parse_ticks(stat: str) -> tuple[int, int]:
    """Return user and system time in a line of /proc/PID/stat. A command may contain spaces and parentheses."""
    numbers = stat.rpartition(")")[2].split()
    return int(numbers[_UTIME]), int(numbers[_STIME])


def memory(pid: int) -> Memory:
    """Read the memory of a running process."""
    return parse_memory(Path(f"/proc/{pid}/status").read_text())


def parse_memory(status: str) -> Memory:
    """Return VmRSS and VmHWM of /proc/PID/status."""
    found = fields(status)
    return Memory(*(int(found[name].removesuffix(" kB")) / 1024 for name in ("VmRSS", "VmHWM")))
