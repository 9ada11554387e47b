"""Compile and load the programs, in a process of its own: `python -m netwatch.kernel.compile FD`.

Law: this is the only module that imports bcc, and it runs only in a child of the daemon, which therefore never maps
LLVM (82 MB) and keeps its working directory and its stderr. The child ends when the descriptors are sent; the
programs live on in the daemon's descriptors.
Protocol on the socket FD: settings in, then one answer (msgpack), then the descriptors (SCM_RIGHTS), in its order.
Neighbours: `program.py` is the other end, `source.py` makes the text. Nothing else of netwatch is imported: numpy alone
would delay the first packet by 0.1 s.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys

import msgpack

from netwatch.kernel.source import inline, shim_directory, source_directory

_SCHED_CLS = 3
PROGRAM = b"netwatch"  # the function, and the name that bpftool shows
_INSTRUCTION_BYTES = 8
_MOVE_IMMEDIATE = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K: opcode, registers, offset, and the number in the last four bytes
# PROGRAM_* and PROGRAM_KIND_MARK of bpf/netwatch.h.
_EGRESS, _IP, _KIND_MARK = 1, 2, 0x4B494E44
PROGRAMS = {"ingress_ethernet": 0, "egress_ethernet": _EGRESS, "ingress_ip": _IP, "egress_ip": _IP | _EGRESS}
FLOW_MAP_NAMES = ("flows_0", "flows_1", "flows_2")
MAPS = (
    *(*FLOW_MAP_NAMES, "flow_maps", "flow_filter", "epoch", "full"),
    *("counters", "hooks", "hook_overflow", "ethertypes", "fragments"),
)


def _cflags(defines: dict[str, int]) -> list[str]:
    # -idirafter: the shim comes first, and UAPI headers fill the rest. Debian keeps asm/ in a directory of the machine.
    triplet = f"{platform.machine()}-linux-gnu"
    flags = [f"-I{source_directory()}", "-idirafter", f"/usr/include/{triplet}", "-idirafter", "/usr/include"]
    return flags + [f"-D{name}={value}" for name, value in defines.items()]


def _compile(defines: dict[str, int]) -> tuple[dict[str, int], object]:
    os.environ["BCC_KERNEL_SOURCE"] = str(shim_directory())
    import bcc  # noqa: PLC0415 - it reads the environment variable at import

    program = bcc.BPF(text=inline(source_directory() / "netwatch.bpf.c"), cflags=_cflags(defines))
    descriptors = {name: program[name].map_fd for name in MAPS}
    start = bcc.lib.bpf_function_start(program.module, PROGRAM)
    size = bcc.lib.bpf_function_size(program.module, PROGRAM)
    instructions = (ctypes.c_char * size).from_address(start)
    kind_at = _kind_offset(bytes(instructions))
    for name, kind in PROGRAMS.items():
        struct.pack_into("=i", instructions, kind_at, kind)
        descriptors[name] = program.load_func(PROGRAM, _SCHED_CLS).fd
        # bcc loads a function once and then remembers it.
        del program.funcs[PROGRAM]
    return descriptors, program


def _kind_offset(instructions: bytes) -> int:
    """Return where the number is that tells the programs apart: in the one move of the mark."""
    mark = struct.pack("=i", _KIND_MARK)
    found = [
        offset
        for offset in range(0, len(instructions), _INSTRUCTION_BYTES)
        if instructions[offset] == _MOVE_IMMEDIATE and instructions[offset + 4 : offset + 8] == mark
    ]
    if len(found) != 1:
        raise ValueError(f"expected one instruction with PROGRAM_KIND_MARK, found {len(found)}")
    return found[0] + 4


def main() -> None:
    """Serve one request on the socket whose descriptor is the first argument.

    Whatever bcc raises ends the process: its traceback, clang's messages and the verifier's log are then on
    descriptor 2, which the parent has pointed at a file, and the parent finds no answer.
    """
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        descriptors, keep = _compile(msgpack.unpackb(channel.recv(65_536)))
    except ImportError as error:
        channel.send(msgpack.packb({"missing": str(error)}))
        return
    socket.send_fds(channel, [msgpack.packb({"names": list(descriptors)})], list(descriptors.values()))
    channel.close()
    del keep
    # LLVM's and bcc's destructors take 30 ms and undo nothing that the kernel would not.
    os._exit(0)


if __name__ == "__main__":
    main()
