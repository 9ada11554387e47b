"""The loaded programs and maps, as descriptors of this process.

Law: whoever loads closes. Nothing is pinned, so the kernel frees all of it with the last descriptor.
Neighbours: `compile.py` is the child that does the work, `flow_map.py` and `attach.py` use the descriptors.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

import attrs
import msgpack

from netwatch.errors import DependencyMissing, ProgramRejected
from netwatch.kernel.compile import FLOW_MAP_NAMES, MAPS
from netwatch.kernel.hooks import ENRICHMENTS, HOOKS
from netwatch.kernel.syscall import map_update, verified_instructions

MAX_VERIFIED = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS of include/linux/bpf.h
_RING_PAGE_BYTES = 4096
_LEAST_RING_BYTES = 65_536
_NO_PORTS = (0, 0, 0, 0)  # as many as bpf/dns.bpf.h compares
_COMPILE_TIMEOUT_S = 60.0  # 1 s on an idle core; a minute on a host that swaps
_MAX_COMPLAINT_CHARS = 200


@attrs.frozen
class ProgramSettings:
    """What is compiled into the programs."""

    max_flows: int
    max_fragments: int
    sampling: int = 1
    sampling_mode: str = "packet"
    gso: str = "wire"
    enrich: Sequence[str] = ()
    ring_bytes: int = 8 << 20
    drop_window_s: float = 0.01
    rtt_fraction: int = 8
    dns_ports: Sequence[int] = (53,)
    network_namespace: int = 0
    """Inode number of the one whose drops and connections are told; 0: of all."""

    def defines(self) -> Mapping[str, int]:
        """Return them as C preprocessor definitions."""
        return {
            "MAX_FLOWS": self.max_flows,
            # Words of 64 bits, 8 bits a flow, rounded up to a power of 2: see flow_filter in bpf/maps.bpf.h.
            "FILTER_WORDS": 1 << max(self.max_flows // 8 - 1, 63).bit_length(),
            "MAX_FRAGMENTS": self.max_fragments,
            "SAMPLING": self.sampling,
            "SAMPLE_FLOWS": int(self.sampling_mode == "flow"),
            "GSO_WIRE": int(self.gso == "wire"),
            # BCC counts rings in pages of 4 KiB; the kernel wants a power of 2.
            "RING_PAGES": (self.ring_bytes if self.enrich else _LEAST_RING_BYTES) // _RING_PAGE_BYTES,
            "DROP_WINDOW_NS": int(self.drop_window_s * 1e9),
            "RTT_FRACTION": self.rtt_fraction,
            "NETNS": self.network_namespace,
            **{f"ENRICH_{word.upper()}": int(word in self.enrich) for word in ENRICHMENTS},
            **{f"DNS_PORT_{place}": port for place, port in enumerate((*self.dns_ports, *_NO_PORTS)[: len(_NO_PORTS)])},
        }


@attrs.frozen
class LoadedPrograms:
    """Descriptors by the names in `bpf/` and `hooks.py`: `maps` and `programs`.

    `drop_reasons` is what this kernel calls them; `refused` are programs that the kernel did not take, and its answer.
    `instructions` is each program's size, and `verified` how many the verifier went through until it was content: on
    all paths, MAX_VERIFIED at most; 0 before Linux 5.16, which does not say.
    """

    maps: Mapping[str, int]
    programs: Mapping[str, int]
    drop_reasons: Mapping[int, str] = attrs.Factory(dict)
    refused: Mapping[str, str] = attrs.Factory(dict)
    instructions: Mapping[str, int] = attrs.Factory(dict)
    verified: Mapping[str, int] = attrs.Factory(dict)

    def close(self) -> None:
        """Close all descriptors."""
        for fd in (*self.maps.values(), *self.programs.values()):
            os.close(fd)


@attrs.frozen
class Compilation:
    """A child that compiles and loads; `finish` waits for it. One that is never finished ends by itself."""

    _child: subprocess.Popen[bytes]
    _channel: socket.socket
    _log: IO[bytes]

    def finish(self) -> LoadedPrograms:
        """Return what the child has loaded; blocks for about a second after its start.

        Raises ProgramRejected where the compiler or the verifier refuses, DependencyMissing without bcc.
        """
        with self._log:
            answer, descriptors = self._receive()
            if not descriptors and "missing" not in answer:
                self._log.seek(0)
                raise _refusal(self._log.read().decode(errors="replace"))
        if not descriptors:
            hint = "install Debian's python3-bpfcc and use /usr/bin/python3 with its system packages"
            raise DependencyMissing("bcc", f"{answer['missing']}; {hint}")
        by_name = dict(zip(answer["names"], descriptors, strict=True))
        programs = {name: fd for name, fd in by_name.items() if name in HOOKS}
        loaded = LoadedPrograms(
            maps={name: by_name[name] for name in MAPS},
            programs=programs,
            drop_reasons=answer["drop_reasons"],
            refused=answer["refused"],
            instructions=answer["instructions"],
            verified={name: verified_instructions(fd) for name, fd in programs.items()},
        )
        for number in range(len(FLOW_MAP_NAMES)):
            place_flow_map(loaded, number)
        return loaded

    def _receive(self) -> tuple[Any, list[int]]:
        """Return the child's answer, empty where it died, and the descriptors that came with it."""
        try:
            packed, descriptors, _, _ = socket.recv_fds(self._channel, 65_536, len(MAPS) + len(HOOKS))
        except TimeoutError:
            packed, descriptors = b"", []
        finally:
            self._channel.close()
            self._child.kill()
            self._child.wait()
        return msgpack.unpackb(packed, strict_map_key=False) if packed else {}, descriptors


