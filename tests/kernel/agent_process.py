"""The daemon as a user runs it: a process in a namespace, its lines, its exit code, its ledger.

Law: it waits for what the daemon says, never for time to pass; and a daemon outlives neither its context nor the test.
Neighbours: `conftest.py` makes the fixture, `hosts.py` the namespace around it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

import attrs

from tests.kernel.hosts import Namespace
from tests.kernel.leftovers import MARK, mark
from tests.kernel.waiting import PATIENCE_S

ATTACHED = "capturing on"

FlowLine = dict[str, Any]  # a line of JSON as it was printed: names and values are what the tests look at


@attrs.frozen
class AgentResult:
    """What a daemon left: its exit code (negative: the signal that killed it) and all it printed."""

    exit_code: int
    flows: list[FlowLine]
    ledger: dict[str, Any] | None  # None: it wrote none
    log: list[str]

    def sum(self, field: str) -> int:
        """Add up a field of all flows; those without it (a continuation has no packets) add nothing."""
        return sum(int(flow.get(field, 0)) for flow in self.flows)


class Lines:
    """The lines of a stream, read by a thread, with a way to wait for one."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, is_enough: Callable[[list[str]], bool], timeout_s: float) -> bool:
        """Return whether the lines became enough before the stream ended, or nothing was added to it for so long."""
        with self._changed:
            while not is_enough(self.lines) and not self._ended:
                if not self._changed.wait(timeout_s):
                    return False
            return is_enough(self.lines)

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join()


class AgentProcess:
    """`netwatch run --format json --ledger FILE …` in a namespace. Entering starts it and waits until it captures."""

    def __init__(self, namespace: Namespace, ledger: Path, *arguments: str) -> None:
        self.namespace = namespace
        self._ledger = ledger
        self._flows: list[FlowLine] = []
        fixed = ("run", "--format", "json", "--ledger", str(ledger))
        self._command = (sys.executable, "-m", "netwatch", *fixed, *arguments)

    def __enter__(self) -> Self:
        # Settings of whoever runs the tests must not reach the daemon.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NETWATCH_")}
        with self.namespace.enter():
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment | {MARK: mark()},
            )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._output, self._log = Lines(self.process.stdout), Lines(self.process.stderr)
        try:
            self.wait_for_log(ATTACHED)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Kill it where it still runs."""
        self.process.kill()
        self.process.wait()
        self._output.join()
        self._log.join()

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def wait_for_log(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until a line on stderr contains the text."""
        if not self._log.wait(lambda lines: any(text in line for line in lines), timeout_s):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=0.1)  # its streams end a little before it does
            said = "\n".join(self._log.lines) or "nothing"
            raise AssertionError(f"no {text!r} on stderr; exit code {self.process.returncode}; it said:\n{said}")

    def wait_for_flows(self, is_enough: Callable[[list[FlowLine]], bool], timeout_s: float = PATIENCE_S) -> None:
        """Wait until the flows printed so far are enough; fails where for so long no other one came."""

        def is_enough_now(lines: list[str]) -> bool:
            self._flows.extend(json.loads(line) for line in lines[len(self._flows) :])
            return is_enough(self._flows)

        assert self._output.wait(is_enough_now, timeout_s), f"not enough flows: {self._flows}"

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> AgentResult:
        """Wait for its end and return what it left."""
        exit_code = self.process.wait(timeout=timeout_s)
        self._output.join()
        self._log.join()
        ledger = json.loads(self._ledger.read_text()) if self._ledger.exists() else None
        return AgentResult(exit_code, [json.loads(line) for line in self._output.lines], ledger, self._log.lines)

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = PATIENCE_S) -> AgentResult:
        """Send it a signal, wait for its end and return what it left."""
        self.send_signal(number)
        return self.wait(timeout_s)
