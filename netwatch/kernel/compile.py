"""Compile and load the programs, in a process of its own: `python -m netwatch.kernel.compile FD`.

Law: this is the only module that imports bcc, and it runs only in a child of the daemon, which therefore never maps
LLVM (82 MB) and keeps its working directory and its stderr. The child ends when the descriptors are sent; the
programs live on in the daemon's descriptors.
Protocol on the socket FD: settings in, then one answer (msgpack), then the descriptors (SCM_RIGHTS), in its order.
Neighbours: `program.py` is the other end, `source.py` makes the text. Nothing else of netwatch is imported: numpy alone
would delay the first packet by 0.1 s.
"""

from __future__ import annotations

import os
import platform
import socket
import sys

import msgpack

from netwatch.kernel.source import inline, shim_directory, source_directory

_SCHED_CLS = 3
PROGRAMS = ("ingress_ethernet", "egress_ethernet", "ingress_ip", "egress_ip")
FLOW_MAP_NAMES = ("flows_0", "flows_1", "flows_2")
MAPS = (*FLOW_MAP_NAMES, "flow_maps", "epoch", "full", "counters", "hooks", "hook_overflow", "ethertypes", "fragments")


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
    for name in PROGRAMS:
        descriptors[name] = program.load_func(name, _SCHED_CLS).fd
    return descriptors, program


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
