"""Commands beside busy processors: how often they run, and that stress-ng ends with them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

TIMEOUT_S = 120
WORKERS = 2
EXIT_CODES = {None: 1, signal.SIGINT: 1, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGKILL: -signal.SIGKILL}

pytestmark = pytest.mark.skipif(
    not shutil.which("stress-ng") and os.environ.get("CI") != "true",
    reason="needs stress-ng: make test-busy installs it",
)


def start(times: int, script: str) -> subprocess.Popen[str]:
    """Start a shell script so many times beside busy processors."""
    command = [sys.executable, "-m", "tests.busy", str(times), str(WORKERS), "sh", "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run(times: int, script: str) -> tuple[int, str]:
    with start(times, script) as running:
        said, _ = running.communicate(timeout=TIMEOUT_S)
    return running.returncode, said


@attrs.frozen
class Process:
    """A process of stress-ng that has not ended. stress-ng has a session of its own."""

    pid: int
    parent: int
    session: int


def processes() -> Iterator[Process]:
    """Find all of them."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue  # it has ended meanwhile
        state, parent, _, session = rest.split()[:4]
        if name.startswith("stress-ng") and state != "Z":
            yield Process(int(path.parent.name), int(parent), int(session))


def children(pid: int) -> list[int]:
    return [process.pid for process in processes() if process.parent == pid]


def session(pid: int) -> list[int]:
    return [process.pid for process in processes() if process.session == pid]


def wait_for(look: Callable[[], list[int]], count: int) -> list[int]:
    until_s = time.monotonic() + TIMEOUT_S
    while len(found := look()) != count:
        assert time.monotonic() < until_s, found
        time.sleep(0.05)
    return found


def test_command_that_passes() -> None:
    """It runs as often as was asked for."""
    code, said = run(3, "echo passes")
    assert (code, said.count("passes\n"), said.count("exit code 0")) == (0, 3, 3)


def test_command_that_fails(tmp_path: Path) -> None:
    """The first failure is the last run, and its exit code the result."""
    code, said = run(3, f"echo runs; test ! -e {tmp_path}/once || exit 7; touch {tmp_path}/once")
    assert (code, said.count("runs\n")) == (7, 2)


@pytest.mark.parametrize("number", EXIT_CODES)
def test_end(tmp_path: Path, number: signal.Signals | None) -> None:
    """Workers are at work while the command runs; they are gone when it has failed, and when we are ended or killed."""
    end = tmp_path / "end"
    with start(3, f"while ! test -e {end}; do sleep 0.1; done; exit 1") as running:
        try:
            (stress,) = wait_for(lambda: children(running.pid), 1)
            wait_for(lambda: session(stress), 1 + WORKERS)
            if number is not None:
                running.send_signal(number)
                running.wait(TIMEOUT_S)
        finally:
            end.touch()
            try:
                running.communicate(timeout=TIMEOUT_S)
            finally:
                running.kill()
    assert running.returncode == EXIT_CODES[number]
    wait_for(lambda: session(stress), 0)


def test_stress_that_ends_early(tmp_path: Path) -> None:
    """A run beside nothing proves nothing: it is a failure, and is not repeated."""
    end = tmp_path / "end"
    with start(3, f"echo runs; while ! test -e {end}; do sleep 0.1; done") as running:
        try:
            (stress,) = wait_for(lambda: children(running.pid), 1)
            wait_for(lambda: session(stress), 1 + WORKERS)
            os.kill(stress, signal.SIGTERM)
            wait_for(lambda: session(stress), 0)
        finally:
            end.touch()
            said, _ = running.communicate(timeout=TIMEOUT_S)
    assert (running.returncode, said.count("runs\n")) == (1, 1)
