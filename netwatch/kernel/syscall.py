"""bpf(2), as thinly as Python allows.

Law: one function a command, integers and buffers in, integers out, OSError on refusal; no policy here.
Neighbours: `flow_map.py` and `counters.py` read maps, `attach.py` makes links, `probe.py` asks what the kernel can.
Source: `union bpf_attr` in include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import enum
import os
import platform
import struct

import attrs

_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361}
_INSTRUCTION_BYTES = 8
_HASH, _PROGRAM_ARRAY = 1, 3  # BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_PROG_ARRAY
_MAP_INFO_BYTES = 80
_ATTR_SIZE = 144  # the longest union member we fill, rounded up; the kernel wants the rest zero

_libc = ctypes.CDLL(None, use_errno=True)
_number = _SYS_BPF.get(platform.machine())


class Command(enum.IntEnum):
    """`enum bpf_cmd`, those that netwatch uses."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    PROG_LOAD = 5
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    PROG_GET_FD_BY_ID = 13
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    MAP_LOOKUP_BATCH = 24
    MAP_LOOKUP_AND_DELETE_BATCH = 25
    LINK_CREATE = 28
    ENABLE_STATS = 32


class Attr:
    """A reusable `union bpf_attr`: a zeroed buffer whose fields are packed in place."""

    __slots__ = ("_buffer", "_c_buffer")

    def __init__(self) -> None:
        self._buffer = bytearray(_ATTR_SIZE)
        self._c_buffer = (ctypes.c_char * _ATTR_SIZE).from_buffer(self._buffer)

    def pack(self, layout: str, *values: int | bytes) -> Attr:
        """Write fields from the start of the union."""
        struct.pack_into(layout, self._buffer, 0, *values)
        return self

    def u32(self, offset: int) -> int:
        """Read what the kernel wrote back."""
        value: int = struct.unpack_from("=I", self._buffer, offset)[0]
        return value

    def call(self, command: Command) -> int:
        """Do the system call. Returns its result; raises OSError with the kernel's errno."""
        if _number is None:
            raise OSError(38, f"no bpf system call known for {platform.machine()}")
        result: int = _libc.syscall(_number, int(command), self._c_buffer, _ATTR_SIZE)
        if result < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, os.strerror(errno))
        return result


def bpf(command: Command, layout: str, *values: int) -> int:
    """Do one call with the given fields packed from the start of `union bpf_attr`."""
    return Attr().pack(layout, *values).call(command)


def address(buffer: bytearray | memoryview) -> int:
    """Return where a writable buffer lies; the caller keeps it alive."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def load_program(
    program_type: int,
    code: bytes | bytearray,
    name: str = "",
    *,
    attach_type: int = 0,
    btf_id: int = 0,
    log: bytearray | None = None,
) -> int:
    """Load a program under the GPL and return its descriptor; with a `log` the verifier writes down what it did."""
    instructions, license_name = bytearray(code), bytearray(b"GPL\0")
    attr = Attr().pack(
        "=IIQQIIQII16sIIIIQIIQII",
        *(program_type, len(instructions) // _INSTRUCTION_BYTES, address(instructions), address(license_name)),
        *(int(log is not None), len(log or b""), address(log) if log else 0, 0, 0, name.encode()[:15], 0, attach_type),
        *(0, 0, 0, 0, 0, 0, 0, btf_id),
    )
    return attr.call(Command.PROG_LOAD)


def create_hash(name: str, key_bytes: int, value_bytes: int, entries: int) -> int:
    """Make a preallocated hash map and return its descriptor."""
    return _create_map(_HASH, name, key_bytes, value_bytes, entries)


def create_program_array(name: str, entries: int) -> int:
    """Make an array of programs and return its descriptor; the last one to be closed empties the array."""
    return _create_map(_PROGRAM_ARRAY, name, 4, 4, entries)


def _create_map(map_type: int, name: str, key_bytes: int, value_bytes: int, entries: int) -> int:
    attr = Attr().pack("=IIIIIII16s", map_type, key_bytes, value_bytes, entries, 0, 0, 0, name.encode()[:15])
    return attr.call(Command.MAP_CREATE)


def max_entries(map_fd: int) -> int:
    """Return for how many entries a map was made."""
    info = bytearray(_MAP_INFO_BYTES)
    bpf(Command.OBJ_GET_INFO_BY_FD, "=IIQ", map_fd, len(info), address(info))
    # struct bpf_map_info: type, id, key_size, value_size, max_entries.
    entries: int = struct.unpack_from("=I", info, 16)[0]
    return entries


def map_update(map_fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Set one entry."""
    key_buffer, value_buffer = bytearray(key), bytearray(value)
    bpf(Command.MAP_UPDATE_ELEM, "=IIQQQ", map_fd, 0, address(key_buffer), address(value_buffer), flags)


@attrs.frozen
class TestRun:
    """What BPF_PROG_TEST_RUN says: the program's return value and its mean duration over the repeats."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    retval: int
    duration_ns: int


def test_run(program_fd: int, packet: bytes, repeat: int = 1, context: bytes = b"") -> TestRun:
    """Run a program over one packet. `context` is a `struct __sk_buff` whose settable fields are taken."""
    packet_buffer, context_buffer = bytearray(packet), bytearray(context)
    attr = Attr().pack(
        "=IIIIQQIIIIQQ",
        *(program_fd, 0, len(packet), 0, address(packet_buffer), 0, repeat, 0),
        *(len(context), 0, address(context_buffer) if context else 0, 0),
    )
    attr.call(Command.PROG_TEST_RUN)
    retval = attr.u32(4)
    return TestRun(retval if retval < 1 << 31 else retval - (1 << 32), attr.u32(36))


test_run.__test__ = False  # type: ignore[attr-defined]


def program_stats(program_fd: int) -> tuple[int, int, int]:
    """Return how long a program ran in all, in ns, how often, and how often it was left out.

    The first two are zero unless statistics are enabled. It is left out where it is running on that CPU already, which
    is always counted.
    """
    # struct bpf_prog_info: run_time_ns at 192, run_cnt at 200, recursion_misses at 208.
    run_time_ns, run_count, misses = struct.unpack_from("=QQQ", _program_info(program_fd), 192)
    return run_time_ns, run_count, misses


def verified_instructions(program_fd: int) -> int:
    """Return how many instructions the verifier went through for a program; 0 before Linux 5.16, which does not say."""
    # struct bpf_prog_info: verified_insns.
    verified: int = struct.unpack_from("=I", _program_info(program_fd), 216)[0]
    return verified


def _program_info(program_fd: int) -> bytearray:
    info = bytearray(256)
    bpf(Command.OBJ_GET_INFO_BY_FD, "=IIQ", program_fd, len(info), address(info))
    return info


def enable_stats() -> int:
    """Make the kernel measure run times until the returned descriptor is closed."""
    return bpf(Command.ENABLE_STATS, "=I", 0)
