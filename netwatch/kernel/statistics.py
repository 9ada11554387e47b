"""What our programs and maps cost, as the kernel counts it.

Law: asks only about our own descriptors. Run times are measured only on request, because the kernel then measures every
BPF program of the machine, at about 20 ns a run.
Neighbours: `agent.py` opens it, `metrics.py` shows it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from netwatch.kernel.program import LoadedPrograms
from netwatch.kernel.syscall import enable_stats, program_stats
from netwatch.status import MapMemory, ProgramStats


class KernelStatistics:
    """A context in which the kernel measures run times, where that is asked for."""

    def __init__(self, loaded: LoadedPrograms, measures_time: bool) -> None:
        self._loaded, self._measures_time = loaded, measures_time
        self._enabled_fd: int | None = None

    def __enter__(self) -> Self:
        if self._measures_time:
            self._enabled_fd = enable_stats()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._enabled_fd is not None:
            os.close(self._enabled_fd)
            self._enabled_fd = None

    def programs(self) -> tuple[ProgramStats, ...]:
        """Return runs and run time of each program; nothing unless run times are measured."""
        if self._enabled_fd is None:
            return ()
        found = ((name, *program_stats(fd)) for name, fd in self._loaded.programs.items())
        return tuple(ProgramStats(name, run_count, run_ns) for name, run_ns, run_count, _ in found)

    def maps(self) -> tuple[MapMemory, ...]:
        """Return the memory of each map, in bytes; what the kernel calls `memlock`."""
        return tuple(MapMemory(name, _memory(fd)) for name, fd in self._loaded.maps.items())


def _memory(map_fd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{map_fd}").read_text().splitlines():
        if line.startswith("memlock:"):
            return int(line.split()[1])
    return 0
