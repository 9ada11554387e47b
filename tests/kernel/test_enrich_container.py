"""The container of a process, by the cgroup that a runtime would have made for it."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netwatch.kernel.tracing import cgroup2_root
from tests.kernel.agent_process import AgentProcess
from tests.kernel.hosts import Pair
from tests.kernel.waiting import PATIENCE_S

_CLIENT = (
    "import pathlib, socket, sys;"
    "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text('0');"
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('10.0.0.2', 4000))"
)


@contextlib.contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """Make a cgroup, and remove it when its processes have ended."""
    root = cgroup2_root()
    assert root is not None
    directory = root / name
    directory.mkdir()
    try:
        yield directory
    finally:
        directory.rmdir()


@pytest.mark.parametrize("name", ["docker-{}.scope", "cri-containerd-{}.scope"])
def test_container(pair: Pair, agent: Callable[..., AgentProcess], name: str) -> None:
    """A process that has gone before the drain is named with its container; its cgroup is the directory's number."""
    container = secrets.token_hex(32)
    daemon = agent(pair.left.namespace, "-i", "left0", "--active-timeout", "2")
    with cgroup(name.format(container)) as directory:
        number = directory.stat().st_ino
        with pair.left.namespace.enter():
            subprocess.run([sys.executable, "-c", _CLIENT, str(directory)], check=True, timeout=PATIENCE_S)
        daemon.wait_for_flows(lambda flows: any(flow.get("DstPort") == 4000 for flow in flows))
    result = daemon.stop()
    (flow,) = (flow for flow in result.flows if flow.get("DstPort") == 4000 and "Packets" in flow)
    assert (flow["SrcContainerId"], flow["SrcCgroupId"]) == (container, number)
    assert flow["SrcProcessName"].startswith("python")
