"""Agents under test: how each is started, when it is ready, how it ends, and what its ledger says.

Law: every agent runs in the same namespace, on the same interface, by the settings given; it is ready when its programs
are on both hooks. A daemon that ends by itself is an error, not a figure.
Neighbours: `peer.py` is the other agent, `usage.py` reads what a daemon uses.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

import attrs

from bench.testbed import Testbed
from bench.usage import CpuTime, Memory, cpu_time, memory
from tests.kernel.bare_programs import TCX_EGRESS, TCX_INGRESS, tcx_programs

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 60.0


@attrs.frozen
class Run:
    """The settings that every agent gets. None leaves the agent's default."""

    interface: str
    collector_port: int
    period_s: float | None
    max_flows: int | None
    ledger: Path


class Agent(Protocol):
    """A flow agent that can be measured."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    def command(self, run: Run) -> list[str]:
        """Return the command that runs it in the foreground."""
        ...

    def environment(self, run: Run) -> Mapping[str, str]:
        """Return its environment."""
        ...


@attrs.frozen
class Netwatch:
    """The agent of this repository. `enrich` is what it finds out beside counting: nothing, like its peer here.

    `variables` are settings as NETWATCH_… variables.
    """

    name: str = "netwatch"
    enrich: tuple[str, ...] = ("none",)
    variables: Mapping[str, str] = attrs.Factory(dict)

    def command(self, run: Run) -> list[str]:
        """Return the command: one exporter, the ledger, and defaults."""
        options = ["-i", run.interface, "-x", f"grpc://127.0.0.1:{run.collector_port}", "--ledger", str(run.ledger)]
        for word in self.enrich:
            options += ["--enrich", word]
        if run.period_s is not None:
            options += ["--active-timeout", str(run.period_s)]
        if run.max_flows is not None:
            options += ["--max-flows", str(run.max_flows)]
        return [sys.executable, "-m", "netwatch", "run", *options]

    def environment(self, run: Run) -> Mapping[str, str]:
        """Return ours, without settings of whoever runs this."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NETWATCH_")}
        return inherited | dict(self.variables)


class DaemonFailed(Exception):
    """An agent did not start, or ended by itself."""


@attrs.frozen
class Account:
    """What an agent's own ledger says, in packets."""

    seen: int
    exported: int
    lost: int


class Daemon:
    """A running agent. Entering starts it and waits until it captures; leaving the context kills it."""

    def __init__(
        self, agent: Agent, testbed: Testbed, port: int, period_s: float | None, max_flows: int | None
    ) -> None:
        self._agent, self._testbed = agent, testbed
        self._directory = tempfile.TemporaryDirectory(prefix="netwatch-bench-")
        directory = Path(self._directory.name)
        self._run = Run(testbed.watched.name, port, period_s, max_flows, directory / "ledger.json")
        self._log = directory / "log"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log, self._testbed.watched.namespace.enter():
            self._process = subprocess.Popen(
                self._agent.command(self._run),
                env=self._agent.environment(self._run),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_attached()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Kill it where it still runs."""
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()

    def _wait_until_attached(self) -> None:
        ends = time.monotonic() + _START_TIMEOUT_S
        while not all(tcx_programs(self._testbed.watched, hook) for hook in (TCX_INGRESS, TCX_EGRESS)):
            if self._process.poll() is not None or time.monotonic() > ends:
                raise DaemonFailed(f"{self._agent.name} does not capture; its log ends:\n{self._log_end()}")
            time.sleep(0.05)

    def _log_end(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def cpu_time(self) -> CpuTime:
        """Read what it has used since it was started."""
        return cpu_time(self._process.pid)

    def memory(self) -> Memory:
        """Read its resident memory."""
        return memory(self._process.pid)

    def stop(self) -> Account | None:
        """Send it SIGTERM, wait for its end, and return its ledger if it keeps one."""
        if self._process.poll() is not None:
            raise DaemonFailed(f"{self._agent.name} ended by itself; its log ends:\n{self._log_end()}")
        self._process.send_signal(signal.SIGTERM)
        # Not every agent ends when it is asked to; the context's end kills it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)
        return parse_ledger(self._run.ledger.read_text()) if self._run.ledger.exists() else None


def parse_ledger(text: str) -> Account:
    """Return the sums of a ledger with one exporter, in the form that the README documents."""
    ledger = json.loads(text)
    (exporter,) = ledger["exporters"]
    return Account(
        seen=ledger["seen"]["packets"],
        exported=exporter["exported"]["packets"],
        lost=sum(entry["packets"] for entry in (*ledger["lost"], *exporter["lost"])),
    )
