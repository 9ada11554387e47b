"""The machine that a result belongs to.

Law: says only what changes a timing; nothing that identifies the machine.
Neighbours: `report.py` prints it above the figures.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import attrs


@attrs.frozen
class Machine:
    """Hardware, kernel and interpreter, and how busy it was when the run began."""

    cpus: int
    cpu_model: str
    memory_mib: int
    hypervisor: str
    kernel: str
    python: str
    load_average: float

    def __str__(self) -> str:
        where = f"under {self.hypervisor}" if self.hypervisor else "on bare metal"
        return (
            f"{self.cpus} x {self.cpu_model} {where}, {self.memory_mib} MiB, Linux {self.kernel}, "
            f"Python {self.python}, load average {self.load_average:.2f}"
        )


def describe_machine(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Machine:
    """Describe this machine."""
    cpu = fields((proc / "cpuinfo").read_text())
    memory_kib = fields((proc / "meminfo").read_text())["MemTotal"].split()[0]
    vendor = sys / "class/dmi/id/sys_vendor"
    is_guest = "hypervisor" in cpu.get("flags", "").split()
    return Machine(
        cpus=os.cpu_count() or 1,
        # ARM has no model name.
        cpu_model=cpu.get("model name") or platform.machine(),
        memory_mib=int(memory_kib) // 1024,
        hypervisor=(vendor.read_text().strip() if vendor.exists() else "a hypervisor") if is_guest else "",
        kernel=platform.release().partition("-")[0],
        python=platform.python_version(),
        load_average=float((proc / "loadavg").read_text().split()[0]),
    )


def loop_ns() -> float:
    """Return how long one turn of an empty Python loop takes now: fixed work, to tell a slow hour from a fast one.

    By CPU time, and the least of five, so that it tells of the processor and not of who else waits for it.
    """
    turns = 200_000
    spent_ns = []
    for _ in range(5):
        began = time.thread_time_ns()
        for _ in range(turns):
            pass
        spent_ns.append(time.thread_time_ns() - began)
    return min(spent_ns) / turns


def fields(text: str) -> dict[str, str]:
    """Return the `name: value` lines of a file of /proc; of a name that comes again, the first."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found
