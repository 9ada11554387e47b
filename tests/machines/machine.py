"""Boot a virtual machine from an initramfs, run the guest in it, and return what it reported.

Invariant: the machine has no disk, no network and a deadline; it ends with this process's block, whatever happened.
The initramfs is made of layers: the bare root file system with netwatch installed, the kernel's modules, the checkout.
See also: `init` and `guest.py` run inside; `kernels.py` fetches kernels.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import attrs

from tests.machines.kernels import Kernel

_HERE = Path(__file__).parent
_CHECKOUT = _HERE.parent.parent
# The root file system is 1.1 GB in memory, and the packed one lies beside it while it is unpacked.
_MEMORY_MB = 3500
_KVM_PROBE_TIMEOUT_S = 15.0  # a kernel without a root panics after 2 s
# Big, and nothing that runs.
_LEFT_OUT = (
    "./proc/*",
    "./sys/*",
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./usr/share/doc/*",
    "./root/.cache/*",
    "./netwatch/.tox/*",
    "./netwatch/.mypy_cache/*",
    "./netwatch/.ruff_cache/*",
)

Report = dict[str, Any]  # a line of JSON from the guest


@attrs.frozen
class Machine:
    """How to boot: the kernel and the accelerator."""

    kernel: Kernel
    accelerator: str

    def run(self, root: Path, arguments: Sequence[str], timeout_s: float) -> Iterator[Report]:
        """Boot, and yield each report of the guest as it comes. Raises TimeoutError at the deadline."""
        with tempfile.TemporaryDirectory(prefix="netwatch-machine-") as directory:
            initrd, reports = Path(directory) / "initrd", Path(directory) / "reports"
            self._pack(root, arguments, initrd)
            reports.touch()
            command = self._command("-initrd", str(initrd), "-serial", "stdio", "-serial", f"file:{reports}")
            with _started(command, timeout_s) as console, reports.open() as lines:
                for line in console:
                    print(f"    {line.rstrip()}", file=sys.stderr, flush=True)
                    yield from map(json.loads, _whole_lines(lines))
                yield from map(json.loads, _whole_lines(lines))

    def _pack(self, root: Path, arguments: Sequence[str], initrd: Path) -> None:
        with initrd.open("wb") as packed:
            with _packed_root(root).open("rb") as source:
                shutil.copyfileobj(source, packed, 1 << 24)
            with tempfile.TemporaryDirectory(prefix="netwatch-layer-") as directory:
                self._lay_out(Path(directory), arguments)
                packed.flush()
                _archive(Path(directory), packed)

    def _lay_out(self, directory: Path, arguments: Sequence[str]) -> None:
        """Put what differs from machine to machine into a directory."""
        modules = directory / "usr/lib/modules" / self.kernel.release
        shutil.copytree(self.kernel.modules, modules, ignore=shutil.ignore_patterns("vmlinuz", "build", "source"))
        subprocess.run(["depmod", "-b", directory / "usr", self.kernel.release], check=True)
        tracked = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=_CHECKOUT, check=True, stdout=subprocess.PIPE,
        ).stdout  # fmt: skip
        for name in filter(None, tracked.decode().split("\0")):
            copy = directory / "netwatch" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_CHECKOUT / name, copy)
        shutil.copy2(_HERE / "init", directory / "init")
        (directory / "guest-arguments").write_text(" ".join(arguments))

    def _command(self, *more: str) -> list[str]:
        # oops=panic and panic=-1: a machine that crashed ends, instead of waiting for its deadline.
        return [
            *("qemu-system-x86_64", "-accel", self.accelerator, "-cpu", "max", "-smp", "2"),
            *("-m", str(_MEMORY_MB), "-nodefaults", "-no-reboot", "-display", "none"),
            *("-kernel", str(self.kernel.image), "-append", "console=ttyS0 loglevel=4 panic=-1 oops=panic"),
            *more,
        ]


def choose_accelerator(kernel: Kernel) -> str:
    """Return `kvm` where a kernel boots with it, else `tcg`: a /dev/kvm that opens may still run nothing."""
    if not Path("/dev/kvm").exists():
        return "tcg"
    command = Machine(kernel, "kvm")._command("-serial", "stdio")
    with contextlib.suppress(subprocess.TimeoutExpired):
        tried = subprocess.run(command, capture_output=True, check=False, timeout=_KVM_PROBE_TIMEOUT_S)
        if b"Kernel panic" in tried.stdout:
            return "kvm"
    return "tcg"


def _packed_root(root: Path) -> Path:
    """Return the archive beside a root file system, which is the same for each kernel; make it where it is missing."""
    packed = root.with_name(f"{root.name}.cpio")
    if not packed.exists():
        part = packed.with_suffix(".part")
        with part.open("wb") as file:
            _archive(root, file)
        part.rename(packed)
    return packed


def _archive(directory: Path, target: IO[bytes]) -> None:
    """Append a directory to a file, packed as the kernel unpacks it."""
    left_out = [word for name in _LEFT_OUT for word in ("-path", name, "-o")][:-1]
    find = ["find", ".", "(", *left_out, ")", "-prune", "-o", "-print0"]
    with subprocess.Popen(find, cwd=directory, stdout=subprocess.PIPE) as names:
        cpio = ["cpio", "--null", "--create", "--format=newc", "--quiet"]
        subprocess.run(cpio, cwd=directory, stdin=names.stdout, stdout=target, check=True)


@contextlib.contextmanager
def _started(command: Sequence[str], timeout_s: float) -> Iterator[Iterator[str]]:
    """Start a machine and give the lines of its console. Raises TimeoutError where the deadline ended it."""
    limited = ["timeout", "--signal=KILL", str(timeout_s), *command]
    with subprocess.Popen(
        limited, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as run:
        assert run.stdout
        try:
            yield iter(run.stdout)
        finally:
            run.terminate()
    if run.returncode in (124, 137, -9):
        raise TimeoutError(f"the machine did not end within {timeout_s:.0f} s")


def _whole_lines(file: IO[str]) -> Iterator[str]:
    """Return the lines that are complete so far; a half one is read again later."""
    while True:
        at = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(at)
            return
        yield line
