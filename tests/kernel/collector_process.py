"""`netwatch collect` as a user runs it, as the other end of a daemon's gRPC exporter.

Law: it listens when its context is entered, and outlives neither its context nor the test.
Neighbours: `agent_process.py` is the daemon, `bad_collectors.py` are ends that do not do what they should.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Self

from tests.kernel.agent_process import FlowLine, Lines
from tests.kernel.command import environment
from tests.kernel.hosts import Namespace
from tests.kernel.waiting import PATIENCE_S


class CollectorProcess:
    """A collector on an address of a namespace. Entering starts it and waits until it listens."""

    def __init__(self, namespace: Namespace, listen: str) -> None:
        self._namespace = namespace
        self._command = (sys.executable, "-m", "netwatch", "collect", "--listen", listen, "--format", "json")

    def __enter__(self) -> Self:
        with self._namespace.enter():
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._output, self._log = Lines(self._process.stdout), Lines(self._process.stderr)
        try:
            is_listening = self._log.wait(lambda lines: any("listening on" in line for line in lines), PATIENCE_S)
            assert is_listening, self._log.lines
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Kill it where it still runs."""
        self._process.kill()
        self._end()

    def wait_for_lines(self, count: int) -> None:
        """Wait until it has printed as many lines."""
        self._wait(lambda lines: len(lines) >= count)

    def _wait(self, is_enough: Callable[[list[str]], bool]) -> None:
        assert self._output.wait(is_enough, PATIENCE_S), (len(self._output.lines), self._log.lines)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> list[FlowLine]:
        """Send it a signal, wait for its end and return the flows that it printed, without a line that was cut off."""
        self._process.send_signal(number)
        self._end()
        assert self._process.returncode == (-number if number == signal.SIGKILL else 0), self._log.lines
        return [json.loads(line) for line in self._output.lines if line.endswith("}")]

    def _end(self) -> None:
        self._process.wait(PATIENCE_S)
        self._output.join()
        self._log.join()
