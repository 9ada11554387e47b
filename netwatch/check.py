"""`netwatch check`: whether this machine can run netwatch, line by line, with the remedy.

Law: judges facts and asks nothing itself; a line that says FAIL makes the exit code 1, a warning does not.
Neighbours: `kernel/probe.py` finds the facts; `kernel/requirement.py` has those that `netwatch run` insists on, too;
`cli.py` prints the lines.
"""

from __future__ import annotations

import enum
import re

import attrs

from netwatch.kernel.probe import Machine, probe_machine
from netwatch.kernel.requirement import (
    GRANT,
    NOT_IN_THE_KERNEL,
    NOT_OF_THE_HOST,
    Answer,
    Requirement,
    missing_capabilities,
)

_NOT_TRIED = "not tried, because bpf(2) is refused"
_APT = "install it: apt install"

# Before 5.11 maps were charged to RLIMIT_MEMLOCK, later to the memory cgroup (commit "bpf: Eliminate rlimit-based
# memory accounting for bpf maps").
_MEMLOCK_FREE = (5, 11)
_OLDEST = (5, 12)  # atomic compare-and-swap in programs
_OLDEST_TRIED = (6, 1)  # Debian 12's own
_TCX = (6, 6)


class Verdict(enum.StrEnum):
    """How a line begins."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@attrs.frozen
class Finding:
    """One line."""

    verdict: Verdict
    text: str

    def __str__(self) -> str:
        return f"{self.verdict:<4} {self.text}"


def _kernel(machine: Machine) -> Finding:
    version = _version(machine)
    if version < _OLDEST:
        text = f"kernel {machine.kernel_release}: Linux {_dotted(_OLDEST)} or newer is needed: boot a newer kernel"
        return Finding(Verdict.FAIL, text)
    tcx = f"{_dotted(_TCX)} or newer for TCX" if version >= _TCX else f"before {_dotted(_TCX)}: clsact, not TCX"
    if version < _OLDEST_TRIED:
        untried = f"netwatch has not been tried before Linux {_dotted(_OLDEST_TRIED)}"
        return Finding(Verdict.WARN, f"kernel {machine.kernel_release} ({tcx}): {untried}")
    return Finding(Verdict.OK, f"kernel {machine.kernel_release} ({tcx})")


def _architecture(machine: Machine) -> Finding:
    if machine.byte_order != "little":
        return Finding(Verdict.FAIL, f"architecture {machine.architecture}: big-endian: use a little-endian machine")
    return Finding(Verdict.OK, f"architecture {machine.architecture}, little-endian")


def _capabilities(machine: Machine) -> Finding:
    if missing := missing_capabilities(machine.capabilities):
        return Finding(Verdict.FAIL, f"capabilities: missing {', '.join(missing)}: {GRANT}")
    return Finding(Verdict.OK, "capabilities for BPF and network administration")


def _bpf(machine: Machine) -> Finding:
    if machine.bpf.works:
        return Finding(Verdict.OK, "bpf system call")
    remedy = NOT_OF_THE_HOST if machine.bpf.is_forbidden else NOT_IN_THE_KERNEL
    return Finding(Verdict.FAIL, f"bpf system call: {machine.bpf.errno_name}: {remedy}")


def _memory_limit(machine: Machine) -> Finding:
    if _version(machine) >= _MEMLOCK_FREE or machine.memlock_bytes is None:
        return Finding(Verdict.OK, "locked memory: no limit on maps")
    limit = f"locked memory: {machine.memlock_bytes} bytes"
    return Finding(Verdict.FAIL, f"{limit}: raise it (ulimit -l unlimited; systemd: LimitMEMLOCK=infinity)")


def _tcx(machine: Machine) -> Finding:
    if machine.tcx.works:
        return Finding(Verdict.OK, "TCX: a link was made on lo, and closed")
    if machine.tcx.is_forbidden or not machine.bpf.works:
        return Finding(Verdict.WARN, f"TCX: {_NOT_TRIED}")
    if machine.tcx.errno_name != "EINVAL":
        return Finding(Verdict.WARN, f"TCX: {machine.tcx.errno_name} on lo: see what is attached there: bpftool net")
    remedy = f"needs Linux {_dotted(_TCX)}"
    if machine.clsact.works or machine.clsact.is_forbidden:
        return Finding(Verdict.WARN, f"TCX: {remedy}; clsact will be used")
    return Finding(Verdict.FAIL, f"TCX: {remedy}, or clsact")


def _clsact(machine: Machine) -> Finding:
    if machine.clsact.works:
        return Finding(Verdict.OK, "clsact: a filter was made in a network namespace of its own")
    if machine.clsact.is_forbidden or not machine.bpf.works:
        return Finding(Verdict.WARN, "clsact: not tried, because no network namespace can be made for it")
    # Beside TCX nobody needs it.
    verdict = Verdict.WARN if machine.tcx.works else Verdict.FAIL
    return Finding(verdict, f"clsact: {machine.clsact.detail}: needs CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF")


def _tracepoints(machine: Machine) -> Finding:
    if machine.tracepoints.works:
        return Finding(Verdict.OK, "BTF tracepoints: a program was attached to kfree_skb, and detached")
    return Finding(Verdict.WARN, f"BTF tracepoints: {_why(machine.tracepoints)}: no drops, no TCP")


def _socket_hook(machine: Machine) -> Finding:
    if machine.socket_hook.works:
        return Finding(Verdict.OK, "cgroup hook of sockets: a program was attached at the root, and detached")
    return Finding(Verdict.WARN, f"cgroup hook of sockets: {_why(machine.socket_hook)}: fewer processes are known")


def _why(refused: Answer) -> str:
    return _NOT_TRIED if refused.is_forbidden else refused.detail or str(refused.errno_name)


def _bcc(machine: Machine) -> Finding:
    if machine.bcc.works:
        return Finding(Verdict.OK, f"BCC {machine.bcc.detail}")
    return Finding(
        Verdict.FAIL, f"BCC: {machine.bcc.detail}: {_APT} python3-bpfcc; the virtual environment has to see it"
    )


def _uapi_headers(machine: Machine) -> Finding:
    if machine.uapi_headers.works:
        return Finding(Verdict.OK, "UAPI headers in /usr/include")
    return Finding(Verdict.FAIL, f"UAPI headers: no {machine.uapi_headers.detail}: {_APT} linux-libc-dev")


def _feature(machine: Machine, requirement: Requirement, answer: Answer) -> Finding:
    if answer.works:
        return Finding(Verdict.OK, requirement.title)
    if answer.is_forbidden or not machine.bpf.works:
        return Finding(Verdict.WARN, f"{requirement.title}: {_NOT_TRIED}")
    return Finding(Verdict.FAIL, f"{requirement.title}: {answer.errno_name}: {requirement.remedy}")


def findings(machine: Machine) -> list[Finding]:
    """Judge a machine: what it is, what its kernel has, where programs attach, what is installed."""
    return [
        *(check(machine) for check in (_kernel, _architecture, _capabilities, _bpf, _memory_limit)),
        *(_feature(machine, requirement, answer) for requirement, answer in machine.features),
        *(check(machine) for check in (_tcx, _clsact, _tracepoints, _socket_hook, _bcc, _uapi_headers)),
        Finding(Verdict.OK, "kernel headers: not needed"),
    ]


def run() -> tuple[str, int]:
    """Probe this machine and return the lines to print with the exit code."""
    found = findings(probe_machine())
    failed = sum(finding.verdict is Verdict.FAIL for finding in found)
    last = f"netwatch cannot run here: {failed} of {len(found)} checks failed" if failed else "netwatch can run here"
    return "\n".join([*map(str, found), last]) + "\n", 1 if failed else 0


def _version(machine: Machine) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", machine.kernel_release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
