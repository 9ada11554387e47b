"""The BPF objects that a process holds, and whether they outlive it.

Law: objects are known by the kernel's identifiers, which it never gives out twice in a test's time; so nobody else's
program, map or link is ever taken for one of these.
Neighbours: `leftovers.py` looks for what a whole run left; tests of SIGKILL look for what one process left.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sized
from pathlib import Path

import attrs

from netwatch.kernel.syscall import Attr
from tests.kernel.waiting import PATIENCE_S, look_until

# BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_LINK_GET_NEXT_ID in `enum bpf_cmd`.
_GET_NEXT_ID = {"prog": 11, "map": 12, "link": 31}
# A link names its program too, a map in a map its template; each is an object that must go.
_IDENTIFIER = re.compile(r"^(prog|map|link)_id:\s*(\d+)$", re.MULTILINE)


@attrs.frozen
class KernelObject:
    """A program, a map or a link, by its identifier."""

    kind: str
    identifier: int

    def exists(self) -> bool:
        """Ask the kernel.

        Without a descriptor of it: closing the last one of an array of programs empties it, and where that is under
        way already, the kernel forgets to give a reference back (prog_array_map_clear() in kernel/bpf/arraymap.c).
        """
        attr = Attr().pack("=II", self.identifier - 1, 0)
        try:
            attr.call(_GET_NEXT_ID[self.kind])  # type: ignore[arg-type]
        except FileNotFoundError:
            return False
        return attr.u32(4) == self.identifier


def objects_of(pid: int) -> frozenset[KernelObject]:
    """Return what a process holds by its descriptors; nothing where it has ended."""
    found: set[KernelObject] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in Path(f"/proc/{pid}/fdinfo").iterdir():
            with contextlib.suppress(FileNotFoundError):
                matches = _IDENTIFIER.findall(descriptor.read_text())
                found.update(KernelObject(kind, int(identifier)) for kind, identifier in matches)
    return frozenset(found)


def objects_left(objects: Iterable[KernelObject], timeout_s: float = PATIENCE_S) -> list[KernelObject]:
    """Return those that exist. Waits for them to go until the timeout: the kernel frees after a grace period."""
    return look_until(lambda: [one for one in objects if one.exists()], is_empty, timeout_s)


def processes_with(variable: str) -> list[int]:
    """Return the processes that have `NAME=VALUE` in their environment, children included: they inherit it."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def processes_left(variable: str, timeout_s: float = PATIENCE_S) -> list[int]:
    """Return those that are still there; waits for them to end until the timeout."""
    return look_until(lambda: processes_with(variable), is_empty, timeout_s)


def is_empty(found: Sized) -> bool:
    """Say whether nothing is left."""
    return not found
