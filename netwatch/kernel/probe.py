"""Ask this machine what `netwatch check` wants to know, by trying it.

Law: nothing is left behind and no packet is touched: the program says TCX_NEXT, its link is closed at once, and the
clsact qdisc is made where nobody else can see it. What is refused is a fact to return, not an exception.
Neighbours: `check.py` judges the facts; `attach.py` and `clsact.py` do the calls, as they do for the agent.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from netwatch.core.direction import Direction
from netwatch.errors import DependencyMissing, KernelUnsupported
from netwatch.kernel.attach import attach_tcx
from netwatch.kernel.clsact import Filter, TrafficControl
from netwatch.kernel.requirement import (
    REQUIREMENTS,
    Answer,
    Requirement,
    answer,
    effective_capabilities,
    make_hash_map,
    pass_program,
)
from netwatch.kernel.tracing import try_socket_hook, try_tracepoint

_CLONE_NEWNET = 0x4000_0000
_BCC_TIMEOUT_S = 60.0  # a cold import reads 100 MB of LLVM from the disk

_libc = ctypes.CDLL(None, use_errno=True)


@attrs.frozen
class Machine:
    """What was found. `capabilities` is the effective set as a bit mask; `memlock_bytes` None is no limit."""

    kernel_release: str
    architecture: str
    byte_order: str
    capabilities: int
    memlock_bytes: int | None
    bpf: Answer
    features: tuple[tuple[Requirement, Answer], ...]
    tcx: Answer
    clsact: Answer
    tracepoints: Answer
    socket_hook: Answer
    bcc: Answer
    uapi_headers: Answer


def probe_machine() -> Machine:
    """Try everything. Blocks for about a second, most of it for the import of bcc in a child process."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return Machine(
        kernel_release=platform.release(),
        architecture=platform.machine(),
        byte_order=sys.byteorder,
        capabilities=effective_capabilities(),
        memlock_bytes=None if limit == resource.RLIM_INFINITY else limit,
        bpf=answer(make_hash_map),
        features=tuple((requirement, requirement.answer()) for requirement in REQUIREMENTS),
        tcx=answer(_attach_to_loopback),
        clsact=_answer_with_dependency(_attach_by_clsact),
        tracepoints=_answer_with_dependency(try_tracepoint),
        socket_hook=answer(try_socket_hook),
        bcc=_import_bcc(),
        uapi_headers=_find_uapi_headers(),
    )


def _answer_with_dependency(attempt: Callable[[], None]) -> Answer:
    try:
        return answer(attempt)
    except (DependencyMissing, KernelUnsupported) as error:
        return Answer("ENOENT", str(error))


def _attach_to_loopback() -> None:
    with pass_program() as program:
        os.close(attach_tcx(program, socket.if_nametoindex("lo"), Direction.INGRESS))


def _attach_by_clsact() -> None:
    # In a network namespace that lives as long as the thread: a qdisc on an interface of the host would be seen by all.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_attach_in_new_namespace).result()


def _attach_in_new_namespace() -> None:
    if _libc.unshare(_CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "a network namespace to try in could not be made")
    filter_ = Filter(
        ifindex=socket.if_nametoindex("lo"),
        direction=Direction.INGRESS,
        preference=1,
        handle=1,
        kind="bpf",
        is_for_all_protocols=True,
        name="netwatch-probe",
    )
    with pass_program() as program, TrafficControl() as tc:
        tc.add({filter_: program}, with_qdisc=True)


def _import_bcc() -> Answer:
    # In a child, as the agent does it: the library behind the binding may be missing, which only an import tells.
    command = [sys.executable, "-c", "import bcc; print(bcc.__version__)"]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=_BCC_TIMEOUT_S, check=False, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer("EIO", str(error))
    if child.returncode == 0:
        return Answer(detail=child.stdout.strip())
    complaint = child.stderr.strip().splitlines()
    return Answer("ENOENT", complaint[-1] if complaint else f"exit {child.returncode}")


def _find_uapi_headers() -> Answer:
    # linux/if_ether.h includes asm/types.h, which Debian keeps in a directory of the architecture.
    wanted = (("linux/if_ether.h",), ("asm/types.h", f"{platform.machine()}-linux-gnu/asm/types.h"))
    for alternatives in wanted:
        if not any((Path("/usr/include") / name).is_file() for name in alternatives):
            return Answer("ENOENT", f"/usr/include/{alternatives[-1]}")
    return Answer()
