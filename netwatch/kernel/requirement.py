"""What netwatch needs of the kernel, each thing tried rather than looked up by version.

Law: nothing is left behind: maps have one entry, programs are attached to nothing, every descriptor is closed at once.
All of it together takes 4 ms, so `netwatch run` asks at every start.
Neighbours: `cli.py` asks before it compiles; `check.py` shows each answer with the remedy; `syscall.py` does the calls.
Source: `union bpf_attr` and `struct bpf_insn` in include/uapi/linux/bpf.h; capabilities(7).
"""

from __future__ import annotations

import errno
import mmap
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from netwatch.errors import KernelUnsupported, PermissionMissing
from netwatch.kernel.syscall import Attr, Command, address, bpf, load_program, map_update

GRANT = "run as root, or grant it (systemd: AmbientCapabilities=, containers: capabilities.add)"
NOT_IN_THE_KERNEL = "needs a kernel with CONFIG_BPF_SYSCALL=y"
NOT_OF_THE_HOST = "it takes capabilities of the host, not of a user namespace, and a seccomp profile with bpf(2)"

# CAP_PERFMON is for pointer arithmetic: "R7 has pointer with unsupported alu operation, pointer arithmetic with it
# prohibited for !root".
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_PERFMON": 38, "CAP_BPF": 39}
_CAP_SYS_ADMIN = 21

_HASH, _ARRAY_OF_MAPS, _RINGBUF = 1, 12, 27
_SCHED_CLS = 3

# r0 = -1 (TCX_NEXT); exit
_RETURN_NEXT = struct.pack("=BBhiBBhi", 0xB7, 0, 0, -1, 0x95, 0, 0, 0)
# r0 = 0; *(u64 *)(r10 - 8) = 0; r1 = 1; r0 = atomic64_cmpxchg(r10 - 8, r0, r1)
_COMPARE_AND_SWAP = struct.pack(
    "=BBhiBBhiBBhiBBhi", *(0xB7, 0, 0, 0), *(0x7A, 0x0A, -8, 0), *(0xB7, 1, 0, 1), *(0xDB, 0x1A, -8, 0xF1)
)

_BTF = Path("/sys/kernel/btf/vmlinux")
_BTF_MAGIC = 0xEB9F


@attrs.frozen
class Answer:
    """The answer to one attempt: `errno_name` is None where it worked; `detail` is what else there is to tell."""

    errno_name: str | None = None
    detail: str = ""

    @property
    def works(self) -> bool:
        """Whether it worked."""
        return self.errno_name is None

    @property
    def is_forbidden(self) -> bool:
        """Whether the kernel refused the caller, which tells nothing of the feature."""
        return self.errno_name in ("EPERM", "EACCES")


@attrs.frozen
class Requirement:
    """A feature, an attempt to use it that raises OSError, and what the operator can do where it is missing."""

    title: str
    attempt: Callable[[], None]
    remedy: str

    def answer(self) -> Answer:
        """Try it."""
        return answer(self.attempt)


def answer(attempt: Callable[[], None]) -> Answer:
    """Try something and return what the kernel said."""
    try:
        attempt()
    except OSError as error:
        return Answer(errno.errorcode.get(error.errno or 0, str(error.errno)), error.strerror or str(error))
    return Answer()


def require_kernel() -> None:
    """Make sure that this process may use BPF and that the kernel has all that is needed.

    Raises PermissionMissing or KernelUnsupported for the first thing that is missing.
    """
    if missing := missing_capabilities(effective_capabilities()):
        raise PermissionMissing(", ".join(missing), GRANT)
    bpf_call = Requirement("bpf system call", make_hash_map, NOT_IN_THE_KERNEL)
    if bpf_call.answer().is_forbidden:
        raise PermissionMissing("permission for bpf(2)", NOT_OF_THE_HOST)
    for requirement in (bpf_call, *REQUIREMENTS):
        found = requirement.answer()
        if not found.works:
            said = f"{found.errno_name} in Linux {platform.release()}"
            raise KernelUnsupported(requirement.title, said, requirement.remedy)


def effective_capabilities() -> int:
    """Return the effective capabilities of this process as a bit mask."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0


def missing_capabilities(held: int) -> list[str]:
    """Return the names of those that are needed and not in the bit mask."""
    # CAP_SYS_ADMIN has always included what 5.8 made CAP_BPF and CAP_PERFMON.
    implied = {"CAP_BPF", "CAP_PERFMON"} if held >> _CAP_SYS_ADMIN & 1 else set()
    return [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1 and name not in implied]


def make_hash_map() -> None:
    """Make the plainest of maps, to see whether bpf(2) is there for us at all."""
    os.close(_map(_HASH, 4, 4, 1))


@contextmanager
def pass_program() -> Iterator[int]:
    """Load a program that lets every packet pass, and close it at the end of the block."""
    with _closing(_program(_RETURN_NEXT)) as fd:
        yield fd


@contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _map(map_type: int, key_size: int, value_size: int, max_entries: int, inner_fd: int = 0) -> int:
    flags = 0
    return bpf(Command.MAP_CREATE, "=IIIIII", map_type, key_size, value_size, max_entries, flags, inner_fd)


def _program(instructions: bytes) -> int:
    return load_program(_SCHED_CLS, instructions)


def _read_btf() -> None:
    with _BTF.open("rb") as file:
        magic = file.read(2)
    if magic != _BTF_MAGIC.to_bytes(2, sys.byteorder):
        raise OSError(errno.EINVAL, f"{_BTF} does not begin with the magic number of BTF")


def _load_program() -> None:
    os.close(_program(_RETURN_NEXT))


def _load_compare_and_swap() -> None:
    os.close(_program(_COMPARE_AND_SWAP + _RETURN_NEXT))


def _make_ring_buffer() -> None:
    os.close(_map(_RINGBUF, 0, 0, mmap.PAGESIZE))


def _make_map_in_map() -> None:
    with _closing(_map(_HASH, 4, 4, 1)) as inner:
        os.close(_map(_ARRAY_OF_MAPS, 4, 4, 1, inner))


def _drain_in_a_batch() -> None:
    token, keys, values = bytearray(8), bytearray(4), bytearray(4)
    with _closing(_map(_HASH, 4, 4, 1)) as fd:
        map_update(fd, bytes(4), bytes(4))
        attr = Attr().pack("=QQQQIIQQ", 0, address(token), address(keys), address(values), 1, fd, 0, 0)
        try:
            attr.call(Command.MAP_LOOKUP_AND_DELETE_BATCH)
        except FileNotFoundError:
            return  # the end of the map, with the one entry read


REQUIREMENTS = (
    Requirement(f"BTF in {_BTF}", _read_btf, "needs a kernel with CONFIG_DEBUG_INFO_BTF=y"),
    Requirement("BPF programs for traffic control", _load_program, "needs a kernel with CONFIG_NET_CLS_ACT=y"),
    Requirement("atomic compare-and-swap", _load_compare_and_swap, "needs Linux 5.12, and the JIT on some machines"),
    Requirement("ring buffer", _make_ring_buffer, "needs Linux 5.8"),
    Requirement("maps in maps", _make_map_in_map, "needs Linux 4.12"),
    Requirement("batches on hash maps", _drain_in_a_batch, "needs Linux 5.6"),
)
