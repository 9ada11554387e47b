"""Run the property tests with random seeds until the time is over or one of them fails.

Law: each round has a seed of its own, and the seed alone says which examples are tried; of a failure the command is
printed that fails in the same way.
Neighbours: `conftest.py` has the profile "fuzz"; `make fuzz SECONDS=300` runs this.

Run: python -m tests.fuzz SECONDS [ARGUMENT OF PYTEST…]
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import attrs

PROFILE = {"HYPOTHESIS_PROFILE": "fuzz"}
_FAILED = "FAILED "


@attrs.frozen
class Round:
    """How a run of all properties with one seed ended. Without an exit code the time was over before it ended."""

    exit_code: int | None
    failed: str
    """The test that failed, "" where none did."""


def command_of(seed: int, arguments: Sequence[str]) -> list[str]:
    """Return the command that tries the examples of a seed."""
    options = ("-q", "--exitfirst", "--no-header", f"--hypothesis-seed={seed}", "-p", "no:cacheprovider")
    return [sys.executable, "-m", "pytest", *options, *arguments]


def run_round(seed: int, arguments: Sequence[str], until_s: float) -> Round:
    """Run all properties; at `until_s` (monotonic) pytest is interrupted, and clears up what it has made."""
    command = command_of(seed, ["-m", "hypothesis", *arguments])
    pytest = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | PROFILE, start_new_session=True
    )
    is_over = False
    try:
        output, _ = pytest.communicate(timeout=max(0.0, until_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        is_over = True
        output = _interrupt(pytest)
    except BaseException:
        _interrupt(pytest)
        raise
    failed = next((line.removeprefix(_FAILED) for line in output.splitlines() if line.startswith(_FAILED)), "")
    if is_over and not failed:
        return Round(None, "")
    if pytest.returncode:
        print(output, flush=True)
    return Round(pytest.returncode, failed.split(" - ")[0])


def _interrupt(pytest: subprocess.Popen[str]) -> str:
    pytest.send_signal(signal.SIGINT)
    return pytest.communicate()[0]


def main(seconds: float, arguments: Sequence[str]) -> int:
    """Run rounds; return 0 where none failed in that time."""
    until_s, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < until_s:
        seed = secrets.randbelow(1 << 32)
        ended = run_round(seed, arguments, until_s)
        if ended.exit_code is None:
            break
        if ended.exit_code:
            again = command_of(seed, [ended.failed] if ended.failed else ["-m", "hypothesis", *arguments])
            variables = " ".join(f"{name}={value}" for name, value in PROFILE.items())
            print(f"fuzz: seed {seed} fails, after rounds without a failure: {rounds}. To see it again:")
            print(f"    {variables} {shlex.join(again)}")
            return 1
        rounds += 1
        print(f"fuzz: seed {seed} passed", flush=True)
    print(f"fuzz: nothing failed in {seconds:g} s; whole rounds: {rounds}")
    return 0


if __name__ == "__main__":
    # A shell starts what is in its background with SIGINT ignored, and pytest would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
