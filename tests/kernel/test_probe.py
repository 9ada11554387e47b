"""The probes on the real kernel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from netwatch.kernel.probe import probe_machine
from netwatch.kernel.requirement import Answer, require_kernel
from tests.kernel.waiting import PATIENCE_S

pytestmark = pytest.mark.kernel


def test_machine_that_runs_the_kernel_tests() -> None:
    """Where the other kernel tests pass, the probes find all of it; the version of BCC is told."""
    machine = probe_machine()
    answers = attrs.asdict(machine, recurse=False, filter=lambda _, value: isinstance(value, Answer))
    answers |= {requirement.title: answer for requirement, answer in machine.features}
    refused = {name: answer.errno_name for name, answer in answers.items() if not answer.works}
    major, minor = map(int, machine.kernel_release.split(".")[:2])
    assert refused == ({} if (major, minor) >= (6, 6) else {"tcx": "EINVAL"})
    assert machine.bcc.detail
    assert machine.capabilities >> 21 & 1


def test_requirements_of_a_run() -> None:
    """What `netwatch run` insists on is there as well, and asking leaves no descriptor behind."""
    require_kernel()
    descriptors = len(os.listdir("/proc/self/fd"))
    require_kernel()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_nothing_is_left_behind() -> None:
    """No descriptor stays open, so no link, map or program does; this thread stays in its network namespace."""
    probe_machine()
    descriptors = len(os.listdir("/proc/self/fd"))
    namespace, interfaces = Path("/proc/thread-self/ns/net").readlink(), socket.if_nameindex()
    qdiscs = subprocess.run(["tc", "qdisc", "show"], capture_output=True, text=True, check=True).stdout
    probe_machine()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert (Path("/proc/thread-self/ns/net").readlink(), socket.if_nameindex()) == (namespace, interfaces)
    assert subprocess.run(["tc", "qdisc", "show"], capture_output=True, text=True, check=True).stdout == qdiscs


def test_user_without_rights() -> None:
    """An ordinary user is told what is missing, gets exit code 1, and no traceback."""
    # Imports first: the user need not be able to read this directory.
    script = (
        "import os, sys, netwatch.check as check;"
        "os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3);"
        "text, code = check.run(); print(text); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAIL capabilities: missing CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF: run as root" in done.stdout
    assert "FAIL bpf system call: EPERM: " in done.stdout
    assert "warn TCX: not tried" in done.stdout
