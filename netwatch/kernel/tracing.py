"""Attach the programs that enrich: BTF tracepoints, and the cgroup hook where sockets are made.

Law: each is held by a descriptor, so whatever ends this process detaches it. A hook that cannot be had is told once,
with what is then missing from the records; packets are counted all the same.
Neighbours: `hooks.py` says which there are, `agent.py` opens them before the first packet counts.
Source: raw_tracepoint and link_create in `union bpf_attr`, include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from netwatch.kernel.btf import Btf
from netwatch.kernel.hooks import HOOKS, PROGRAM_TYPES, Hook, HookKind
from netwatch.kernel.program import LoadedPrograms
from netwatch.kernel.syscall import Command, bpf, load_program

# r0 = 0 or 1; exit
_RETURN_ZERO = bytes.fromhex("b700000000000000 9500000000000000")
_RETURN_ONE = bytes.fromhex("b700000001000000 9500000000000000")
_BARE = "netwatch_probe"

log = logging.getLogger(__name__)


@contextmanager
def attached_tracing(loaded: LoadedPrograms) -> Iterator[None]:
    """Attach what was loaded, until the end of the block."""
    for name, reason in loaded.refused.items():
        _say_missing(HOOKS[name], reason)
    with ExitStack() as links:
        for name, program_fd in loaded.programs.items():
            hook = HOOKS[name]
            try:
                if hook.kind is HookKind.TRACEPOINT:
                    links.callback(os.close, open_tracepoint(program_fd))
                elif hook.kind is HookKind.SOCKET:
                    links.callback(os.close, _attach_to_sockets(program_fd))
            except OSError as error:
                _say_missing(hook, errno.errorcode.get(error.errno or 0, str(error)))
        yield


def _say_missing(hook: Hook, reason: str) -> None:
    log.warning("%s: %s; its part of %s is missing", hook.target, reason, ", ".join(sorted(hook.needed_by)))


def cgroup2_root(mounts: Path = Path("/proc/self/mountinfo")) -> Path | None:
    """Return where the cgroup hierarchy of version 2 is mounted; None where it is not."""
    for line in mounts.read_text().splitlines():
        # mountinfo: ... mount point (fifth), options, optional fields, "-", file system type, ...
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            return Path(before.split()[4].encode().decode("unicode_escape"))
    return None


def try_tracepoint() -> None:
    """Attach a program that does nothing to a tracepoint, and detach it. Raises OSError where that is refused."""
    _close_after(load_bare_tracepoint(), open_tracepoint)


def try_socket_hook() -> None:
    """Attach a program that lets every socket be made, and detach it. Raises OSError where that is refused."""
    program_type, attach_type = PROGRAM_TYPES[HookKind.SOCKET]
    _close_after(load_program(program_type, _RETURN_ONE, _BARE, attach_type=attach_type), _attach_to_sockets)


def _close_after(program_fd: int, attach: Callable[[int], int]) -> None:
    try:
        os.close(attach(program_fd))
    finally:
        os.close(program_fd)


def load_bare_tracepoint() -> int:
    """Load a program that does nothing where a packet is dropped. Raises OSError where that is refused."""
    program_type, attach_type = PROGRAM_TYPES[HookKind.TRACEPOINT]
    with Btf() as btf:
        btf_id = btf.tracepoint_id("kfree_skb")
    return load_program(program_type, _RETURN_ZERO, _BARE, attach_type=attach_type, btf_id=btf_id)


def open_tracepoint(program_fd: int) -> int:
    """Attach without a name: the program knows its tracepoint, by its BTF type."""
    return bpf(Command.RAW_TRACEPOINT_OPEN, "=QI", 0, program_fd)


def _attach_to_sockets(program_fd: int) -> int:
    """Attach at the root, so that sockets of all cgroups come by; others' programs stay and run, too."""
    root = cgroup2_root()
    if root is None:
        raise FileNotFoundError(errno.ENOENT, "no cgroup2 file system is mounted")
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return bpf(Command.LINK_CREATE, "=IIII", program_fd, directory, PROGRAM_TYPES[HookKind.SOCKET][1], 0)
    finally:
        os.close(directory)
