"""Netwatch as a command in a namespace, for tests of how it ends: its streams, its exit code, what stays of it.

Law: nothing here waits for time to pass, and a process outlives neither its context nor the test.
Neighbours: `agent_process.py` is the daemon that captures; here are the runs that do not, or that have other streams.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import attrs

from tests.kernel.hosts import Namespace
from tests.kernel.leftovers import MARK, mark
from tests.kernel.waiting import PATIENCE_S

_NONE: Mapping[str, str] = MappingProxyType({})


@attrs.frozen
class Finished:
    """A command that has ended."""

    exit_code: int
    stdout: str
    stderr: list[str]


def environment(more: Mapping[str, str] = _NONE) -> dict[str, str]:
    """Return the environment of a command: settings of whoever runs the tests do not reach it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NETWATCH_")}
    return inherited | {MARK: mark()} | more


@contextlib.contextmanager
def started(
    namespace: Namespace,
    *arguments: str,
    stdout: int = subprocess.PIPE,
    variables: Mapping[str, str] = _NONE,
    prefix: tuple[str, ...] = (),
    **process: Any,
) -> Iterator[subprocess.Popen[str]]:
    """Start `netwatch ARGUMENTS` in a namespace, and kill it at the end of the block where it still runs."""
    command = (*prefix, sys.executable, "-m", "netwatch", *arguments)
    with namespace.enter():
        running = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(variables),
            **process,
        )
    with running:
        try:
            yield running
        finally:
            running.kill()


def netwatch(namespace: Namespace, *arguments: str, **process: Any) -> Finished:
    """Run `netwatch ARGUMENTS` in a namespace and wait for its end."""
    with started(namespace, *arguments, **process) as running:
        stdout, stderr = running.communicate(timeout=PATIENCE_S)
    return Finished(running.returncode, stdout, stderr.splitlines())