def start_compiling(settings: ProgramSettings) -> Compilation:
    """Start the child and return at once."""
    # A file without a name, so that nothing stays whatever ends this process; only a refusal is written down.
    log = tempfile.TemporaryFile()  # noqa: SIM115 - `finish` closes it
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.settimeout(_COMPILE_TIMEOUT_S)
    with theirs:
        child = subprocess.Popen(
            [sys.executable, "-m", "netwatch.kernel.compile", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",  # where no file of the user's hides a module
            start_new_session=True,  # Ctrl-C is for the daemon
        )
    channel.send(msgpack.packb({"defines": settings.defines(), "enrich": list(settings.enrich)}))
    return Compilation(child, channel, log)


def network_namespace() -> int:
    """Return the inode number of our network namespace, which is how the kernel tells them apart."""
    return os.stat("/proc/self/ns/net").st_ino


def load_programs(settings: ProgramSettings) -> LoadedPrograms:
    """Compile, load and wait for it: `start_compiling(settings).finish()`."""
    return start_compiling(settings).finish()


def place_flow_map(loaded: LoadedPrograms, number: int) -> None:
    """Put a flow map into its slot; returns when no program that runs can have started before the call."""
    inner = loaded.maps[FLOW_MAP_NAMES[number]]
    map_update(loaded.maps["flow_maps"], number.to_bytes(4, sys.byteorder), inner.to_bytes(4, sys.byteorder))


def wait_for_programs(loaded: LoadedPrograms) -> None:
    """Return when no program that runs can have started before the call: an RCU grace period, 8 to 25 ms measured."""
    place_flow_map(loaded, 0)  # where it is already; changing an array of maps is what makes the kernel wait


def _refusal(log: str) -> ProgramRejected:
    """Write the child's log down, because it has no name yet, and say what it comes to."""
    with tempfile.NamedTemporaryFile("w", prefix="netwatch-compile-", suffix=".log", delete=False) as file:
        file.write(log)
    return ProgramRejected("netwatch.bpf.c", _first_complaint(log), file.name)


def _first_complaint(log: str) -> str:
    """Return the line of a log that tells most: the compiler's first error, or the verifier's last sentence."""
    lines = log.splitlines()
    for line in lines:
        if " error: " in line:
            return line.strip()[:_MAX_COMPLAINT_CHARS]
    verdict = next((number for number, line in enumerate(lines) if line.startswith("processed ")), len(lines))
    return lines[verdict - 1].strip()[:_MAX_COMPLAINT_CHARS] if lines else "the compiler ended without a word"
