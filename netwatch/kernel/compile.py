"""Compile and load the programs, in a process of its own: `python -m netwatch.kernel.compile FD`.

Law: this is the only module that imports bcc, and it runs only in a child of the daemon, which therefore never maps
LLVM (82 MB) and keeps its working directory and its stderr. The child ends when the descriptors are sent; the
programs live on in the daemon's descriptors.
Protocol on the socket FD: settings in, then one answer (msgpack), then the descriptors (SCM_RIGHTS), in its order.
Neighbours: `program.py` is the other end, `source.py` makes the text, `hooks.py` says what is loaded, `btf.py` knows
the kernel. Nothing else of netwatch is imported: numpy alone would delay the first packet by 0.1 s.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from typing import Any

import msgpack

from netwatch.errors import DependencyMissing, KernelUnsupported
from netwatch.kernel.btf import Btf
from netwatch.kernel.hooks import KERNEL_FIELDS, PROGRAM_TYPES, Hook, HookKind, hooks_for
from netwatch.kernel.source import inline, shim_directory, source_directory
from netwatch.kernel.syscall import load_program

_INSTRUCTION_BYTES = 8
_MOVE_IMMEDIATE = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K: opcode, registers, offset, and the number in the last four bytes
# BPF_LD | BPF_DW | BPF_IMM: the same places; with source register 1 the number is a map's descriptor.
_LOAD_IMMEDIATE = 0x18
# PROGRAM_*, PROGRAM_KIND_MARK and RING_MARK of bpf/netwatch.h.
_EGRESS, _IP, _KIND_MARK, _RING_MARK = 1, 2, 0x4B494E44, 0x52494E47
KINDS = {"ingress_ethernet": 0, "egress_ethernet": _EGRESS, "ingress_ip": _IP, "egress_ip": _IP | _EGRESS}
FLOW_MAP_NAMES = ("flows_0", "flows_1", "flows_2")
MAPS = (
    *(*FLOW_MAP_NAMES, "flow_maps", "flow_filter", "epoch", "full"),
    *("counters", "hooks", "hook_overflow", "ethertypes", "fragments"),
    *("ring", "ring_wake", "event_counters", "drop_tables", "drop_turn", "sockets"),
)

_NO_REASON = 0xFFFF_FFFF
_LOG_BYTES = 1 << 22  # of the verifier, asked for only after a refusal


def _cflags(defines: dict[str, int]) -> list[str]:
    # -idirafter: the shim comes first, and UAPI headers fill the rest. Debian keeps asm/ in a directory of the machine.
    triplet = f"{platform.machine()}-linux-gnu"
    flags = [f"-I{source_directory()}", "-idirafter", f"/usr/include/{triplet}", "-idirafter", "/usr/include"]
    return flags + [f"-D{name}={value}" for name, value in defines.items()]


def kernel_defines(btf: Btf, reasons: dict[int, str]) -> dict[str, int]:
    """Return what the programs have to know of this kernel, whose drop reasons are these."""
    defines = {name: btf.offset(*field) for name, field in KERNEL_FIELDS.items()}
    # Linux counts the segments of a queued TCP buffer in its control block.
    defines["K_SKB_TCP_SEGMENTS"] = btf.offset("sk_buff", "cb") + btf.offset("tcp_skb_cb", "tcp_gso_segs")
    numbers = {name: number for number, name in reasons.items()}
    # Where the kernel is too old for one: a reason that nothing has.
    for name in ("QUEUE_PURGE", "NOT_SPECIFIED"):
        defines[f"K_REASON_{name}"] = numbers.get(f"SKB_DROP_REASON_{name}", _NO_REASON)
    # (skb, location), since Linux 5.17 with the reason, since 6.11 with the receiving socket.
    arguments = btf.tracepoint_args("kfree_skb")
    return defines | {"DROP_HAS_REASON": int(arguments > 2), "DROP_HAS_SOCKET": int(arguments > 3)}


def _compile(defines: dict[str, int], enrich: list[str]) -> tuple[dict[str, int], dict[str, Any], object]:
    """Return descriptors by name, what else there is to tell, and what must live until they are sent."""
    os.environ["BCC_KERNEL_SOURCE"] = str(shim_directory())
    import bcc  # noqa: PLC0415 - it reads the environment variable at import

    with Btf() as btf:
        reasons = btf.drop_reasons() if "drops" in enrich else {}
        refused: dict[str, str] = {}
        instructions: dict[str, int] = {}
        text = inline(source_directory() / "netwatch.bpf.c")
        program = bcc.BPF(text=text, cflags=_cflags(defines | kernel_defines(btf, reasons)))
        descriptors = {name: bcc.lib.bpf_table_fd(program.module, name.encode()) for name in MAPS}
        for name, hook in hooks_for(enrich).items():
            code = _code(bcc.lib, program.module, hook.function)
            if hook.kind is HookKind.PACKET:
                (kind_at,) = _offsets(bytes(code), _MOVE_IMMEDIATE, _KIND_MARK)
                struct.pack_into("=i", code, kind_at, KINDS[name])
            for ring_at in _offsets(bytes(code), _LOAD_IMMEDIATE, _RING_MARK):
                struct.pack_into("=i", code, ring_at, descriptors["ring"])
            try:
                descriptors[name] = _load(code, hook, btf)
            except (OSError, KernelUnsupported) as error:
                # Packets are counted without it.
                if hook.kind is HookKind.PACKET:
                    raise
                refused[name] = _reason(error)
            else:
                instructions[name] = len(code) // _INSTRUCTION_BYTES
        return descriptors, {"drop_reasons": reasons, "refused": refused, "instructions": instructions}, program


def _reason(error: OSError | KernelUnsupported) -> str:
    if isinstance(error, OSError):
        return errno.errorcode.get(error.errno or 0, str(error))
    return error.found


def _code(lib: Any, module: Any, function: str) -> bytearray:
    """Return the instructions of a compiled function; the descriptors of its maps are in them already."""
    start = lib.bpf_function_start(module, function.encode())
    return bytearray(ctypes.string_at(start, lib.bpf_function_size(module, function.encode())))


def _load(code: bytearray, hook: Hook, btf: Btf) -> int:
    """Load a program. Where the kernel refuses, its log goes to stderr, and OSError is raised.

    Raises KernelUnsupported where the kernel does not have the tracepoint.
    """
    program_type, attach_type = PROGRAM_TYPES[hook.kind]
    btf_id = btf.tracepoint_id(hook.target) if hook.kind is HookKind.TRACEPOINT else 0
    try:
        return load_program(program_type, code, hook.function, attach_type=attach_type, btf_id=btf_id)
    except OSError:
        log = bytearray(_LOG_BYTES)
        try:
            return load_program(program_type, code, hook.function, attach_type=attach_type, btf_id=btf_id, log=log)
        except OSError:
            sys.stderr.write(f"{hook.function}:\n{log.rstrip(bytes(1)).decode(errors='replace')}\n")
            raise


def _offsets(instructions: bytes, opcode: int, mark: int) -> list[int]:
    """Return where the instructions with this opcode and number have their number."""
    packed = struct.pack("=i", mark)
    return [
        offset + 4
        for offset in range(0, len(instructions), _INSTRUCTION_BYTES)
        if instructions[offset] == opcode and instructions[offset + 4 : offset + 8] == packed
    ]


def main() -> None:
    """Serve one request on the socket whose descriptor is the first argument.

    Whatever bcc raises ends the process: its traceback, clang's messages and the verifier's log are then on
    descriptor 2, which the parent has pointed at a file, and the parent finds no answer.
    """
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        request = msgpack.unpackb(channel.recv(65_536))
        descriptors, told, keep = _compile(request["defines"], request["enrich"])
    except (ImportError, DependencyMissing) as error:
        channel.send(msgpack.packb({"missing": str(error)}))
        return
    socket.send_fds(channel, [msgpack.packb({"names": list(descriptors)} | told)], list(descriptors.values()))
    channel.close()
    del keep
    # LLVM's and bcc's destructors take 30 ms and undo nothing that the kernel would not.
    os._exit(0)


if __name__ == "__main__":
    main()
