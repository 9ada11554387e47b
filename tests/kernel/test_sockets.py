"""Owners of sockets that were there before: written into the storage of a loaded program, under their names."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from netwatch.kernel.program import LoadedPrograms, ProgramSettings, load_programs
from netwatch.kernel.sockets import _name, name_sockets
from netwatch.kernel.syscall import Attr, Command, address
from netwatch.kernel.tracing import cgroup2_root

_NOTE = struct.Struct("=QII16sQ")


@pytest.fixture(scope="module")
def loaded() -> Iterator[LoadedPrograms]:
    """Programs that are attached to nothing."""
    with contextlib.closing(load_programs(ProgramSettings(16, 16, enrich=["process"]))) as programs:
        yield programs


def owner_of(loaded: LoadedPrograms, one: socket.socket) -> tuple[int, int, str] | None:
    """Read cgroup, process and command of a socket back."""
    key, value = bytearray(struct.pack("=i", one.fileno())), bytearray(_NOTE.size)
    attr = Attr().pack("=IIQQQ", loaded.maps["sockets"], 0, address(key), address(value), 0)
    try:
        attr.call(Command.MAP_LOOKUP_ELEM)
    except FileNotFoundError:
        return None
    cgroup, pid, _, command, connecting_ns = _NOTE.unpack(value)
    assert connecting_ns == 0
    return cgroup, pid, command.rstrip(b"\0").decode()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_own_socket(loaded: LoadedPrograms, family: socket.AddressFamily, kind: socket.SocketKind) -> None:
    """A socket of this process is named after it: its id, its command, its cgroup."""
    with socket.socket(family, kind) as one:
        assert owner_of(loaded, one) is None
        assert name_sockets(loaded.maps["sockets"]).named >= 1
        found = owner_of(loaded, one)
        assert found is not None
        cgroup, pid, command = found
        assert (pid, command) == (os.getpid(), Path("/proc/self/comm").read_text().strip())
        path = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        root = cgroup2_root()
        assert root is not None
        assert cgroup == (root / path.lstrip("/")).stat().st_ino


def test_what_is_known_stands(loaded: LoadedPrograms) -> None:
    """A socket that has an owner keeps it: the program that saw it made knows better."""
    with socket.socket() as one:
        name_sockets(loaded.maps["sockets"])
        key, value = bytearray(struct.pack("=i", one.fileno())), bytearray(_NOTE.pack(1, 2, 0, b"other", 0))
        Attr().pack("=IIQQQ", loaded.maps["sockets"], 0, address(key), address(value), 0).call(Command.MAP_UPDATE_ELEM)
        name_sockets(loaded.maps["sockets"])
        assert owner_of(loaded, one) == (1, 2, "other")


def test_other_kinds(loaded: LoadedPrograms) -> None:
    """Sockets that are not of the Internet are left alone, and none of ours is lost or closed."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = name_sockets(loaded.maps["sockets"])
        ours.sendall(b"still here")
        assert theirs.recv(20) == b"still here"
        again = name_sockets(loaded.maps["sockets"])
    assert before.named == again.named == 0


def test_number_that_is_another_file_by_now(loaded: LoadedPrograms, tmp_path: Path) -> None:
    """A process may close a socket and open a file while it is looked at: that is no socket, and nothing stays open."""
    process_fd = os.pidfd_open(os.getpid())
    try:
        with (tmp_path / "file").open("w") as file:
            before = os.listdir("/proc/self/fd")
            assert _name(loaded.maps["sockets"], process_fd, file.fileno(), bytes(_NOTE.size)) is False
            assert os.listdir("/proc/self/fd") == before
    finally:
        os.close(process_fd)
