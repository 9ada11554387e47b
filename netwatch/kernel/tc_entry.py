"""Small programs for clsact filters, which lead to the real ones for as long as this process lives.

Law: when the process has ended, in whatever way, the kernel frees the real programs and their maps; what stays on the
interfaces is six instructions that let every packet pass.
Neighbours: `tc.py` attaches the entries; `tc_guardian.py` and the next run remove them.

*Why.* A filter keeps its program, and a program its maps: 19 maps and 104 MB at default settings, which each packet
goes on filling. An array of programs is the one map that the kernel empties when its last descriptor is closed, whoever
still refers to it (map_release_uref in prog_array_map_ops, kernel/bpf/arraymap.c), and a call into an empty place goes
on in the caller. So filters refer to entries, entries to the array, and only the array to the programs. What it costs
cannot be measured (BPF_PROG_TEST_RUN, ten rounds of a million packets, Linux 6.18: 136 ns a packet with it and 137
without; 1 ns once the array is empty): the place is a constant, and the JIT makes a jump of the call.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from netwatch.errors import KernelCallFailed
from netwatch.kernel.attach import HookPrograms
from netwatch.kernel.hooks import PROGRAM_TYPES, HookKind
from netwatch.kernel.syscall import create_program_array, load_program, map_update

NAME = "netwatch_entry"
_TAIL_CALL = 12  # BPF_FUNC_tail_call
# struct bpf_insn: opcode, registers (the source in the upper half), offset, number.
_INSTRUCTION = struct.Struct("=BBhi")


@contextmanager
def entries_before(programs: HookPrograms) -> Iterator[None]:
    """Put an entry before each program; until the end of the block packets that come to it go on to the program.

    From now on the descriptors in `programs` are those of the entries: what is attached by them is an entry, the kernel
    counts runs and time there, and whoever closes the programs closes them. Only the array still has the programs.
    Raises KernelCallFailed.
    """
    descriptors = attrs.astuple(programs)
    program_type, _ = PROGRAM_TYPES[HookKind.PACKET]
    with _explained("MAP_CREATE"):
        array = create_program_array(NAME, len(descriptors))
    try:
        for place, program_fd in enumerate(descriptors):
            with _explained("PROG_LOAD"):
                map_update(array, struct.pack("=I", place), struct.pack("=I", program_fd))
                entry = load_program(program_type, _entry(array, place), NAME)
            os.dup2(entry, program_fd, inheritable=False)
            os.close(entry)
        yield
    finally:
        os.close(array)


@contextmanager
def _explained(command: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KernelCallFailed(command, NAME, errno.errorcode.get(error.errno or 0, "?")) from error


def _entry(array: int, place: int) -> bytes:
    """Return `bpf_tail_call(ctx, array, place); return TC_ACT_UNSPEC;`, with ctx in register 1 already."""
    instructions = (
        (0x18, 2 | 1 << 4, 0, array),  # r2 = the array, by its descriptor
        (0, 0, 0, 0),  # the second half of it
        (0xB7, 3, 0, place),  # r3 = place
        (0x85, 0, 0, _TAIL_CALL),
        (0xB7, 0, 0, -1),  # r0 = -1
        (0x95, 0, 0, 0),  # return
    )
    return b"".join(_INSTRUCTION.pack(*one) for one in instructions)
