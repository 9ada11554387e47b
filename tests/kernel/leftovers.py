"""What a test run may not leave behind: namespaces, and programs that nobody but a leak keeps.

Law: only what this run made is reported; other runs and other agents on the machine are none of its business.
Neighbours: `conftest.py` asks at the end of the session, tests of SIGKILL ask in between.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from netwatch.kernel import tc_entry
from netwatch.kernel.hooks import HOOKS
from netwatch.kernel.syscall import Attr, Command, address, bpf
from tests.kernel.hosts import session_suffix
from tests.kernel.waiting import PATIENCE_S

# Stands in the environment of every process that the tests start. (NETWATCH_… would be read as a setting.)
MARK = "TEST_RUN_OF_NETWATCH"
# As the kernel keeps them: 15 characters.
_NAMES = frozenset(hook.function[:15] for hook in HOOKS.values()) | {tc_entry.NAME[:15]}
_PROGRAM_ID = re.compile(r"^prog_id:\s*(\d+)$", re.MULTILINE)


def mark() -> str:
    """Return what `MARK` is set to in this run."""
    return str(os.getpid())


def namespaces_left() -> list[str]:
    """Return the names of this run's namespaces."""
    directory = Path("/run/netns")
    names = [path.name for path in directory.iterdir()] if directory.exists() else []
    return sorted(name for name in names if name.startswith("nw-") and name.endswith(session_suffix()))


def programs() -> dict[int, str]:
    """Return the names of all loaded BPF programs that are called as ours are, by identifier."""
    found: dict[int, str] = {}
    identifier = 0
    attr = Attr()
    while True:
        try:
            attr.pack("=II", identifier, 0).call(Command.PROG_GET_NEXT_ID)
        except FileNotFoundError:
            return found
        identifier = attr.u32(4)
        name = _name(identifier)
        if name in _NAMES:
            found[identifier] = name


def programs_left(before: Mapping[int, str], timeout_s: float = PATIENCE_S) -> dict[int, str]:
    """Return the programs loaded since `before` was taken that no process of somebody else holds.

    Waits for them to go until the timeout: the kernel frees a program only after a grace period of its own, and tells
    nobody when.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        new = {identifier: name for identifier, name in programs().items() if identifier not in before}
        foreign = _held_by_others() if new else frozenset()
        left = {identifier: name for identifier, name in new.items() if identifier not in foreign}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def _name(identifier: int) -> str:
    try:
        fd = bpf(Command.PROG_GET_FD_BY_ID, "=I", identifier)
    except FileNotFoundError:
        return ""  # gone since it was listed
    try:
        info = bytearray(256)
        bpf(Command.OBJ_GET_INFO_BY_FD, "=IIQ", fd, len(info), address(info))
    finally:
        os.close(fd)
    # struct bpf_prog_info: char name[16] at 64.
    return bytes(info[64:80]).split(b"\0")[0].decode()


def _held_by_others() -> frozenset[int]:
    """Return the identifiers of programs in the descriptors (of programs and links) of processes not started here."""
    held: set[int] = set()
    for process in Path("/proc").glob("[0-9]*"):
        # Processes and descriptors come and go while we look.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            environment = (process / "environ").read_bytes().split(b"\0")
            if int(process.name) == os.getpid() or f"{MARK}={mark()}".encode() in environment:
                continue
            for descriptor in (process / "fdinfo").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    held.update(
                        int(number) for number in re.findall(r"^prog_id:\s*(\d+)", descriptor.read_text(), re.M)
                    )
    return frozenset(held)
