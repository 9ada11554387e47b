"""Owners of the sockets that were there before us.

Law: what a program wrote meanwhile stands. Nothing of a process is changed: its descriptor is borrowed for the time of
one system call. A process that goes or may not be looked at is left out, and counted.
Why through descriptors: socket storage takes a value only by a descriptor of the socket, and pidfd_getfd(2) lends one.
Neighbours: `bpf/tcp.bpf.h` and `on_socket` name the sockets that come later; `agent.py` calls this once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import attrs

from netwatch.kernel.syscall import map_update
from netwatch.kernel.tracing import cgroup2_root

_SYS_PIDFD_GETFD = 438  # the same on all machines
_BPF_NOEXIST = 1
_INET = (socket.AF_INET, socket.AF_INET6)
_NOTE = struct.Struct("=QII16sQ")  # struct socket_note of bpf/maps.bpf.h: owner, and connecting_ns
_COMMAND_BYTES = 15  # and the zero behind it

_libc = ctypes.CDLL(None, use_errno=True)


@attrs.frozen
class SocketScan:
    """How many sockets got an owner, and how many descriptors could not be looked at."""

    named: int = 0
    skipped: int = 0


def name_sockets(storage_fd: int) -> SocketScan:
    """Write the owners of all inet sockets that have none into a map of socket storage.

    A socket that several processes share belongs to the youngest: to a server that was started by socket activation, or
    to a worker, and not to who made the socket for it. Blocks for about 20 us a socket.
    """
    named = skipped = 0
    root = cgroup2_root()
    seen: set[str] = set()
    for process in sorted(_processes(), reverse=True):
        try:
            sockets = [(number, link) for number, link in _sockets_of(process) if link not in seen]
            if not sockets:
                continue
            seen.update(link for _, link in sockets)
            note = _note(process, root)
            process_fd = os.pidfd_open(process)
        except OSError:
            skipped += 1
            continue
        try:
            for number, _ in sockets:
                outcome = _name(storage_fd, process_fd, number, note)
                named, skipped = named + (outcome is True), skipped + (outcome is None)
        finally:
            os.close(process_fd)
    return SocketScan(named, skipped)


def _processes() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _sockets_of(process: int) -> Iterator[tuple[int, str]]:
    directory = f"/proc/{process}/fd"
    for name in os.listdir(directory):
        try:
            link = os.readlink(f"{directory}/{name}")
        except OSError:
            continue  # closed since it was listed
        if link.startswith("socket:["):
            yield int(name), link


def _note(process: int, root: Path | None) -> bytes:
    directory = Path("/proc", str(process))
    command = (directory / "comm").read_bytes().rstrip(b"\n")[:_COMMAND_BYTES]
    return _NOTE.pack(_cgroup_id(directory, root), process, 0, command, 0)


def _cgroup_id(directory: Path, root: Path | None) -> int:
    for line in (directory / "cgroup").read_text().splitlines():
        if root and line.startswith("0::"):
            try:
                return (root / line[3:].lstrip("/")).stat().st_ino
            except OSError:
                return 0  # deleted, or outside of our cgroup namespace
    return 0


def _name(storage_fd: int, process_fd: int, number: int, note: bytes) -> bool | None:
    """Return whether a socket was given its owner; None where it could not be looked at."""
    fd = _libc.syscall(_SYS_PIDFD_GETFD, process_fd, number, 0)
    if fd < 0:
        return None
    try:
        borrowed = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)  # the process has opened something else under this number since it was listed
        return False
    try:
        with borrowed:
            if borrowed.family not in _INET:
                return False
            map_update(storage_fd, struct.pack("=i", borrowed.fileno()), note, _BPF_NOEXIST)
    except OSError as error:
        return False if error.errno == errno.EEXIST else None
    return True
