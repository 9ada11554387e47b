"""The least programs that can be attached, and what the kernel says of those that are.

Law: what is attached is asked by BPF_PROG_QUERY and by tc(8), not by the code under test.
Neighbours: `watcher.py` attaches ours, `test_attach.py` puts others beside them.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from netwatch.kernel.syscall import Attr, Command, address, bpf
from tests.kernel.hosts import Interface

TCX_INGRESS, TCX_EGRESS = 46, 47
TCX_NEXT, TCX_PASS = -1, 0
_SCHED_CLS = 3
_OBJ_PIN = 6
_PROG_QUERY = 16


def load_program(verdict: int, name: str) -> int:
    """Load `return verdict` and return its descriptor."""
    code = bytearray(struct.pack("=BBhi", 0xB7, 0, 0, verdict) + struct.pack("=BBhi", 0x95, 0, 0, 0))
    gpl = bytearray(b"GPL\0")
    fields = (_SCHED_CLS, 2, address(code), address(gpl), 0, 0, 0, 0, 0, name.encode())
    return bpf(Command.PROG_LOAD, "=IIQQIIQII16s", *fields)


def program_info(program_fd: int) -> tuple[int, int]:
    """Return a program's identifier and how often it ran while statistics were on."""
    info = bytearray(256)
    bpf(Command.OBJ_GET_INFO_BY_FD, "=IIQ", program_fd, len(info), address(info))
    return struct.unpack_from("=I", info, 4)[0], struct.unpack_from("=Q", info, 200)[0]


def runs_of(program_id: int) -> int:
    """Return how often a program of any process ran while statistics were on."""
    program_fd = bpf(Command.PROG_GET_FD_BY_ID, "=I", program_id)
    try:
        return program_info(program_fd)[1]
    finally:
        os.close(program_fd)


@attrs.frozen
class Foreign:
    """A program of somebody else: ours have nothing to do with it."""

    fd: int
    id: int


@contextmanager
def foreign_program(verdict: int) -> Iterator[Foreign]:
    """Load somebody else's program."""
    fd = load_program(verdict, "somebody_else")
    try:
        yield Foreign(fd, program_info(fd)[0])
    finally:
        os.close(fd)


@contextmanager
def foreign_link(program: Foreign, interface: Interface, attach_type: int) -> Iterator[None]:
    """Attach somebody else's program by a TCX link, where it happens to come."""
    with interface.namespace.enter():
        link_fd = bpf(Command.LINK_CREATE, "=IIIIIIQ", program.fd, interface.ifindex, attach_type, 0, 0, 0, 0)
    try:
        yield
    finally:
        os.close(link_fd)


def add_foreign_filter(interface: Interface, program: Foreign, *place: str, name: str = "somebody") -> None:
    """Add somebody else's filter for incoming packets; `name` and `:[*fsobj]` become the filter's name.

    Done with tc(8), which takes a program by the path where it is pinned.
    """
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["mount", "-t", "bpf", "bpf", directory], check=True)
        try:
            path = f"{directory}/{name}"
            c_path = bytearray(path.encode() + b"\0")
            bpf(_OBJ_PIN, "=QII", address(c_path), program.fd, 0)
            what = ("bpf", "direct-action", "object-pinned", path)
            interface.namespace.run("tc", "filter", "add", "dev", interface.name, "ingress", *place, *what)
        finally:
            subprocess.run(["umount", directory], check=True)


def tcx_programs(interface: Interface, attach_type: int) -> list[int]:
    """Return the identifiers of the programs on a TCX hook, in the order in which they run."""
    found = bytearray(4 * 64)
    attr = Attr().pack("=IIIIQI", interface.ifindex, attach_type, 0, 0, address(found), 64)
    with interface.namespace.enter():
        attr.call(_PROG_QUERY)
    return list(struct.unpack_from(f"={attr.u32(24)}I", found))


def tc_filters(interface: Interface, direction: str) -> list[dict[str, Any]]:
    """Return the filters that `tc` shows, in the order in which they run."""
    shown = json.loads(interface.namespace.run("tc", "-json", "filter", "show", "dev", interface.name, direction))
    return [one for one in shown if "options" in one]


def qdiscs(interface: Interface) -> list[str]:
    """Return the kinds of all qdiscs of an interface."""
    shown = json.loads(interface.namespace.run("tc", "-json", "qdisc", "show", "dev", interface.name))
    return [one["kind"] for one in shown]
