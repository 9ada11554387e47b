"""The guardians of agents that attach by clsact filters, from outside.

Law: found by their parent and their name, so nobody else's is ever taken for one.
Neighbours: `watcher.py` and `agent_process.py` have guardians, `test_guardian.py` looks at them and kills them.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.kernel.waiting import look_until


def guardians_of(pid: int) -> list[int]:
    """Return the guardians that a living process has started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # pid (comm) state ppid ...
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            is_guardian = b"netwatch-guardian" in (process / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and is_guardian:
            found.append(int(process.name))
    return found


def guardian_of(pid: int) -> int:
    """Return the one guardian of a living process."""
    (guardian,) = guardians_of(pid)
    return guardian


def kill_guardian(guardian: int) -> None:
    """End it by SIGKILL, and wait until it has ended."""
    os.kill(guardian, signal.SIGKILL)
    assert look_until(lambda: has_ended(guardian), bool)


def has_ended(process: int) -> bool:
    """Say whether a process is no more, or waits only for its parent to notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
